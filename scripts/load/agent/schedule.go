package agent

import (
	"time"

	"github.com/wirepost/wirepost/scripts/load/tally"
)

const (
	grain = 250 * time.Microsecond // sends that are due within it go out together
	burst = 256                    // sends in one go, so that what comes is read in between
)

// schedule says when sends are due. It does not know how the gateway fares: that is what
// makes the loop open.
type schedule struct {
	on    bool
	start time.Duration
	every float64 // nanoseconds
	made  int
	most  int // 0: no limit
}

// begin starts a schedule. phase (0 to 1) is where in the first interval the first send
// is due: agents that begin together must not send together.
func (s *schedule) begin(now time.Duration, rate float64, count int, phase float64) {
	*s = schedule{}
	if rate > 0 {
		every := float64(time.Second) / rate
		*s = schedule{on: true, start: now + time.Duration(phase*every), every: every, most: count}
	}
}

func (s *schedule) end() { s.on = false }

// due returns when the next send is due; ok is false when there is none.
func (s *schedule) due() (at time.Duration, ok bool) {
	if !s.on || s.most > 0 && s.made >= s.most {
		return 0, false
	}
	return s.start + time.Duration(float64(s.made)*s.every), true
}

// next is when to wake for it, 0: never.
func (s *schedule) next(now time.Duration) time.Duration {
	at, ok := s.due()
	if !ok {
		return 0
	}
	if at > now && s.every < float64(grain) {
		at = at.Truncate(grain) + grain
	}
	return max(at, 1)
}

// play makes the sends that are due.
func (a *agent) play(now time.Duration) {
	for range burst {
		at, ok := a.plays.due()
		if !ok || at > now {
			return
		}
		from, to := a.pick(a.plays.made)
		a.plays.made++
		n := a.sends.add(at, from, to)
		d := &a.devices[from]
		d.outbox = append(d.outbox, n)
		a.counts[tally.Sent]++
		a.span.LastSend = time.Now().UnixNano()
		if d.conn != nil {
			a.write(d, n)
		}
	}
}

// pick returns who sends the k-th message, and one device of who gets it.
func (a *agent) pick(k int) (from, to uint32) {
	n := len(a.devices)
	switch a.plan.Traffic {
	case Self:
		return uint32(k % n), uint32(k % n)
	case Ring:
		return uint32(k % n), uint32((k + 1) % n)
	case Fanout:
		from := k % a.users.groups() * (a.plan.Devices + 1)
		return uint32(from), uint32(from + 1)
	}
	if a.pairs == nil {
		a.pairs = a.rnd.Perm(n)
	}
	i := a.rnd.IntN(n / 2 * 2) // of an odd number one has nobody
	return uint32(a.pairs[i]), uint32(a.pairs[i^1])
}
