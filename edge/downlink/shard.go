package downlink

import (
	"sync/atomic"
	"time"
	"unique"

	"github.com/wirepost/wirepost/edge/users"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/userid"
)

const (
	// idleMark is the time after which a shard is marked for its own sake: for the edge's
	// lease (stream.LeaseInterval), for readiness, and to notice a new incarnation.
	idleMark = stream.LeaseInterval * 7 / 10

	roundUsers = 1023 // multi_last takes 1,024 subjects, one is the marker's
)

type (
	table = users.Table[Receiver, perUser]
	user  = users.User[Receiver, perUser]
	slot  = users.Slot[Receiver]
)

// perUser is what a hub keeps of a user.
type perUser struct {
	pos    uint64 // all frames up to it were handed to all receivers that do not join; 0: none yet
	busy   *busy  // nil mostly
	gen    uint32 // of the shard when pos was set
	passed uint32 // the lower half of pos when a sweep last passed the user over
}

// shard is one shard of a hub. Owned by the hub's run, but health.
type shard struct {
	n     int
	users table

	life life

	pending []job  // for the next round
	flying  *round // nil when none is under way
	probe   bool   // a round is wanted for its marker alone
	marked  time.Time

	sweep  sweep
	owed   walk // to users who are to be told of a loss
	health health
	prober *prober
}

// life is the stream's incarnation, as the last marker told it.
type life struct {
	name string // of the stream, "" before the first marker
	in   unique.Handle[incarnation]
	gen  uint32 // counts incarnations, and times a stream went back
	base uint64 // where the positions of gen begin
	high uint64 // highest sequence seen in gen
}

// walk goes down a shard's table, see users.Table.
type walk struct {
	at    int // next position + 1; 0: not under way
	again bool
}

func (w *walk) under() bool { return w.at > 0 || w.again }

func (w *walk) start(n int) {
	if w.at > 0 {
		w.again = true
		return
	}
	w.at, w.again = n, false
}

// next returns the next user, or nil at the end.
func (w *walk) next(t *table) *user {
	if w.at == 0 && w.again {
		w.start(t.Len())
	}
	if w.at = min(w.at, t.Len()); w.at == 0 {
		return nil
	}
	w.at--
	return t.At(w.at)
}

// sweep proves the positions of all users.
type sweep struct {
	walk
	due   time.Time
	every time.Duration
	began time.Time     // zero: none is under way
	took  time.Duration // the last one
	late  time.Time     // when a late marker began one
}

// rest notes that a sweep is over, if it is.
func (s *sweep) rest(now time.Time) {
	if !s.under() && !s.began.IsZero() {
		s.took, s.began = now.Sub(s.began), time.Time{}
	}
}

func newShard(h *hub, n int) *shard {
	sh := &shard{n: n, probe: true}
	sh.prober = &prober{h: h, shard: n, health: &sh.health}
	return sh
}

// token is the position seq of the current incarnation.
func (sh *shard) token(seq uint64) Token { return Token{in: sh.life.in, seq: seq} }

// jobKind is what a round does for a user.
type jobKind uint8

const (
	join   jobKind = iota // a receiver's first position, and what it missed since its token
	repair                // read what lies behind the position
	check                 // was anything evicted behind the position?
)

// job is one user's part in a round.
type job struct {
	kind jobKind
	user userid.ID
	from uint64 // the position
	upto uint64 // of check: what a replica must know to answer
	id   uint64 // of repair and check, see hub.ask

	// Of join.
	receiver Receiver
	conn     uint64
	resume   string
	since    time.Time
}

// round is one pass of a shard's prober.
type round struct {
	shard int
	gen   uint32
	jobs  []job
	ages  bool // ask for the age of the stream's first message
	mark  bool // a marker is wanted; false when all jobs are checks

	// Owned by the prober while the round is flying.
	name  string // of the stream
	high  uint64 // the highest sequence that was seen of it
	swept []sweptUser
}

type sweptUser struct {
	user userid.ID
	pos  uint64 // when the round began
	last uint64 // the user's last frame, maybe behind the marker; 0 when none behind the round's start
}

// kick starts a round if there is anything to do and none is under way.
func (h *hub) kick(sh *shard) {
	if sh.flying != nil || len(sh.pending) == 0 && !sh.probe && !sh.sweeping() {
		return
	}
	r := &round{shard: sh.n, name: sh.life.name, gen: sh.life.gen, high: sh.life.high, mark: sh.probe, ages: sh.probe, jobs: sh.take()}
	if len(r.jobs) == 0 && !sh.probe && !sh.sweeping() {
		return
	}
	for i := range r.jobs {
		r.mark = r.mark || r.jobs[i].kind != check
	}
	if sh.sweeping() && sh.life.name != "" {
		h.sweepInto(sh, r, roundUsers-len(r.jobs))
		r.mark = true
	}
	sh.probe = false
	sh.flying = r
	h.probers.Go(func() { sh.prober.run(h.life, r) })
}

// take returns the jobs of the next round. Nothing is read for receivers that have left:
// a client that connects in a loop would have all it missed read each time.
func (sh *shard) take() (jobs []job) {
	n := 0
	if len(sh.pending) > 0 {
		jobs = make([]job, 0, min(len(sh.pending), roundUsers))
	}
	for ; n < len(sh.pending) && len(jobs) < roundUsers; n++ {
		j := &sh.pending[n]
		if j.kind == join {
			if _, s := sh.joiner(j); s == nil {
				continue
			}
		}
		jobs = append(jobs, *j)
	}
	rest := copy(sh.pending, sh.pending[n:])
	clear(sh.pending[rest:])
	if sh.pending = sh.pending[:rest]; rest == 0 && cap(sh.pending) > 4*roundUsers { // of a storm
		sh.pending = nil
	}
	return jobs
}

func (sh *shard) sweeping() bool { return sh.life.name != "" && sh.sweep.under() }

// health says whether a shard's markers are answered; it may be read by anyone.
type health struct {
	known   atomic.Bool  // the stream is there and fits
	failing atomic.Int64 // since when markers fail, Unix nanoseconds; 0: they do not
}

const grace = 3 * time.Second // a leader election or a reconnect is no reason to be taken out of service at once

func (s *health) good() bool {
	f := s.failing.Load()
	return s.known.Load() && (f == 0 || time.Since(time.Unix(0, f)) < grace)
}
