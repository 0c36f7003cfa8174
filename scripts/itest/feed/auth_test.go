package feed

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/wirepost/wirepost/shared/natsconn"
)

// Every kind of credentials that natsconn knows, over a reconnect, too.
func TestCredentials(t *testing.T) {
	for name, kind := range map[string]func(t *testing.T) (tune func(*server.Options), o natsconn.Options, pub nats.Option){
		"user and password": func(*testing.T) (func(*server.Options), natsconn.Options, nats.Option) {
			return func(o *server.Options) { o.Username, o.Password = "edge", "hunter2" },
				natsconn.Options{URL: "edge:hunter2"}, nats.UserInfo("edge", "hunter2")
		},
		"token": func(*testing.T) (func(*server.Options), natsconn.Options, nats.Option) {
			return func(o *server.Options) { o.Authorization = "hunter2" }, natsconn.Options{URL: "hunter2"}, nats.Token("hunter2")
		},
		"creds file": func(t *testing.T) (func(*server.Options), natsconn.Options, nats.Option) {
			tune, file := operator(t)
			return tune, natsconn.Options{CredsFile: file}, nats.UserCredentials(file)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tune, o, auth := kind(t)
			s := start(t, tune)
			pub := answering(t, s.URL(), auth)
			if o.URL == "" {
				o.URL = s.URL()
			} else {
				o.URL = as(s.URL(), o.URL)
			}
			w := connect(t, o, "ann")
			w.frame(t, pub, "ann", "before")
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
			await(t, w.renewed, "the second connection")
			w.frame(t, pub, "ann", "after")
		})
	}
}

// operator returns a server's options in operator mode, and a .creds file that it accepts.
func operator(t *testing.T) (tune func(*server.Options), creds string) {
	t.Helper()
	pair := func(kp nkeys.KeyPair, err error) (nkeys.KeyPair, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		pub, err := kp.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return kp, pub
	}
	must := func(token string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	op, opPub := pair(nkeys.CreateOperator())
	acc, accPub := pair(nkeys.CreateAccount())
	user, userPub := pair(nkeys.CreateUser())
	claims := jwt.NewOperatorClaims(opPub)
	must(claims.Encode(op)) // sets what it is issued by
	accounts := &server.MemAccResolver{}
	if err := accounts.Store(accPub, must(jwt.NewAccountClaims(accPub).Encode(op))); err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.FormatUserConfig(must(jwt.NewUserClaims(userPub).Encode(acc)), seed)
	if err != nil {
		t.Fatal(err)
	}
	creds = filepath.Join(t.TempDir(), "edge.creds")
	if err := os.WriteFile(creds, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return func(o *server.Options) {
		o.TrustedOperators, o.AccountResolver = []*jwt.OperatorClaims{claims}, accounts
	}, creds
}

// TLS, which stands between the socket and the feed: the certificate is checked by the name
// that was asked for, also after a reconnect.
func TestTLS(t *testing.T) {
	cert, ca := certificate(t)
	for name, url := range map[string]func(string) string{
		"the server wants it": func(s string) string { return strings.Replace(s, "tls://", "nats://", 1) },
		"both want it":        func(s string) string { return s },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(o *server.Options) {
				o.TLS, o.TLSConfig = true, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
			})
			address := strings.Replace(s.URL(), "127.0.0.1", "localhost", 1)
			pub := answering(t, address, nats.RootCAs(ca))
			w := connect(t, natsconn.Options{URL: url(address), CAFile: ca}, "ann")
			w.frame(t, pub, "ann", "before")
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
			await(t, w.renewed, "the second connection")
			w.frame(t, pub, "ann", "after")
			for what, o := range map[string]natsconn.Options{
				"another name":       {URL: s.URL(), CAFile: ca},
				"of nobody we trust": {URL: address},
			} {
				refused(t, what, o, "certificate")
			}
		})
	}
	t.Run("the server has none", func(t *testing.T) {
		s := start(t, plain)
		refused(t, "tls://", natsconn.Options{URL: strings.Replace(s.URL(), "nats://", "tls://", 1)}, "secure connection not available")
	})
	t.Run("no WebSocket", func(t *testing.T) {
		refused(t, "ws://", natsconn.Options{URL: "ws://127.0.0.1:1"}, "websocket")
	})
}

// refused checks that natsconn does not connect, as what it says why.
func refused(t *testing.T, what string, o natsconn.Options, why string) {
	t.Helper()
	w := newLines()
	o.Log, o.Name = slog.New(w), "test"
	o.Wrap = func(c net.Conn) net.Conn { return c }
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		nc, err := natsconn.Connect(ctx, o)
		if err == nil {
			nc.Close()
		}
		done <- err
	}()
	for {
		select {
		case line := <-w.c:
			if strings.Contains(strings.ToLower(line), why) {
				cancel()
			}
		case err := <-done:
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), why) {
				t.Errorf("%s: %v, want %q", what, err, why)
			}
			return
		case <-time.After(patience):
			t.Fatalf("%s: neither refused nor connected", what)
		}
	}
}

// certificate is one for localhost, and the file of who signed it: itself.
func certificate(t *testing.T) (cert tls.Certificate, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, ca
}
