package tally

import (
	"maps"
	"slices"
	"time"
)

// paceGrain is the length of an interval of a Pace.
const paceGrain = 100 * time.Millisecond

// Pace counts events by the tenth of a second of Unix time in which they happened, so
// that those of several processes add up.
type Pace map[int64]int64

// Paces are those that a load keeps.
type Paces struct {
	Moved Pace // connections that ended because their edge goes away
	Tried Pace // connections that were begun
	In    Pace // logins
}

// Count counts one event that happens now.
func (p *Pace) Count() { p.add(time.Now().UnixNano()/int64(paceGrain), 1) }

func (p *Pace) add(at, n int64) {
	if *p == nil {
		*p = Pace{}
	}
	(*p)[at] += n
}

// Merge adds those of another process.
func (p *Paces) Merge(o Paces) {
	for at, n := range o.Moved {
		p.Moved.add(at, n)
	}
	for at, n := range o.Tried {
		p.Tried.add(at, n)
	}
	for at, n := range o.In {
		p.In.add(at, n)
	}
}

// Clone returns a copy.
func (p Paces) Clone() Paces {
	return Paces{Moved: maps.Clone(p.Moved), Tried: maps.Clone(p.Tried), In: maps.Clone(p.In)}
}

// Most returns the most events in any second that begins at a tenth, from a moment on.
func (p Pace) Most(from time.Time) (most int64) {
	const second = int64(time.Second / paceGrain)
	first := from.UnixNano() / int64(paceGrain)
	times := slices.DeleteFunc(slices.Sorted(maps.Keys(p)), func(at int64) bool { return at < first })
	var sum int64
	begin := 0
	for _, at := range times {
		for sum += p[at]; times[begin] <= at-second; begin++ {
			sum -= p[times[begin]]
		}
		most = max(most, sum)
	}
	return most
}
