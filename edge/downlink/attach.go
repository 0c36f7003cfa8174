package downlink

import (
	"slices"
	"time"

	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// lateJoin is far more than a round takes, and far less than Patience.
const lateJoin = 2 * time.Second

// attach subscribes for a user's first receiver, then asks for a marker: whatever is
// stored behind it reaches this subscription, whatever is stored before is read.
func (h *hub) attach(l *letter) {
	sh := h.shards[subject.Shard(l.user, h.d.cfg.Shards)]
	u := sh.users.Get(l.user)
	if u == nil {
		u = sh.users.Add(l.user)
		u.X.gen = sh.life.gen
		h.feed.Subscribe(sh.n, u.ID)
	}
	h.touch(sh, u)
	if !u.Join(slot{Receiver: l.receiver, Conn: l.conn, Joining: true}) {
		h.d.m.attachFailed[failedTooMany].Inc()
		l.receiver.AttachFailed(ErrTooManyConnections)
		return
	}
	u.X.wait().joiners++
	sh.pending = append(sh.pending, job{kind: join, user: u.ID, receiver: l.receiver, conn: l.conn, resume: l.resume, since: time.Now()})
}

// everybody is the users of this hub, by shard.
func (h *hub) everybody(yield func(shard int, user userid.ID) bool) {
	for _, sh := range h.shards {
		if sh == nil {
			continue
		}
		for i := range sh.users.Len() {
			if !yield(sh.n, sh.users.At(i).ID) {
				return
			}
		}
	}
}

func (h *hub) detach(l *letter) {
	sh := h.shards[subject.Shard(l.user, h.d.cfg.Shards)]
	if u := sh.users.Get(l.user); u != nil {
		h.leave(sh, u, l.receiver)
	}
}

// leave removes a receiver, and the user with the last one. u is invalid afterwards.
func (h *hub) leave(sh *shard, u *user, r Receiver) {
	h.touch(sh, u)
	gone, ok := u.Leave(r)
	if !ok {
		return
	}
	if gone.Joining {
		u.X.busy.joiners--
	}
	if u.Len() > 0 {
		h.flush(sh, u)
		return
	}
	if b := u.X.busy; b != nil {
		h.drop(b, len(b.hold))
	}
	h.feed.Unsubscribe(u.ID)
	sh.users.Remove(u)
}

// expire fails receivers that waited for too long, and forgets what they asked for.
func (h *hub) expire(sh *shard, now time.Time) {
	var over []job
	if sh.flying != nil {
		for i := range sh.flying.jobs {
			if j := &sh.flying.jobs[i]; j.expired(now) {
				over = append(over, *j)
			}
		}
	}
	sh.pending = slices.DeleteFunc(sh.pending, func(j job) bool {
		if !j.expired(now) {
			return false
		}
		over = append(over, j)
		return true
	})
	for i := range over {
		if u, s := sh.joiner(&over[i]); s != nil {
			h.notReady(sh, u, s.Receiver)
		}
	}
}

// overdue reports whether a receiver waits for more than lateJoin for a round that asks for it.
func (sh *shard) overdue(now time.Time) bool {
	i := slices.IndexFunc(sh.pending, func(j job) bool { return j.kind == join }) // the oldest one
	return i >= 0 && now.Sub(sh.pending[i].since) > lateJoin
}

// notReady gives up a receiver that joins. u is invalid afterwards.
func (h *hub) notReady(sh *shard, u *user, r Receiver) {
	h.leave(sh, u, r)
	h.d.m.attachFailed[failedNotReady].Inc()
	r.AttachFailed(ErrNotReady)
}

// joiner is who waits for a join, nil when it has left.
func (sh *shard) joiner(j *job) (*user, *slot) {
	u := sh.users.Get(j.user)
	if u == nil {
		return nil, nil
	}
	if s := u.Find(j.receiver); s != nil && s.Joining && s.Conn == j.conn {
		return u, s
	}
	return nil, nil
}

func (j *job) expired(now time.Time) bool { return j.kind == join && now.Sub(j.since) >= Patience }

// joined gives a receiver its first position: to is the marker's sequence, 0 when no
// marker holds.
func (h *hub) joined(sh *shard, o *outcome, to uint64) {
	j := &o.job
	u, s := sh.joiner(j)
	if s == nil {
		return
	}
	if to == 0 { // with no position it would get no frame ever
		h.notReady(sh, u, j.receiver)
		return
	}
	h.touch(sh, u)
	s.Joining = false
	u.X.busy.joiners--
	h.d.m.resumes[o.why].Inc()
	resumed := o.why == resumedOK
	if !resumed || len(o.frames) == 0 {
		s.Receiver.Attached(resumed, sh.token(to))
	} else {
		s.Last = j.from
		s.Receiver.Attached(true, sh.token(j.from))
		for i := range o.frames {
			h.deliverTo(s, &o.frames[i])
		}
		s.Receiver.Moved(sh.token(to))
	}
	s.Last = to
	if u.X.pos == 0 {
		u.X.pos = to
	}
	h.flush(sh, u)
}
