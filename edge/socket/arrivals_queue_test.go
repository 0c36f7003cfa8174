package socket

import (
	"testing"

	"github.com/wirepost/wirepost/edge/loop"
)

// The queue holds those who came since the oldest that is waited for, and nothing else.
func TestArrivalsAreForgotten(t *testing.T) {
	k := &keeper{conns: make([]*Conn, 2)}
	arrive := func(slot, gen int) *Conn {
		c := &Conn{k: k, key: loop.Key(gen<<32 | slot), seen: stamp(gen)}
		k.conns[slot] = c
		k.arrives(c)
		return c
	}
	old := arrive(0, 1)
	const many = 100_000
	for gen := range many { // one behind the other on the same slot: in, or gone
		c := arrive(1, 2+gen)
		if c.state = stVerify; gen%2 == 0 {
			k.conns[1] = nil
		}
		c.arrived()
	}
	if c, since := k.oldest(); c != old || since != 1 {
		t.Errorf("the oldest is %+v, since %d", c, since)
	}
	if k.arriving != 1 {
		t.Errorf("%d arrive", k.arriving)
	}
	if n := len(k.arrivals.queue); n != 1+many {
		t.Errorf("%d entries", n)
	}
	old.arrived()
	old.state = stOpen
	last := arrive(1, 2+many)
	if c, _ := k.oldest(); c != last || len(k.arrivals.queue) != 1 || cap(k.arrivals.queue) > 2*keepIdle {
		t.Errorf("%d entries of %d, the oldest is %+v", len(k.arrivals.queue), cap(k.arrivals.queue), c)
	}
	// With somebody always in the handshake, what is in or gone is forgotten all the same.
	slots := 0
	for gen := range many {
		next := arrive(gen%2, 3+many+gen)
		last.arrived()
		last.state = stOpen
		last, slots = next, max(slots, cap(k.arrivals.queue))
	}
	if slots > 2*keepIdle {
		t.Errorf("the queue grew to %d", slots)
	}
}
