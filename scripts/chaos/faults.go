package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/trial"
	"github.com/wirepost/wirepost/shared/stream"
)

// fault is one kind of trouble.
type fault struct {
	name   string
	weight int // how often it comes, compared with the others
	// kill: what is broken is put right at once, or by the system itself: a killed process
	// is started again, as its supervisor would. Service must be back within the bound from
	// the beginning of such a fault on; after any other, from its end on.
	kill     bool
	alone    bool // nothing else is broken meanwhile: it works through the whole system itself
	operator bool // somebody does it by NATS, which must be there for it
	// shortest and longest hold between the beginning and the end.
	shortest, longest time.Duration
	// choose decides what it hits. Nothing is broken yet.
	choose func(ctx context.Context, r *round) (hit, error)
}

// hit is a fault with its target.
type hit struct {
	target string
	begin  func(context.Context) error
	end    func(context.Context) error // puts right what begin broke
}

// errNothing is returned when a fault finds nothing to break: another one comes instead.
var errNothing = errors.New("nothing to break")

const ms = time.Millisecond

const nameOfPoison = "worker's poison"

// everything is every fault there is. SIGSTOP lasts longer than every pin and lease of the
// lanes (3 s), so that who wakes up finds that others went on.
var everything = catalog{
	{name: "edge killed", weight: 3, kill: true, longest: 2000 * ms, choose: killed(fleet.Edge)},
	{name: "edge paused", weight: 2, shortest: 4000 * ms, longest: 9000 * ms, choose: paused(fleet.Edge)},
	{name: "edges rolled", weight: 2, alone: true, choose: rolled(fleet.Edge)},
	{name: "worker killed", weight: 4, kill: true, longest: 2000 * ms, choose: killed(fleet.Worker)},
	{name: "worker paused", weight: 4, shortest: 4000 * ms, longest: 9000 * ms, choose: paused(fleet.Worker)},
	{name: "workers rolled", weight: 2, alone: true, choose: rolled(fleet.Worker)},
	{name: "workers 1 → 4 → 1", weight: 1, alone: true, choose: scaled},
	{name: "nats node killed", weight: 2, kill: true, longest: 2000 * ms, choose: killed(fleet.NATS)},
	{name: "nats leader killed", weight: 3, kill: true, longest: 2000 * ms, choose: leaderKilled},
	{name: "nats node paused", weight: 2, shortest: 4000 * ms, longest: 9000 * ms, choose: paused(fleet.NATS)},
	{name: "all of nats killed", weight: 2, kill: true, longest: 500 * ms, choose: allKilled(fleet.NATS)},
	{name: "all data of nats deleted", weight: 2, kill: true, operator: true, choose: wiped},
	{name: "route between nats nodes cut", weight: 4, shortest: 100 * ms, longest: 900 * ms, choose: routeCut},
	{name: "store primary killed", weight: 3, kill: true, longest: 2000 * ms, choose: primaryKilled},
	{name: "store primary paused", weight: 2, shortest: 4000 * ms, longest: 9000 * ms, choose: primaryPaused},
	{name: "whole store killed", weight: 2, kill: true, longest: 500 * ms, choose: allKilled(fleet.Mongo, fleet.Ferret)},
	{name: "link cut", weight: 4, shortest: 1000 * ms, longest: 8000 * ms, choose: linkCut},
	{name: "process isolated", weight: 3, shortest: 2000 * ms, longest: 8000 * ms, choose: isolated},
	{name: "process far away", weight: 3, shortest: 2000 * ms, longest: 6000 * ms, choose: slowed},
	{name: "all clients cut", weight: 2, kill: true, choose: clientsCut},
	{name: "uplink full", weight: 2, operator: true, shortest: 1500 * ms, longest: 4000 * ms, choose: uplinkFull},
	{name: "stream deleted", weight: 2, kill: true, operator: true, choose: streamDeleted},
	{name: "consumer deleted", weight: 2, kill: true, operator: true, choose: consumerDeleted},
	{name: nameOfPoison, weight: 2, kill: true, operator: true, choose: killerPoison},
	{name: "reader stops", weight: 2, shortest: 2000 * ms, longest: 4000 * ms, choose: readerStops},
}

// catalog is what a run may choose from.
type catalog []fault

// faultsFor returns the faults that a store can have, those whose name holds only.
func faultsFor(store, only string) (catalog, error) {
	var c catalog
	for _, f := range everything {
		if strings.Contains(f.name, only) && (store == "mongo" || !strings.HasPrefix(f.name, "store primary")) {
			c = append(c, f)
		}
	}
	if len(c) == 0 {
		return nil, fmt.Errorf("%w: no fault's name holds %q", errUsage, only)
	}
	return c, nil
}

// besides are the faults that may come while another one lasts.
func (c catalog) besides(name string) (rest catalog) {
	for _, f := range c {
		if f.name != name && !f.alone {
			rest = append(rest, f)
		}
	}
	return rest
}

