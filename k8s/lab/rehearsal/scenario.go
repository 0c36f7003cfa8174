package rehearsal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wirepost/wirepost/k8s/lab/cluster"
)

// What the users do. The overlay's numbers make of it what stands beside.
const (
	users = 1200
	// first messages wait: ⌈1,200 ÷ 256⌉ is 5 workers.
	first = 1200
	// second wait on top of them: ⌈2,400 ÷ 256⌉ is 10, but there are 8 lanes.
	second = 1200
	// leaving users leave 300.
	leaving = 900
	// third wait: 3 workers.
	third = 600
	// threshold is what an edge is for here, in connections, instead of 50,000: 1,200 are for 6 edges.
	threshold = 200
)

// Bounds on waiting. The overlay's own tempo takes 5 minutes until the first of 8 workers
// goes and 1 for each; 15 until the first of 6 edges goes and 5 for each.
const (
	soon  = 3 * time.Minute
	later = 45 * time.Minute
)

var scaledObject = schema.GroupVersionKind{Group: "keda.sh", Version: "v1alpha1", Kind: "ScaledObject"}

// until looks once a second, prints what changed, and returns when the figures are as wanted.
func (r *run) until(ctx context.Context, what string, limit time.Duration, want func(figures) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v: %s", limit, what))
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		f, err := r.look(ctx)
		if err == nil {
			if reached := want(f); f.changed(r.last) || reached || f.At-r.printed >= time.Minute {
				f.row(r.o.Out)
				r.last, r.printed = f, f.At
				if reached {
					r.say("reached: %s", what)
					return nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// settle waits for the smallest numbers of the overlay, which has no replicas: the HPA
// controller sets them.
func (r *run) settle(ctx context.Context) error {
	fmt.Fprintln(r.o.Out, header)
	return r.until(ctx, "2 workers, 3 edges, nothing waits", soon, func(f figures) bool {
		return f.Worker.settled(2) && f.Edge.settled(3) && f.Lag == 0 && f.Worker.Metric == 0
	})
}

// connect: the figure by which edges scale is the number of sockets.
func (r *run) connect(ctx context.Context) error {
	if err := r.crowd.Join(ctx, users); err != nil {
		return err
	}
	return r.until(ctx, "Prometheus, KEDA and the HPA count 1,200 connections, and 3 edges are enough for them", soon, func(f figures) bool {
		return f.Edge.Metric == users && f.Edge.settled(3)
	})
}

// shipped: with the overlay's own numbers, not for less than half a minute, then 2, 4, 5.
func (r *run) shipped(ctx context.Context) error {
	if err := r.freeze(); err != nil {
		return err
	}
	if err := r.crowd.Send(ctx, first); err != nil {
		return err
	}
	var waiting, up time.Duration
	four := false
	if err := r.until(ctx, "5 workers for 1,200 messages", soon, func(f figures) bool {
		if waiting == 0 && f.Lag == first && f.Worker.Metric == first {
			waiting = f.At
		}
		if up == 0 && f.Worker.Pods > 2 {
			up = f.At
		}
		four = four || f.Worker.Pods == 4
		return f.Lag == first && f.Worker.Metric == first && f.Worker.settled(5)
	}); err != nil {
		return err
	}
	// The window is 30 s; we look once a second, and the controller in its own rhythm.
	if after := up - waiting; waiting == 0 || after < 27*time.Second || !four {
		return fmt.Errorf("the first workers came after %v, by way of 4 is %v: the overlay says after 30 s, and twice as many", after, four)
	}
	return nil
}

// change changes in the cluster what the rehearsal would have to wait for, or to hold sockets
// for. Nothing else of the overlay is changed.
func (r *run) change(ctx context.Context) error {
	const behavior = "/spec/advanced/horizontalPodAutoscalerConfig/behavior"
	edge := []cluster.Change{cluster.Replace("/spec/triggers/0/metadata/threshold", fmt.Sprint(threshold))}
	var worker []cluster.Change
	if !r.o.Full {
		worker = []cluster.Change{
			cluster.Replace("/spec/minReplicaCount", 1),
			cluster.Replace(behavior+"/scaleUp/stabilizationWindowSeconds", 0),
			cluster.Replace(behavior+"/scaleUp/policies/0/periodSeconds", 5),
			cluster.Replace(behavior+"/scaleUp/policies/1/periodSeconds", 5),
			cluster.Replace(behavior+"/scaleDown/stabilizationWindowSeconds", 10),
			cluster.Replace(behavior+"/scaleDown/policies/0/periodSeconds", 3),
		}
		edge = append(edge,
			cluster.Replace(behavior+"/scaleUp/policies/0/periodSeconds", 5),
			cluster.Replace(behavior+"/scaleUp/policies/1/periodSeconds", 5),
			cluster.Replace(behavior+"/scaleDown/stabilizationWindowSeconds", 15),
			cluster.Replace(behavior+"/scaleDown/policies/0/periodSeconds", 5),
		)
	}
	for name, changes := range map[string][]cluster.Change{"worker": worker, "edge": edge} {
		for _, c := range changes {
			value, err := json.Marshal(c.Value)
			if err != nil {
				return err
			}
			r.say("%s: %s = %s", name, c.Path, value)
		}
		if len(changes) > 0 {
			if err := r.cluster.Patch(ctx, scaledObject, namespace, name, changes); err != nil {
				return err
			}
		}
	}
	return nil
}

// grow: never more workers than lanes; edges by their connections.
func (r *run) grow(ctx context.Context) error {
	if err := r.crowd.Send(ctx, second); err != nil {
		return err
	}
	const all = first + second
	return r.until(ctx, "8 workers for 2,400 messages, 6 edges for 1,200 connections", soon, func(f figures) bool {
		return f.Lag == all && f.Worker.Metric == all && f.Worker.settled(8) && f.Edge.Metric == users && f.Edge.settled(6)
	})
}

// shrink: what waited is worked, every message is acknowledged, and the numbers go down
// one by one, while the users of edges that end move to others.
func (r *run) shrink(ctx context.Context) error {
	if err := r.thaw(); err != nil {
		return err
	}
	if err := r.until(ctx, "nothing waits, every message is acknowledged", soon, func(f figures) bool {
		return f.Lag == 0 && f.Stored == f.Sent
	}); err != nil {
		return err
	}
	r.crowd.Leave(leaving)
	least, limit := 1, soon
	if r.o.Full {
		least, limit = 2, later
	}
	workers, edges := steps{}, steps{}
	if err := r.until(ctx, fmt.Sprintf("%d workers, 3 edges, 300 connections", least), limit, func(f figures) bool {
		workers.add(f.Worker.Pods)
		edges.add(f.Edge.Pods)
		return f.Worker.settled(least) && f.Edge.settled(3) && f.Edge.Metric == users-leaving
	}); err != nil {
		return err
	}
	if edges.largest > 1 || workers.largest > 1 {
		return fmt.Errorf("workers went by %d, edges by %d at a time: the overlay says one by one", workers.largest, edges.largest)
	}
	return nil
}

// again: the small way up and down.
func (r *run) again(ctx context.Context) error {
	if r.o.Full {
		r.say("not with the overlay's own numbers: there are never less than 2 workers")
		return nil
	}
	if err := r.freeze(); err != nil {
		return err
	}
	if err := r.crowd.Send(ctx, third); err != nil {
		return err
	}
	if err := r.until(ctx, "3 workers for 600 messages", soon, func(f figures) bool {
		return f.Lag == third && f.Worker.Metric == third && f.Worker.settled(3)
	}); err != nil {
		return err
	}
	if err := r.thaw(); err != nil {
		return err
	}
	return r.until(ctx, "1 worker, nothing waits, every message is acknowledged", soon, func(f figures) bool {
		return f.Lag == 0 && f.Worker.settled(1) && f.Stored == f.Sent
	})
}

// steps watches a number go down.
type steps struct{ before, largest int }

func (s *steps) add(n int) {
	s.largest = max(s.largest, s.before-n)
	s.before = n
}
