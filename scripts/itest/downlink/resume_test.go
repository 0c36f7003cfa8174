package downlink

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// From every token, on any edge, exactly what came after it: not one too late, not one
// too early, and live frames behind.
func TestResumeIsExact(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	a := e.login(t, "u1", "")
	tokens, ids := []string{a.token().String()}, []string{}
	for i := range 6 {
		if i%2 == 0 { // with and without something of others between the user's frames
			for k := range 4 { // of both shards
				publish(t, js, fmt.Sprint("other", k), "x")
			}
		}
		publish(t, js, "u1", fmt.Sprint(i))
		ids = append(ids, fmt.Sprint(i))
		a.untilFrames(t, ids...)
		tokens = append(tokens, a.token().String())
	}
	other := newEdge(t, s.URL(), func(c *downlink.Config) { c.Edge = "e2" })
	var rs []*receiver
	for k, token := range tokens {
		for _, e := range []*edge{e, other} {
			r := e.login(t, "u1", token)
			if !r.resumed() {
				t.Fatalf("token %d of %d was not resumed", k, len(tokens))
			}
			r.untilFrames(t, ids[k:]...)
			if h := r.history(); len(ids[k:]) > 0 && h[0].at.String() != token {
				t.Errorf("login from %s says %s before anything was delivered", token, h[0].at)
			}
			r.until(t, "a position behind the replay", func() bool { return r.token() != tokenOf(t, token) })
			rs = append(rs, r)
		}
	}
	publish(t, js, "u1", "live")
	for i, r := range rs {
		r.untilFrames(t, append(slices.Clone(ids[i/2:]), "live")...)
	}
}

func tokenOf(t *testing.T, s string) downlink.Token {
	t.Helper()
	part := strings.Split(s, ".")
	var shard int
	var seq uint64
	if _, err := fmt.Sscan(part[1], &shard); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(part[2], &seq); err != nil {
		t.Fatal(err)
	}
	return downlink.NewToken(part[0], shard, seq)
}

// Frames for another connection are skipped by a replay, and move its position.
func TestReplaySkipsTargetedFrames(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	a := e.login(t, "u1", "")
	from := a.token().String()
	publish(t, js, "u1", "refusal", "ce-conn", a.conn)
	publish(t, js, "u1", "1")
	a.untilFrames(t, "refusal", "1")
	e.login(t, "u1", from).untilFrames(t, "1")
}

