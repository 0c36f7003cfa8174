// Package streams_test runs worker/streams against a real nats-server.
package streams_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/streams"
)

var small = streams.Layout{Lanes: 2, Shards: 2, UplinkMaxBytes: 2 << 20, DownlinkMaxBytes: 2 << 20}

func start(t *testing.T) (jetstream.JetStream, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	js, err := jetstream.New(servers.NATS(t).Conn(t))
	if err != nil {
		t.Fatal(err)
	}
	return js, ctx
}

func names(ctx context.Context, t *testing.T, js jetstream.JetStream) []string {
	t.Helper()
	var all []string
	list := js.StreamNames(ctx)
	for n := range list.Name() {
		all = append(all, n)
	}
	if list.Err() != nil {
		t.Fatal(list.Err())
	}
	slices.Sort(all)
	return all
}

func TestEnsureIsIdempotent(t *testing.T) {
	js, ctx := start(t)
	if err := streams.Ensure(ctx, js, small); err != nil {
		t.Fatal(err)
	}
	first := names(ctx, t, js)
	if len(first) != 7 {
		t.Errorf("streams %v, want DEAD, two buckets, two lanes, two shards", first)
	}
	if err := streams.Ensure(ctx, js, small); err != nil {
		t.Fatal(err)
	}
	if again := names(ctx, t, js); !slices.Equal(first, again) {
		t.Errorf("second Ensure made %v of %v", again, first)
	}
}

