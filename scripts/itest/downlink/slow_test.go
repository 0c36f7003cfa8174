package downlink

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
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
			if _, err := pub.PublishAsync(subject.Down(subject.Shard(r.user, shards), r.user), data); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-pub.PublishAsyncComplete()
	if s.Server().NumSlowConsumers() == 0 {
		t.Fatal("the server waits: the test proves nothing")
	}
	close(first.free)
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
