package wire

import "time"

const (
	tick      = 200 * time.Millisecond // grain of Conn.Arm
	wheelSize = 256                    // lists; a timer beyond 51 s is looked at once in 51 s
	firing    = wheelSize              // the list that is worked through
)

// link is a connection's place in the wheel, so that a timer costs no allocation. next
// also chains free slots.
type link struct {
	next, prev int32  // slots; prev of the first is the list's head, see headOf
	due        uint32 // tick
}

// wheel is a hashed timer wheel: list due%wheelSize holds all timers of that tick and of
// the ticks a whole turn later.
type wheel struct {
	c     *Client
	heads [wheelSize + 1]int32
	tick  uint32 // up to here everything due was called
	armed int    // timers
}

func ticks(d time.Duration) uint32 { return uint32(d / tick) }

// headOf is how prev names a list instead of a slot.
func headOf(list int) int32 { return -2 - int32(list) }

func (w *wheel) init(c *Client) {
	w.c = c
	for i := range w.heads {
		w.heads[i] = noSlot
	}
}

// next is when the wheel turns next, 0 when it is empty.
func (w *wheel) next() time.Duration {
	if w.armed == 0 {
		return 0
	}
	return time.Duration(w.tick+1) * tick
}

func (w *wheel) insert(i int32, due uint32) {
	due = max(due, w.tick+1)
	w.c.conns[i].due = due
	w.push(i, int(due%wheelSize))
}

func (w *wheel) push(i int32, list int) {
	s := &w.c.conns[i]
	s.next, s.prev = w.heads[list], headOf(list)
	if s.next != noSlot {
		w.c.conns[s.next].prev = i
	}
	w.heads[list] = i
	w.armed++
}

// remove takes slot i out of whatever list it is in.
func (w *wheel) remove(i int32) {
	s := &w.c.conns[i]
	switch {
	case s.prev == noSlot:
		return
	case s.prev >= 0:
		w.c.conns[s.prev].next = s.next
	default:
		w.heads[-2-s.prev] = s.next
	}
	if s.next != noSlot {
		w.c.conns[s.next].prev = s.prev
	}
	s.next, s.prev = noSlot, noSlot
	w.armed--
}

func (w *wheel) advance(now uint32) {
	if w.armed == 0 {
		w.tick = max(w.tick, now)
	}
	for w.tick < now {
		w.tick++
		list := int(w.tick % wheelSize)
		// The list moves aside, so that it stays whole whatever the calls do to it.
		w.heads[firing], w.heads[list] = w.heads[list], noSlot
		if first := w.heads[firing]; first != noSlot {
			w.c.conns[first].prev = headOf(firing)
		}
		for w.heads[firing] != noSlot {
			i := w.heads[firing]
			w.remove(i)
			if s := &w.c.conns[i]; s.due > w.tick {
				w.push(i, list)
			} else {
				s.timeout()
			}
		}
	}
}
