package downlink

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/wirepost/wirepost/edge/feed"
	"github.com/wirepost/wirepost/edge/users"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// record is a receiver that keeps what it was told.
type record struct {
	attached, moved, resyncs int
	failed                   error
	frames                   []Frame
}

func (r *record) Attached(bool, Token)   { r.attached++ }
func (r *record) AttachFailed(err error) { r.failed = err }
func (r *record) Deliver(f Frame)        { r.frames = append(r.frames, f) }
func (r *record) Moved(Token)            { r.moved++ }
func (r *record) Resync(Token)           { r.resyncs++ }

// testHub is a hub of one shard without NATS.
func testHub() (*hub, *shard) {
	d := &Downlink{cfg: Config{Shards: 1, Hubs: 1, SweepEvery: time.Hour, ResyncPerSecond: 40, Log: slog.New(slog.DiscardHandler)}, m: newMetrics(nil)}
	h := newHub(d, 0)
	sh := h.shards[0]
	sh.life = life{name: stream.DownName{Shards: 1, Epoch: "k3x9", Shard: 0}.String(), in: NewToken("k3x9", 0, 1).in, high: 1}
	return h, sh
}

// live adds a user with one receiver at position 1.
func live(sh *shard, name string) *record {
	r := &record{}
	u := sh.users.Add(userid.MustParse(name))
	u.X.pos = 1
	u.Join(slot{Receiver: r, Conn: users.ConnHash(name), Last: 1})
	return r
}

func liveFrame(sh *shard, name string, seq, prev int) *feed.Frame {
	return republished(userid.MustParse(name), sh.life.name, uint64(seq), uint64(prev), []byte(`{"a":1}`))
}

// republished is a stored frame as nats-server republishes it.
func republished(u userid.ID, stream string, seq, prev uint64, data []byte) *feed.Frame {
	return &feed.Frame{Subject: []byte(subject.Live(0, u)), Data: data, Header: fmt.Appendf(nil,
		"NATS/1.0\r\n%s: %s\r\n%s: %s\r\n%s: %d\r\n%s: %s\r\n%s: %d\r\n\r\n",
		hStream, stream, hSubject, subject.Down(0, u), hSequence, seq, hTime, "2026-11-26T00:00:00.123456789Z", hLast, prev)}
}

// A receiver that no marker is answered for is failed after Patience, whether its job
// waits or flies, and nothing of it stays.
func TestJoinExpires(t *testing.T) {
	h, sh := testHub()
	waits, flies, lives := &record{}, &record{}, live(sh, "u")
	for _, r := range []*record{waits, flies} {
		h.attach(&letter{receiver: r, user: userid.MustParse("u"), conn: users.ConnHash("c")})
	}
	sh.flying = &round{jobs: []job{sh.pending[1]}}
	sh.pending = sh.pending[:1]
	now := time.Now()
	h.expire(sh, now.Add(Patience/2))
	if waits.failed != nil || flies.failed != nil {
		t.Fatal("failed too early")
	}
	h.expire(sh, now.Add(Patience+time.Second))
	for _, r := range []*record{waits, flies} {
		if !errors.Is(r.failed, ErrNotReady) || r.attached != 0 {
			t.Errorf("AttachFailed(%v), %d times attached", r.failed, r.attached)
		}
	}
	u := sh.users.Get(userid.MustParse("u"))
	if u.Len() != 1 || len(sh.pending) != 0 || u.X.busy != nil || lives.failed != nil {
		t.Errorf("%d receivers, %d jobs, %v are left", u.Len(), len(sh.pending), u.X.busy)
	}
}

// While receivers wait in vain for a round the edge says so, and no longer than that.
func TestLate(t *testing.T) {
	h, sh := testHub()
	h.d.hubs = []*hub{h}
	h.life = t.Context()
	sh.flying = &round{} // is not answered
	began := time.Now()
	h.attach(&letter{receiver: &record{}, user: userid.MustParse("u"), conn: users.ConnHash("c")})
	for _, c := range []struct {
		after time.Duration
		late  bool
	}{{0, false}, {lateJoin - 100*time.Millisecond, false}, {lateJoin + 100*time.Millisecond, true}, {Patience + time.Second, false}} {
		if h.tick(began.Add(c.after)); h.d.Late() != c.late {
			t.Errorf("late after %v: %v", c.after, h.d.Late())
		}
	}
	sh.pending = append(sh.pending, job{kind: repair}) // nobody's login
	if h.tick(began.Add(time.Hour)); h.d.Late() {
		t.Error("late although nobody waits")
	}
	other := newShard(h, 1)
	other.life, other.flying = sh.life, &round{}
	h.shards = append(h.shards, other)
	overdue := job{kind: join, user: userid.MustParse("v"), since: began}
	sh.pending = append(sh.pending, overdue)
	if h.tick(began.Add(lateJoin + time.Second)); h.d.Late() {
		t.Error("late although one shard is in time")
	}
	other.pending = append(other.pending, overdue)
	if h.tick(began.Add(lateJoin + time.Second)); !h.d.Late() {
		t.Error("not late although no shard is in time")
	}
}

