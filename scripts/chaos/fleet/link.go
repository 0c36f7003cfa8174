package fleet

import (
	"slices"
	"time"
)

// Link is everything that is sent between two processes, whoever of them opened the
// connection. Its methods may be called concurrently.
type Link struct {
	A, B *Process // A dials; both do when they are of one kind. A is nil for the clients
	ways []*proxy // one for each who dials
}

func (l *Link) String() string {
	if l.A == nil {
		return "clients–" + l.B.Name
	}
	return l.A.Name + "–" + l.B.Name
}

// Cut lets nothing through any more and tells neither side: connections stay open, new
// ones are accepted and get no answer, and the end of a connection is not seen either.
func (l *Link) Cut() { l.set(func(c *condition) { c.cut = true }) }

// Slow delays whatever is sent in either direction by latency, give or take jitter. The
// bytes of one connection keep their order.
func (l *Link) Slow(latency, jitter time.Duration) {
	l.set(func(c *condition) { c.latency, c.jitter = latency, jitter })
}

// Limit lets no more than so many bytes a second through in each direction, over all
// connections; 0: as many as there are.
func (l *Link) Limit(bytesPerSecond int) {
	l.set(func(c *condition) { c.rate = bytesPerSecond })
}

// Restore ends a cut, a delay and a limit. Connections that lived through a cut are closed, for
// bytes of theirs are gone.
func (l *Link) Restore() {
	l.set(func(c *condition) {
		if c.cut {
			c.age++
		}
		c.cut, c.latency, c.jitter, c.rate = false, 0, 0, 0
	})
}

func (l *Link) set(change func(*condition)) {
	for _, p := range l.ways {
		p.set(change)
	}
}

// joins reports whether the link is between a and b, in any order.
func (l *Link) joins(a, b *Process) bool { return l.A == a && l.B == b || l.A == b && l.B == a }

// Links returns every link of the fleet.
func (f *Fleet) Links() []*Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.links)
}

// Link returns the link between two processes, in any order, or nil when they do not talk
// to each other. a is nil for the clients of edge b.
func (f *Fleet) Link(a, b *Process) *Link {
	for _, l := range f.Links() {
		if l.joins(a, b) {
			return l
		}
	}
	return nil
}

// LinksOf returns the links of one process: to cut them all is to isolate it.
func (f *Fleet) LinksOf(p *Process) []*Link {
	return slices.DeleteFunc(f.Links(), func(l *Link) bool { return l.A != p && l.B != p })
}

// RestoreAll restores every link.
func (f *Fleet) RestoreAll() {
	for _, l := range f.Links() {
		l.Restore()
	}
}
