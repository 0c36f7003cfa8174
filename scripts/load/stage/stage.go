// Package stage is the steps that every run of a load is made of: open connections, send,
// wait, kill. Each ends early, with what is known, when nothing moves any more.
//
// It says nothing of the result: that is package report's part.
package stage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/crew"
	"github.com/wirepost/wirepost/scripts/load/report"
	"github.com/wirepost/wirepost/scripts/load/tally"
)

// patience is how long nothing may move, unless a Stage says otherwise.
const patience = 30 * time.Second

// ErrStuck is returned when nothing has moved for too long.
var ErrStuck = errors.New("nothing moves any more")

// Stage is where the steps are made.
type Stage struct {
	Crew      *crew.Crew
	Conns     int // of all processes
	Processes int
	Tick      time.Duration // of the agents: counts are at most that old
	Patience  time.Duration // how long nothing may move; 0: 30 s
}

// Open has n connections logged in, all in all, and returns when they are, or were given
// up by a close code that says so.
func (s *Stage) Open(ctx context.Context, n int) error {
	err := s.Crew.Tell(func(i int) agent.Command {
		return agent.Command{Do: agent.Open, N: crew.Share(n, i, s.Processes)}
	})
	if err != nil {
		return err
	}
	online := func(st crew.State) int64 { return st.Counts[tally.Online] + st.Counts[tally.Given] }
	return s.await(ctx, online, func(st crew.State) bool { return online(st) >= int64(n) })
}

// Online returns when every connection that was opened is logged in.
func (s *Stage) Online(ctx context.Context) error {
	began := time.Now()
	logins := func(st crew.State) int64 { return st.Counts[tally.Logins] }
	return s.await(ctx, logins, func(st crew.State) bool {
		// What was lost must have been counted before it can be back.
		return time.Since(began) > 4*s.Tick && st.Counts[tally.Online] >= int64(s.Conns)
	})
}

// await returns when done is true. It gives up when moves has been the same for too long.
func (s *Stage) await(ctx context.Context, moves func(crew.State) int64, done func(crew.State) bool) error {
	most := s.Patience
	if most == 0 {
		most = patience
	}
	last, since := int64(-1), time.Now()
	return s.Crew.Await(ctx, func(st crew.State) (bool, error) {
		if m := moves(st); m != last {
			last, since = m, time.Now()
		}
		if time.Since(since) > most {
			return false, fmt.Errorf("%w: %d of %d connections are logged in; connections ended with: %s",
				ErrStuck, st.Counts[tally.Online], s.Conns, ends(st))
		}
		return done(st), nil
	})
}

func ends(st crew.State) string {
	var all []string
	for why, n := range st.Ends {
		all = append(all, fmt.Sprintf("%d × %s", n, why))
	}
	if len(all) == 0 {
		return "nothing"
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// Send begins to send rate messages a second, all together: count of them, or until Stop
// when count is 0.
func (s *Stage) Send(rate float64, count int) error {
	return s.Crew.Tell(func(i int) agent.Command {
		part := float64(crew.Share(s.Conns, i, s.Processes)) / float64(s.Conns)
		return agent.Command{Do: agent.Send, Rate: rate * part, Count: crew.Share(count, i, s.Processes)}
	})
}

// Stop ends the sending.
func (s *Stage) Stop() error {
	return s.Crew.Tell(func(int) agent.Command { return agent.Command{Do: agent.Stop} })
}

// Arrived returns when sent messages were sent since the start and nobody waits for any,
// or when nothing has arrived for too long, which is no error: the agents count what is
// missing.
func (s *Stage) Arrived(ctx context.Context, sent int) error {
	arrived := func(st crew.State) int64 { return st.Counts[tally.Acked] + st.Counts[tally.Delivered] }
	err := s.await(ctx, arrived, func(st crew.State) bool {
		return st.Counts[tally.Sent] >= int64(sent) && st.Counts[tally.Pending] == 0
	})
	if errors.Is(err, ErrStuck) {
		return nil
	}
	return err
}

// Settle returns when nobody waits for a message any more, or when the grace period after
// last, the time of the Stop, is over.
func (s *Stage) Settle(ctx context.Context, last time.Time, grace time.Duration) error {
	return s.Crew.Await(ctx, func(st crew.State) (bool, error) {
		passed := time.Since(last)
		return passed > 2*s.Tick && st.Counts[tally.Pending] == 0 || passed > grace, nil
	})
}

// Hold waits. It ends early when a process of the load fails.
func (s *Stage) Hold(ctx context.Context, d time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := s.Crew.Await(waiting, func(crew.State) (bool, error) { return false, nil })
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	}
	return err
}

// Crash lets kill kill edges, whose number it returns, and returns when every connection
// is logged in again.
func (s *Stage) Crash(ctx context.Context, kill func() (int, error)) (*report.Crash, error) {
	before, killed := s.Crew.State().Counts[tally.Dropped], time.Now()
	n, err := kill()
	if err != nil {
		return nil, fmt.Errorf("kill the edges: %w", err)
	}
	if err := s.Online(ctx); err != nil {
		return nil, fmt.Errorf("after the kill: %w", err)
	}
	st := s.Crew.State()
	c := &report.Crash{Killed: n, Dropped: st.Counts[tally.Dropped] - before}
	if st.Span.LastBack != 0 {
		c.Back = time.Unix(0, st.Span.LastBack).Sub(killed).Seconds()
	}
	return c, nil
}
