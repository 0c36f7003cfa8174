package memory

import (
	"runtime/debug"
	"time"
)

const (
	// restAfter is how long the collector has not run when the process is at rest. Under
	// load it runs several times a second.
	restAfter = 2 * time.Second
	// spareShare is the part of what is live, and spareLeast the bytes, that may lie around
	// at rest: garbage, and free pages that the system has not got back.
	spareShare, spareLeast = 8, 1 << 20
	// restCost is how many times as long as a collection at rest took there is no other:
	// collecting costs less than 1 % of the time.
	restCost = 100
)

// rest collects garbage when the process is at rest, and gives the pages back. Go's
// collector waits until the heap has doubled, which after a storm of connects is a rest
// of hours in which garbage is half of the memory. A lower GOGC would take the memory
// from those who hold connections and the CPU from those who talk.
type rest struct {
	cycles uint64    // collections so far
	since  time.Time // when cycles was seen first
	not    time.Time // no collection before this time

	collect func() // debug.FreeOSMemory, but in tests
}

func newRest() *rest { return &rest{collect: debug.FreeOSMemory} }

// look is called every now and then with the number of collections so far, and the bytes
// that are live and that are not but could be given back.
func (r *rest) look(now time.Time, cycles uint64, live, spare int64) {
	if cycles != r.cycles || r.since.IsZero() {
		r.cycles, r.since = cycles, now
		return
	}
	if now.Sub(r.since) < restAfter || now.Before(r.not) || spare < live/spareShare+spareLeast {
		return
	}
	began := time.Now()
	r.collect()
	r.not = now.Add(restCost * time.Since(began))
}
