package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/history"
	"github.com/wirepost/wirepost/scripts/chaos/load"
	"github.com/wirepost/wirepost/scripts/chaos/trial"
)

const (
	faultWithin   = 90 * time.Second // of one fault's beginning or end: a drain, a start, an election
	secondWithin  = 8 * time.Second  // of the beginning of one that comes while another lasts
	recoverWithin = 60 * time.Second // of the wait for service after a fault; the checker judges, this only goes on
	between       = 700 * ms         // of undisturbed traffic between two faults
	together      = 0.15             // part of the faults that come while another one lasts
)

// round is one history: its own users on a fleet that goes on, some faults, the end, and
// the verdict.
type round struct {
	o   *options
	n   int // from 1
	f   *fleet.Fleet
	say func(format string, args ...any)

	t      *trial.Trial
	poison *poison
	faults int        // so far
	rng    *rand.Rand // of the fault that comes next
}

// random is what the seed says about one part of the round, whatever went before.
func (r *round) random(part int) *rand.Rand {
	return rand.New(rand.NewPCG(r.o.seed, uint64(r.n)<<32|uint64(part)))
}

// run does n faults of the catalog and returns what the checker says.
func (r *round) run(ctx context.Context, n int, path string) (*check.Report, []error, error) {
	t, err := trial.Begin(ctx, r.f, path, history.Record{Note: fmt.Sprintf("round %d", r.n), Env: map[string]string{
		"seed": fmt.Sprint(r.o.seed), "store": r.o.store, "faults": fmt.Sprint(n), "rate": fmt.Sprint(r.o.rate), "version": r.o.version}},
		load.Options{Seed: r.o.seed + uint64(r.n), Prefix: fmt.Sprintf("r%d-", r.n), Users: r.o.users, Second: r.o.users / 4,
			Late: r.o.users / 8, Slow: 2, Rate: r.o.rate, Disturb: r.o.disturb})
	if err != nil {
		return nil, nil, err
	}
	defer t.Close()
	t.Say = r.say
	r.t = t
	r.poison = &poison{f: r.f, h: t.H, users: t.L.Users(), rate: r.o.rate * poisonPart, rng: r.random(0), round: r.n}
	r.poison.skip(ctx)
	wctx, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { r.poison.watch(wctx) })
	defer watch.Wait()
	defer stop()
	if err := r.disrupt(ctx, n); err != nil {
		return nil, nil, err
	}
	t.AtRest = func(ctx context.Context) { // nothing is written behind the history's end
		stop()
		watch.Wait()
		r.poison.look(ctx)
	}
	rep, err := t.Finish(ctx)
	return rep, t.L.Failures(), err
}

// disrupt lets the users talk and does n faults.
func (r *round) disrupt(ctx context.Context, n int) error {
	enough := make(chan struct{})
	var side sync.WaitGroup
	side.Go(func() { r.poison.keep(ctx, enough) })
	defer side.Wait()
	defer close(enough)
	r.t.L.Run()
	if err := trial.Pause(ctx, between); err != nil {
		return err
	}
	for r.faults < n {
		r.rng = r.random(r.faults + 1)
		another := r.faults+1 < n && r.rng.Float64() < together
		if err := r.next(ctx, another); err != nil {
			return err
		}
	}
	return nil
}

// next does one fault, and with another one a second that begins while it lasts.
func (r *round) next(ctx context.Context, another bool) error {
	first, err := r.begin(ctx, r.o.catalog, false)
	if err != nil {
		return err
	}
	var faults errgroup.Group
	faults.Go(func() error { return r.end(ctx, first) })
	if rest := r.o.catalog.besides(first.name); another && len(rest) > 0 {
		faults.Go(func() error {
			if err := trial.Pause(ctx, time.Duration(r.rng.IntN(1000))*ms); err != nil {
				return err
			}
			second, err := r.begin(ctx, rest, true)
			if err != nil {
				return err
			}
			return r.end(ctx, second)
		})
	}
	if err := faults.Wait(); err != nil {
		return err
	}
	return r.recover(ctx)
}

// damage is a fault that lasts.
type damage struct {
	fault
	hit
	n     int
	until time.Time
}

// begin chooses a fault and begins it. A second one comes while another lasts, and may
// find that nobody answers.
func (r *round) begin(ctx context.Context, from catalog, second bool) (*damage, error) {
	ctx, cancel := context.WithTimeout(ctx, faultWithin)
	defer cancel()
	f, h, err := r.choose(ctx, from, second)
	if err != nil {
		return nil, err
	}
	if second && f.name != nameOfPoison { // a poison that is on record must be put in
		ctx, cancel = context.WithTimeout(ctx, secondWithin)
		defer cancel()
	}
	r.faults++
	d := &damage{fault: f, hit: h, n: r.faults}
	r.say("fault %d: %s (%s)", d.n, f.name, h.target)
	r.t.H.Add(history.Record{Kind: history.Fault, Fault: d.n, Name: f.name, Note: h.target, Kill: f.kill})
	if err := h.begin(ctx); err != nil {
		if !second || !f.operator { // what an operator does fails while NATS does
			return nil, fmt.Errorf("begin %q of %s: %w", f.name, h.target, err)
		}
		r.say("  it could not be done: %v", err)
	}
	d.until = time.Now().Add(f.shortest + time.Duration(r.rng.Int64N(int64(f.longest-f.shortest)+1)))
	return d, nil
}

// choose picks until a fault finds something to break.
func (r *round) choose(ctx context.Context, from catalog, second bool) (fault, hit, error) {
	for {
		f := from.pick(r.rng)
		h, err := f.choose(ctx, r)
		switch {
		case err == nil:
			return f, h, nil
		case ctx.Err() != nil || !second && !errors.Is(err, errNothing):
			return fault{}, hit{}, fmt.Errorf("choose %q: %w", f.name, err)
		}
	}
}

// end puts a fault right when it has lasted long enough.
func (r *round) end(ctx context.Context, d *damage) error {
	if err := trial.Pause(ctx, time.Until(d.until)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, faultWithin)
	defer cancel()
	if err := d.end(ctx); err != nil && !errors.Is(err, fleet.ErrRunning) {
		return fmt.Errorf("end %q of %s: %w", d.name, d.target, err)
	}
	r.t.H.Add(history.Record{Kind: history.Heal, Fault: d.n})
	return nil
}

// recover waits until what was sent before is resolved and everybody is ready again, for
// a while. It is not an error when that is not so: the checker sees it.
func (r *round) recover(ctx context.Context) error {
	began := time.Now()
	rctx, cancel := context.WithTimeout(ctx, recoverWithin)
	defer cancel()
	err := errors.Join(r.f.AwaitNATS(rctx), r.f.AwaitStore(rctx), r.f.AwaitReady(rctx), r.t.L.AwaitOlder(rctx, began))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.say("  not well after %v: %v", recoverWithin, err)
	}
	for _, p := range r.f.Processes() {
		if !p.Running() {
			return fmt.Errorf("%s does not run: %s", p.Name, p.Tail(2000))
		}
	}
	return trial.Pause(ctx, between)
}

// wiped notes that poisons may be gone that nobody has worked, or looked for.
func (r *round) wiped() { r.t.H.Add(history.Record{Kind: history.Wiped}) }
