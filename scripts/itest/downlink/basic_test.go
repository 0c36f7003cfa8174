package downlink

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/edge/users"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

func TestLiveFramesReachEveryDevice(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	for _, user := range []string{"u1", "a.b", ">", "😀"} {
		a, b := e.login(t, user, ""), e.login(t, user, "")
		if a.resumed() {
			t.Errorf("%s: resumed without a token", user)
		}
		publish(t, js, user, "1")
		publish(t, js, user, "2")
		for _, r := range []*receiver{a, b} {
			r.untilFrames(t, "1", "2")
		}
	}
	eventually(t, "readiness", e.Ready)
	if n := e.count(t, "gaps_total") + e.count(t, "lost_ranges_total"); n != 0 {
		t.Errorf("%v gaps and losses on an undisturbed server", n)
	}
}

func TestTargetedFrameReachesOneConnection(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	a, b := e.login(t, "u1", ""), e.login(t, "u1", "")
	publish(t, js, "u1", "for a", envelope.Target, a.conn)
	last := publish(t, js, "u1", "for all")
	a.untilFrames(t, "for a", "for all")
	b.untilFrames(t, "for all")
	if a.token() != b.token() {
		t.Errorf("the tokens differ: %s and %s, sequence %d", a.token(), b.token(), last)
	}
}

// A core frame is delivered, moves no position and carries no token.
func TestCoreFrame(t *testing.T) {
	s := servers.NATS(t)
	nc := s.Conn(t)
	ensure(t, nc, layout(1))
	e := newEdge(t, s.URL())
	a, b := e.login(t, "u1", ""), e.login(t, "u1", "")
	u := userid.MustParse("u1")
	live := subject.Live(subject.Shard(u, shards), u)
	m := &nats.Msg{Subject: live, Data: []byte(`{"id":"core"}`), Header: nats.Header{envelope.Target: {a.conn}}}
	for _, data := range []string{`{"id":"core"}`, `[]`, `{}`, ``} {
		m.Data = []byte(data)
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Publish(live, []byte(`{"id":"all"}`)); err != nil {
		t.Fatal(err)
	}
	a.untilFrames(t, "core", "all")
	b.untilFrames(t, "all")
	if h := a.history(); !h[len(h)-1].at.IsZero() {
		t.Errorf("a core frame moved the position to %s", h[len(h)-1].at)
	}
	if n := e.count(t, "bad_payloads_total"); n != 3 {
		t.Errorf("%v bad payloads, want 3", n)
	}
}

// What is no JSON object with a member moves the position and is not sent.
func TestBadPayloadMovesThePosition(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	a := e.login(t, "u1", "")
	u := userid.MustParse("u1")
	for _, data := range []string{"", "{}", "[1]", ` {"id":"x"}`} {
		if _, err := js.Publish(t.Context(), subject.Down(subject.Shard(u, shards), u), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, js, "u1", "good")
	a.untilFrames(t, "good")
	if n := e.count(t, "bad_payloads_total"); n != 4 {
		t.Errorf("%v bad payloads, want 4", n)
	}
	if n := e.count(t, "gaps_total"); n != 0 {
		t.Errorf("%v gaps", n)
	}
}

func TestTooManyConnections(t *testing.T) {
	s := servers.NATS(t)
	ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	var rs []*receiver
	for range users.MaxReceivers {
		rs = append(rs, e.login(t, "u1", ""))
	}
	r := e.attach("u1", "")
	r.until(t, "a failure", func() bool { return r.has("failed") })
	if err := r.history()[0].err; !errors.Is(err, downlink.ErrTooManyConnections) {
		t.Errorf("AttachFailed(%v)", err)
	}
	e.Detach(rs[7], rs[7].user)
	e.login(t, "u1", "")
}

// The last receiver takes the subscription with it.
func TestDetachUnsubscribes(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	before := s.Server().NumSubscriptions()
	var rs []*receiver
	for i := range 100 {
		rs = append(rs, e.login(t, fmt.Sprint("u", i), ""))
	}
	for _, r := range rs {
		e.Detach(r, r.user)
	}
	eventually(t, "unsubscribing", func() bool { return s.Server().NumSubscriptions() <= before+uint32(2*shards) })
	a := e.login(t, "u1", "")
	publish(t, js, "u1", "1")
	a.untilFrames(t, "1")
	if got := rs[1].frames(); got != nil {
		t.Errorf("a detached receiver got %v", got)
	}
}

// Without streams nobody is attached; as soon as they exist, everybody is.
func TestAttachWaitsForTheStreams(t *testing.T) {
	s := servers.NATS(t)
	e := newEdge(t, s.URL())
	a := e.attach("u1", "")
	eventually(t, "a marker's retry", func() bool { return e.count(t, "marker_retries_total") > 3 })
	if e.Ready() || len(a.history()) != 0 {
		t.Errorf("ready %v, receiver got %v", e.Ready(), a.history())
	}
	js := ensure(t, s.Conn(t), layout(1))
	a.until(t, "attached", func() bool { return a.has("attached") })
	eventually(t, "readiness", e.Ready)
	publish(t, js, "u1", "1")
	a.untilFrames(t, "1")
}

// An edge that counts shards otherwise does not serve.
func TestForeignNumberOfShards(t *testing.T) {
	s := servers.NATS(t)
	l := layout(1)
	l.Shards = 3
	ensure(t, s.Conn(t), l)
	e := newEdge(t, s.URL())
	a := e.attach("u1", "")
	eventually(t, "a marker's retry", func() bool { return e.count(t, "marker_retries_total") > 1 })
	if e.Ready() || a.has("attached") {
		t.Errorf("an edge with %d shards serves streams with %d", shards, l.Shards)
	}
}

// Only the sequence of a user's own frames counts: what others get in between is no gap.
func TestManyUsersInterleaved(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	const n, each = 20, 30
	var rs []*receiver
	for i := range n {
		rs = append(rs, e.login(t, fmt.Sprint("u", i), ""))
	}
	var want []string
	for k := range each {
		want = append(want, fmt.Sprint(k))
		for i := range n {
			publish(t, js, fmt.Sprint("u", i), fmt.Sprint(k))
		}
	}
	for _, r := range rs {
		r.untilFrames(t, want...)
	}
	if n := e.count(t, "gaps_total"); n != 0 {
		t.Errorf("%v gaps", n)
	}
}
