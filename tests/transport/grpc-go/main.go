// A client of grpc-go that asks one server all that a caller may, and says what it got that it should not have.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Messages as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (raw) Name() string                       { return "raw" }

const method = "/test.Echo/Say"

var failures int
var mutex sync.Mutex

func expect(name string, isMet bool, detail any) {
	if isMet {
		return
	}
	mutex.Lock()
	defer mutex.Unlock()
	failures++
	fmt.Printf("%s: %v\n", name, detail)
}

func main() {
	encoding.RegisterCodec(raw{})
	connection, err := grpc.NewClient(os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype("raw"), grpc.MaxCallSendMsgSize(1<<24), grpc.MaxCallRecvMsgSize(1<<24)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, PermitWithoutStream: true}))
	if err != nil {
		panic(err)
	}
	ask := func(ctx context.Context, path string, message []byte, options ...grpc.CallOption) ([]byte, error) {
		var answer []byte
		err := connection.Invoke(ctx, path, &message, &answer, options...)
		return answer, err
	}
	background := context.Background()

	for _, size := range []int{0, 1, 16379, 16380, 70000, 1 << 20} {
		message := bytes.Repeat([]byte{'x'}, size)
		answer, err := ask(background, method, message)
		expect("echo", err == nil && bytes.Equal(answer, message), fmt.Sprint(size, err, len(answer)))
	}

	var group sync.WaitGroup
	for worker := range 64 {
		group.Go(func() {
			for round := range 200 {
				message := fmt.Appendf(nil, "%c %d %d", "xp"[round%2], worker, round)
				ctx, cancel := context.WithTimeout(background, 20*time.Second)
				answer, err := ask(metadata.AppendToOutgoingContext(ctx, "x-round", fmt.Sprint(round)), method, message)
				cancel()
				expect("many at once", err == nil && bytes.Equal(answer, message), fmt.Sprint(string(message), err, string(answer)))
			}
		})
	}
	// Meanwhile others give up.
	for range 16 {
		group.Go(func() {
			for round := range 50 {
				ctx, cancel := context.WithTimeout(background, time.Duration(round%7)*time.Millisecond)
				_, err := ask(ctx, method, []byte("h"))
				cancel()
				expect("giving up", status.Code(err) == codes.DeadlineExceeded, err)
			}
		})
	}
	group.Wait()

	_, err = ask(background, "/test.Echo/Other", []byte("x"))
	expect("unknown method", status.Code(err) == codes.Unimplemented, err)
	_, err = ask(background, method, []byte("x"), grpc.UseCompressor(gzip.Name))
	// A server that knows the coding answers; one that does not says so.
	expect("compressed", err == nil || status.Code(err) == codes.Unimplemented, err)
	_, err = ask(background, method, bytes.Repeat([]byte{'x'}, 1<<20+1))
	expect("too large", status.Code(err) == codes.ResourceExhausted, err)
	_, err = ask(background, method, []byte("f"))
	expect("status", status.Code(err) == codes.PermissionDenied && status.Convert(err).Message() == "café: 100%", err)
	answer, err := ask(background, method, []byte("l"))
	expect("large answer", err == nil && len(answer) == 300000, err)
	ctx := metadata.AppendToOutgoingContext(background, "x-large", string(bytes.Repeat([]byte{'a'}, 7000)))
	answer, err = ask(ctx, method, []byte("x"))
	expect("large header", err == nil && string(answer) == "x", err)

	fmt.Printf("%d failures\n", failures)
	if failures > 0 {
		os.Exit(1)
	}
}
