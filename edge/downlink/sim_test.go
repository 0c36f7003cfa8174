package downlink

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/wirepost/wirepost/edge/feed"
	"github.com/wirepost/wirepost/edge/users"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/userid"
)

// The simulation runs a hub against a model of one shard's stream, in one goroutine and
// by the seed alone: frames are stored, vanish on the way or not, receivers come with any
// token and go, rounds take their time, messages are evicted, the stream begins anew or
// comes back from an older disk. Each receiver checks every call as it comes.

type simFrame struct {
	user      userid.ID
	seq, prev uint64
}

type sim struct {
	t   *testing.T
	rnd *rand.Rand
	h   *hub
	sh  *shard

	epoch  int
	frames []simFrame // of this epoch, without markers
	seq    uint64
	first  uint64 // lower ones are evicted
	last   map[userid.ID]uint64
	wire   []*feed.Frame
	lossy  bool

	users   []userid.ID
	here    []*simReceiver
	tokens  map[userid.ID][]Token
	now     time.Time
	conns   int
	flying  *round
	settled []func() // the flying round's results, in order
}

func newSim(t *testing.T, seed uint64) *sim {
	d := &Downlink{cfg: Config{Shards: 1, Hubs: 1, SweepEvery: time.Hour, Log: slog.New(slog.DiscardHandler)}, m: newMetrics(nil)}
	s := &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), h: newHub(d, 0), last: map[userid.ID]uint64{}, tokens: map[userid.ID][]Token{}, first: 1, lossy: true}
	s.sh = s.h.shards[0]
	if seed%3 == 0 {
		s.h.holdMost = 2 // holds overflow all the time
	}
	for i := range 1 + seed%4 {
		s.users = append(s.users, userid.MustParse("u"+strconv.Itoa(int(i))))
	}
	return s
}

func (s *sim) name() stream.DownName {
	return stream.DownName{Shards: 1, Epoch: "e" + strconv.Itoa(s.epoch), Shard: 0}
}

func (s *sim) publish() {
	u := s.users[s.rnd.IntN(len(s.users))]
	s.seq++
	prev := s.last[u]
	if prev < s.first {
		prev = 0
	}
	s.frames = append(s.frames, simFrame{user: u, seq: s.seq, prev: prev})
	s.last[u] = s.seq
	if s.lossy && s.rnd.IntN(6) == 0 {
		return // it vanishes on the way
	}
	s.wire = append(s.wire, republished(u, s.name().String(), s.seq, prev, fmt.Appendf(nil, `{"id":"%d/%d"}`, s.epoch, s.seq)))
}

func (s *sim) receive() {
	if len(s.wire) == 0 {
		return
	}
	f := s.wire[0]
	s.wire = s.wire[1:]
	s.h.frame(f)
	for i := range f.Data { // the feed uses its buffer again
		f.Data[i] = '#'
	}
}

func (s *sim) attach() {
	u := s.users[s.rnd.IntN(len(s.users))]
	s.conns++
	r := &simReceiver{s: s, user: u, conn: strconv.Itoa(s.conns), got: map[string]bool{}}
	if old := s.tokens[u]; len(old) > 0 && s.rnd.IntN(4) > 0 {
		r.token = old[len(old)-1-s.rnd.IntN(min(len(old), 5))]
	}
	s.here = append(s.here, r)
	s.h.attach(&letter{receiver: r, user: u, conn: users.ConnHash(r.conn), resume: r.token.String()})
}

func (s *sim) detach() {
	if len(s.here) == 0 {
		return
	}
	i := s.rnd.IntN(len(s.here))
	r := s.here[i]
	s.here = append(s.here[:i], s.here[i+1:]...)
	s.h.detach(&letter{receiver: r, user: r.user})
	r.gone = true
	if !r.at.IsZero() {
		s.tokens[r.user] = append(s.tokens[r.user], r.at)
	}
}

// anew begins another incarnation, or goes back to what the disk knew some time ago.
func (s *sim) anew() {
	if s.rnd.IntN(2) == 0 && len(s.frames) > 8 {
		keep := s.frames[:len(s.frames)-s.rnd.IntN(6)-1]
		s.frames = append([]simFrame(nil), keep...)
		s.seq = s.frames[len(s.frames)-1].seq
		for u := range s.tokens { // nobody can tell a position of the lost time from a later one
			s.tokens[u] = nil
		}
		s.wire = nil // the server went down
		for _, r := range s.here {
			r.old = true
		}
	} else {
		s.epoch++
		s.frames, s.seq = nil, 0
	}
	s.first = min(s.first, s.seq+1)
	if len(s.frames) == 0 {
		s.first = 1
	}
	clear(s.last)
	for _, f := range s.frames {
		s.last[f.user] = f.seq
	}
}

