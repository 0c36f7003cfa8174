// Package uplink tests edge/uplink against nats-server.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/edge/uplink"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

const lanes = 2

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func dial(url string) func(context.Context, string, func()) (*nats.Conn, error) {
	return func(_ context.Context, name string, back func()) (*nats.Conn, error) {
		return nats.Connect(url, nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.IgnoreDiscoveredServers(),
			nats.ReconnectWait(10*time.Millisecond), nats.ReconnectHandler(func(*nats.Conn) { back() }))
	}
}

func start(t testing.TB, url string) *uplink.Uplink {
	t.Helper()
	u, err := uplink.New(t.Context(), uplink.Config{Lanes: lanes, Dial: dial(url), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

func makeLanes(t testing.TB, js jetstream.JetStream, replicas int, maxBytes int64, firstSeq ...uint64) {
	t.Helper()
	for lane := range lanes {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: stream.Up(lane), Subjects: []string{subject.UpLane(lane)}, Retention: jetstream.WorkQueuePolicy,
			Discard: jetstream.DiscardNew, MaxBytes: maxBytes, Replicas: replicas, Storage: jetstream.FileStorage,
			FirstSeq: append(firstSeq, 0)[0],
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// done is a Sender that passes the outcome on.
type done chan error

func (d done) PublishDone(_ uint32, err error) { d <- err }

func event(user string, n int) envelope.Event {
	return envelope.Event{
		User: userid.MustParse(user), Type: envelope.Frame, Edge: "e1", Conn: fmt.Sprintf("e1-%x", user), N: uint64(n),
		Time: time.Now(), Data: []byte(strconv.Itoa(n)),
	}
}

func wait(t testing.TB, d done) error {
	t.Helper()
	select {
	case err := <-d:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("no PublishDone")
		return nil
	}
}

func TestEventIsStoredWithItsHeaders(t *testing.T) {
	c := servers.NATS(t)
	js, _ := jetstream.New(c.Conn(t))
	makeLanes(t, js, 1, 1<<20)
	u := start(t, c.URL())
	for _, user := range []string{"u1", "a.b", ">", "😀"} {
		d := make(done, 1)
		want := event(user, 7)
		u.Publish(d, want)
		if err := wait(t, d); err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		s, _ := js.Stream(t.Context(), stream.Up(subject.Lane(want.User, lanes)))
		m, err := s.GetLastMsgForSubject(t.Context(), subject.Up(subject.Lane(want.User, lanes), want.User))
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		got, err := envelope.Parse(m.Header)
		if err != nil || got.Conn != want.Conn || got.N != 7 || string(m.Data) != "7" {
			t.Errorf("%s: stored %+v %q, %v", user, got, m.Data, err)
		}
	}
	if err := u.Drain(t.Context()); err != nil || u.Held() != 0 {
		t.Errorf("Drain = %v, Held %d", err, u.Held())
	}
}

// stored is a Sender that passes on in which incarnation of the lane its event is.
type stored chan uint32

func (s stored) PublishDone(incarnation uint32, err error) {
	if err != nil {
		panic(err)
	}
	s <- incarnation
}

// [r] The sender hears in which incarnation of its lane an event is stored, so that it
// notices when what it sent before may be gone.
func TestSenderHearsTheIncarnation(t *testing.T) {
	c := servers.NATS(t)
	js, _ := jetstream.New(c.Conn(t))
	u := start(t, c.URL())
	now := time.Now()
	name := stream.Up(subject.Lane(userid.MustParse("u1"), lanes))
	for n, first := range []uint64{stream.FirstSeq(now), stream.FirstSeq(now.Add(time.Second)), 0, 1<<63 - 1<<31} {
		makeLanes(t, js, 1, 1<<20, first)
		want := stream.Incarnation(first)
		s := make(stored, 1)
		for i := range 2 {
			u.Publish(s, event("u1", 2*n+i))
			select {
			case got := <-s:
				if got != want {
					t.Errorf("first sequence %d: incarnation %d, want %d", first, got, want)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("no PublishDone")
			}
		}
		lane, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if last := lane.CachedInfo().State.LastSeq; last != max(first, 1)+1 {
			t.Errorf("the second message is at %d, the first sequence is %d", last, first)
		}
		for i := range lanes {
			if err := js.DeleteStream(t.Context(), stream.Up(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A lane without a stream, or a server that is away, is retried in place until it is back.
func TestRetriesUntilTheLaneExists(t *testing.T) {
	c := servers.NATS(t)
	u := start(t, c.URL())
	d := make(done, 1)
	u.Publish(d, event("u1", 1))
	select {
	case err := <-d:
		t.Fatalf("done without a stream: %v", err)
	case <-time.After(300 * time.Millisecond): // some retries
	}
	js, _ := jetstream.New(c.Conn(t))
	makeLanes(t, js, 1, 1<<20)
	if err := wait(t, d); err != nil {
		t.Fatal(err)
	}

	c.Shutdown()
	other := make(done, 1)
	u.Publish(d, event("u1", 2))
	u.Publish(other, event("u2", 1))
	if err := c.Restart(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []done{d, other} {
		if err := wait(t, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	var stored uint64
	for lane := range lanes {
		s, err := js.Stream(t.Context(), stream.Up(lane))
		if err != nil {
			t.Fatal(err)
		}
		stored += s.CachedInfo().State.Msgs
	}
	if stored < 3 {
		t.Errorf("%d messages are stored, want 3", stored)
	}
}

// How long the oldest event waits is shown while one does, and not longer.
func TestOldestIsShown(t *testing.T) {
	c := servers.NATS(t)
	reg := prometheus.NewRegistry()
	u, err := uplink.New(t.Context(), uplink.Config{Lanes: lanes, Dial: dial(c.URL()), Log: slog.New(slog.DiscardHandler), Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	await := func(what string, ok func(float64) bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "wirepost_edge_uplink_oldest_seconds" })
			oldest := families[i].GetMetric()[0].GetGauge().GetValue()
			if ok(oldest) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v s, and not %s", oldest, what)
			}
		}
	}
	await("none", func(s float64) bool { return s == 0 })
	old, young := make(done, 1), make(done, 1)
	u.Publish(old, event("u1", 1))
	await("some time", func(s float64) bool { return s > .3 })
	u.Publish(young, event("u2", 1))
	await("the older one's time", func(s float64) bool { return s > .4 })
	js, _ := jetstream.New(c.Conn(t))
	makeLanes(t, js, 1, 1<<20)
	for _, d := range []done{old, young} {
		if err := wait(t, d); err != nil {
			t.Fatal(err)
		}
	}
	await("none", func(s float64) bool { return s == 0 })
}

// An event that is not stored in time is given up, and its slot serves the next one.
func TestStalls(t *testing.T) {
	c := servers.NATS(t)
	u, err := uplink.New(t.Context(), uplink.Config{Lanes: lanes, Dial: dial(c.URL()), Log: slog.New(slog.DiscardHandler), Patience: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	d := make(done, 1)
	began := time.Now()
	u.Publish(d, event("u1", 1))
	if err := wait(t, d); !errors.Is(err, uplink.ErrStalled) || time.Since(began) < 300*time.Millisecond {
		t.Fatalf("PublishDone(%v) after %v", err, time.Since(began))
	}
	js, _ := jetstream.New(c.Conn(t))
	makeLanes(t, js, 1, 1<<20)
	u.Publish(d, event("u1", 2))
	if err := wait(t, d); err != nil {
		t.Fatal(err)
	}
	big := event("u1", 3)
	big.Data = make([]byte, 2<<20)
	u.Publish(d, big)
	if err := wait(t, d); !errors.Is(err, uplink.ErrTooLarge) {
		t.Errorf("PublishDone(%v) of 2 MiB", err)
	}
}

func TestCloseFailsWhatIsInFlight(t *testing.T) {
	c := servers.NATS(t)
	u, err := uplink.New(t.Context(), uplink.Config{Lanes: lanes, Dial: dial(c.URL()), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d := make(done, 2)
	u.Publish(d, event("u1", 1))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := u.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain of a stuck event = %v", err)
	}
	u.Close()
	u.Publish(d, event("u2", 1))
	for range 2 {
		if err := wait(t, d); !errors.Is(err, uplink.ErrClosed) {
			t.Errorf("PublishDone(%v), want ErrClosed", err)
		}
	}
}

// sender publishes 1…n; with depth 1 it keeps the rule of one event in flight.
type sender struct {
	u    *uplink.Uplink
	user string
	n    int
	todo chan struct{}

	mu   sync.Mutex
	next int
}

func (s *sender) PublishDone(_ uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.next < s.n {
		s.next++
		s.u.Publish(s, event(s.user, s.next))
	}
	s.todo <- struct{}{}
}

// inversions runs 40 senders of 25 events each through lanes that are full most of the
// time, and counts events that were stored behind a later one of the same sender.
func inversions(t *testing.T, depth int) int {
	const senders, events = 40, 25
	c := servers.NATS(t)
	js, _ := jetstream.New(c.Conn(t))
	makeLanes(t, js, 1, 1500) // about six events
	u := start(t, c.URL())
	todo := make(chan struct{}, senders*events)
	for i := range senders {
		s := &sender{u: u, user: fmt.Sprint("u", i), n: events, todo: todo}
		s.mu.Lock()
		for range depth {
			s.next++
			u.Publish(s, event(s.user, s.next))
		}
		s.mu.Unlock()
	}
	last, bad := map[string]int{}, 0
	consumed := make(chan struct{}, 2*senders*events)
	var mu sync.Mutex
	for lane := range lanes {
		cons, err := js.CreateConsumer(t.Context(), stream.Up(lane), jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 4})
		if err != nil {
			t.Fatal(err)
		}
		cc, err := cons.Consume(func(m jetstream.Msg) {
			n, _ := strconv.Atoi(string(m.Data()))
			mu.Lock()
			if n < last[m.Subject()] {
				bad++
			}
			last[m.Subject()] = n
			mu.Unlock()
			_ = m.Ack()
			consumed <- struct{}{}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Stop()
	}
	for i := range senders * events {
		for _, c := range []chan struct{}{todo, consumed} {
			select {
			case <-c:
			case <-time.After(30 * time.Second):
				t.Fatalf("only %d of %d events are done", i, senders*events)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return bad
}

// [r] One publish in flight per connection.
func TestOrderIsKeptThroughAFullLane(t *testing.T) {
	if bad := inversions(t, 1); bad != 0 {
		t.Errorf("%d events were stored behind a later one of their sender", bad)
	}
}

// Why the rule is there: the same lane, two events of a sender in flight.
func TestPipeliningBreaksOrder(t *testing.T) {
	if inversions(t, 2) == 0 {
		t.Error("pipelining kept the order: the test of the rule proves nothing")
	}
}

// A killed leader of a replicated lane costs nothing but time.
func TestLeaderKill(t *testing.T) {
	c := servers.Cluster(t)
	js, _ := jetstream.New(c.Nodes[0].Conn(t))
	makeLanes(t, js, 3, 1<<20)
	lane := stream.Up(subject.Lane(userid.MustParse("u1"), lanes))
	leader, at := c.Leader(lane)
	if leader == nil {
		t.Fatal("the lane has no leader")
	}
	u := start(t, c.Nodes[(at+1)%3].URL())
	d := make(done, 1)
	for n := 1; n <= 50; n++ {
		if n == 20 {
			leader.Shutdown()
		}
		u.Publish(d, event("u1", n))
		if err := wait(t, d); err != nil {
			t.Fatalf("event %d: %v", n, err)
		}
	}
}

type again struct {
	u    *uplink.Uplink
	ev   envelope.Event
	todo chan struct{}
}

func (a *again) PublishDone(_ uint32, err error) {
	if err != nil {
		panic(err)
	}
	if _, ok := <-a.todo; ok {
		a.u.Publish(a, a.ev)
	}
}

func BenchmarkPublish(b *testing.B) {
	c := servers.NATS(b)
	js, _ := jetstream.New(c.Conn(b))
	makeLanes(b, js, 1, 4<<30)
	u := start(b, c.URL())
	todo := make(chan struct{}, b.N)
	for range b.N {
		todo <- struct{}{}
	}
	close(todo)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range 256 {
		ev := event(fmt.Sprint("u", i), 1)
		ev.Data = make([]byte, 200)
		u.Publish(&again{u: u, ev: ev, todo: todo}, ev)
	}
	if err := u.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// A lane that is slow, but answers, takes no places from the others: their users would hear
// ErrStalled for its sake.
func TestSlowLaneHoldsUpNoOther(t *testing.T) {
	c := servers.NATS(t)
	nc := c.Conn(t)
	js, _ := jetstream.New(nc)
	makeLanes(t, js, 1, 1<<20)
	const slow = 0
	if err := js.DeleteStream(t.Context(), stream.Up(slow)); err != nil {
		t.Fatal(err)
	}
	asked := make(chan *nats.Msg, 1<<16)
	if _, err := nc.ChanSubscribe(subject.UpLane(slow), asked); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	quit, answers := make(chan struct{}), make(chan struct{})
	go func() { // fifty a second, in their order
		defer close(answers)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = (<-asked).Respond(fmt.Appendf(nil, `{"stream":%q, "seq":1}`, stream.Up(slow)))
			case <-quit:
				return
			}
		}
	}()
	u, err := uplink.New(t.Context(), uplink.Config{Lanes: lanes, Dial: dial(c.URL()), Log: slog.New(slog.DiscardHandler), Patience: 6 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	const n = 10_000 // more than may be under way in all lanes together
	slowly, other := make(done, n), make(done, 1)
	users := func(lane int) func() string {
		i := 0
		return func() string {
			for {
				i++
				if name := fmt.Sprint("u", i); subject.Lane(userid.MustParse(name), lanes) == lane {
					return name
				}
			}
		}
	}
	name := users(slow)
	for range n {
		u.Publish(slowly, event(name(), 1))
	}
	if err := wait(t, slowly); err != nil { // the lane answers
		t.Fatal(err)
	}
	u.Publish(other, event(users(1)(), 1))
	if err := wait(t, other); err != nil {
		t.Errorf("an event of another lane: %v", err)
	}
	for range len(slowly) {
		if err := <-slowly; err != nil {
			t.Fatalf("the event of another lane waited until those of the slow one were given up: %v", err)
		}
	}
	u.Close()
	close(quit)
	<-answers
}
