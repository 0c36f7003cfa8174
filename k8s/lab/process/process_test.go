package process

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestEndsByItself: whoever ends untold is reported with its last words.
func TestEndsByItself(t *testing.T) {
	ctx, fail := context.WithCancelCause(t.Context())
	g := NewGroup(t.TempDir(), fail)
	if _, err := g.Start("speaker", exec.Command("sh", "-c", "echo my last words; exit 3")); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if err := context.Cause(ctx).Error(); !strings.Contains(err, "speaker") || !strings.Contains(err, "my last words") || !strings.Contains(err, "exit status 3") {
		t.Error(err)
	}
}

// TestStop: a program that is told to end is no failure, and one that does not listen is
// killed.
func TestStop(t *testing.T) {
	ctx, fail := context.WithCancelCause(t.Context())
	g := NewGroup(t.TempDir(), fail)
	t.Cleanup(func() { g.Close(0) }) // also when the test fails before it comes to that
	polite, err := g.Start("polite", exec.Command("sleep", "60"))
	if err != nil {
		t.Fatal(err)
	}
	deaf, err := g.Start("deaf", exec.Command("sh", "-c", "trap '' TERM; echo deaf; exec sleep 60"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Await(ctx, "deaf", 10*time.Second, func(context.Context) error {
		if deaf.Tail(1) != "deaf" {
			return errors.New("it has not begun")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	g.Close(100 * time.Millisecond)
	for _, p := range []*Process{polite, deaf} {
		select {
		case <-p.Ended():
		default:
			t.Errorf("%s runs", p.Name)
		}
	}
	if ctx.Err() != nil {
		t.Error(context.Cause(ctx))
	}
	if _, err := g.Start("late", exec.Command("sleep", "60")); !errors.Is(err, errClosed) {
		t.Error(err)
	}
}

// TestAwait: the reason why it waited in vain is told.
func TestAwait(t *testing.T) {
	reason := errors.New("nobody listens")
	err := Await(t.Context(), "the door", 50*time.Millisecond, func(context.Context) error { return reason })
	if !errors.Is(err, reason) || !strings.Contains(err.Error(), "the door") {
		t.Error(err)
	}
}