// pick chooses by weight.
func (c catalog) pick(rng *rand.Rand) fault {
	sum := 0
	for _, f := range c {
		sum += f.weight
	}
	at := rng.IntN(sum)
	for _, f := range c {
		if at -= f.weight; at < 0 {
			return f
		}
	}
	panic("the weights do not add up")
}

func nothing(context.Context) error { return nil }

// one picks one of a list at random.
func one[T any](rng *rand.Rand, list []T) (T, error) {
	if len(list) == 0 {
		var none T
		return none, errNothing
	}
	return list[rng.IntN(len(list))], nil
}

// processes of some kinds that run and are not paused.
func (r *round) processes(kinds ...fleet.Kind) (found []*fleet.Process) {
	for _, p := range r.f.Processes() {
		for _, k := range kinds {
			if p.Kind == k && p.Running() && !p.Paused() {
				found = append(found, p)
			}
		}
	}
	return found
}

type choice = func(context.Context, *round) (hit, error)

func killed(kind fleet.Kind) choice {
	return func(_ context.Context, r *round) (hit, error) {
		p, err := one(r.rng, r.processes(kind))
		return hit{fmt.Sprint(p), killing(p), doing(p, (*fleet.Process).Start)}, err
	}
}

func paused(kind fleet.Kind) choice {
	return func(_ context.Context, r *round) (hit, error) {
		p, err := one(r.rng, r.processes(kind))
		return hit{fmt.Sprint(p), doing(p, (*fleet.Process).Pause), doing(p, (*fleet.Process).Resume)}, err
	}
}

func killing(p *fleet.Process) func(context.Context) error {
	return func(context.Context) error { p.Kill(); return nil }
}

func doing(p *fleet.Process, verb func(*fleet.Process) error) func(context.Context) error {
	return func(context.Context) error { return verb(p) }
}

// rolled restarts all of a kind with SIGTERM, each when the one before is ready.
func rolled(kind fleet.Kind) choice {
	return func(_ context.Context, r *round) (hit, error) {
		all := r.processes(kind)
		return hit{fmt.Sprintf("%d of kind %s", len(all), kind), func(ctx context.Context) error {
			for _, p := range all {
				exit, err := p.Terminate()
				if err != nil {
					return err
				}
				if exit.Code != 0 {
					return fmt.Errorf("%s ended with code %d on SIGTERM: %s", p.Name, exit.Code, p.Tail(2000))
				}
				if err := p.Start(); err != nil {
					return err
				}
				if err := p.Ready(ctx); err != nil {
					return err
				}
			}
			return nil
		}, nothing}, nil
	}
}

// scaled goes down to one worker, up to four, down to one, and back to what there was.
func scaled(_ context.Context, r *round) (hit, error) {
	was := len(r.f.Workers())
	return hit{"workers", func(ctx context.Context) error {
		for _, n := range []int{1, 4, 1, was} {
			for len(r.f.Workers()) > n {
				all := r.f.Workers()
				exit, err := r.f.Retire(all[r.rng.IntN(len(all))])
				if err != nil {
					return err
				}
				if exit.Code != 0 {
					return fmt.Errorf("a worker ended with code %d on SIGTERM", exit.Code)
				}
			}
			for len(r.f.Workers()) < n {
				if _, err := r.f.AddWorker(); err != nil {
					return err
				}
			}
			if err := r.f.AwaitReady(ctx); err != nil {
				return err
			}
			if err := trial.Pause(ctx, time.Second); err != nil { // some traffic on each step
				return err
			}
		}
		return nil
	}, nothing}, nil
}

func leaderKilled(ctx context.Context, r *round) (hit, error) {
	names, err := r.f.StreamNames(ctx)
	if err != nil {
		return hit{}, err
	}
	name, err := one(r.rng, names)
	if err != nil {
		return hit{}, err
	}
	p, err := r.f.StreamLeader(ctx, name)
	if err != nil {
		return hit{}, err
	}
	return hit{p.Name + ", leader of " + name, killing(p), doing(p, (*fleet.Process).Start)}, nil
}

func allKilled(kinds ...fleet.Kind) choice {
	return func(_ context.Context, r *round) (hit, error) {
		all := r.processes(kinds...)
		if len(all) == 0 {
			return hit{}, errNothing
		}
		return hit{fmt.Sprintf("%d at once", len(all)), func(context.Context) error { fleet.KillAll(all); return nil },
			func(context.Context) error { return fleet.StartAll(all) }}, nil
	}
}

func wiped(_ context.Context, r *round) (hit, error) {
	return hit{"every node", func(ctx context.Context) error {
		err := r.f.WipeNATS(ctx)
		r.wiped()
		return err
	}, nothing}, nil
}

func routeCut(_ context.Context, r *round) (hit, error) {
	nodes := r.processes(fleet.NATS)
	if len(nodes) < 2 {
		return hit{}, errNothing
	}
	i := r.rng.IntN(len(nodes))
	link := r.f.Link(nodes[i], nodes[(i+1)%len(nodes)])
	return cut(link), nil
}

