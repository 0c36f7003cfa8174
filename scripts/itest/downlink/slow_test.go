package downlink

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// stuck is a receiver that blocks its hub until it is let go.
type stuck struct {
	*receiver
	once sync.Once
	at   chan struct{} // closed when the hub is blocked
	free chan struct{}
}

func (s *stuck) Deliver(f downlink.Frame) {
	s.once.Do(func() { close(s.at) })
	<-s.free
	s.receiver.Deliver(f)
}

// A hub that stays behind makes no queue: the server cuts its connection, and what it
// missed then is read from the stream. Nobody loses anything, and everything is in order.
func TestSlowHubLosesNothing(t *testing.T) {
	const n, each, size = 100, 80, 4 << 10
	s := servers.NATS(t, func(o *servers.NATSOptions) {
		o.Tune = func(o *server.Options) { o.MaxPending = 12 << 20 } // all that is read again at once fits
	})
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL(), func(c *downlink.Config) { c.Hubs = 1 })
	first := &stuck{at: make(chan struct{}), free: make(chan struct{}), receiver: &receiver{user: userid.MustParse("u0"), conn: "stuck",
		new: make(chan struct{}, 1), settled: make(chan struct{})}}
	free := sync.OnceFunc(func() { close(first.free) })
	defer free() // a stuck hub cannot be closed
	e.Attach(first, first.user, first.conn, "")
	first.until(t, "attached", func() bool { return first.has("attached") })
	var rs []*receiver
	for i := range n {
		rs = append(rs, e.login(t, fmt.Sprint("user", i), ""))
	}
	publish(t, js, "u0", "block")
	<-first.at
	pub, err := jetstream.New(s.Conn(t), jetstream.WithPublishAsyncMaxPending(256))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{}
	for k := range each {
		want = append(want, fmt.Sprint(k))
		data := fmt.Appendf(nil, `{"id":"%d","x":"%s"}`, k, strings.Repeat("x", size))
		for _, r := range rs {
			if _, err := pub.PublishAsync(subject.Down(subject.Shard(r.user, shards), r.user), data,
				jetstream.WithStallWait(time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-pub.PublishAsyncComplete()
	if s.Server().NumSlowConsumers() == 0 {
		t.Fatal("the server waits: the test proves nothing")
	}
	free()
	for _, r := range rs {
		r.until(t, "the last frame", func() bool { return slices.Contains(r.frames(), want[each-1]) })
		if got := r.frames(); !slices.Equal(got, want) {
			t.Errorf("%s got %d frames: %v", r.conn, len(got), got)
		}
		if r.has("resync") {
			t.Errorf("%s was told to sync", r.conn)
		}
	}
	if e.count(t, "disturbances_total", "reconnect") == 0 || e.count(t, "repaired_frames_total") == 0 {
		t.Error("nothing was repaired: the test proves nothing")
	}
}

// lagging is a connection from which everything is read later than it comes.
type lagging struct {
	net.Conn
	lag  *atomic.Int64 // nanoseconds
	in   chan arrival  // closed at the first error
	gone chan struct{} // closed by Close
	once sync.Once
	rest []byte
}

type arrival struct {
	data []byte
	due  time.Time
}

func newLagging(c net.Conn, lag *atomic.Int64) *lagging {
	l := &lagging{Conn: c, lag: lag, in: make(chan arrival, 1<<16), gone: make(chan struct{})}
	go func() {
		defer close(l.in)
		for {
			b := make([]byte, 4<<10)
			n, err := c.Read(b)
			if err != nil {
				return
			}
			l.in <- arrival{b[:n], time.Now().Add(time.Duration(lag.Load()))}
		}
	}()
	return l
}

func (l *lagging) Read(b []byte) (int, error) {
	if len(l.rest) == 0 {
		a, ok := <-l.in
		if !ok {
			return 0, io.EOF
		}
		select {
		case <-time.After(time.Until(a.due)):
		case <-l.gone:
			return 0, net.ErrClosed
		}
		l.rest = a.data
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *lagging) Close() error {
	l.once.Do(func() { close(l.gone) })
	return l.Conn.Close()
}

func (l *lagging) SetReadDeadline(time.Time) error { return nil }
func (l *lagging) SetDeadline(time.Time) error     { return nil }

// Where each answer of the server takes longer than markers are patient, clients get in all
// the same, if only later: in an overload, whoever is sent away comes again and makes it
// worse.
func TestLateMarkersCount(t *testing.T) {
	s := servers.NATS(t)
	ensure(t, s.Conn(t), layout(1))
	var lag atomic.Int64
	e := newEdge(t, s.URL(), func(c *downlink.Config) {
		plain := c.Dial
		c.Dial = func(ctx context.Context, name string, wrap func(net.Conn) net.Conn) (*nats.Conn, error) {
			if wrap == nil {
				return plain(ctx, name, nil)
			}
			return plain(ctx, name, func(c net.Conn) net.Conn { return wrap(newLagging(c, &lag)) })
		}
	})
	e.login(t, "before", "")
	lag.Store(int64(2200 * time.Millisecond)) // another marker is sent after two seconds
	e.login(t, "meanwhile", "")
	if e.count(t, "disturbances_total", "reconnect") != 0 || e.count(t, "marker_retries_total") == 0 {
		t.Error("it was connected anew, or no marker was late: the test proves nothing")
	}
}

// What sweeps and resumes ask the server for has no upper bound: with one it walks through
// the whole stream, see BenchmarkLasts.
func TestReadsHaveNoUpperBound(t *testing.T) {
	s := servers.NATS(t)
	nc := s.Conn(t)
	js := ensure(t, nc, layout(1))
	asked, err := nc.SubscribeSync("$JS.API.DIRECT.GET.>")
	if err != nil {
		t.Fatal(err)
	}
	e := newEdge(t, s.URL(), sweepEvery(100*time.Millisecond))
	r := e.login(t, "u", "")
	unmute := mute(t, js, "u")
	publish(t, js, "u", "1") // found by a sweep
	unmute()
	r.untilFrames(t, "1")
	e.login(t, "u", r.token().String())
	lasts := 0
	for {
		m, err := asked.NextMsg(100 * time.Millisecond)
		if err != nil || lasts >= 5 {
			break
		}
		if bytes.Contains(m.Data, []byte("multi_last")) {
			lasts++
		}
		if bytes.Contains(m.Data, []byte("up_to")) {
			t.Fatalf("the server is asked for %s", m.Data)
		}
	}
	if lasts == 0 {
		t.Error("nothing was asked for: the test proves nothing")
	}
}
