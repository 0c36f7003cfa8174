package autoscaler

import (
	"math"
	"time"
)

// tolerance is by how much the figure may differ from the target before the HPA acts
// (kube-controller-manager's default).
const tolerance = 0.1

// HPA is what a HorizontalPodAutoscaler remembers of one Deployment.
type HPA struct {
	s       *ScaledObject
	advised []advice
	changes []change
}

// advice is what the figure alone would have asked for.
type advice struct {
	at time.Time
	n  int
}

// change is by how much the number was changed; negative: down.
type change struct {
	at time.Time
	by int
}

// NewHPA returns an autoscaler for a Deployment that has so many now.
func NewHPA(s *ScaledObject, now time.Time, current int) *HPA {
	return &HPA{s: s, advised: []advice{{now, current}}}
}

// Next returns how many there should be from now on, when there are current ones now and
// the formula gives sum.
func (h *HPA) Next(now time.Time, current int, sum float64) int {
	wanted := h.wanted(current, sum)
	n := h.stabilise(now, current, wanted)
	switch {
	case n > current:
		n = min(n, h.most(now, current))
	case n < current:
		n = max(n, h.least(now, current))
	}
	n = min(max(n, h.s.Min), h.s.Max)
	if n != current {
		h.changes = append(h.changes, change{now, n - current})
	}
	return n
}

// wanted is ⌈sum ÷ target⌉, but for a difference that is within the tolerance.
func (h *HPA) wanted(current int, sum float64) int {
	if ratio := sum / (h.s.Target * float64(current)); math.Abs(ratio-1) <= tolerance {
		return current
	}
	return int(math.Ceil(sum / h.s.Target))
}

// stabilise goes up no further than the lowest, and down no further than the highest
// advice within the window of that direction.
func (h *HPA) stabilise(now time.Time, current, wanted int) int {
	up, down := wanted, wanted
	kept := h.advised[:0]
	for _, a := range h.advised {
		age := now.Sub(a.at)
		if age < h.s.Up.Window {
			up = min(up, a.n)
		}
		if age < h.s.Down.Window {
			down = max(down, a.n)
		}
		if age < max(h.s.Up.Window, h.s.Down.Window) {
			kept = append(kept, a)
		}
	}
	h.advised = append(kept, advice{now, wanted})
	return min(max(current, up), down)
}

// most is how far up the policies allow to go: the most generous one counts.
func (h *HPA) most(now time.Time, current int) int {
	most := current
	for _, p := range h.s.Up.Policies {
		before := current - h.changed(now, p.Period)
		limit := before + p.Value
		if p.Percent {
			limit = int(math.Ceil(float64(before) * (1 + float64(p.Value)/100)))
		}
		most = max(most, limit)
	}
	return most
}

// least is the same downwards.
func (h *HPA) least(now time.Time, current int) int {
	least := current
	for _, p := range h.s.Down.Policies {
		before := current - h.changed(now, p.Period)
		limit := before - p.Value
		if p.Percent {
			limit = int(float64(before) * (1 - float64(p.Value)/100))
		}
		least = min(least, limit)
	}
	return least
}

// changed is by how much the number was changed within a period.
func (h *HPA) changed(now time.Time, period time.Duration) (by int) {
	for _, c := range h.changes {
		if now.Sub(c.at) < period {
			by += c.by
		}
	}
	return by
}
