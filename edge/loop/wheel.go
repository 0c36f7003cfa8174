package loop

const wheelSize = 256 // lists; with a grain of 20 ms a timer beyond 5 s is looked at once in 5 s

// link is one connection's place in the wheel. It lies in the slot, so that a timer
// costs no allocation and no pointer.
type link struct {
	next, prev int32  // slots; prev of the first is the list's head, see headOf
	due        uint32 // grain
}

var unlinked = link{next: noSlot, prev: noSlot}

// wheel is a hashed timer wheel: list due%wheelSize holds all timers of that grain and
// of the grains a whole turn later.
type wheel struct {
	t     *table
	heads [wheelSize + 1]int32 // the last one holds the list that is worked through
	at    uint32               // grain; up to here everything due was called
}

const firing = wheelSize

// headOf is how prev names a list instead of a slot.
func headOf(list int) int32 { return -2 - int32(list) }

func (w *wheel) init(t *table) {
	w.t = t
	for i := range w.heads {
		w.heads[i] = noSlot
	}
}

func (w *wheel) insert(i int32, due uint32) {
	if due <= w.at {
		due = w.at + 1
	}
	w.t.slots[i].due = due
	w.push(i, int(due%wheelSize))
}

func (w *wheel) push(i int32, list int) {
	s := &w.t.slots[i]
	s.next, s.prev = w.heads[list], headOf(list)
	if s.next != noSlot {
		w.t.slots[s.next].prev = i
	}
	w.heads[list] = i
}

// remove takes slot i out of whatever list it is in.
func (w *wheel) remove(i int32) {
	s := &w.t.slots[i]
	switch {
	case s.prev == noSlot:
		return
	case s.prev >= 0:
		w.t.slots[s.prev].next = s.next
	default:
		w.heads[-2-s.prev] = s.next
	}
	if s.next != noSlot {
		w.t.slots[s.next].prev = s.prev
	}
	s.next, s.prev = noSlot, noSlot
}

// expirer is called for each timer that is due; it may arm and remove any timer.
type expirer interface{ expired(k Key) }

func (w *wheel) advance(e expirer, now uint32) {
	for w.at < now {
		w.at++
		list := int(w.at % wheelSize)
		// The list moves aside, so that it stays whole whatever the calls do to it.
		w.heads[firing], w.heads[list] = w.heads[list], noSlot
		if first := w.heads[firing]; first != noSlot {
			w.t.slots[first].prev = headOf(firing)
		}
		for w.heads[firing] != noSlot {
			i := w.heads[firing]
			w.remove(i)
			if s := &w.t.slots[i]; s.due > w.at {
				w.push(i, list)
			} else {
				e.expired(Key(uint64(s.gen)<<32 | uint64(uint32(i))))
			}
		}
	}
}

func (l *Loop[M]) expired(k Key) { l.handler.Timeout(k) }
