package memory

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestRest(t *testing.T) {
	const step = every
	steps := func(d time.Duration) int { return int(d/step) + 1 }
	begin := time.Now()
	collected := 0
	r := newRest()
	now := begin
	// run looks n times and returns how often it collected meanwhile. A collection counts
	// as one, as the runtime's own do.
	cycles := uint64(1)
	run := func(n int, own bool, live, spare int64) int {
		before := collected
		for range n {
			now = now.Add(step)
			if own {
				cycles++
			}
			r.look(now, cycles, live, spare)
		}
		return collected - before
	}
	r.collect = func() { collected++; cycles++ }
	long := steps(10 * restAfter)
	if n := run(long, true, 100<<20, 100<<20); n != 0 {
		t.Errorf("%d collections while the collector runs by itself", n)
	}
	if n := run(long, false, 100<<20, 10<<20); n != 0 {
		t.Errorf("%d collections of a tenth of what is live", n)
	}
	if n := run(long, false, 0, spareLeast-1); n != 0 {
		t.Errorf("%d collections of less than %d bytes", n, spareLeast)
	}
	if n := run(1, false, 100<<20, 100<<20); n != 1 {
		t.Errorf("%d collections at rest, want 1", n)
	}
	if n := run(steps(restAfter)-2, false, 100<<20, 100<<20); n != 0 {
		t.Errorf("%d collections within %v of the last one", n, restAfter)
	}
	r.collect = func() { collected++; cycles++; spin(20 * time.Millisecond) }
	if n := run(2, false, 100<<20, 100<<20); n != 1 {
		t.Errorf("%d collections after %v, want 1", n, restAfter)
	}
	most := int(10 * time.Second / (restCost * 20 * time.Millisecond))
	if n := run(steps(10*time.Second), false, 100<<20, 100<<20); n == 0 || n > most {
		t.Errorf("%d collections of 20 ms in 10 s, want at most %d: more than 1 %% of the time", n, most)
	}
}

// spin uses the processor for a time, as a collection does.
func spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

// A process that had much to do and has nothing more gives its memory back.
func TestRunCollectsAtRest(t *testing.T) {
	w := limited(t, 1<<40)
	old := debug.SetGCPercent(-1) // the collector never runs by itself
	defer debug.SetGCPercent(old)
	resident := func() int64 {
		metrics.Read(w.read)
		return w.value(total) - w.value(released)
	}
	runtime.GC()
	debug.FreeOSMemory()
	before := resident()
	for range 64 {
		garbage = make([]byte, 1<<20)
	}
	garbage = nil
	if n := resident() - before; n < 60<<20 {
		t.Fatalf("64 MiB of garbage are %d bytes", n)
	}
	other := limited(t, 1<<40)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { other.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	for over := time.Now().Add(5 * restAfter); resident()-before > 4<<20; time.Sleep(every / 10) {
		if time.Now().After(over) {
			t.Fatalf("%d bytes of garbage are there after %v", resident()-before, 5*restAfter)
		}
	}
}
