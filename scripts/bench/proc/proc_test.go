package proc_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/scripts/bench/proc"
)

// Another process's clock and our own getrusage agree: two ways to the same figure.
func TestCPUIsWhatTheKernelSays(t *testing.T) {
	burn := time.Now().Add(200 * time.Millisecond)
	for n := 0; time.Now().Before(burn); n++ {
	}
	got, err := proc.CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	want := time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	if got < 150*time.Millisecond || want-got > 50*time.Millisecond || got-want > 50*time.Millisecond {
		t.Errorf("CPU clock %v, getrusage %v", got, want)
	}
}

// A child that used CPU and has threads is metered from outside, and one that ended is an error.
func TestMeterOfAChild(t *testing.T) {
	p, err := proc.Start(proc.Spec{Name: "burner", Bin: "/bin/sh", Args: []string{"-c", "i=0; while :; do i=$((i+1)); done"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	m, err := proc.NewMeter(p)
	if err != nil {
		t.Fatal(err)
	}
	for { // until the kernel has given it some time
		used, span, err := m.Read()
		if err != nil {
			t.Fatal(err)
		}
		if used[0] > span+10*time.Millisecond {
			t.Fatalf("one thread used %v in %v", used[0], span)
		}
		if used[0] > 100*time.Millisecond {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if rss, err := proc.RSS(p.PID); err != nil || rss < 100<<10 || rss > 100<<20 {
		t.Errorf("RSS of a shell: %d bytes, %v", rss, err)
	}
	p.Kill()
	if _, _, err := m.Read(); err == nil {
		t.Error("the clock of a process that is gone was read")
	}
}

// RSS is what is resident now, not what once was.
func TestRSSGoesDown(t *testing.T) {
	rss := func() int64 {
		n, err := proc.RSS(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const size = 64 << 20
	before := rss()
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	with := rss()
	if err := unix.Munmap(b); err != nil {
		t.Fatal(err)
	}
	if after := rss(); with-before < size/2 || with-after < size/2 {
		t.Errorf("%d bytes, with %d more %d, without them %d", before, size, with, after)
	}
}

func TestAwaitTellsWhyAProcessEnded(t *testing.T) {
	p, err := proc.Start(proc.Spec{Name: "short", Bin: "/bin/sh", Args: []string{"-c", "echo no such luck >&2; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	err = p.Await(t.Context(), func(context.Context) error { return errors.New("not yet") })
	if !errors.Is(err, proc.ErrEnded) || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("got %v", err)
	}
}
