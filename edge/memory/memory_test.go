package memory

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// limited sets the process's limit for the test.
func limited(t *testing.T, bytes int64) *Watch {
	t.Helper()
	old := debug.SetMemoryLimit(bytes)
	t.Cleanup(func() { debug.SetMemoryLimit(old) })
	return New(prometheus.NewRegistry())
}

func TestShort(t *testing.T) {
	w := limited(t, 256<<20)
	w.look()
	if w.Short() {
		t.Fatalf("short at %d bytes of %d", w.used.Load(), w.limit)
	}
	held := make([]byte, 240<<20)
	runtime.GC()
	if w.look(); !w.Short() {
		t.Errorf("not short at %d bytes of %d", w.used.Load(), w.limit)
	}
	runtime.KeepAlive(held)
}

// What nobody uses any more is not in use, whether it was collected or not.
func TestGarbageDoesNotCount(t *testing.T) {
	w := limited(t, 256<<20)
	old := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(old)
	for range 20 {
		garbage = make([]byte, 10<<20) // 200 MiB, of which 10 are in use
	}
	if w.look(); w.Short() {
		t.Errorf("short at %d bytes of %d", w.used.Load(), w.limit)
	}
}

var garbage []byte

// Run sees that memory is short, and that it is not any more, although nobody allocates.
func TestRunRecovers(t *testing.T) {
	w := limited(t, 256<<20)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	held := make([]byte, 240<<20)
	runtime.GC()
	go func() { w.Run(ctx); close(done) }()
	await := func(short bool) {
		t.Helper()
		for over := time.Now().Add(4 * collectAfter); w.Short() != short; time.Sleep(every / 10) {
			if time.Now().After(over) {
				t.Fatalf("short is not %v: %d bytes of %d", short, w.used.Load(), w.limit)
			}
		}
	}
	await(true)
	runtime.KeepAlive(held)
	await(false)
	cancel()
	<-done
}

func TestShare(t *testing.T) {
	if n := limited(t, 100<<20).Share(40, 1<<30); n != 40<<20 {
		t.Errorf("40 %% of 100 MiB are %d", n)
	}
	if n := limited(t, 100<<30).Share(40, 1<<30); n != 1<<30 {
		t.Errorf("at most 1 GiB: %d", n)
	}
}

func TestNoLimit(t *testing.T) {
	w := limited(t, int64(^uint64(0)>>1))
	if w.look(); w.Short() {
		t.Error("short without a limit")
	}
}

func BenchmarkLook(b *testing.B) {
	w := New(prometheus.NewRegistry())
	b.ReportAllocs()
	for b.Loop() {
		w.look()
	}
}
