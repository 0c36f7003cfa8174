package natsconn_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/natsconn"
)

// metrics of a connection by the end of their name.
func metrics(t *testing.T, reg *prometheus.Registry) (reconnects, certificateEnd float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		switch m := f.GetMetric()[0]; f.GetName() {
		case "wirepost_test_nats_reconnects_total":
			reconnects = m.GetCounter().GetValue()
		case "wirepost_test_nats_certificate_end_timestamp_seconds":
			certificateEnd = m.GetGauge().GetValue()
		default:
			t.Errorf("there is %s", f.GetName())
		}
	}
	return reconnects, certificateEnd
}

// A connection shows how often it was made anew and when its server's certificate ends, and
// no end without TLS. It may be asked while it is made anew: see Metrics.
func TestMetrics(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ends := time.Now().Add(48 * time.Hour).Truncate(time.Second)
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: ends,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	secured := func(o *server.Options) {
		o.TLS, o.TLSConfig = true, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	}
	for _, c := range []struct {
		name string
		tune func(*server.Options)
		ca   string
		end  float64
	}{{"plain", nil, "", 0}, {"TLS", secured, ca, float64(ends.Unix())}} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, c.tune)
			log, _ := newLog()
			back := make(chan struct{}, 10)
			reg := prometheus.NewRegistry()
			connect(t, natsconn.Options{URL: s.URL(), Name: "test", CAFile: c.ca, Log: log, OnReconnect: func() { back <- struct{}{} },
				Metrics: natsconn.NewMetrics(reg, "wirepost_test")})
			if again, end := metrics(t, reg); again != 0 || end != c.end {
				t.Errorf("%v reconnects, the certificate ends at %v, want 0 and %v", again, end, c.end)
			}
			endAsking := keepAsking(t, reg)
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
			await(t, back, "the reconnect")
			endAsking()
			if again, end := metrics(t, reg); again != 1 || end != c.end {
				t.Errorf("%v reconnects, the certificate ends at %v, want 1 and %v", again, end, c.end)
			}
		})
	}
}

// keepAsking reads the metrics again and again, as fast as it can, until it is told to end.
func keepAsking(t *testing.T, reg *prometheus.Registry) (end func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				metrics(t, reg)
			}
		}
	}()
	return func() { close(quit); <-done }
}
