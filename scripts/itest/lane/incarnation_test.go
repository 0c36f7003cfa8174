package lane_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/streams"
)

const (
	resets  = "wirepost_worker_lane_resets_total"
	skipped = "wirepost_worker_lane_skipped_total"
)

// log writes down what is worked, in order.
type log struct {
	mu     sync.Mutex
	events []envelope.Event
}

func (l *log) Work(_ context.Context, batch []envelope.Event) ([]messaging.Dead, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, batch...)
	return nil, nil
}

func (l *log) texts() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var texts []string
	for _, ev := range l.events {
		texts = append(texts, string(ev.Data))
	}
	return texts
}

// renewed deletes the streams of all lanes and creates them again.
func (s *system) renewed() {
	s.t.Helper()
	old := s.incarnation()
	eventually(s, "another tick of the incarnations", func() bool {
		return stream.Incarnation(stream.FirstSeq(time.Now())) > old
	})
	for n := range s.layout.Lanes {
		if err := s.js.DeleteStream(s.ctx, stream.Up(n)); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := streams.Ensure(s.ctx, s.js, s.layout); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) incarnation() uint32 {
	s.t.Helper()
	st, err := s.js.Stream(s.ctx, stream.Up(0))
	if err != nil {
		s.t.Fatal(err)
	}
	return stream.Incarnation(st.CachedInfo().Config.FirstSeq)
}

// [r] All of NATS' data is lost while a batch is at work. The acknowledgements of that
// batch mean messages of the old stream and delete none of the new one.
func TestAcksOfALostLaneDeleteNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1, AckWait: time.Minute})
	st := newStore()
	g := gate{make(chan struct{})}
	taken := make(chan struct{}, 1)
	s.start("w", &business{st: st, do: func(ctx context.Context, ev envelope.Event) error {
		select {
		case taken <- struct{}{}:
		default:
		}
		return g.wait(ctx, ev)
	}})
	p := s.sender(users(1)...)
	p.send(1) // with more the batch could have some of them, and the others be lost with the stream
	<-taken
	before := s.incarnation()
	s.renewed()
	if after := s.incarnation(); after <= before {
		t.Errorf("incarnation %d after %d", after, before)
	}
	p.send(3)
	eventually(s, "something of the new lane is delivered", func() bool {
		c, err := s.js.Consumer(s.ctx, stream.Up(0), stream.Consumer)
		return err == nil && c.CachedInfo().NumAckPending > 0
	})
	close(g.open)
	st.await(s, 4)
	s.emptied()
	st.check(t, 4)
}

// [r] A frame that was sent behind what was lost with the old lane is left out; all other
// events are worked.
func TestFrameBehindALossIsNotWorked(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1})
	here := s.incarnation()
	id := users(1)[0]
	for i, ev := range []envelope.Event{
		{Type: envelope.Connected, After: here - 7},
		{Type: envelope.Frame, Data: []byte("nothing is known")},
		{Type: envelope.Frame, After: here - 7, Data: []byte("behind a loss")},
		{Type: envelope.Frame, After: here, Data: []byte("in its place")},
		{Type: envelope.Frame, After: here + 7, Data: []byte("behind a loss, a clock is wrong")},
		{Type: envelope.Disconnected, After: here - 7, Data: []byte("end")},
	} {
		ev.Edge, ev.Conn, ev.N, ev.Time = "e1", "c1", uint64(i+1), time.Now()
		if _, err := s.js.PublishMsg(s.ctx, &nats.Msg{Subject: subject.Up(0, id), Header: ev.Header(), Data: ev.Data}); err != nil {
			t.Fatal(err)
		}
	}
	l := &log{}
	w := s.start("w", l)
	s.emptied()
	if got, want := l.texts(), []string{"", "nothing is known", "in its place", "end"}; !slices.Equal(got, want) {
		t.Errorf("worked %q, want %q", got, want)
	}
	eventually(s, "two are counted", func() bool { return w.metric(t, skipped) == 2 })
	if n := w.metric(t, "wirepost_worker_lane_messages_total"); n != 4 {
		t.Errorf("%v messages count as worked, want 4", n)
	}
	s.dead(0)
}

// [r] Somebody else's late request resets the consumer, so that its count starts again,
// and as many deliveries are lost as the owner has counted: the next one looks right.
func TestLostDeliveryBehindAStrayReset(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1, AckWait: time.Minute})
	st := newStore()
	net := newSieve(t, s.server.Server().Addr().String())
	w := s.startOn(s.connect(net.url()), "w", &business{st: st})
	p := s.sender(users(1)...)
	p.send(1)
	st.await(s, 1)
	s.emptied()
	before := w.metric(t, resets)

	lost := strconv.FormatUint(uint64(s.incarnation())<<31+1, 10) // the second message
	dropped := net.dropOnce(func(line string) bool {
		return strings.Contains(line, "$JS.ACK."+stream.Up(0)+".") && strings.Contains(line, ".1."+lost+".1.")
	})
	if _, err := s.js.ResetConsumer(s.ctx, stream.Up(0), stream.Consumer); err != nil {
		t.Fatal(err)
	}
	p.send(2)
	select {
	case <-dropped:
	case <-s.ctx.Done():
		t.Fatal("nothing was lost: the test proves nothing")
	}
	st.await(s, 3)
	s.emptied()
	st.check(t, 3)
	if w.metric(t, resets) == before {
		t.Error("the run was not found to be broken")
	}
}

// Holes that are acknowledged messages do not break a run, and cost little even when
// every second message is one.
func TestAcknowledgedHoles(t *testing.T) {
	t.Parallel()
	const n = 512
	s := newSystem(t, streams.Layout{Lanes: 1})
	p := s.sender(users(1)...)
	p.send(n)
	lane, err := s.js.Stream(s.ctx, stream.Up(0))
	if err != nil {
		t.Fatal(err)
	}
	first := lane.CachedInfo().Config.FirstSeq
	for seq := first + 1; seq < first+n; seq += 2 {
		if err := lane.DeleteMsg(s.ctx, seq); err != nil {
			t.Fatal(err)
		}
	}
	l := &log{}
	w := s.start("w", l)
	eventually(s, "the lane is ours", func() bool { return w.metric(t, takeOvers) > 0 })
	began := time.Now()
	s.emptied()
	t.Logf("%d holes, worked off in %v", n/2, time.Since(began))
	if got := l.texts(); len(got) != n/2 || got[0] != "1" || got[n/2-1] != strconv.Itoa(n-1) {
		t.Errorf("%d messages worked, want %d", len(got), n/2)
	}
	if r := w.metric(t, resets); r != 1 {
		t.Errorf("%v resets, want the one of the take-over", r)
	}
}
