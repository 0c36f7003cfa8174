package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/trial"
	"github.com/wirepost/wirepost/scripts/rehearsal/autoscaler"
)

const (
	// storeBytes is what a worker can send to the store in a second: so one of them is slower
	// than the load, and all together are faster, as in a cluster. On a machine with few
	// cores nothing else makes them so.
	storeBytes  = 40_000
	scaleRate   = 180 // messages a second
	poll        = 15 * time.Second
	quietWithin = 2 * time.Minute
	rowEvery    = 2 * time.Second // of the table; a change has one of its own
)

// pace is how long the parts of scaling take.
type pace struct {
	faster int           // times of the manifest are divided by it
	load   time.Duration // how long the load lasts
	peak   int           // how many workers there must have been
}

func (o *options) pace() pace {
	if o.short {
		return pace{faster: 60, load: 8 * time.Second, peak: 3}
	}
	return pace{faster: 20, load: 20 * time.Second, peak: 6}
}

// scaling is the part in which the number of workers follows the lag.
type scaling struct {
	*rehearsal
	pace
	s        *autoscaler.ScaledObject
	hpa      *autoscaler.HPA
	part     *part
	monitors map[string]string

	most   int       // workers
	lagged float64   // the highest sum
	acks   int64     // at the last row
	told   time.Time // when that was printed
}

// scale lets more come than one worker can do, then nothing, and follows with the number
// of workers.
func (r *rehearsal) scale(ctx context.Context) error {
	file := filepath.Join(r.k8s, "overlays", "production", "worker-scaling.yaml")
	s, err := autoscaler.Load(file)
	if err != nil {
		return err
	}
	x := &scaling{rehearsal: r, pace: r.o.pace(), monitors: map[string]string{}}
	x.say("scaling by %s; times ÷ %d, target %.0f ÷ %d with the batch, down to 1 worker instead of %d; a worker sends %d KB/s to the store",
		filepath.Base(file), x.faster, s.Target, smaller, s.Min, storeBytes/1000)
	x.s = s.Faster(x.faster).Smaller(smaller)
	x.s.Min = 1
	for _, n := range r.f.Nodes() {
		x.monitors[n.Name] = n.Admin
	}
	if err := x.set(ctx, x.s.Min); err != nil {
		return err
	}
	x.limit(storeBytes)
	if x.part, err = r.begin(ctx, "scaling", scaleRate); err != nil {
		return err
	}
	defer x.part.Close()
	if err := x.follow(ctx); err != nil {
		return err
	}
	x.limit(0) // what follows reads everything
	if _, err := r.finish(ctx, x.part); err != nil {
		return err
	}
	return x.judge()
}

// follow ticks as the HPA controller does, until there is nothing left to do.
func (x *scaling) follow(ctx context.Context) error {
	x.part.note("workers follow the lag")
	defer x.part.noteEnd()
	x.say("%9s %8s %9s", "waiting", "workers", "acked/s")
	began := time.Now()
	x.hpa, x.told = autoscaler.NewHPA(x.s, began, len(x.f.Workers())), began
	ctx, cancel := context.WithTimeout(ctx, x.load+quietWithin)
	defer cancel()
	for loaded := true; ; {
		if err := trial.Pause(ctx, poll/time.Duration(x.faster)); err != nil {
			return fmt.Errorf("the workers did not go: %w", err)
		}
		if loaded && time.Since(began) > x.load {
			loaded = false
			x.part.L.Stop()
			x.say("the load is over")
		}
		sum, err := x.tick(ctx)
		if err != nil {
			return err
		}
		if !loaded && sum == 0 && len(x.f.Workers()) == x.s.Min {
			return nil
		}
	}
}

// tick looks once and acts.
func (x *scaling) tick(ctx context.Context) (sum float64, err error) {
	now, acks := time.Now(), x.part.L.Acks()
	lag, err := x.s.Lag(ctx, x.monitors)
	if err != nil {
		return 0, err
	}
	if sum, err = x.s.Sum(lag); err != nil {
		return 0, err
	}
	current := len(x.f.Workers())
	n := x.hpa.Next(now, current, sum)
	x.most, x.lagged = max(x.most, n), max(x.lagged, sum)
	if gone := now.Sub(x.told); n != current || gone >= rowEvery {
		x.say("%9.0f %8s %9.0f", sum, arrow(current, n), float64(acks-x.acks)/gone.Seconds())
		x.acks, x.told = acks, now
	}
	return sum, x.set(ctx, n)
}

func arrow(from, to int) string {
	if from == to {
		return fmt.Sprint(from)
	}
	return fmt.Sprintf("%d → %d", from, to)
}

// set makes the number of workers n: new ones start, the youngest are ended.
func (x *scaling) set(ctx context.Context, n int) error {
	for len(x.f.Workers()) < n {
		w, err := x.f.AddWorker()
		if err != nil {
			return err
		}
		x.limitOf(w, storeBytes)
	}
	for len(x.f.Workers()) > n {
		all := x.f.Workers()
		exit, err := x.f.Retire(all[len(all)-1])
		if err != nil {
			return err
		}
		if exit.Code != 0 {
			return fmt.Errorf("a worker ended with exit code %d", exit.Code)
		}
	}
	return ctx.Err()
}

func (x *scaling) limit(bytesPerSecond int) {
	for _, w := range x.f.Workers() {
		x.limitOf(w, bytesPerSecond)
	}
}

func (x *scaling) limitOf(w *fleet.Process, bytesPerSecond int) {
	for _, m := range x.f.Store() {
		x.f.Link(w, m).Limit(bytesPerSecond)
	}
}

func (x *scaling) judge() error {
	if x.most < x.peak || x.lagged < x.s.Target {
		fmt.Fprintf(x.out, "%d workers at most for a lag of %.0f, want %d\n", x.most, x.lagged, x.peak)
		return errBroken
	}
	x.say("workers: 1 → %d → 1", x.most)
	return nil
}
