// Package trial is one history from its beginning to the verdict: users of their own begin
// on a fleet that runs, whoever has the trial lets them talk and breaks things, and
// Finish lets everything come to rest, reads what is stored, and asks the checker.
package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/history"
	"github.com/wirepost/wirepost/scripts/chaos/load"
	"github.com/wirepost/wirepost/scripts/devkeys"
)

const (
	startWithin = 60 * time.Second // of all clients' first logins
	readWithin  = 5 * time.Minute
	lagEvery    = 200 * time.Millisecond
)

// Trial is one history that is being written.
type Trial struct {
	F *fleet.Fleet
	L *load.Load
	H *history.Writer

	// Patience is how long Finish waits for sends to be resolved, and again for messages
	// to be shown. It goes on after that: to judge is the checker's. Begin sets the
	// checker's own limit.
	Patience time.Duration
	Say      func(format string, args ...any) // what happens on the way; set by Begin's caller
	AtRest   func(context.Context)            // nil, or called when nothing is sent any more and all is read

	file   *os.File
	limits check.Limits
	ended  bool
}

// Begin creates the history at path, with run as its first record, and lets the users of o
// begin; URLs, Token and History of o are set here. Nothing is sent yet. The caller closes
// the trial.
func Begin(ctx context.Context, f *fleet.Fleet, path string, run history.Record, o load.Options) (*Trial, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("begin a trial: %w", err)
	}
	t := &Trial{F: f, H: history.NewWriter(file), file: file, limits: check.DefaultLimits(), Say: func(string, ...any) {}}
	t.Patience = t.limits.Drained
	run.Kind = history.Run
	t.H.Add(run)
	o.URLs = f.URLs()
	o.History = t.H
	o.Token = func(user string) (string, error) { return devkeys.Token([]byte(f.Secret()), user, time.Hour) }
	t.L = load.New(o)
	sctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if err := t.L.Start(sctx); err != nil {
		t.Close()
		return nil, fmt.Errorf("begin a trial: %w", err)
	}
	return t, nil
}

// Finish ends the traffic, waits until nothing waits any more, reads all of history, and
// returns what the checker says of the trial. Every fault must be over.
func (t *Trial) Finish(ctx context.Context) (*check.Report, error) {
	if err := t.rest(ctx); err != nil {
		return nil, err
	}
	if err := t.H.Flush(); err != nil {
		return nil, err
	}
	if _, err := t.file.Seek(0, 0); err != nil {
		return nil, fmt.Errorf("read the trial's history: %w", err)
	}
	return check.Check(t.file, t.limits)
}

// rest writes the end of the history.
func (t *Trial) rest(ctx context.Context) error {
	t.L.Stop()
	t.H.Add(history.Record{Kind: history.Quiet})
	dctx, cancel := context.WithTimeout(ctx, t.Patience)
	defer cancel()
	if err := t.L.AwaitResolved(dctx); err != nil {
		t.Say("  not resolved: %v", err)
	}
	lag, err := t.awaitLag(dctx)
	if err != nil {
		t.Say("  lag: %v", err)
	}
	t.H.Add(history.Record{Kind: history.Lag, Seq: int64(lag)})
	rctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	lasts, err := t.L.ReadHistory(rctx)
	if err != nil {
		return err
	}
	shown, cancel := context.WithTimeout(ctx, t.Patience)
	defer cancel()
	if err := t.L.AwaitShown(shown, lasts); err != nil {
		t.Say("  %v", err)
	}
	if t.AtRest != nil {
		t.AtRest(ctx)
	}
	t.end()
	t.H.Add(history.Record{Kind: history.Done})
	return ctx.Err()
}

// awaitLag waits until nothing waits in the uplink and returns what does at last.
func (t *Trial) awaitLag(ctx context.Context) (uint64, error) {
	for {
		lag, err := t.F.Lag(ctx)
		if err == nil && lag == 0 {
			return 0, nil
		}
		if perr := Pause(ctx, lagEvery); perr != nil {
			return max(lag, 1), errors.Join(perr, err)
		}
	}
}

func (t *Trial) end() {
	if !t.ended {
		t.ended = true
		t.L.Stop()
		t.L.End()
	}
}

// Close ends all clients, also after a Finish that failed.
func (t *Trial) Close() {
	t.end()
	_ = t.H.Flush() // told by Finish, if that came so far
	_ = t.file.Close()
}

// Pause waits for d, or returns ctx's error.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