func cut(links ...*fleet.Link) hit {
	return hit{fmt.Sprint(links), func(context.Context) error {
		for _, l := range links {
			l.Cut()
		}
		return nil
	}, func(context.Context) error {
		for _, l := range links {
			l.Restore()
		}
		return nil
	}}
}

// linkCut cuts a process off from another, or from all of one kind: an edge or a worker is
// connected to one NATS node of three, so a single link may carry nothing.
func linkCut(_ context.Context, r *round) (hit, error) {
	var alive []*fleet.Link
	for _, l := range r.f.Links() {
		if l.B.Running() && (l.A == nil || l.A.Running()) {
			alive = append(alive, l)
		}
	}
	l, err := one(r.rng, alive)
	if err != nil {
		return hit{}, err
	}
	if l.A == nil || l.A.Kind == l.B.Kind {
		return cut(l), nil
	}
	var group []*fleet.Link
	for _, other := range alive {
		if other.A == l.A && other.B.Kind == l.B.Kind {
			group = append(group, other)
		}
	}
	h := cut(group...)
	h.target = fmt.Sprintf("%s – all of %s", l.A, l.B.Kind)
	return h, nil
}

func isolated(_ context.Context, r *round) (hit, error) {
	p, err := one(r.rng, r.processes(fleet.Edge, fleet.Worker, fleet.NATS, fleet.Mongo, fleet.Ferret))
	if err != nil {
		return hit{}, err
	}
	h := cut(r.f.LinksOf(p)...)
	h.target = p.Name
	return h, nil
}

func slowed(_ context.Context, r *round) (hit, error) {
	p, err := one(r.rng, r.processes(fleet.Edge, fleet.Worker, fleet.NATS, fleet.Mongo, fleet.Ferret))
	if err != nil {
		return hit{}, err
	}
	links := r.f.LinksOf(p)
	latency := time.Duration(10+r.rng.IntN(140)) * ms
	h := cut(links...)
	h.target = fmt.Sprintf("%s, by %v", p.Name, latency)
	h.begin = func(context.Context) error {
		for _, l := range links {
			l.Slow(latency, latency/2)
		}
		return nil
	}
	return h, nil
}

func primaryKilled(ctx context.Context, r *round) (hit, error) {
	p, err := r.f.Primary(ctx)
	return hit{fmt.Sprint(p), killing(p), doing(p, (*fleet.Process).Start)}, err
}

func primaryPaused(ctx context.Context, r *round) (hit, error) {
	p, err := r.f.Primary(ctx)
	return hit{fmt.Sprint(p), doing(p, (*fleet.Process).Pause), doing(p, (*fleet.Process).Resume)}, err
}

func clientsCut(_ context.Context, r *round) (hit, error) {
	return hit{"all", func(context.Context) error { r.t.L.CutAll(); return nil }, nothing}, nil
}

// uplinkFull lets every lane be full for a while: it refuses, and must not throw away
// what it holds.
func uplinkFull(_ context.Context, r *round) (hit, error) {
	const almostNothing, again = 2 << 10, 1 << 30 / lanes // bytes; what a lane has by default
	return hit{"every lane", func(ctx context.Context) error { return r.f.LimitLanes(ctx, almostNothing) },
		func(ctx context.Context) error { return r.f.LimitLanes(ctx, again) }}, nil
}

func streamDeleted(ctx context.Context, r *round) (hit, error) {
	names, err := r.f.StreamNames(ctx)
	if err != nil {
		return hit{}, err
	}
	name, err := one(r.rng, names)
	return hit{name, func(ctx context.Context) error {
		err := r.f.DeleteStream(ctx, name)
		if strings.HasPrefix(name, "UP_") || name == stream.Dead { // also when it is not known whether it was done
			r.wiped()
		}
		return err
	}, nothing}, err
}

func consumerDeleted(_ context.Context, r *round) (hit, error) {
	name := stream.Up(r.rng.IntN(lanes))
	return hit{"of " + name, func(ctx context.Context) error { return r.f.DeleteConsumer(ctx, name, stream.Consumer) }, nothing}, nil
}

func killerPoison(_ context.Context, r *round) (hit, error) {
	user, err := one(r.rng, r.t.L.Users())
	return hit{"a frame of " + user, func(ctx context.Context) error { return r.poison.kill(ctx, user) }, nothing}, err
}

// readerStops: 100 messages of 30 kB are more than an edge keeps for one socket.
func readerStops(_ context.Context, r *round) (hit, error) {
	var hear func()
	return hit{"a device", func(ctx context.Context) (err error) {
		hear, err = r.t.L.Flood(ctx, r.rng, 100, 30_000)
		return err
	}, func(context.Context) error {
		if hear != nil {
			hear()
		}
		return nil
	}}, nil
}
