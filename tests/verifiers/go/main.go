// A resource server that accepts internal tokens, fed by the issuer's metadata (RFC 8414) alone.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

type verify func(token string) (*jwt.RegisteredClaims, error)

func newVerifier(ctx context.Context, issuer, audience string) (verify, error) {
	jwksURL, err := discover(issuer)
	if err != nil {
		return nil, err
	}
	keys, err := keyfunc.NewDefaultOverrideCtx(ctx, []string{jwksURL}, keyfunc.Override{
		RefreshInterval:   time.Minute,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(time.Second), 1),
		RateLimitWaitMax:  time.Second,
	})
	if err != nil {
		return nil, err
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{"ES256"}),
		jwt.WithIssuer(issuer),
		jwt.WithAudience(audience),
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(5*time.Second),
	)
	return func(token string) (*jwt.RegisteredClaims, error) {
		var claims jwt.RegisteredClaims
		parsed, err := parser.ParseWithClaims(token, &claims, keys.Keyfunc)
		if err != nil {
			return nil, err
		}
		if parsed.Header["typ"] != "at+jwt" {
			return nil, errors.New("no access token (RFC 9068 section 4)")
		}
		return &claims, nil
	}, nil
}

func discover(issuer string) (string, error) {
	response, err := http.Get(issuer + "/.well-known/oauth-authorization-server")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.NewDecoder(response.Body).Decode(&metadata); err != nil {
		return "", err
	}
	if metadata.Issuer != issuer {
		return "", fmt.Errorf("metadata of another issuer: %s", metadata.Issuer)
	}
	return metadata.JWKSURI, nil
}

func main() {
	verify, err := newVerifier(context.Background(), os.Getenv("ISSUER"), os.Getenv("AUDIENCE"))
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		token, _ := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
		claims, err := verify(token)
		if err != nil {
			http.Error(response, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Fprint(response, claims.Subject)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
