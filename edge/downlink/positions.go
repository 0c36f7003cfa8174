package downlink

import (
	"time"
	"unique"
)

const (
	resweep = time.Second // after a sweep that could not be read
	// lateEvery and lateShare, the latter times what the last one took, are at least
	// between two sweeps for late markers, and lateShare before one that could not be read is
	// tried again: where the server is slow, they must not make it slower. Neither puts off
	// the regular sweep.
	lateEvery = 5 * time.Second
	lateShare = 20
)

// touch brings a user into the current incarnation: positions begin at its base, live
// receivers are owed the news. Every access to a user begins with it.
func (h *hub) touch(sh *shard, u *user) {
	if u.X.gen == sh.life.gen {
		return
	}
	u.X.gen = sh.life.gen
	if u.X.pos != 0 {
		u.X.pos = sh.life.base
	}
	for i := range u.Len() {
		if s := u.At(i); !s.Joining {
			s.Last, s.Owed = sh.life.base, true
		}
	}
	b := u.X.busy
	if b == nil {
		return
	}
	// What is held may be of either time: it goes out without a token, and is read again
	// for those who join.
	for i := range b.hold {
		h.pass(u, &b.hold[i])
	}
	h.spoil(b)
	b.waiting, b.lost = forNothing, b.joiners > 0
	h.flush(sh, u)
}

// marked learns from a round's marker which incarnation lives.
func (h *hub) marked(r *round, m mark) {
	sh := h.shards[r.shard]
	sh.marked = time.Now()
	if m.late && sh.life.name != "" && sh.marked.Sub(sh.sweep.late) > max(lateEvery, lateShare*sh.sweep.took) {
		sh.sweep.late = sh.marked
		h.d.m.disturbed[disturbedLate].Inc()
		h.startSweep(sh, sh.marked)
	}
	if m.same {
		sh.life.high = max(sh.life.high, m.seq)
		return
	}
	known := sh.life.name != ""
	sh.life.name = m.name
	sh.life.in = unique.Make(incarnation{epoch: m.down.Epoch, shard: m.down.Shard})
	seen := sh.life.high
	sh.life.base, sh.life.high = m.seq, m.seq
	sh.sweep.due = sh.marked.Add(h.d.cfg.SweepEvery)
	if !known {
		return
	}
	sh.life.gen++
	h.d.m.events[evEpoch].Inc()
	h.d.cfg.Log.Warn("downlink shard began anew, all its clients are told to sync", "stream", m.name, "at", m.seq, "seen", seen)
	sh.owed.start(sh.users.Len())
}

// resync tells up to n owed users of their loss, and looks at so many more that a walk
// over a million users takes a minute.
func (h *hub) resync(sh *shard, n int) {
	for look := 64 * n; n > 0 && look > 0; look-- {
		u := sh.owed.next(&sh.users)
		if u == nil {
			return
		}
		h.touch(sh, u)
		told := false
		for i := range u.Len() {
			if s := u.At(i); s.Owed && !s.Joining {
				s.Owed, told = false, true
				s.Receiver.Resync(sh.token(max(s.Last, u.X.pos)))
			}
		}
		if told {
			h.d.m.events[evResync].Inc()
			n--
		}
	}
}

// lose notes that frames up to the marker may be lost for good. Positions go there, what
// is left of them is handed over without a token.
func (h *hub) lose(sh *shard, u *user, left []entry, to uint64) {
	h.d.m.events[evLost].Inc()
	for i := range u.Len() {
		if s := u.At(i); !s.Joining {
			s.Owed = true
			for k := range left {
				h.deliverTo(s, &left[k])
			}
			s.Last = max(s.Last, to)
		}
	}
	u.X.pos = max(u.X.pos, to)
	sh.owed.start(sh.users.Len())
}

// advance moves a user to a proven position.
func (h *hub) advance(sh *shard, u *user, to uint64) {
	if to <= u.X.pos {
		return
	}
	u.X.pos = to
	for i := range u.Len() {
		if s := u.At(i); !s.Joining && s.Last < to {
			s.Last = to
			if !s.Owed {
				s.Receiver.Moved(sh.token(to))
			}
		}
	}
}

