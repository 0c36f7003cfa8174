package streams_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/worker/streams"
)

// A request of the keeper is lost on the way, and nothing tells. It must not wait for the
// answer for long: what went missing meanwhile is missing until it looks again.
func TestKeepSurvivesALostRequest(t *testing.T) {
	server := servers.NATS(t)
	proxy := servers.NewProxy(t, server.Server().Addr().String())
	nc, err := nats.Connect("nats://"+proxy.Addr(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	far, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	near, err := jetstream.New(server.Conn(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	k := streams.NewKeeper(far, small, slog.New(slog.DiscardHandler))
	if err := k.Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { k.Keep(ctx) })
	defer wg.Wait()
	defer stop()

	proxy.Cut()
	sent := nc.Stats().OutMsgs
	k.Missing("nothing: it shall ask")
	within(t, 10*time.Second, "it asks", func() bool { return nc.Stats().OutMsgs > sent })
	proxy.Restore()
	if err := near.DeleteStream(ctx, stream.Up(1)); err != nil {
		t.Fatal(err)
	}
	k.Missing("a lane")
	within(t, 12*time.Second, "the lane is back", func() bool {
		_, err := near.Consumer(ctx, stream.Up(1), stream.Consumer)
		return err == nil
	})
}

// within polls what gives no signal.
func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v passed and it is not so: %s", d, what)
		}
	}
}
