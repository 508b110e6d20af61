// An ext_authz server in Go that does the least a cache must do: it hashes the credential and looks the hash up.
package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type server struct {
	auth.UnimplementedAuthorizationServer
	tokens map[[sha256.Size]byte]string
}

func (s *server) Check(_ context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	header := request.GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"]
	_, credential, _ := strings.Cut(header, " ")
	token, ok := s.tokens[sha256.Sum256([]byte(credential))]
	if !ok {
		return &auth.CheckResponse{Status: &status.Status{Code: 16}}, nil
	}
	return &auth.CheckResponse{
		Status: &status.Status{},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{
			Headers: []*core.HeaderValueOption{{
				Header: &core.HeaderValue{Key: "authorization", Value: "Bearer " + token},
				Append: wrapperspb.Bool(false),
			}},
			HeadersToRemove: []string{"x-api-key"},
		}},
	}, nil
}

// Usage: grpc-go-floor CREDENTIAL TOKEN. Prints the port that it took.
func main() {
	s := &server{tokens: map[[sha256.Size]byte]string{sha256.Sum256([]byte(os.Args[1])): os.Args[2]}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	// The load does not wait for windows.
	g := grpc.NewServer(grpc.InitialConnWindowSize(1<<24), grpc.InitialWindowSize(1<<20))
	auth.RegisterAuthorizationServer(g, s)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	panic(g.Serve(listener))
}
