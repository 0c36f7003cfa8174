package main

import (
	"context"
	"fmt"
	"time"

	"github.com/wirepost/wirepost/scripts/load/report"
)

// drainSlack is what an edge may take to drain beyond its notice and its rate.
const drainSlack = 30 * time.Second

// roll replaces the edges one by one while messages flow, between two halves of the
// duration.
func (s *session) roll(ctx context.Context) error {
	if err := s.measure(ctx); err != nil {
		return err
	}
	if err := s.send(ctx, s.replace); err != nil {
		return err
	}
	if err := s.measure(ctx); err != nil {
		return err
	}
	s.result.Steps[len(s.result.Steps)-1].After = "the rolling restart"
	return nil
}

func (s *session) replace(ctx context.Context) error {
	if err := s.stage.Hold(ctx, s.cfg.duration/2); err != nil {
		return err
	}
	if s.cfg.reload {
		fmt.Fprintln(s.out, "reloading nginx")
		if err := s.target.own.ReloadFront(); err != nil {
			return fmt.Errorf("reload nginx: %w", err)
		}
		if err := s.stage.Hold(ctx, s.cfg.duration/2); err != nil {
			return err
		}
	}
	r := &report.Rolling{Rate: s.cfg.rate, Began: time.Now(), Reloaded: s.cfg.reload}
	s.result.Rolling = r
	grace := func(sockets int64) time.Duration {
		return s.cfg.notice + time.Duration(sockets)*time.Second/time.Duration(s.cfg.rate) + drainSlack
	}
	for i := range s.target.own.Edges() {
		one, err := s.target.own.RollEdge(ctx, i, grace)
		if err != nil {
			return fmt.Errorf("replace an edge: %w", err)
		}
		fmt.Fprintf(s.out, "%s with %d sockets has ended after %.1f s of the %.1f s that it may take; the new one is ready after %.2f s\n",
			one.Edge, one.Sockets, one.Drain, one.Grace, one.Ready)
		r.Edges = append(r.Edges, one)
	}
	if err := s.stage.Online(ctx); err != nil {
		return fmt.Errorf("after the rolling restart: %w", err)
	}
	r.Seconds = time.Since(r.Began).Seconds()
	return s.stage.Hold(ctx, s.cfg.duration/2)
}