func (s *sim) evict() {
	s.first = min(s.first+uint64(s.rnd.IntN(8)), s.seq+1)
	if s.rnd.IntN(2) == 0 { // nearly all of it
		s.first = max(s.first, s.seq-min(s.seq, uint64(s.rnd.IntN(5)))+1)
	}
}

// begin is what kick does, and the round's marker.
func (s *sim) begin() {
	sh := s.sh
	if s.flying != nil || len(sh.pending) == 0 && !sh.probe && !sh.sweeping() {
		return
	}
	r := &round{gen: sh.life.gen, name: sh.life.name, high: sh.life.high, jobs: sh.take(), mark: sh.probe}
	if len(r.jobs) == 0 && !sh.probe && !sh.sweeping() {
		return
	}
	sh.probe = false
	for _, j := range r.jobs {
		r.mark = r.mark || j.kind != check
	}
	if sh.sweeping() {
		s.h.sweepInto(sh, r, roundUsers)
		r.mark = true
	}
	s.flying = r
	if !r.mark {
		s.settled = []func(){func() { s.answer(r, r.jobs, nil, 0) }}
		return
	}
	s.seq++
	m := mark{name: s.name().String(), down: s.name(), seq: s.seq}
	m.same = m.name == r.name && m.seq > r.high
	todo, now := m.sort(r.jobs)
	swept := r.swept
	if !m.same {
		swept = nil
	}
	epoch := s.epoch
	s.settled = []func(){
		func() { s.h.marked(r, m) },
		func() { s.h.proven(r, &results{to: m.seq, outcomes: now}) },
		func() {
			if epoch != s.epoch || s.seq < m.seq { // errMoved, and no other try
				s.answerUnread(r, todo, 0)
				return
			}
			s.answer(r, todo, swept, m.seq)
		},
	}
}

// finish lets the next part of the flying round's results arrive.
func (s *sim) finish() {
	if s.flying == nil {
		return
	}
	s.settled[0]()
	if s.settled = s.settled[1:]; len(s.settled) == 0 {
		s.flying = nil
	}
}

func (s *sim) answerUnread(r *round, jobs []job, to uint64) {
	res := &results{to: to}
	for _, j := range jobs {
		res.outcomes = append(res.outcomes, outcome{job: j, why: resumedUnread})
	}
	s.h.proven(r, res)
}

// answer reads the model as the prober reads the stream.
func (s *sim) answer(r *round, jobs []job, swept []sweptUser, to uint64) {
	res := &results{to: to}
	if to == 0 {
		to = s.seq
	}
	from := to
	for _, j := range jobs {
		from = min(from, j.from)
	}
	for _, w := range swept {
		from = min(from, w.pos)
	}
	res.first = max(s.first, from+1)
	last := func(u userid.ID) (seq uint64) { // of all that is stored now, also behind the marker
		for _, f := range s.frames {
			if f.user == u && f.seq > from && f.seq >= s.first {
				seq = f.seq
			}
		}
		return seq
	}
	for _, j := range jobs {
		o := outcome{job: j, why: resumedOK, last: last(j.user)}
		for _, f := range s.frames {
			if j.kind != check && f.user == j.user && f.seq > j.from && f.seq >= s.first && f.seq <= to {
				o.frames = append(o.frames, entry{raw: fmt.Appendf(nil, `{"id":"%d/%d"}`, s.epoch, f.seq), at: NewToken(s.name().Epoch, 0, f.seq)})
			}
		}
		o.settle(res.first, nil)
		res.outcomes = append(res.outcomes, o)
	}
	for i := range swept {
		swept[i].last = last(swept[i].user)
	}
	res.swept = swept
	s.h.proven(r, res)
}

// simReceiver checks what it is told.
type simReceiver struct {
	s        *sim
	user     userid.ID
	conn     string
	token    Token // that it came with
	at       Token // the last it was given
	base     Token // everything of the user behind it must have been delivered before a token passes it
	got      map[string]bool
	attached bool
	gone     bool
	old      bool // the stream went back under it, and it has not been told
}