// proven works the results of a round.
func (h *hub) proven(r *round, res *results) {
	sh := h.shards[r.shard]
	for i := range res.outcomes {
		o := &res.outcomes[i]
		switch o.job.kind {
		case join:
			h.joined(sh, o, res.to)
		case repair:
			h.repaired(sh, o, res.to)
		case check:
			h.checked(sh, o)
		}
	}
	if res.swept != nil && r.gen == sh.life.gen {
		for i := range res.swept {
			h.swept(sh, &res.swept[i], res)
		}
	}
	if res.unswept {
		sh.sweep.due = time.Now().Add(min(max(resweep, lateShare*sh.sweep.took), sh.sweep.every))
	}
	if res.age > 0 { // of the oldest frame, when frames are evicted
		h.retain(sh, res.age)
	}
}

// repaired hands over what was missed.
func (h *hub) repaired(sh *shard, o *outcome, to uint64) {
	u := h.answered(sh, &o.job)
	if u == nil {
		return
	}
	if lowest(u) < o.job.from { // somebody joined behind it meanwhile
		h.repair(sh, u)
		return
	}
	if o.why != resumedOK {
		h.lose(sh, u, o.frames, to)
	} else {
		for i := range o.frames {
			h.d.m.events[evRepaired].Inc()
			h.deliver(u, &o.frames[i])
		}
		h.advance(sh, u, to)
	}
	h.flush(sh, u)
}

// checked: nothing was evicted between the position and the held frame, or it was.
func (h *hub) checked(sh *shard, o *outcome) {
	u := h.answered(sh, &o.job)
	if u == nil {
		return
	}
	if o.why != resumedOK {
		h.repair(sh, u) // reads what is left of it, and knows what is not
		return
	}
	for i := range u.X.busy.hold {
		if e := &u.X.busy.hold[i]; e.at.seq == o.job.upto {
			e.checked = true
		}
	}
	h.flush(sh, u)
}

// sweepAll proves all positions as soon as possible.
func (h *hub) sweepAll() {
	now := time.Now()
	for _, sh := range h.shards {
		if sh != nil {
			h.startSweep(sh, now)
		}
	}
}

func (h *hub) startSweep(sh *shard, now time.Time) {
	if sh.sweep.every == 0 {
		sh.sweep.every = h.d.cfg.SweepEvery
	}
	sh.sweep.due = now.Add(sh.sweep.every)
	if sh.life.name == "" || sh.users.Len() == 0 {
		return
	}
	h.d.m.events[evSweep].Inc()
	if !sh.sweep.under() {
		sh.sweep.began = now
	}
	sh.sweep.start(sh.users.Len())
}

// sweepInto adds up to n users to a round.
func (h *hub) sweepInto(sh *shard, r *round, n int) {
	r.ages = r.ages || sh.sweep.at == sh.users.Len() || sh.sweep.at == 0
	for len(r.swept) < n {
		u := sh.sweep.next(&sh.users)
		if u == nil {
			return
		}
		h.touch(sh, u)
		if b := u.X.busy; b != nil && (b.joiners > 0 || b.waiting != forNothing) {
			h.spoil(b) // it is read once more when that is done
			continue
		}
		if u.X.pos != 0 {
			r.swept = append(r.swept, sweptUser{user: u.ID, pos: u.X.pos})
		}
	}
}

// swept works one user of a sweep.
func (h *hub) swept(sh *shard, w *sweptUser, res *results) {
	u := sh.users.Get(w.user)
	if u == nil || u.X.gen != sh.life.gen || u.X.pos == 0 {
		return
	}
	if b := u.X.busy; b != nil && b.waiting != forNothing {
		h.spoil(b)
		return
	}
	switch {
	case w.last > res.to && u.X.passed != uint32(u.X.pos):
		// It is on its way, and tells of the one before it. Whoever gets frames all the time
		// may be passed over again and again; but if none has come by the next sweep, it is
		// read, so a loss is found two sweeps later at the latest.
		u.X.passed = uint32(u.X.pos)
	case w.last > u.X.pos: // a live frame was lost: what is stored before the marker has come before its answer
		h.d.m.events[evSweptBehind].Inc()
		h.repair(sh, u)
	case w.last == 0 && res.first > u.X.pos+1:
		h.lose(sh, u, nil, res.to)
	default:
		h.advance(sh, u, res.to)
	}
}

// retain adapts the sweep to how long the stream keeps frames: a position must be proven
// again before what lies behind it is evicted.
func (h *hub) retain(sh *shard, age time.Duration) {
	sh.sweep.every = max(min(h.d.cfg.SweepEvery, age/3), min(h.d.cfg.SweepEvery, time.Second))
	if due := time.Now().Add(sh.sweep.every); due.Before(sh.sweep.due) {
		sh.sweep.due = due
	}
}
