package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/wirepost/wirepost/scripts/devkeys"
)

func TestTokenIsSignedWithTheDevSecret(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if err := run([]string{"-user", "alice", "-data", dir}, "", &out); err != nil {
		t.Fatal(err)
	}
	secret, err := devkeys.Secret(dir)
	if err != nil {
		t.Fatal(err)
	}
	var claims jwt.RegisteredClaims
	_, err = jwt.ParseWithClaims(strings.TrimSpace(out.String()), &claims, func(*jwt.Token) (any, error) { return secret, nil })
	if err != nil || claims.Subject != "alice" || claims.ExpiresAt == nil {
		t.Errorf("claims %+v, %v", claims, err)
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{{}, {"-user", strings.Repeat("x", 129)}, {"-user", "a", "-ttl", "-1s"}} {
		if err := run(append(args, "-data", t.TempDir()), "", &bytes.Buffer{}); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