func (r *simReceiver) fail(format string, v ...any) {
	r.s.t.Helper()
	r.s.t.Fatalf("receiver %s of %s: %s", r.conn, r.user, fmt.Sprintf(format, v...))
}

func (r *simReceiver) move(at Token) {
	r.s.t.Helper()
	if r.gone || !r.attached {
		r.fail("a call before it was attached, or after it left")
	}
	if at.in == r.at.in && at.seq < r.at.seq && !r.old {
		r.fail("position went back from %s to %s", r.at, at)
	}
	if at.in != r.base.in {
		r.fail("a token of another incarnation (%s) without a resync from %s", at, r.base)
	}
	r.at = at
	if r.old || at.in.Value().epoch != r.s.name().Epoch {
		return // of a time that is over: nothing can be said
	}
	for _, f := range r.s.frames {
		if f.user == r.user && f.seq > r.base.seq && f.seq <= at.seq && !r.got[fmt.Sprintf("%d/%d", r.s.epoch, f.seq)] {
			r.fail("token %s passed frame %d, which was not delivered since %s", at, f.seq, r.base)
		}
	}
}

func (r *simReceiver) Attached(resumed bool, at Token) {
	if r.attached || r.gone {
		r.fail("attached twice, or after it left")
	}
	r.attached, r.base = true, at
	if resumed {
		if r.token.IsZero() || r.token.in != at.in || at.seq < r.token.seq {
			r.fail("resumed at %s from %s", at, r.token)
		}
		r.base = r.token
	}
	r.move(at)
}

func (r *simReceiver) AttachFailed(err error) {
	r.gone = true
	for i, other := range r.s.here {
		if other == r {
			r.s.here = append(r.s.here[:i], r.s.here[i+1:]...)
		}
	}
}

func (r *simReceiver) Deliver(f Frame) {
	id := string(f.Data)
	if f.At.IsZero() {
		r.got[id[7:len(id)-2]] = true
		return
	}
	id = id[len(`{"resume":"",`)+len(f.At.String())+len(`"id":"`) : len(id)-2]
	if f.At == r.at && !r.old || r.got[id] && !r.old && f.At.in == r.at.in && f.At.seq <= r.at.seq {
		r.fail("frame %s came twice", id)
	}
	r.got[id] = true
	r.move(f.At)
}

func (r *simReceiver) Moved(at Token) { r.move(at) }

func (r *simReceiver) Resync(at Token) {
	r.base, r.old = at, false
	r.at = at
	r.move(at)
}

func (s *sim) step() {
	switch n := s.rnd.IntN(100); {
	case n < 25:
		s.publish()
	case n < 55:
		s.receive()
	case n < 62:
		s.attach()
	case n < 66:
		s.detach()
	case n < 76:
		s.begin()
	case n < 92:
		s.finish()
	case n < 94:
		s.h.startSweep(s.sh, s.now)
	case n < 95:
		s.evict()
	case n < 98:
		s.h.resync(s.sh, 1+s.rnd.IntN(3))
	case s.rnd.IntN(20) == 0:
		s.anew()
	}
}

// settle ends the disturbances; everybody must have everything then.
func (s *sim) settle() {
	s.lossy = false
	s.sh.probe = true
	for range 8 {
		for range 50 {
			s.receive()
			s.begin()
			s.finish()
		}
		for len(s.wire) > 0 {
			s.receive()
		}
		s.h.startSweep(s.sh, s.now)
		s.h.resync(s.sh, 100)
	}
	for _, r := range s.here {
		if !r.attached {
			r.fail("never attached")
		}
		if last := s.last[r.user]; r.at.in.Value().epoch != s.name().Epoch || r.at.seq < last {
			r.fail("at %s when the user's last frame is %d of epoch %d", r.at, last, s.epoch)
		}
	}
	if s.h.held != 0 {
		s.t.Fatalf("%d bytes are held at rest", s.h.held)
	}
}

var seeds = flag.Int("seeds", 500, "runs of the simulation")

func TestSimulation(t *testing.T) {
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSim(t, seed)
			for range 600 {
				s.step()
			}
			s.settle()
		})
		if t.Failed() {
			return
		}
	}
}
