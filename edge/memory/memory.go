// Package memory tells when the process comes near the limit of its memory, so that the
// edge stops taking connections before the kernel or the collector ends the ones it has.
//
// It reads what the Go runtime knows (process.FollowCgroup tells it of the cgroup's limit).
// It refuses nothing itself: who asks acts. When the process is at rest it collects
// garbage, so that memory is what the connections need.
package memory

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// watermark is the part of the limit, in percent, from which memory is short. What is
	// left is for the connections that are held: their buffers, and the collector's room.
	watermark = 80
	every     = 250 * time.Millisecond
	// collectAfter is how long memory may look short without a collection. What is in use
	// is known as of the last one only.
	collectAfter = 5 * time.Second
)

// Watch compares what the process uses with its limit. Any goroutine may call Short.
type Watch struct {
	limit int64 // bytes; math.MaxInt64: none
	used  atomic.Int64
	short atomic.Bool
	read  []metrics.Sample // owned by Run
}

// In the order of samples().
const (
	live     = iota // in objects, as the last collection saw it
	total           // mapped
	objects         // in objects, those that nobody uses any more included
	free            // of the heap, unused
	released        // given back to the system
	cycles          // collections so far
)

func samples() []metrics.Sample {
	return []metrics.Sample{
		live:     {Name: "/gc/heap/live:bytes"},
		total:    {Name: "/memory/classes/total:bytes"},
		objects:  {Name: "/memory/classes/heap/objects:bytes"},
		free:     {Name: "/memory/classes/heap/free:bytes"},
		released: {Name: "/memory/classes/heap/released:bytes"},
		cycles:   {Name: "/gc/cycles/total:gc-cycles"},
	}
}

// New returns a Watch of the runtime's soft limit as it is now (GOMEMLIMIT).
func New(reg prometheus.Registerer) *Watch {
	w := &Watch{limit: debug.SetMemoryLimit(-1), read: samples()}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wirepost_edge_memory_used_bytes",
			Help: "Memory in use, garbage apart, which is compared with the limit.",
		}, func() float64 { return float64(w.used.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wirepost_edge_memory_limit_bytes",
			Help: "The limit of the process's memory; near it no connections are taken. 0: none.",
		}, func() float64 {
			if w.limit == math.MaxInt64 {
				return 0
			}
			return float64(w.limit)
		}))
	return w
}

// Short reports whether memory is short: new connections would endanger those there are.
func (w *Watch) Short() bool { return w.short.Load() }

// Share returns percent of the limit, at most most.
func (w *Watch) Share(percent, most int64) int64 { return min(w.limit/100*percent, most) }

// Run watches until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var seen uint64 // collections
	since, rest := time.Now(), newRest()
	for {
		n := w.look()
		rest.look(time.Now(), n, w.value(live), w.value(objects)-w.value(live)+w.value(free))
		if n != seen || !w.Short() {
			seen, since = n, time.Now()
		} else if time.Since(since) > collectAfter {
			runtime.GC() // nothing else would: who allocates is turned away
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look reads the runtime, and returns the number of collections so far. Garbage is left
// out: the heap grows until the next collection is due, and near the limit always fills
// what there is.
func (w *Watch) look() (collections uint64) {
	metrics.Read(w.read)
	used := w.value(live) + w.value(total) - w.value(objects) - w.value(free) - w.value(released)
	w.used.Store(used)
	w.short.Store(used > w.limit/100*watermark)
	return uint64(w.value(cycles))
}

// value is what look read of one of samples().
func (w *Watch) value(i int) int64 { return int64(w.read[i].Value.Uint64()) }
