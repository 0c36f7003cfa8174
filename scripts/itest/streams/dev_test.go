package streams_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/worker/streams"
)

// The NATS configuration of k8s/overlays/dev is loaded by the real server, and the streams
// of the workers there fit into what it gives them. (That of production is tested in
// scripts/itest/security.)
func TestDevelopmentConfiguration(t *testing.T) {
	text, err := os.ReadFile("../../../k8s/overlays/dev/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "nats.conf")
	// The pod's folders become the test's.
	own := strings.NewReplacer("/data/", dir+"/", "/var/run/nats/", dir+"/").Replace(string(text))
	if err := os.WriteFile(file, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("POD_NAME", "nats-0")
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	opts.Host, opts.Port = "127.0.0.1", server.RANDOM_PORT
	opts.HTTPHost, opts.HTTPPort = "127.0.0.1", server.RANDOM_PORT
	opts.NoLog, opts.NoSigs = true, true
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server is not ready")
	}
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	// As overlays/dev/worker.yaml has it.
	if err := streams.Ensure(ctx, js, streams.Layout{UplinkMaxBytes: 128 << 20, DownlinkMaxBytes: 128 << 20}); err != nil {
		t.Fatal(err)
	}
}
