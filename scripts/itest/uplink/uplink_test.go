// Package uplink tests edge/uplink against nats-server.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
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

// makeLanes creates the lanes' streams; like has what is special about them.
func makeLanes(t testing.TB, js jetstream.JetStream, like jetstream.StreamConfig) {
	t.Helper()
	like.Retention, like.Discard = jetstream.WorkQueuePolicy, jetstream.DiscardNew
	for lane := range lanes {
		like.Name, like.Subjects = stream.Up(lane), []string{subject.UpLane(lane)}
		if _, err := js.CreateStream(t.Context(), like); err != nil {
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
	makeLanes(t, js, jetstream.StreamConfig{})
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
		// In memory: nats-server (2.15) ends a deletion of files after its answer. It removes the
		// account's directory if it is empty, under a stream that is being made; and a stream
		// whose last namesake is still being removed leaves its files to the next one.
		makeLanes(t, js, jetstream.StreamConfig{FirstSeq: first, Storage: jetstream.MemoryStorage})
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
	makeLanes(t, js, jetstream.StreamConfig{})
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
	makeLanes(t, js, jetstream.StreamConfig{})
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
	makeLanes(t, js, jetstream.StreamConfig{})
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
