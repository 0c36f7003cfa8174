package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	for _, args := range [][]string{{"init"}, {"certificate"}, {"rotate", "edge"}, {"retire", "edge"}} {
		if err := run(append([]string{"-dir", dir, "-hosts", "nats.example"}, args...), &out); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	if err := run([]string{"-dir", dir, "certificate"}, &out); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "nats-server", "tls.crt")); err != nil || !holds(t, text, "nats.example") {
		t.Errorf("a new certificate lost its names: %v", err)
	}
	seed, err := os.ReadFile(filepath.Join(dir, "edge", "nkey.seed"))
	if err != nil || strings.Contains(out.String(), strings.TrimSpace(string(seed))) {
		t.Errorf("a seed is shown, or there is none: %v\n%s", err, out.String())
	}
	for _, args := range [][]string{nil, {"init", "edge"}, {"rotate"}, {"destroy"}} {
		if err := run(append([]string{"-dir", dir}, args...), &out); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// holds reports whether a certificate is for a name.
func holds(t *testing.T, text []byte, name string) bool {
	t.Helper()
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert.VerifyHostname(name) == nil
}