func TestTokensThatCannotBeResumed(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	publish(t, js, "u1", "old")
	d, err := stream.ParseDown(downName(t, js, "u1"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(epoch string, shard, seq int) string {
		return downlink.NewToken(epoch, shard, uint64(seq)).String()
	}
	for name, token := range map[string]string{
		"no token": "", "rubbish": "rubbish", "control characters": "\x00\n", "long": strings.Repeat("9", 100),
		"another epoch": at("zzzzzzzz", d.Shard, 1), "another shard": at(d.Epoch, 1-d.Shard, 1),
		"behind the end": at(d.Epoch, d.Shard, 1_000_000), "negative": d.Epoch + "." + fmt.Sprint(d.Shard) + ".-1",
	} {
		r := e.login(t, "u1", token)
		if r.resumed() {
			t.Errorf("%s: %q was resumed", name, token)
		}
		if got := r.frames(); len(got) > 0 {
			t.Errorf("%s: got old frames %v", name, got)
		}
	}
	r := e.login(t, "u1", at(d.Epoch, d.Shard, 0))
	if !r.resumed() {
		t.Error("the very first position was not resumed")
	}
	r.untilFrames(t, "old")
}

// limit gives a shard's stream another size.
func limit(t *testing.T, js jetstream.JetStream, name string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	change(&cfg)
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// One frame was evicted after the token: resumed:false. None was: resumed:true, also
// when the message at the token itself is gone.
func TestResumeAtTheEdgeOfWhatIsKept(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	a := e.login(t, "u1", "")
	name := downName(t, js, "u1")
	var tokens []string
	var seqs []uint64
	for i := range 10 {
		seqs = append(seqs, publish(t, js, "u1", fmt.Sprint(i)))
		a.until(t, "a frame", func() bool { return len(a.frames()) == i+1 })
		tokens = append(tokens, a.token().String())
	}
	str, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := str.Purge(t.Context(), jetstream.WithPurgeSequence(seqs[5])); err != nil { // the first that is kept
		t.Fatal(err)
	}
	if r := e.login(t, "u1", tokens[3]); r.resumed() { // its next frame, 4, is gone
		t.Error("resumed over an evicted frame")
	} else if len(r.frames()) > 0 {
		t.Errorf("not resumed, and yet %v", r.frames())
	}
	r := e.login(t, "u1", tokens[4])
	if !r.resumed() {
		t.Error("not resumed though every frame behind the token is kept")
	}
	r.untilFrames(t, "5", "6", "7", "8", "9")
	if n := e.count(t, "attached_total", "evicted"); n != 1 {
		t.Errorf("%v evictions are counted, want 1", n)
	}
}

// A replay is bounded; the next login of the same user is not harmed.
func TestTooMuchToReplay(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	a := e.login(t, "u1", "")
	from := a.token().String()
	e.Detach(a, a.user)
	u := userid.MustParse("u1")
	for i := range downlink.MaxReplay + 1 {
		if i == 1 {
			if r := e.login(t, "u1", from); !r.resumed() {
				t.Error("one frame was not resumed")
			} else {
				e.Detach(r, r.user)
			}
		}
		if _, err := js.PublishAsync(subject.Down(subject.Shard(u, shards), u), fmt.Appendf(nil, `{"id":"%d"}`, i)); err != nil {
			t.Fatal(err)
		}
		if i == downlink.MaxReplay-1 {
			<-js.PublishAsyncComplete()
			r := e.login(t, "u1", from)
			if !r.resumed() {
				t.Fatalf("%d frames were not resumed", i+1)
			}
			r.until(t, "the whole replay", func() bool { return len(r.frames()) == i+1 })
			e.Detach(r, r.user)
		}
	}
	<-js.PublishAsyncComplete()
	if r := e.login(t, "u1", from); r.resumed() || len(r.frames()) > 0 {
		t.Errorf("resumed %v with %d frames", r.resumed(), len(r.frames()))
	}
}

// So are its bytes, which are more than one answer carries.
func TestTooManyBytesToReplay(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	from := e.login(t, "u1", "").token().String()
	const n = 16
	u, pad := userid.MustParse("u1"), strings.Repeat("x", downlink.MaxReplayBytes/n-len(`{"id":"00","x":""}`))
	var want []string
	for i := range n + 1 {
		if i == n {
			r := e.login(t, "u1", from)
			if !r.resumed() {
				t.Errorf("%d bytes were not resumed", downlink.MaxReplayBytes)
			}
			r.untilFrames(t, want...)
		}
		want = append(want, fmt.Sprintf("%02d", i))
		if _, err := js.Publish(t.Context(), subject.Down(subject.Shard(u, shards), u), fmt.Appendf(nil, `{"id":%q,"x":%q}`, want[i], pad)); err != nil {
			t.Fatal(err)
		}
	}
	if r := e.login(t, "u1", from); r.resumed() || len(r.frames()) > 0 {
		t.Errorf("resumed %v with %d frames", r.resumed(), len(r.frames()))
	}
	if n := e.count(t, "attached_total", "too_much"); n != 1 {
		t.Errorf("%v logins are counted as too much, want 1", n)
	}
}

// The position of an idle user stays fresh for ever: idle for more than twice the age
// limit, and then resumed.
func TestIdleForTwiceTheAgeLimit(t *testing.T) {
	s := servers.NATS(t)
	l := layout(1)
	l.DownlinkMaxAge = time.Second
	js := ensure(t, s.Conn(t), l)
	e := newEdge(t, s.URL(), sweepEvery(200*time.Millisecond))
	publish(t, js, "u1", "before")
	a := e.login(t, "u1", "")
	began := time.Now()
	eventually(t, "twice the age limit", func() bool { return time.Since(began) > 2500*time.Millisecond })
	token := a.token().String()
	if h := a.history(); h[0].at.String() == token {
		t.Fatal("the position never moved")
	}
	e.Detach(a, a.user)
	publish(t, js, "u1", "while away")
	r := e.login(t, "u1", token)
	if !r.resumed() {
		t.Fatal("an idle user was not resumed")
	}
	r.untilFrames(t, "while away")
	if first := e.login(t, "u1", a.history()[0].at.String()); first.resumed() {
		t.Error("the token from before the age limit was resumed: the test proves nothing")
	}
	if n := e.count(t, "resyncs_total") + e.count(t, "lost_ranges_total"); n != 0 {
		t.Errorf("%v users were told to sync", n)
	}
}
