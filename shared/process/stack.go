package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// ErrStuck is returned by Drain for a step that did not return in its time.
var ErrStuck = errors.New("did not stop in its time")

// stuckGrace is how long a step may go on after its context ended before it is left.
const stuckGrace = time.Second

// Stack holds what must be stopped, in the order in which it was started. The zero
// Stack without a Log is ready for use. One goroutine uses it.
type Stack struct {
	Log   *slog.Logger // nil: nothing is logged
	steps []step
}

type step struct {
	name   string
	within time.Duration
	stop   func(context.Context) error
}

// Push registers, right after something was started, how it is stopped. stop's context
// ends after within; what has not stopped then must be cut.
func (s *Stack) Push(name string, within time.Duration, stop func(ctx context.Context) error) {
	s.steps = append(s.steps, step{name, within, stop})
}

// Drain stops everything, the last started first, and returns all errors joined. A step
// that panics or does not return is reported and does not keep the others from
// stopping. When ctx ends, the remaining steps run with an ended context: they cut.
func (s *Stack) Drain(ctx context.Context) error {
	var errs []error
	for len(s.steps) > 0 {
		last := s.steps[len(s.steps)-1]
		s.steps = s.steps[:len(s.steps)-1]
		begin := time.Now()
		err := last.run(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", last.name, err))
		}
		if s.Log != nil {
			s.Log.Debug("stopped", "step", last.name, "took", time.Since(begin), "err", err)
		}
	}
	return errors.Join(errs...)
}

func (s step) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.within)
	defer cancel()
	done := make(chan error, 1) // written by the step, read here; never closed
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("panic: %v", p)
			}
		}()
		done <- s.stop(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(stuckGrace)
	defer grace.Stop()
	select {
	case err := <-done:
		return err
	case <-grace.C:
		return ErrStuck
	}
}
