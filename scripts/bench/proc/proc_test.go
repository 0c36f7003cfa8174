package proc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/bench/proc"
)

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
	p.Kill()
	if _, _, err := m.Read(); err == nil {
		t.Error("the clock of a process that is gone was read")
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
