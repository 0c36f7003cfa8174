package security_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/scripts/natssetup/setup"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/worker/mongostore"
)

// MongoDB by TLS takes nothing but options of MONGODB_URI: the store opens over the right
// authority, and over no other.
func TestMongoTLS(t *testing.T) {
	keys, other := setup.Dir(t.TempDir()), setup.Dir(t.TempDir())
	for _, d := range []setup.Dir{keys, other} {
		if err := d.Init([]string{"127.0.0.1"}); err != nil {
			t.Fatal(err)
		}
	}
	m := servers.MongodOf(t, "--tlsMode", "preferTLS", "--tlsCertificateKeyFile", pemFile(t, keys), "--tlsCAFile", keys.CA(),
		"--tlsAllowConnectionsWithoutCertificates")
	open := func(ca string, within time.Duration) (log string, err error) {
		var text bytes.Buffer
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		store, err := mongostore.Open(ctx, mongostore.Options{URI: m.URI() + "&tls=true&tlsCAFile=" + ca, Log: slog.New(slog.NewTextHandler(&text, nil)),
			Registry: prometheus.NewRegistry()})
		if err == nil {
			err = store.Ping(ctx)
			closing, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if cerr := store.Close(closing); cerr != nil {
				t.Error(cerr)
			}
		}
		return text.String(), err
	}
	if log, err := open(keys.CA(), patience); err != nil {
		t.Errorf("over TLS: %v\n%s", err, log)
	}
	if log, err := open(other.CA(), 12*time.Second); err == nil || !strings.Contains(log, "unknown authority") {
		t.Errorf("over another authority: %v\n%s", err, log)
	}
}

// pemFile is a file with certificate and key, as mongod wants them.
func pemFile(t *testing.T, keys setup.Dir) string {
	t.Helper()
	var text []byte
	for _, name := range []string{"tls.crt", "tls.key"} {
		part, err := os.ReadFile(filepath.Join(string(keys), "nats-server", name))
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, part...)
	}
	file := filepath.Join(t.TempDir(), "mongod.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
