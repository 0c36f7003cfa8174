package downlink

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// mute stops a shard's stream from republishing: what is stored then is what a live
// frame that vanished looks like. The returned function ends it.
func mute(t *testing.T, js jetstream.JetStream, user string) (unmute func()) {
	t.Helper()
	name := downName(t, js, user)
	n := subject.Shard(userid.MustParse(user), shards)
	limit(t, js, name, func(c *jetstream.StreamConfig) { c.RePublish = nil })
	return func() {
		t.Helper()
		limit(t, js, name, func(c *jetstream.StreamConfig) {
			c.RePublish = &jetstream.RePublish{Source: subject.RepublishFrom(n), Destination: subject.RepublishTo(n)}
		})
	}
}

// positions checks that no token passed a frame that was not handed over before it.
// seqs[i] is the sequence of frame i.
func positions(t *testing.T, r *receiver, seqs map[string]uint64) {
	t.Helper()
	had := map[string]bool{}
	for _, h := range r.history() {
		if h.kind == "frame" {
			had[h.id] = true
		}
		if h.at.IsZero() {
			continue
		}
		for id, seq := range seqs {
			if !had[id] && tokenAtLeast(t, h.at.String(), seq) && h.kind != "attached" {
				t.Errorf("%s: token %s passed frame %s (%d), which was not delivered", r.conn, h.at, id, seq)
			}
		}
	}
}

func tokenAtLeast(t *testing.T, token string, seq uint64) bool {
	t.Helper()
	n, err := strconv.ParseUint(token[strings.LastIndexByte(token, '.')+1:], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n >= seq
}

// A vanished frame is found by the next one, and comes before it, on every device.
func TestGapIsRepaired(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	a, b := e.login(t, "u1", ""), e.login(t, "u1", "")
	seqs := map[string]uint64{"1": publish(t, js, "u1", "1")}
	unmute := mute(t, js, "u1")
	seqs["2"], seqs["3"] = publish(t, js, "u1", "2"), publish(t, js, "u1", "3")
	unmute()
	seqs["4"] = publish(t, js, "u1", "4")
	seqs["5"] = publish(t, js, "u1", "5")
	for _, r := range []*receiver{a, b} {
		r.untilFrames(t, "1", "2", "3", "4", "5")
		positions(t, r, seqs)
	}
	if n := e.count(t, "gaps_total"); n != 1 {
		t.Errorf("%v gaps, want 1", n)
	}
}

// A vanished frame with none behind it is found by the sweep; so is one that vanished
// while another receiver of its user joined.
func TestSweepFindsTheLastFrame(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL(), sweepEvery(200*time.Millisecond))
	a := e.login(t, "u1", "")
	unmute := mute(t, js, "u1")
	seqs := map[string]uint64{"lost": publish(t, js, "u1", "lost")}
	b := e.login(t, "u1", "")
	a.untilFrames(t, "lost")
	unmute()
	seqs["live"] = publish(t, js, "u1", "live")
	a.untilFrames(t, "lost", "live")
	b.untilFrames(t, "live")
	positions(t, a, seqs)
}

// A frame that vanished and was evicted before anybody looked: the user is told, and no
// token passes it in silence, though the next frame shows no predecessor.
func TestEvictedGapIsTold(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	a := e.login(t, "u1", "")
	unmute := mute(t, js, "u1")
	publish(t, js, "u1", "lost")
	str, err := js.Stream(t.Context(), downName(t, js, "u1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := str.Purge(t.Context()); err != nil { // from the front, as the limits do
		t.Fatal(err)
	}
	unmute()
	publish(t, js, "u1", "next")
	a.until(t, "resync", func() bool { return a.has("resync") && len(a.frames()) == 1 })
	for _, h := range a.history() {
		if h.kind == "resync" {
			break
		}
		if h.kind != "attached" && !h.at.IsZero() {
			t.Errorf("%s at %s before the resync", h.kind, h.at)
		}
	}
	publish(t, js, "u1", "after")
	a.untilFrames(t, "next", "after")
	if a.token().IsZero() || e.count(t, "lost_ranges_total") != 1 {
		t.Errorf("token %s, %v losses", a.token(), e.count(t, "lost_ranges_total"))
	}
}

// A user's first frame ever shows no predecessor either, and nothing is wrong.
func TestFirstFrameIsNoLoss(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	var rs []*receiver
	for i := range 50 {
		rs = append(rs, e.login(t, fmt.Sprint("u", i), ""))
	}
	for _, r := range rs {
		publish(t, js, r.user.Raw(), "1")
		publish(t, js, r.user.Raw(), "2")
	}
	for _, r := range rs {
		r.untilFrames(t, "1", "2")
		if r.has("resync") {
			t.Errorf("%s was told to sync", r.user)
		}
	}
}

// After a reconnect the edge subscribes everybody and proves all positions, at once.
func TestReconnectSweeps(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	p := servers.NewProxy(t, s.URL()[len("nats://"):])
	e := newEdge(t, "nats://"+p.Addr())
	seqs := map[string]uint64{}
	rs := []*receiver{}
	for i := range 20 {
		rs = append(rs, e.login(t, fmt.Sprint("u", i), ""))
	}
	p.Cut()
	for _, r := range rs {
		seqs[r.user.Raw()] = publish(t, js, r.user.Raw(), "while away")
	}
	p.Restore()
	for _, r := range rs {
		r.untilFrames(t, "while away")
		positions(t, r, map[string]uint64{"while away": seqs[r.user.Raw()]})
	}
	for _, r := range rs { // and everybody is subscribed again: the next sweep is an hour away
		publish(t, js, r.user.Raw(), "live")
	}
	for _, r := range rs {
		r.untilFrames(t, "while away", "live")
	}
}

// Logins, frames and losses at once: every device gets everything from its token on.
func TestChurn(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL(), sweepEvery(100*time.Millisecond))
	const frames = 300
	anchor := e.login(t, "u1", "")
	from := anchor.token().String()
	var rs []*receiver
	var want []string
	for i := range frames {
		want = append(want, fmt.Sprint(i))
		if i%50 == 20 {
			unmute := mute(t, js, "u1")
			publish(t, js, "u1", want[i])
			unmute()
		} else {
			publish(t, js, "u1", want[i])
		}
		if i%10 == 0 {
			r := e.attach("u1", from)
			rs = append(rs, r)
			if len(rs) > 20 {
				e.Detach(rs[0], rs[0].user)
				rs = rs[1:]
			}
		}
	}
	for _, r := range append(rs, anchor) {
		r.until(t, "the last frame", func() bool { return slices.Contains(r.frames(), want[frames-1]) })
		if got := r.frames(); !slices.Equal(got, want) {
			t.Errorf("%s got %d frames %v", r.conn, len(got), got)
		}
	}
}
