package uplink

import (
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/edge/uplink"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

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
	makeLanes(t, js, jetstream.StreamConfig{MaxBytes: 1500}) // about six events
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
	makeLanes(t, js, jetstream.StreamConfig{Replicas: 3})
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
	makeLanes(b, js, jetstream.StreamConfig{})
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
	makeLanes(t, js, jetstream.StreamConfig{})
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