// A late marker begins a sweep, but none soon after one that took long.
func TestLateSweepsArePaced(t *testing.T) {
	h, sh := testHub()
	live(sh, "u")
	late := func() bool {
		t.Helper()
		h.marked(&round{}, mark{name: sh.life.name, seq: sh.life.high + 1, same: true, late: true})
		began := sh.sweep.under()
		if began != !sh.sweep.began.IsZero() {
			t.Errorf("a sweep is under way: %v, began %v", began, sh.sweep.began)
		}
		return began
	}
	over := func(took time.Duration) {
		t.Helper()
		for sh.sweep.next(&sh.users) != nil {
		}
		sh.sweep.began = time.Now().Add(-took)
		h.open(&letter{kind: ended, round: &round{}})
		if d := sh.sweep.took - took; d < 0 || d > time.Minute {
			t.Fatalf("the sweep took %v, want %v", sh.sweep.took, took)
		}
	}
	if !late() {
		t.Fatal("no sweep for a late marker")
	}
	over(time.Hour)
	for _, c := range []struct {
		ago   time.Duration // the last one for a late marker
		sweep bool
	}{{lateEvery + time.Second, false}, {(lateShare - 1) * time.Hour, false}, {(lateShare + 1) * time.Hour, true}} {
		sh.sweep.late = time.Now().Add(-c.ago)
		if late() != c.sweep {
			t.Errorf("a sweep %v after one that took an hour: %v", c.ago, !c.sweep)
		}
	}
	over(0)
	if late() {
		t.Error("a sweep right after another one")
	}
	if sh.sweep.late = time.Now().Add(-lateEvery - time.Second); !late() {
		t.Error("no sweep although the last one was short, and long ago")
	}
}

// A sweep that could not be read is tried again later where sweeps take long, but no later
// than the regular one: positions must be proven before what lies behind them is evicted.
func TestUnreadSweepIsTriedAgain(t *testing.T) {
	for _, c := range []struct{ took, every, want time.Duration }{
		{time.Millisecond, time.Minute, resweep},
		{time.Second, time.Minute, lateShare * time.Second},
		{time.Minute, time.Minute, time.Minute},
		{time.Minute, resweep / 2, resweep / 2},
	} {
		h, sh := testHub()
		sh.sweep.took, sh.sweep.every = c.took, c.every
		began := time.Now()
		h.proven(&round{}, &results{unswept: true})
		if d := sh.sweep.due.Sub(began) - c.want; d < 0 || d > time.Minute/2 {
			t.Errorf("after one of %v, every %v: due in %v, want %v", c.took, c.every, sh.sweep.due.Sub(began), c.want)
		}
	}
}

// A new incarnation is told at a bounded rate; whoever gets a frame before is not given
// a token with it.
func TestResyncIsPaced(t *testing.T) {
	h, sh := testHub()
	var all []*record
	for i := range 100 {
		all = append(all, live(sh, "u"+strconv.Itoa(i)))
	}
	h.marked(&round{}, mark{name: stream.DownName{Shards: 1, Epoch: "new", Shard: 0}.String(), down: stream.DownName{Shards: 1, Epoch: "new"}, seq: 7})
	told := func() (n int) {
		for _, r := range all {
			n += r.resyncs
		}
		return n
	}
	for want := 10; want <= 100; want += 10 {
		h.resync(sh, 10)
		if n := told(); n != want {
			t.Fatalf("%d were told, want %d", n, want)
		}
		if want == 50 { // u0 is told last: the walk goes down
			h.frame(liveFrame(sh, "u0", 8, 7))
		}
	}
	h.resync(sh, 10)
	if n := told(); n != 100 || all[0].resyncs != 1 {
		t.Errorf("%d were told, u0 %d times", n, all[0].resyncs)
	}
	if f := all[0].frames; len(f) != 1 || !f[0].At.IsZero() || string(f[0].Data) != `{"a":1}` {
		t.Errorf("u0 got %v before it was told", f)
	}
	h.frame(liveFrame(sh, "u0", 9, 8))
	if f := all[0].frames; len(f) != 2 || f[1].At != NewToken("new", 0, 9) {
		t.Errorf("u0 got %v after it was told", f)
	}
}

// Frames are encoded once for all receivers of a user.
func TestFrameIsShared(t *testing.T) {
	h, sh := testHub()
	a := live(sh, "u")
	b := &record{}
	sh.users.Get(userid.MustParse("u")).Join(slot{Receiver: b, Conn: 1, Last: 1})
	h.frame(liveFrame(sh, "u", 2, 1))
	if len(a.frames) != 1 || len(b.frames) != 1 || &a.frames[0].Data[0] != &b.frames[0].Data[0] {
		t.Errorf("got %v and %v", a.frames, b.frames)
	}
	if d := a.frames[0].Data; cap(d) > len(d)+16 { // the size class above it
		t.Errorf("a frame of %d bytes holds %d", len(d), cap(d))
	}
	n := testing.AllocsPerRun(100, func() { withResume([]byte(`{"a":1}`), a.frames[0].At) })
	if n > 1 {
		t.Errorf("inserting the resume member allocates %v times", n)
	}
}

