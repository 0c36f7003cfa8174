// Package lane_test runs worker/lane against a real nats-server.
package lane_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/lane"
	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/streams"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := child(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	servers.Main(m, func() error { return goleak.Find() })
}

// ttl is the pin's and the lease's in these tests: short, so that they are quick.
const ttl = time.Second

// longTTL is for tests in which nobody may wait for one to end: what a slow machine takes is
// far from it.
const longTTL = 10 * time.Second

// system is one nats-server with its streams, and what the test sees of it.
type system struct {
	t      *testing.T
	server *servers.NATSServer
	js     jetstream.JetStream // the test's own
	layout streams.Layout
	ctx    context.Context
	log    *slog.Logger
}

func newSystem(t *testing.T, layout streams.Layout) *system {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	layout.Shards, layout.PinnedTTL, layout.LeaseTTL = 1, cmp.Or(layout.PinnedTTL, ttl), cmp.Or(layout.LeaseTTL, ttl)
	s := &system{t: t, server: servers.NATS(t), layout: layout, ctx: ctx,
		log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))}
	var err error
	if s.js, err = jetstream.New(s.server.Conn(t)); err != nil {
		t.Fatal(err)
	}
	if err := streams.Ensure(ctx, s.js, layout); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *system) connect(url string, more ...nats.Option) jetstream.JetStream {
	s.t.Helper()
	nc, err := nats.Connect(url, append(more, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.PingInterval(30*time.Second))...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		s.t.Fatal(err)
	}
	return js
}

// worker is a Group that runs, with a connection of its own.
type worker struct {
	*lane.Group
	reg  *prometheus.Registry
	stop context.CancelFunc
	done chan struct{}
}

func (s *system) start(name string, business lane.Business, change ...func(*lane.Config)) *worker {
	s.t.Helper()
	return s.startOn(s.connect(s.server.URL()), name, business, change...)
}

func (s *system) startOn(js jetstream.JetStream, name string, business lane.Business, change ...func(*lane.Config)) *worker {
	s.t.Helper()
	cfg := lane.Config{Worker: name, Lanes: s.layout.Lanes, PinnedTTL: s.layout.PinnedTTL, LeaseTTL: s.layout.LeaseTTL}
	for _, c := range change {
		c(&cfg)
	}
	w := &worker{reg: prometheus.NewRegistry(), done: make(chan struct{})}
	g, err := lane.New(js, cfg, business, s.log.With("worker", name), w.reg)
	if err != nil {
		s.t.Fatal(err)
	}
	w.Group = g
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = func() { cancel(); <-w.done }
	go func() {
		defer close(w.done)
		_ = g.Run(ctx)
	}()
	s.t.Cleanup(w.stop)
	return w
}

// metric sums a metric over its labels.
func (w *worker) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// users returns one user for each lane of n, so that every lane has work.
func users(lanes int) []userid.ID {
	ids := make([]userid.ID, lanes)
	for i, found := 0, 0; found < lanes; i++ {
		id := userid.MustParse("u" + strconv.Itoa(i))
		if n := subject.Lane(id, lanes); ids[n].IsZero() {
			ids[n] = id
			found++
		}
	}
	return ids
}

// sender publishes numbered frames of some users, in order, as fast as asked.
type sender struct {
	s    *system
	ids  []userid.ID
	mu   sync.Mutex
	sent map[userid.ID]int
}

func (s *system) sender(ids ...userid.ID) *sender {
	return &sender{s: s, ids: ids, sent: map[userid.ID]int{}}
}

// send publishes the next n frames of each user and waits until they are stored.
func (p *sender) send(n int) {
	p.s.t.Helper()
	for range n {
		for _, id := range p.ids {
			p.mu.Lock()
			p.sent[id]++
			_, err := p.s.js.PublishMsgAsync(frame(p.s.layout.Lanes, id, p.sent[id]))
			p.mu.Unlock()
			if err != nil {
				p.s.t.Error(err)
				return
			}
		}
	}
	select {
	case <-p.s.js.PublishAsyncComplete():
	case <-p.s.ctx.Done():
		p.s.t.Error("frames were not stored")
	}
}

// trickle sends one frame of each user every few milliseconds until stop is called.
func (p *sender) trickle() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				p.send(1)
			}
		}
	}()
	return func() { close(quit); <-done }
}

// soFar returns the number of each user's last frame.
func (p *sender) soFar() map[userid.ID]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.sent)
}

func (p *sender) total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.sent {
		n += c
	}
	return n
}