// Many workers start at once on an empty server.
func TestEnsureAtOnce(t *testing.T) {
	js, ctx := start(t)
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		wg.Go(func() { errs <- streams.Ensure(ctx, js, small) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if got := names(ctx, t, js); len(got) != 7 {
		t.Errorf("streams %v, want 7", got)
	}
}

// What the server does with the streams is what the system builds on.
func TestWhatTheStreamsDo(t *testing.T) {
	js, ctx := start(t)
	l := small
	l.Lanes, l.Shards, l.DownlinkMaxAge = 1, 1, time.Hour
	l.UplinkMaxBytes = 1 << 20
	if err := streams.Ensure(ctx, js, l); err != nil {
		t.Fatal(err)
	}
	user := userid.MustParse("a.b")

	t.Run("a full lane refuses, it does not drop", func(t *testing.T) {
		big := make([]byte, 100<<10)
		n := 0
		var err error
		for ; n < 20 && err == nil; n++ {
			_, err = js.Publish(ctx, subject.Up(0, user), big)
		}
		var api *jetstream.APIError
		if !errors.As(err, &api) || api.ErrorCode != 10077 {
			t.Fatalf("publish %d into a full lane: %v, want maximum bytes exceeded (10077)", n, err)
		}
		info, err := js.Stream(ctx, stream.Up(0))
		if err != nil {
			t.Fatal(err)
		}
		if s, first := info.CachedInfo().State, info.CachedInfo().Config.FirstSeq; s.FirstSeq != first || s.Msgs != uint64(n-1) {
			t.Errorf("lane holds %d messages from %d, want %d from %d", s.Msgs, s.FirstSeq, n-1, first)
		}
	})
	t.Run("the consumer", func(t *testing.T) {
		c, err := js.Consumer(ctx, stream.Up(0), stream.Consumer)
		if err != nil {
			t.Fatal(err)
		}
		cfg := c.CachedInfo().Config
		if cfg.MaxDeliver != -1 || cfg.PriorityPolicy != jetstream.PriorityPolicyPinned ||
			cfg.PinnedTTL != stream.PinnedTTL || cfg.AckPolicy != jetstream.AckExplicitPolicy {
			t.Errorf("%+v", cfg)
		}
	})
	t.Run("down is republished, marks are not", func(t *testing.T) {
		live := make(chan *nats.Msg, 4)
		sub, err := js.Conn().ChanSubscribe("im.live.>", live)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sub.Unsubscribe() }()
		if _, err := js.Publish(ctx, subject.Mark(0, "edge-1"), nil); err != nil {
			t.Fatal(err)
		}
		ack, err := js.Publish(ctx, subject.Down(0, user), []byte(`{"x":1}`))
		if err != nil {
			t.Fatal(err)
		}
		if d, err := stream.ParseDown(ack.Stream); err != nil || d.Shards != 1 {
			t.Errorf("stream %q: %v", ack.Stream, err)
		}
		select {
		case m := <-live:
			if m.Subject != subject.Live(0, user) || m.Header.Get("Nats-Sequence") != "2" || m.Header.Get("Nats-Stream") != ack.Stream {
				t.Errorf("got %s %v", m.Subject, m.Header)
			}
		case <-ctx.Done():
			t.Error("nothing on live")
		}
	})
}

func TestConflicts(t *testing.T) {
	for name, c := range map[string]struct {
		existing jetstream.StreamConfig
		want     streams.Conflict
	}{
		"retention": {jetstream.StreamConfig{Name: "UP_0", Subjects: []string{"im.up.0.>"}, Discard: jetstream.DiscardNew},
			streams.Conflict{Stream: "UP_0", Field: "retention", Have: "Limits", Want: "WorkQueue"}},
		"discard old": {jetstream.StreamConfig{Name: "UP_1", Subjects: []string{"im.up.1.>"}, Retention: jetstream.WorkQueuePolicy},
			streams.Conflict{Stream: "UP_1", Field: "discard", Have: "DiscardOld", Want: "DiscardNew"}},
		"subjects": {jetstream.StreamConfig{Name: "DEAD", Subjects: []string{"other"}},
			streams.Conflict{Stream: "DEAD", Field: "subjects", Have: "[other]", Want: "[im.dead.>]"}},
		"another stream has the subject": {jetstream.StreamConfig{Name: "MINE", Subjects: []string{"im.up.>"}},
			streams.Conflict{Stream: "MINE", Field: "subjects", Have: "im.up.0.>", Want: "that subject only in UP_0"}},
		"another number of shards": {jetstream.StreamConfig{Name: "DOWN_4_abc_0", Subjects: []string{"im.down.0.>", "im.mark.0.*"}},
			streams.Conflict{Stream: "DOWN_4_abc_0", Field: "number of shards", Have: "4", Want: "2"}},
		"no republish": {jetstream.StreamConfig{Name: "DOWN_2_abc_0", Subjects: []string{"im.down.0.>", "im.mark.0.*"}},
			streams.Conflict{Stream: "DOWN_2_abc_0", Field: "republish", Have: "none", Want: "im.down.0.> to im.live.0.>"}},
	} {
		t.Run(name, func(t *testing.T) {
			js, ctx := start(t)
			if _, err := js.CreateStream(ctx, c.existing); err != nil {
				t.Fatal(err)
			}
			err := streams.Ensure(ctx, js, small)
			var got *streams.Conflict
			if !errors.As(err, &got) || *got != c.want {
				t.Errorf("Ensure: %v, want %v", err, &c.want)
			}
		})
	}
	t.Run("a consumer of another name", func(t *testing.T) {
		js, ctx := start(t)
		if err := streams.Ensure(ctx, js, small); err != nil {
			t.Fatal(err)
		}
		if err := js.DeleteConsumer(ctx, stream.Up(0), stream.Consumer); err != nil {
			t.Fatal(err)
		}
		if _, err := js.CreateConsumer(ctx, stream.Up(0), jetstream.ConsumerConfig{Durable: "mine", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
			t.Fatal(err)
		}
		err := streams.Ensure(ctx, js, small)
		want := streams.Conflict{Stream: "UP_0", Field: "consumer", Have: "mine", Want: "work and no other"}
		var got *streams.Conflict
		if !errors.As(err, &got) || *got != want {
			t.Errorf("Ensure: %v, want %v", err, &want)
		}
	})
}

// A worker that is told a smaller number of lanes than there are must not take part: it
// would leave lanes without an owner. It must not change a limit either.
func TestFewerLanesThanThereAre(t *testing.T) {
	js, ctx := start(t)
	if err := streams.Ensure(ctx, js, streams.Layout{Lanes: 3, Shards: 1}); err != nil {
		t.Fatal(err)
	}
	before, err := js.Stream(ctx, stream.Up(0))
	if err != nil {
		t.Fatal(err)
	}
	err = streams.Ensure(ctx, js, streams.Layout{Lanes: 2, Shards: 1})
	var got *streams.Conflict
	if !errors.As(err, &got) || got.Stream != "UP_2" {
		t.Errorf("Ensure: %v", err)
	}
	after, err := js.Stream(ctx, stream.Up(0))
	if err != nil || after.CachedInfo().Config.MaxBytes != before.CachedInfo().Config.MaxBytes {
		t.Errorf("limits were changed: %v", err)
	}
	if err := streams.Ensure(ctx, js, streams.Layout{Lanes: 4, Shards: 1}); err != nil {
		t.Errorf("more lanes: %v", err)
	}
}

func TestLimitsAreUpdated(t *testing.T) {
	js, ctx := start(t)
	if err := streams.Ensure(ctx, js, small); err != nil {
		t.Fatal(err)
	}
	before := names(ctx, t, js)
	l := small
	l.UplinkMaxBytes, l.DownlinkMaxBytes, l.DownlinkMaxAge, l.AckPending = 8<<20, 6<<20, time.Minute, 64
	if err := streams.Ensure(ctx, js, l); err != nil {
		t.Fatal(err)
	}
	if after := names(ctx, t, js); !slices.Equal(before, after) {
		t.Errorf("streams %v, want %v", after, before)
	}
	for _, name := range before {
		s, err := js.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		switch {
		case strings.HasPrefix(name, "UP_") && cfg.MaxBytes != 4<<20:
			t.Errorf("%s: max_bytes %d", name, cfg.MaxBytes)
		case strings.HasPrefix(name, "DOWN_") && (cfg.MaxBytes != 3<<20 || cfg.MaxAge != time.Minute):
			t.Errorf("%s: max_bytes %d, max_age %v", name, cfg.MaxBytes, cfg.MaxAge)
		}
	}
	c, err := js.Consumer(ctx, stream.Up(1), stream.Consumer)
	if err != nil {
		t.Fatal(err)
	}
	if n := c.CachedInfo().Config.MaxAckPending; n != 64 {
		t.Errorf("max_ack_pending %d, want 64", n)
	}
}

func TestImpossibleLayout(t *testing.T) {
	js, ctx := start(t)
	for _, l := range []streams.Layout{{Lanes: -1}, {Shards: 5000}, {Replicas: 2}, {AckWait: time.Millisecond}, {UplinkMaxBytes: -1}} {
		if err := streams.Ensure(ctx, js, l); err == nil {
			t.Errorf("Ensure took %+v", l)
		}
	}
}

// A deleted shard comes back as another epoch, a deleted lane as itself.
func TestKeepRepairs(t *testing.T) {
	js, ctx := start(t)
	k := streams.NewKeeper(js, small, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := k.Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	before := names(ctx, t, js)
	kctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { k.Keep(kctx) })
	defer wg.Wait()
	defer stop()

	for _, name := range before {
		if err := js.DeleteStream(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	k.Missing("a test deleted everything")
	deadline := time.Now().Add(10 * time.Second)
	var after []string
	for len(after) != len(before) && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		after = names(ctx, t, js)
	}
	for i := range after {
		same := after[i] == before[i]
		if down := strings.HasPrefix(after[i], "DOWN_"); down == same {
			t.Errorf("%s came back as %s", before[i], after[i])
		}
	}
	if len(after) != len(before) {
		t.Errorf("streams %v, want the like of %v", after, before)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := js.Consumer(ctx, stream.Up(1), stream.Consumer); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
