package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/history"
	"github.com/wirepost/wirepost/scripts/chaos/load"
	"github.com/wirepost/wirepost/scripts/devkeys"
)

const (
	startWithin   = 60 * time.Second // of all clients' first logins
	faultWithin   = 90 * time.Second // of one fault's beginning or end: a drain, a start, an election
	recoverWithin = 60 * time.Second // of the wait for service after a fault; the checker judges, this only goes on
	drainWithin   = 60 * time.Second // of the wait for the end of everything
	readWithin    = 5 * time.Minute
	calm          = 700 * ms // of undisturbed traffic between two faults
	together      = 0.15     // part of the faults that come while another one lasts
)

// round is one history: its own users on a fleet that goes on, some faults, the end, and
// the verdict.
type round struct {
	o   *options
	n   int
	f   *fleet.Fleet
	rng *rand.Rand
	say func(format string, args ...any)

	l      *load.Load
	h      *history.Writer
	poison *poison
	faults int // so far
}

// run does n faults of the catalog and returns what the checker says.
func (r *round) run(ctx context.Context, n int, path string) (*check.Report, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	if err := r.play(ctx, n, file); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, 0); err != nil {
		return nil, err
	}
	return check.Check(file, check.DefaultLimits())
}

// play writes the history.
func (r *round) play(ctx context.Context, n int, file *os.File) (err error) {
	r.h = history.NewWriter(file)
	r.h.Add(history.Record{Kind: history.Run, Note: fmt.Sprintf("round %d", r.n), Env: map[string]string{
		"seed": fmt.Sprint(r.o.seed), "store": r.o.store, "faults": fmt.Sprint(n), "rate": fmt.Sprint(r.o.rate), "version": version()}})
	defer func() { err = errors.Join(err, r.h.Flush()) }()
	var urls []string
	for _, e := range r.f.Edges() {
		urls = append(urls, "ws://"+e.Public+"/ws")
	}
	r.l = load.New(load.Options{URLs: urls, History: r.h, Seed: r.rng.Uint64(), Prefix: fmt.Sprintf("r%d-", r.n),
		Users: r.o.users, Second: r.o.users / 4, Late: r.o.users / 8, Slow: 2, Rate: r.o.rate, Disturb: r.o.disturb,
		Token: func(user string) (string, error) { return devkeys.Token([]byte(r.f.Secret()), user, time.Hour) }})
	defer r.l.End()
	sctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if err := r.l.Start(sctx); err != nil {
		return err
	}
	r.poison = &poison{f: r.f, h: r.h, users: r.l.Users(), rate: r.o.rate * poisonPart, rng: rand.New(rand.NewPCG(r.rng.Uint64(), 0)), round: r.n}
	r.poison.skip(ctx)
	pctx, stopPoison := context.WithCancel(ctx)
	wctx, stopWatch := context.WithCancel(ctx)
	var side sync.WaitGroup
	side.Go(func() { r.poison.keep(pctx) })
	side.Go(func() { r.poison.watch(wctx) })
	defer side.Wait()
	defer stopWatch()
	defer stopPoison()

	r.l.Run()
	defer r.l.Stop()
	if err := r.pause(ctx, calm); err != nil {
		return err
	}
	for r.faults < n {
		if err := r.next(ctx, r.faults+1 < n && len(r.o.catalog) > 1 && r.rng.Float64() < together); err != nil {
			return err
		}
	}
	stopPoison()
	return r.settle(ctx)
}

// next does one fault, and with another one a second that begins while it lasts.
func (r *round) next(ctx context.Context, another bool) error {
	first, err := r.begin(ctx, "")
	if err != nil {
		return err
	}
	all := []*trouble{first}
	if another {
		if err := r.pause(ctx, time.Duration(r.rng.IntN(1000))*ms); err != nil {
			return err
		}
		second, err := r.begin(ctx, first.name)
		if err != nil {
			return errors.Join(err, r.end(ctx, first))
		}
		all = append(all, second)
	}
	for _, t := range all {
		if err := r.pause(ctx, time.Until(t.until)); err != nil {
			return err
		}
		if err := r.end(ctx, t); err != nil {
			return err
		}
	}
	return r.recover(ctx)
}