func frame(lanes int, id userid.ID, n int) *nats.Msg {
	ev := envelope.Event{Type: envelope.Frame, Edge: "e1", Conn: "e1-" + id.Token(), N: uint64(n), Time: time.Now()}
	return &nats.Msg{Subject: subject.Up(subject.Lane(id, lanes), id), Header: ev.Header(), Data: []byte(strconv.Itoa(n))}
}

// store is what the store is to the workers: idempotent by (sender, number), in
// first-come order. Each sender's numbers must come in without a hole.
type store struct {
	mu         sync.Mutex
	last       map[userid.ID]int
	stored     int
	twice      int
	violations []string
	changed    chan struct{} // closed and renewed when something was stored
}

func newStore() *store {
	return &store{last: map[userid.ID]int{}, changed: make(chan struct{})}
}

func (st *store) put(ev envelope.Event) {
	n, _ := strconv.Atoi(string(ev.Data))
	st.mu.Lock()
	defer st.mu.Unlock()
	switch last := st.last[ev.User]; {
	case n <= last:
		st.twice++
		return
	case n != last+1:
		st.violations = append(st.violations, fmt.Sprintf("%s: %d after %d", ev.User, n, last))
	}
	st.last[ev.User] = n
	st.stored++
	close(st.changed)
	st.changed = make(chan struct{})
}

func (st *store) count() (stored, twice int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.stored, st.twice
}

// has reports whether each user's frames up to these are stored.
func (st *store) has(last map[userid.ID]int) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for id, n := range last {
		if st.last[id] < n {
			return false
		}
	}
	return true
}

// await waits until n frames are stored.
func (st *store) await(s *system, n int) {
	s.t.Helper()
	for {
		st.mu.Lock()
		have, changed := st.stored, st.changed
		st.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			st.check(s.t, n)
			s.t.FailNow()
		}
	}
}

// check fails the test when something is lost or out of order.
func (st *store) check(t *testing.T, sent int) {
	t.Helper()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.stored != sent {
		t.Errorf("%d frames stored, want %d", st.stored, sent)
	}
	if len(st.violations) > 0 {
		t.Errorf("%d frames out of order, for example %v", len(st.violations), st.violations[:min(5, len(st.violations))])
	}
}

// business stores, and counts its work. do, if set, is called before each frame.
type business struct {
	st *store
	do func(ctx context.Context, ev envelope.Event) error

	mu      sync.Mutex
	batches []int
}

func (b *business) Work(ctx context.Context, batch []envelope.Event) ([]messaging.Dead, error) {
	b.mu.Lock()
	b.batches = append(b.batches, len(batch))
	b.mu.Unlock()
	for _, ev := range batch {
		if b.do != nil {
			if err := b.do(ctx, ev); err != nil {
				return nil, err
			}
		}
		b.st.put(ev)
	}
	return nil, nil
}

func (b *business) calls() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.batches)
}

// eventually polls where no signal exists.
func eventually(s *system, what string, ok func() bool) {
	s.t.Helper()
	for !ok() {
		select {
		case <-s.ctx.Done():
			s.t.Fatal("not in time: " + what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// emptied waits until every lane's messages are acknowledged.
func (s *system) emptied() {
	s.t.Helper()
	for n := range s.layout.Lanes {
		eventually(s, "lane "+strconv.Itoa(n)+" is empty", func() bool {
			st, err := s.stream(stream.Up(n))
			return err == nil && st.CachedInfo().State.Msgs == 0
		})
	}
}

// stream asks about a stream. What a leader owes that was killed does not come.
func (s *system) stream(name string) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	return s.js.Stream(ctx, name)
}

// dead waits for n messages in the dead stream and returns them.
func (s *system) dead(n int) []*jetstream.RawStreamMsg {
	s.t.Helper()
	var st jetstream.Stream
	eventually(s, strconv.Itoa(n)+" dead messages", func() bool {
		var err error
		st, err = s.stream(stream.Dead)
		return err == nil && st.CachedInfo().State.Msgs >= uint64(n)
	})
	var msgs []*jetstream.RawStreamMsg
	state := st.CachedInfo().State
	for seq := state.FirstSeq; state.Msgs > 0 && seq <= state.LastSeq; seq++ {
		m, err := st.GetMsg(s.ctx, seq)
		if err != nil {
			s.t.Fatal(err)
		}
		msgs = append(msgs, m)
	}
	if len(msgs) != n {
		s.t.Errorf("%d dead messages, want %d", len(msgs), n)
	}
	return msgs
}
