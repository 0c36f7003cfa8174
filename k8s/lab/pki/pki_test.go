package pki

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"path/filepath"
	"testing"
)

// TestIssue: a certificate is good for its own names, under its own authority, and one of a
// client for no server.
func TestIssue(t *testing.T) {
	dir := t.TempDir()
	a, err := NewAuthority(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewAuthority(dir, "other")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Issue(dir, "server", pkix.Name{CommonName: "server"}, "localhost", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if err := a.Issue(dir, "client", pkix.Name{CommonName: "client", Organization: []string{"people"}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, host string
		by         *Authority
		usage      x509.ExtKeyUsage
		good       bool
	}{
		{"server", "localhost", a, x509.ExtKeyUsageServerAuth, true},
		{"server", "127.0.0.1", a, x509.ExtKeyUsageServerAuth, true},
		{"server", "elsewhere", a, x509.ExtKeyUsageServerAuth, false},
		{"server", "localhost", other, x509.ExtKeyUsageServerAuth, false},
		{"client", "", a, x509.ExtKeyUsageClientAuth, true},
		{"client", "", a, x509.ExtKeyUsageServerAuth, false},
	} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, c.name+".crt"), filepath.Join(dir, c.name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(c.by.PEM)
		_, err = pair.Leaf.Verify(x509.VerifyOptions{DNSName: c.host, Roots: roots, KeyUsages: []x509.ExtKeyUsage{c.usage}})
		if (err == nil) != c.good {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
