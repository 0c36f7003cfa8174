package lane_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/lane"
	"github.com/wirepost/wirepost/worker/streams"
)

// patient publishes one frame after the other, each until it is stored, as an edge does
// for a connection.
func (s *system) patient(ctx context.Context, js jetstream.JetStream, id userid.ID) (sent int) {
	for ctx.Err() == nil {
		m := frame(s.layout.Lanes, id, sent+1)
		for s.ctx.Err() == nil {
			try, cancel := context.WithTimeout(s.ctx, 2*time.Second)
			_, err := js.PublishMsg(try, m, jetstream.WithRetryAttempts(0))
			cancel()
			if err == nil {
				sent++
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return sent
}

// Three servers, streams with three replicas: the server that leads a lane is killed,
// comes back, and the next leader is killed.
func TestLeaderOfALaneIsKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("three servers and two kills take half a minute")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := servers.Cluster(t)
	var urls []string
	for _, n := range c.Nodes {
		urls = append(urls, n.URL())
	}
	s := &system{t: t, server: c.Nodes[0], ctx: ctx, layout: streams.Layout{Lanes: 2, Shards: 1, Replicas: 3},
		log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	s.js = s.connect(strings.Join(urls, ","))
	k := streams.NewKeeper(s.js, s.layout, s.log, prometheus.NewRegistry())
	if err := k.Ensure(context.Background()); err != nil { // without a deadline each request has one of its own
		t.Fatal(err)
	}
	var kept sync.WaitGroup
	kctx, stopKeep := context.WithCancel(ctx)
	kept.Go(func() { k.Keep(kctx) })
	defer kept.Wait()
	defer stopKeep()

	st := newStore()
	real := func(cfg *lane.Config) { cfg.PinnedTTL, cfg.LeaseTTL, cfg.Missing = 0, 0, k.Missing }
	for _, name := range []string{"w1", "w2"} {
		s.startOn(s.connect(strings.Join(urls, ",")), name, &business{st: st}, real)
	}
	sctx, stopSending := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for _, id := range users(2) {
		js := s.connect(strings.Join(urls, ","))
		wg.Go(func() {
			n := s.patient(sctx, js, id)
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	st.await(s, 200)
	for range 2 {
		leader, i := c.Leader(stream.Up(0))
		if leader == nil {
			t.Fatal("no leader")
		}
		began := time.Now()
		leader.Shutdown()
		// Both lanes' senders go on one frame at a time: hundreds of each are through both.
		have, _ := st.count()
		st.await(s, have+400)
		t.Logf("server %d killed: 400 frames more after %v", i, time.Since(began))
		if err := leader.Restart(); err != nil {
			t.Fatal(err)
		}
		c.Await(t)
	}
	stopSending()
	wg.Wait()
	st.await(s, total)
	s.emptied()
	st.check(t, total)
	_, twice := st.count()
	t.Logf("%d frames, %d of them worked twice", total, twice)
}
