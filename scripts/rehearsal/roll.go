package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/trial"
	"github.com/wirepost/wirepost/shared/stream"
)

const (
	rollRate   = 100             // messages a second
	calm       = 2 * time.Second // of undisturbed traffic after each step
	stepWithin = 90 * time.Second
	nameReload = "nginx reloaded"
)

// step is something that an operator does.
type step struct {
	name string
	do   func(context.Context) error
}

// roll replaces everything, one by one.
func (r *rehearsal) roll(ctx context.Context) error {
	p, err := r.begin(ctx, "rolling", rollRate)
	if err != nil {
		return err
	}
	defer p.Close()
	r.say("%d devices talk, %d messages a second", devices, rollRate)
	if !r.o.short { // first workers start anew, which make the streams of the lanes, then edges, which use them
		r.f.SetLanes(stream.DefaultLanes)
		r.say("workers and edges have %d lanes from their next start on", stream.DefaultLanes)
	}
	if err := trial.Pause(ctx, calm); err != nil {
		return err
	}
	for _, s := range r.steps() {
		if err := r.perform(ctx, p, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	felt, err := r.finish(ctx, p)
	if err != nil {
		return err
	}
	return r.judgeMoves(felt)
}

// perform does a step, and lets the traffic go on for a while.
func (r *rehearsal) perform(ctx context.Context, p *part, s step) error {
	ctx, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	r.say("%s", s.name)
	p.note(s.name)
	if err := s.do(ctx); err != nil {
		return err
	}
	p.noteEnd()
	if err := p.L.AwaitOlder(ctx, time.Now()); err != nil {
		return err
	}
	return trial.Pause(ctx, calm)
}

// steps are all of them, in the order in which an upgrade goes (docs/operations.md): the
// store, NATS, workers, edges.
func (r *rehearsal) steps() (all []step) {
	most := 3
	if r.o.short {
		most = 1
	}
	all = append(all, r.storeSteps()...)
	nodes := r.f.Nodes()
	slices.Reverse(nodes) // as a StatefulSet does
	for _, n := range nodes[:most] {
		all = append(all, step{n.Name + " replaced", func(ctx context.Context) error { return r.replaceNode(ctx, n) }})
	}
	for _, w := range r.f.Workers()[:min(most, 2)] {
		all = append(all, step{w.Name + " replaced", func(ctx context.Context) error { return replace(ctx, w) }})
	}
	for _, e := range r.f.Edges()[:min(most, 2)] {
		all = append(all, step{e.Name + " replaced", func(ctx context.Context) error { return replace(ctx, e) }})
	}
	return append(all, step{nameReload, func(context.Context) error { return r.f.ReloadNginx() }})
}

// replace ends a process with SIGTERM and starts it again, for whose readiness it waits.
func replace(ctx context.Context, p *fleet.Process) error {
	exit, err := p.Terminate()
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return fmt.Errorf("%s ended with exit code %d: %s", p.Name, exit.Code, p.Tail(2000))
	}
	if err := p.Start(); err != nil {
		return err
	}
	return p.Ready(ctx)
}

// replaceNode lets a nats-server be a lame duck, and waits until the new one has caught up.
func (r *rehearsal) replaceNode(ctx context.Context, n *fleet.Process) error {
	exit, err := r.f.LameDuck(ctx, n)
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return fmt.Errorf("%s ended with exit code %d: %s", n.Name, exit.Code, n.Tail(2000))
	}
	if err := n.Start(); err != nil {
		return err
	}
	return r.f.AwaitNATS(ctx)
}

// storeSteps restart the members that are none, then let the primary step down and restart
// that one.
func (r *rehearsal) storeSteps() (all []step) {
	stepDown := step{"primary steps down", func(ctx context.Context) error {
		from, to, err := r.f.StepDown(ctx)
		if err == nil && from == to {
			err = fmt.Errorf("%s is the primary again", to.Name)
		}
		return err
	}}
	if r.o.short {
		return []step{stepDown}
	}
	done := map[*fleet.Process]bool{}
	another := func(ctx context.Context) error {
		primary, err := r.f.Primary(ctx)
		if err != nil {
			return err
		}
		for _, m := range r.f.Store() {
			if m != primary && !done[m] {
				done[m] = true
				if err := replace(ctx, m); err != nil {
					return err
				}
				return r.f.AwaitStore(ctx)
			}
		}
		return fmt.Errorf("the primary is %s, and the others are done", primary.Name)
	}
	return []step{{"1st mongod replaced", another}, {"2nd mongod replaced", another}, stepDown, {"3rd mongod replaced", another}}
}

// judgeMoves: only those lose their connection whose edge goes.
func (r *rehearsal) judgeMoves(steps []felt) (err error) {
	edges := map[string]bool{}
	for _, e := range r.f.Edges() {
		edges[e.Name+" replaced"] = true
	}
	moved := 0
	for _, s := range steps {
		moved += len(s.away)
		if !edges[s.name] && len(s.away) > 0 {
			fmt.Fprintf(r.out, "%d connections were lost though no edge went: %s\n", len(s.away), s.name)
			err = errBroken
		}
	}
	if moved < devices/4 {
		fmt.Fprintf(r.out, "only %d connections were moved\n", moved)
		err = errBroken
	}
	return err
}
