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
	// first messages wait: ⌈700 ÷ 256⌉ is 3 workers. It becomes more: clients that are told
	// that the store is away send again, and each copy waits.
	first = 700
	// second wait on top of them: ⌈2,200 ÷ 256⌉ is 9, but there are 8 lanes.
	second = 1500
	// leaving users leave 300.
	leaving = 900
	// third wait: 3 workers.
	third = 600
	// perWorker is the target of the overlay, in messages.
	perWorker = 256
	// threshold is what an edge is for here, in connections, instead of 50,000: 1,200 are for 6 edges.
	threshold = 200
)

// soon bounds each wait. The overlay's own tempo downwards would need more: 5 minutes until
// the first of 8 workers goes and 1 for each, 15 until the first of 6 edges goes and 5 for each.
const soon = 3 * time.Minute

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
			if reached := want(f); f.changed(r.last) || reached || f.At-r.printed >= 10*time.Second {
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

// followed reports whether KEDA counts what waits, and there are as many workers as that
// asks for, and no less than least.
func (f figures) followed(least int) bool {
	asked := min((f.Lag+perWorker-1)/perWorker, lanes)
	return f.Worker.Metric == f.Lag && asked >= least && f.Worker.settled(asked)
}

// shipped: with the overlay's own numbers, not for less than half a minute.
func (r *run) shipped(ctx context.Context) error {
	const window = 30 * time.Second // of the overlay
	if err := r.freeze(); err != nil {
		return err
	}
	began := time.Now()
	if err := r.crowd.Send(ctx, first); err != nil {
		return err
	}
	if err := r.until(ctx, "one worker for each 256 that wait, at least 3", soon, func(f figures) bool { return f.followed(3) }); err != nil {
		return err
	}
	// The controller has looked last before the messages came, on a busy machine some time before.
	steps := r.sizes["worker"].since(began)
	if len(steps) == 0 || steps[0].at.Sub(began) < window-5*hpaSync || steps[0].n > 4 {
		return fmt.Errorf("2 workers became %v in %v: the overlay says after %v, and to twice as many", steps, time.Since(began), window)
	}
	r.say("2 workers became %v, first after %.1f s", steps, steps[0].at.Sub(began).Seconds())
	return nil
}

// change changes in the cluster what the rehearsal would have to wait for, or to hold sockets
// for. Nothing else of the overlay is changed.
func (r *run) change(ctx context.Context) error {
	const behavior = "/spec/advanced/horizontalPodAutoscalerConfig/behavior"
	worker := []cluster.Change{
		cluster.Replace("/spec/minReplicaCount", 1),
		cluster.Replace(behavior+"/scaleUp/stabilizationWindowSeconds", 0),
		cluster.Replace(behavior+"/scaleUp/policies/0/periodSeconds", 5),
		cluster.Replace(behavior+"/scaleUp/policies/1/periodSeconds", 5),
		cluster.Replace(behavior+"/scaleDown/stabilizationWindowSeconds", 10),
		cluster.Replace(behavior+"/scaleDown/policies/0/periodSeconds", 3),
	}
	edge := []cluster.Change{
		cluster.Replace("/spec/triggers/0/metadata/threshold", fmt.Sprint(threshold)),
		cluster.Replace(behavior+"/scaleUp/policies/0/periodSeconds", 5),
		cluster.Replace(behavior+"/scaleUp/policies/1/periodSeconds", 5),
		cluster.Replace(behavior+"/scaleDown/stabilizationWindowSeconds", 15),
		cluster.Replace(behavior+"/scaleDown/policies/0/periodSeconds", 5),
	}
	for name, changes := range map[string][]cluster.Change{"worker": worker, "edge": edge} {
		for _, c := range changes {
			value, err := json.Marshal(c.Value)
			if err != nil {
				return err
			}
			r.say("%s: %s = %s", name, c.Path, value)
		}
		if err := r.cluster.Patch(ctx, scaledObject, namespace, name, changes); err != nil {
			return err
		}
	}
	return nil
}

// grow: never more workers than lanes; edges by their connections.
func (r *run) grow(ctx context.Context) error {
	if err := r.crowd.Send(ctx, second); err != nil {
		return err
	}
	return r.until(ctx, "8 workers and no more, 6 edges for 1,200 connections", soon, func(f figures) bool {
		return f.followed(8) && f.Edge.Metric == users && f.Edge.settled(6)
	})
}

// shrink: what waited is worked, every message is acknowledged, and the numbers go down
// one by one, while the users of edges that end move to others.
func (r *run) shrink(ctx context.Context) error {
	began := time.Now()
	if err := r.thaw(); err != nil {
		return err
	}
	if err := r.until(ctx, "nothing waits, every message is acknowledged", soon, func(f figures) bool {
		return f.Lag == 0 && f.Stored == f.Sent
	}); err != nil {
		return err
	}
	r.crowd.Leave(leaving)
	if err := r.until(ctx, "1 worker, 3 edges, 300 connections", soon, func(f figures) bool {
		return f.Worker.settled(1) && f.Edge.settled(3) && f.Edge.Metric == users-leaving
	}); err != nil {
		return err
	}
	workers, edges := r.sizes["worker"].since(began), r.sizes["edge"].since(began)
	if !workers.oneByOne(8, 1) || !edges.oneByOne(6, 3) {
		return fmt.Errorf("from 8 workers it went by %v, from 6 edges by %v: the overlay says one by one", workers, edges)
	}
	return nil
}

// again: the small way up and down.
func (r *run) again(ctx context.Context) error {
	if err := r.freeze(); err != nil {
		return err
	}
	if err := r.crowd.Send(ctx, third); err != nil {
		return err
	}
	if err := r.until(ctx, "one worker for each 256 that wait, at least 3", soon, func(f figures) bool { return f.followed(3) }); err != nil {
		return err
	}
	if err := r.thaw(); err != nil {
		return err
	}
	return r.until(ctx, "1 worker, nothing waits, every message is acknowledged", soon, func(f figures) bool {
		return f.Lag == 0 && f.Worker.settled(1) && f.Stored == f.Sent
	})
}
