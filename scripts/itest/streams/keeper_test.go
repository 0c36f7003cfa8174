package streams_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
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
	k := streams.NewKeeper(far, small, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
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

// What a worker had to make is counted, and a look that fails is shown until one succeeds.
func TestKeeperShowsWhatIsMissing(t *testing.T) {
	server := servers.NATS(t)
	js, err := jetstream.New(server.Conn(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	reg := prometheus.NewRegistry()
	const made, complete = "wirepost_worker_streams_made_total", "wirepost_worker_streams_complete"
	value := func(name string) float64 {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == name {
				return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		t.Fatalf("there is no %s", name)
		return 0
	}
	k := streams.NewKeeper(js, small, slog.New(slog.DiscardHandler), reg)
	if err := k.Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	all := float64(2 + 1 + 2*small.Lanes + small.Shards) // buckets, dead, lanes with a consumer each, shards
	if m, c := value(made), value(complete); m != all || c != 1 {
		t.Errorf("%v were made, complete is %v; want %v and 1", m, c, all)
	}
	if err := streams.NewKeeper(js, small, slog.New(slog.DiscardHandler), prometheus.NewRegistry()).Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { k.Keep(ctx) })
	defer wg.Wait()
	defer stop()
	if err := js.DeleteStream(ctx, stream.Up(1)); err != nil {
		t.Fatal(err)
	}
	foreign := jetstream.StreamConfig{Name: "FOREIGN", Subjects: []string{subject.UpLane(1)}}
	if _, err := js.CreateStream(ctx, foreign); err != nil {
		t.Fatal(err)
	}
	k.Missing("a lane, and another stream has its subject")
	within(t, 10*time.Second, "it is shown", func() bool { return value(complete) == 0 })
	if err := js.DeleteStream(ctx, foreign.Name); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "all is well again", func() bool { return value(complete) == 1 })
	if m := value(made); m != all+2 {
		t.Errorf("%v were made, want %v: a lane and its consumer more", m, all+2)
	}
}

// [r] What is missing may be in the middle of its deletion, and must not be created then:
// see settle in worker/streams. The lane's consumer is told of it first.
func TestKeeperLetsADeletionEnd(t *testing.T) {
	server := servers.NATS(t)
	js, err := jetstream.New(server.Conn(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	k := streams.NewKeeper(js, streams.Layout{Lanes: 2, Shards: 1}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := k.Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { k.Keep(ctx) })
	defer wg.Wait()
	defer stop()
	for range 2 { // the second report comes right behind a look
		if err := js.DeleteStream(ctx, stream.Up(1)); err != nil {
			t.Fatal(err)
		}
		told := time.Now()
		k.Missing("a lane")
		within(t, 10*time.Second, "the lane is back", func() bool {
			_, err := js.Consumer(ctx, stream.Up(1), stream.Consumer)
			return err == nil
		})
		s, err := js.Stream(ctx, stream.Up(1))
		if err != nil {
			t.Fatal(err)
		}
		if d := s.CachedInfo().Created.Sub(told); d < time.Second {
			t.Errorf("created %v after the report, want at least a second", d)
		}
	}
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
