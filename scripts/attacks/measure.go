package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/wirepost/wirepost/scripts/attacks/army"
	"github.com/wirepost/wirepost/scripts/attacks/crowd"
	"github.com/wirepost/wirepost/scripts/attacks/site"
)

const (
	worst    = 1.2 // p99 under attack may be so many times that of rest
	settle   = 1500 * time.Millisecond
	patience = 10 * time.Second // for the last answers
	grow     = 16 << 20         // bytes: garbage between two collections, whatever attacks
)

// side is what was measured in the windows of one kind.
type side struct {
	p50, p99 []time.Duration
	edge     []float64 // shares of a core
	enemy    []float64
}

// result is one row of the table.
type result struct {
	attack      *army.Attack
	rest, under side
	held0, peak int64 // resident bytes before the first attack, and the most in any
	users       error // of users who were cut off
}

// bound is the most that an attack may make the edge grow by: what the attackers can make it
// hold, as much again until it is collected, and what serving anybody costs.
func bound(a *army.Attack) int64 { return 2*int64(a.N)*a.Holds + grow }

func measure(ctx context.Context, o *options, a *army.Attack) (*result, error) {
	dir, err := os.MkdirTemp("", "attacks-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := site.Start(site.Options{Edge: o.edge, Dir: dir, Env: []string{"LOG_LEVEL=warn"}})
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	c, err := crowd.Login(s.Addr, o.users, token)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	talking, stopTalking := context.WithCancel(ctx)
	talked := make(chan struct{})
	go func() { c.Talk(talking, o.period, patience); close(talked) }()
	e, err := hire(a, s.Addr)
	if err != nil {
		stopTalking()
		return nil, err
	}
	defer e.dismiss()
	r := &result{attack: a}
	err = r.windows(ctx, o, s, c, e)
	stopTalking()
	<-talked
	r.users = errors.Join(c.Errors()...)
	return r, err
}

// windows lets attack and rest take turns.
func (r *result) windows(ctx context.Context, o *options, s *site.Site, c *crowd.Crowd, e *enemy) (err error) {
	if err := pause(ctx, settle); err != nil {
		return err
	}
	if r.held0, _, err = s.Memory(); err != nil {
		return err
	}
	if err := s.ResetPeak(); err != nil {
		return err
	}
	publishing, stop := context.WithCancel(ctx)
	published := deliver(publishing, s, r.attack) // in windows of rest too, to nobody
	defer func() { stop(); <-published }()
	for range o.pairs {
		if _, err := e.tell("attack"); err != nil {
			return err
		}
		share, err := r.under.window(ctx, o, s, c, func() (float64, error) { return e.tell("rest 0") })
		if err != nil {
			return err
		}
		if _, err := e.tell(fmt.Sprintf("rest %f", share)); err != nil {
			return err
		}
		if _, err := r.rest.window(ctx, o, s, c, func() (float64, error) { return e.tell("rest 0") }); err != nil {
			return err
		}
	}
	_, r.peak, err = s.Memory()
	return err
}

// window measures one window, of which end is the end.
func (d *side) window(ctx context.Context, o *options, s *site.Site, c *crowd.Crowd, end func() (float64, error)) (share float64, err error) {
	if err := pause(ctx, settle); err != nil {
		return 0, err
	}
	from := time.Now()
	before, err := s.CPU()
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, o.window); err != nil {
		return 0, err
	}
	to := time.Now()
	after, err := s.CPU()
	if err != nil {
		return 0, err
	}
	if share, err = end(); err != nil {
		return 0, err
	}
	if err := pause(ctx, settle/3); err != nil { // for what is under way
		return 0, err
	}
	trips := c.Trips(from, to)
	d.p50 = append(d.p50, crowd.Quantile(trips, 0.5))
	d.p99 = append(d.p99, crowd.Quantile(trips, 0.99))
	d.edge = append(d.edge, (after-before).Seconds()/to.Sub(from).Seconds())
	d.enemy = append(d.enemy, share)
	return share, nil
}

// deliver sends frames to the users of an attack, if it wants them.
func deliver(ctx context.Context, s *site.Site, a *army.Attack) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		if a.Victim == nil {
			return
		}
		frame := fmt.Appendf(nil, `{"msgType":3,"x":"%0*d"}`, a.Frame, 0)
		const grain = 10 * time.Millisecond
		tick := time.NewTicker(grain)
		defer tick.Stop()
		for i := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for range a.Frames * int(grain) / int(time.Second) {
				_ = s.Deliver(a.Victim(i%a.N), frame) // NATS runs in this process
				i++
			}
		}
	}()
	return done
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func median[T time.Duration | float64](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func (r *result) ratio() float64 { return float64(median(r.under.p99)) / float64(median(r.rest.p99)) }

// held reports whether users felt no more than they may.
func (r *result) held() bool { return r.users == nil && r.ratio() <= worst }

const headline = "" +
	"attack         |  p50 rest  attack |        p99 rest             attack      ratio | core of edge: rest attack  of attacker | memory: before   peak  bound\n" +
	"---------------+-------------------+------------------------------------------------+----------------------------------------+------------------------------"

func (r *result) String() string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }
	span := func(all []time.Duration) string {
		return fmt.Sprintf("%6s (%s–%s)", ms(median(all)), ms(slices.Min(all)), ms(slices.Max(all)))
	}
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	line := fmt.Sprintf("%-14s | %6s ms %6s | %20s %22s  %4.2f | %18.2f %6.2f %12.2f | %10.1f %6.1f %6.0f MiB", r.attack.Name,
		ms(median(r.rest.p50)), ms(median(r.under.p50)), span(r.rest.p99), span(r.under.p99), r.ratio(),
		median(r.rest.edge), median(r.under.edge), median(r.under.enemy), mib(r.held0), mib(r.peak), mib(r.held0+bound(r.attack)))
	if r.users != nil {
		line += "\n  users were cut off: " + r.users.Error()
	}
	return line
}
