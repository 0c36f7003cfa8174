package main

import (
	"context"
	"fmt"
	"time"

	"github.com/wirepost/wirepost/scripts/load/report"
)

// play is the run itself: connections in steps, and then what the mode is about.
func (s *session) play(ctx context.Context) error {
	began := time.Now()
	for i, n := range s.cfg.steps {
		if err := s.stage.Open(ctx, n); err != nil {
			return err
		}
		if i == 0 {
			s.result.Connect = report.ConnectOf(s.crew.State().Span, int64(n))
		}
		if s.cfg.mode == modeIdle {
			if err := s.measure(ctx); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(s.out, "%d connections are logged in after %.1f s\n", s.cfg.n, time.Since(began).Seconds())
	switch s.cfg.mode {
	case modeIdle:
		return s.stage.Hold(ctx, s.cfg.duration)
	case modeConnect:
		return nil
	case modeReconnect:
		return s.send(ctx, s.crash)
	case modeRolling:
		return s.roll(ctx)
	}
	return s.send(ctx, func(ctx context.Context) error { return s.stage.Hold(ctx, s.cfg.duration) })
}

// crash lets messages flow for half of the duration, kills every edge, and waits until
// all connections are back; then messages flow for the other half.
func (s *session) crash(ctx context.Context) error {
	if err := s.stage.Hold(ctx, s.cfg.duration/2); err != nil {
		return err
	}
	fmt.Fprintln(s.out, "killing every edge")
	c, err := s.stage.Crash(ctx, s.target.kill)
	if err != nil {
		return err
	}
	s.result.Crash, s.crashed = c, c.Dropped
	fmt.Fprintf(s.out, "%d edges were killed, all are back after %.2f s\n", c.Killed, c.Back)
	return s.stage.Hold(ctx, s.cfg.duration/2)
}