// Who has a frame behind each sweep's marker is passed over while frames come, and read when
// none does.
func TestSweepsOfABusyUser(t *testing.T) {
	h, sh := testHub()
	live(sh, "u")
	u := sh.users.Get(userid.MustParse("u"))
	sweep := func(to uint64) (read bool) {
		h.swept(sh, &sweptUser{user: u.ID, pos: u.X.pos, last: to + 2}, &results{to: to})
		return u.X.busy != nil && u.X.busy.waiting == forRepair
	}
	if sweep(10) {
		t.Error("read although its frame is on its way")
	}
	h.frame(liveFrame(sh, "u", 12, 1))
	if sweep(20) {
		t.Error("read although its frames come")
	}
	if !sweep(30) {
		t.Error("not read although nothing came for a whole sweep")
	}
}

// Nothing is read for receivers that left before their round began; the others are.
func TestNothingIsReadForWhoLeft(t *testing.T) {
	h, sh := testHub()
	live(sh, "u")
	sh.flying = &round{} // the next one waits
	gone, stays := &record{}, &record{}
	u := userid.MustParse("u")
	for range 10 {
		h.attach(&letter{receiver: gone, user: u, conn: users.ConnHash("gone"), resume: "k3x9.0.1"})
		h.detach(&letter{receiver: gone, user: u})
	}
	h.attach(&letter{receiver: stays, user: u, conn: users.ConnHash("stays")})
	h.repair(sh, sh.users.Get(u))
	jobs := sh.take()
	if len(jobs) != 2 || jobs[0].receiver != Receiver(stays) || jobs[1].kind != repair || len(sh.pending) != 0 {
		t.Errorf("the round has %+v, %d wait", jobs, len(sh.pending))
	}
	h.attach(&letter{receiver: gone, user: u, conn: users.ConnHash("gone")})
	h.detach(&letter{receiver: gone, user: u})
	sh.flying, sh.probe = nil, false
	if h.kick(sh); sh.flying != nil || len(sh.pending) != 0 {
		t.Error("a round began for nobody")
	}
}

// Where no marker holds, there is no first position: the receiver is told to come again.
func TestJoinWithoutAPosition(t *testing.T) {
	h, sh := testHub()
	r := &record{}
	id := userid.MustParse("u")
	sh.users.Add(id).X = perUser{}
	h.attach(&letter{receiver: r, user: id, conn: users.ConnHash("c")})
	p := &prober{h: h}
	p.fail(&round{}, sh.take(), resumedUnread, 0)
	letters := h.box.take()
	h.open(&letters[0])
	if !errors.Is(r.failed, ErrNotReady) || r.attached != 0 || sh.users.Get(id) != nil {
		t.Errorf("AttachFailed(%v), %d times attached", r.failed, r.attached)
	}
}

// A replay and what was held meanwhile come in one burst, which a socket must take at its
// default of Limits.Pending even when its network takes nothing.
func TestBurstFitsTheSocket(t *testing.T) {
	const pending, header = 1 << 20, 10
	most := MaxReplayBytes + holdBytes + (MaxReplay+holdFrames)*(len(resumeMember)+maxToken+len(`",`)+header)
	if most > pending {
		t.Errorf("a burst may have %d bytes, a socket takes %d", most, pending)
	}
}

// A frame tells when this edge received what it echoes, also after a wait for its position;
// what another edge received, and what does not come live, tells nothing.
func TestEchoes(t *testing.T) {
	h, sh := testHub()
	h.d.cfg.Edge = "e1"
	r := live(sh, "u")
	echo := func(seq, prev int, value string) *feed.Frame {
		f := liveFrame(sh, "u", seq, prev)
		f.Header = append(f.Header[:len(f.Header)-2:len(f.Header)-2], envelope.Echo+": "+value+"\r\n\r\n"...)
		return f
	}
	at := time.UnixMilli(1764000000123)
	h.frame(echo(2, 1, envelope.EchoOf("e1", at)))
	h.frame(echo(3, 2, envelope.EchoOf("e2", at)))
	h.frame(echo(4, 3, "nonsense"))
	h.frame(liveFrame(sh, "u", 5, 4))
	h.frame(echo(7, 6, envelope.EchoOf("e1", at))) // waits for what 6 was
	if got := len(r.frames); got != 4 {
		t.Fatalf("%d frames before the repair", got)
	}
	u := sh.users.Get(userid.MustParse("u"))
	h.answered(sh, &job{user: u.ID, id: u.X.busy.asked})
	u.X.pos = 6
	h.flush(sh, u)
	var got []int64
	for _, f := range r.frames {
		got = append(got, f.Echoes)
	}
	if want := []int64{at.UnixMilli(), 0, 0, 0, at.UnixMilli()}; !slices.Equal(got, want) {
		t.Errorf("frames tell %v, want %v", got, want)
	}
}