// trouble is a fault that lasts.
type trouble struct {
	fault
	hit
	n     int
	until time.Time
}

// begin chooses a fault, but not the one that is called except, and begins it.
func (r *round) begin(ctx context.Context, except string) (*trouble, error) {
	ctx, cancel := context.WithTimeout(ctx, faultWithin)
	defer cancel()
	for {
		f := r.o.catalog.pick(r.rng)
		if f.name == except || except != "" && f.alone {
			continue
		}
		h, err := f.choose(ctx, r)
		if errors.Is(err, errNothing) || except != "" && err != nil && ctx.Err() == nil { // nobody answers while the first one lasts
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("choose %q: %w", f.name, err)
		}
		r.faults++
		t := &trouble{fault: f, hit: h, n: r.faults}
		r.say("fault %d: %s (%s)", t.n, f.name, h.target)
		r.h.Add(history.Record{Kind: history.Fault, Fault: t.n, Name: f.name, Note: h.target, Kill: f.kill})
		if err := h.begin(ctx); err != nil {
			if except != "" && f.operator { // what an operator does fails while NATS does
				r.say("  it could not be done: %v", err)
			} else {
				return nil, fmt.Errorf("begin %q of %s: %w", f.name, h.target, err)
			}
		}
		t.until = time.Now().Add(f.shortest + time.Duration(r.rng.Int64N(int64(f.longest-f.shortest)+1)))
		return t, nil
	}
}

func (r *round) end(ctx context.Context, t *trouble) error {
	ctx, cancel := context.WithTimeout(ctx, faultWithin)
	defer cancel()
	if err := t.end(ctx); err != nil && !errors.Is(err, fleet.ErrRunning) {
		return fmt.Errorf("end %q of %s: %w", t.name, t.target, err)
	}
	r.h.Add(history.Record{Kind: history.Heal, Fault: t.n})
	return nil
}

// recover waits until what was sent before is resolved and everybody is ready again, for
// a while. It is not an error when that is not so: the checker sees it.
func (r *round) recover(ctx context.Context) error {
	began := time.Now()
	rctx, cancel := context.WithTimeout(ctx, recoverWithin)
	defer cancel()
	err := errors.Join(r.f.AwaitNATS(rctx), r.f.AwaitStore(rctx), r.f.AwaitReady(rctx), r.l.AwaitOlder(rctx, began))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.say("  not well after %v: %v", recoverWithin, err)
	}
	return r.pause(ctx, calm)
}

// settle is the end of a round: nothing is sent, everything is resolved, read, and shown.
func (r *round) settle(ctx context.Context) error {
	r.l.Stop()
	r.h.Add(history.Record{Kind: history.Quiet})
	dctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	if err := r.l.AwaitResolved(dctx); err != nil {
		r.say("  not resolved: %v", err)
	}
	lag, err := r.awaitLag(dctx)
	if err != nil {
		r.say("  lag: %v", err)
	}
	r.h.Add(history.Record{Kind: history.Lag, Seq: int64(lag)})
	rctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	lasts, err := r.l.ReadHistory(rctx)
	if err != nil {
		return err
	}
	shown, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	if err := r.l.AwaitShown(shown, lasts); err != nil {
		r.say("  %v", err)
	}
	r.poison.look(ctx)
	r.l.End()
	r.h.Add(history.Record{Kind: history.Done})
	return ctx.Err()
}

// awaitLag waits until nothing waits in the uplink and returns what does at last.
func (r *round) awaitLag(ctx context.Context) (uint64, error) {
	for {
		lag, err := r.f.Lag(ctx)
		if err == nil && lag == 0 {
			return 0, nil
		}
		if perr := r.pause(ctx, 200*ms); perr != nil {
			return max(lag, 1), errors.Join(perr, err)
		}
	}
}

// wiped notes that poisons may be gone that nobody has worked.
func (r *round) wiped() { r.h.Add(history.Record{Kind: history.Wiped}) }

func (r *round) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
