package natsconn_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/wirepost/wirepost/shared/natsconn"
)

// newSeed writes a user's seed to a file and returns its public key.
func newSeed(t *testing.T, file string) (public string) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err == nil {
		err = os.WriteFile(file, append(seed, '\n'), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	return public
}

// A connection signs in with the seed that it began with, also when it comes back after
// the file was replaced.
func TestNKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nkey.seed")
	public := newSeed(t, file)
	s := start(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} })
	log, lines := newLog()
	back := make(chan struct{}, 10)
	nc := connect(t, natsconn.Options{URL: s.URL(), Name: "test", NKeyFile: file, Log: log, OnReconnect: func() { back <- struct{}{} }})
	newSeed(t, file)
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	await(t, back, "the reconnect")
	if err := natsconn.Ready(nc); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { lines.await(t, "authorization violation"); cancel() }()
	if other, err := natsconn.Connect(ctx, natsconn.Options{URL: s.URL(), Name: "other", NKeyFile: file, Log: log}); err == nil {
		other.Close()
		t.Error("a key that the server does not know got in")
	}
}

func TestNoNKey(t *testing.T) {
	log, _ := newLog()
	file := filepath.Join(t.TempDir(), "nkey.seed")
	for _, text := range []string{"", "hunter2", "SUAHUNTER2"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := natsconn.Connect(t.Context(), natsconn.Options{URL: "nats://127.0.0.1:1", NKeyFile: file, Log: log})
		if err == nil || !strings.Contains(err.Error(), file) || strings.Contains(strings.ToLower(err.Error()), "hunter2") {
			t.Errorf("a seed file with %q: %v", text, err)
		}
	}
	if _, err := natsconn.Connect(t.Context(), natsconn.Options{URL: "nats://127.0.0.1:1", NKeyFile: file + ".away", Log: log}); err == nil {
		t.Error("a seed file that is not there")
	}
}
