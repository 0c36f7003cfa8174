// Package rehearsal is what `make k8s-verify` shows: the production overlay, applied as it is
// to a real control plane, with real edges, workers, NATS, MongoDB, Prometheus and users; and
// that the numbers of workers and of edges follow what the users do.
package rehearsal

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wirepost/wirepost/k8s/lab/binaries"
	"github.com/wirepost/wirepost/k8s/lab/cluster"
	"github.com/wirepost/wirepost/k8s/lab/crowd"
	"github.com/wirepost/wirepost/k8s/lab/pods"
	"github.com/wirepost/wirepost/k8s/lab/process"
)

const (
	namespace = "wirepost"
	lanes     = 8 // of the overlay's ConfigMap; rows fail when there are others
	// hpaSync is how often the HPA controller looks. Kubernetes' own is 15 s.
	hpaSync = time.Second
)

// Options say where everything is.
type Options struct {
	Overlays string // folder with production, dev and, beside it, mongodb
	Programs string // folder of the control plane's binaries and nats-server
	Edge     string
	Worker   string
	Setup    string // natssetup
	Mongod   string
	// Prometheus is the binary of Debian's package.
	Prometheus string
	Hosts      string // the file that is /etc/hosts
	Dir        string // for everything that is written
	Sources    binaries.Sources
	Out        io.Writer
}

// run is a rehearsal at work.
type run struct {
	o       Options
	began   time.Time
	group   *process.Group
	fail    context.CancelCauseFunc
	names   *pods.Names
	cluster *cluster.Cluster
	runner  *pods.Runner
	crowd   *crowd.Crowd
	mongod  *process.Process
	sizes   map[string]*sizes // of the Deployments worker and edge
	last    figures           // in the table
	printed time.Duration
}

// Run rehearses, and returns nil when everything was reached.
func Run(ctx context.Context, o Options) (err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r := &run{o: o, began: time.Now(), fail: fail, group: process.NewGroup(filepath.Join(o.Dir, "logs"), fail),
		sizes: map[string]*sizes{"worker": {}, "edge": {}}}
	defer r.group.Close(5 * time.Second)
	defer func() {
		if cause := context.Cause(ctx); cause != nil {
			err = cause // what ended first is why the rest did
		}
	}()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"control plane, three fake nodes", r.startCluster},
		{"KEDA, the kinds of the Gateway API", r.startAddons},
		{"MongoDB, Prometheus", r.startAround},
		{"overlays", r.apply},
		{"everything runs", r.settle},
		{"connections", r.connect},
		{"as shipped: a store that hangs", r.shipped},
		{"other tempo, threshold", r.change},
		{"more waits, for workers and edges", r.grow},
		{"the store is back, users leave", r.shrink},
		{"once more: 1, 3, 1", r.again},
	} {
		r.say("── %s", step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.o.Out, "%5.0f s  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// startCluster also begins /etc/hosts, without which nobody finds localhost.
func (r *run) startCluster(ctx context.Context) (err error) {
	if r.names, err = pods.NewNames(r.o.Hosts); err != nil {
		return err
	}
	o := cluster.Options{Programs: r.o.Programs, Dir: filepath.Join(r.o.Dir, "cluster"), Sources: r.o.Sources, HPASync: hpaSync}
	r.cluster, err = cluster.Start(ctx, r.group, o)
	return err
}

func (r *run) startAddons(ctx context.Context) error {
	kinds, err := cluster.Render(filepath.Join(r.o.Sources.Gateway, "config/crd"))
	if err != nil {
		return err
	}
	if err := r.cluster.ApplyYAML(ctx, kinds); err != nil {
		return err
	}
	return r.cluster.StartKEDA(ctx)
}

func (r *run) startAround(ctx context.Context) (err error) {
	programs := map[string]string{"edge": r.o.Edge, "worker": r.o.Worker, "nats": filepath.Join(r.o.Programs, "nats-server")}
	if r.runner, err = pods.Start(ctx, r.cluster.Client, r.group, filepath.Join(r.o.Dir, "pods"), programs, r.names, r.fail); err != nil {
		return err
	}
	if r.crowd, err = crowd.New(func() []string { return r.names.Ready("edge") }, r.fail); err != nil {
		return err
	}
	if err := r.watchSizes(ctx); err != nil {
		return err
	}
	return r.surroundings(ctx)
}

// apply does steps 3 to 5 of k8s/README.md, and lets the server try the other overlay too.
func (r *run) apply(ctx context.Context) error {
	text, err := cluster.Render(filepath.Join(r.o.Overlays, "production"))
	if err != nil {
		return err
	}
	objects, err := cluster.Objects(text)
	if err != nil {
		return err
	}
	for _, u := range objects {
		if u.GetKind() == "Namespace" {
			if err := r.cluster.Apply(ctx, u, false); err != nil {
				return err
			}
		}
	}
	for _, folder := range []string{"dev", "../mongodb"} {
		if err := r.try(ctx, folder); err != nil {
			return err
		}
	}
	if err := r.secrets(ctx); err != nil {
		return err
	}
	kinds := map[string]int{}
	for _, late := range []bool{false, true} {
		for _, u := range objects {
			if (u.GetKind() == "ScaledObject") != late {
				continue
			}
			if err := r.cluster.Apply(ctx, u, false); err != nil {
				return err
			}
			kinds[u.GetKind()]++
		}
		if !late {
			if err := r.lanesExist(ctx); err != nil {
				return err
			}
		}
	}
	r.say("production applied as it is, and accepted: %s", count(kinds))
	return r.refuses(ctx, text)
}

// lanesExist waits until NATS and a worker run. Only then the ScaledObjects are applied: where
// KEDA finds no NATS three times in a row it asks for fallback.replicas, 4 workers, and it
// takes the overlay's tempo five minutes to take them back. In a cluster that does no harm.
func (r *run) lanesExist(ctx context.Context) error {
	return process.Await(ctx, "NATS and the lanes", soon, func(ctx context.Context) error {
		if n := r.runner.Running("nats"); n != 3 {
			return fmt.Errorf("%d NATS servers run", n)
		}
		servers, err := r.natsServers(ctx)
		if err != nil {
			return err
		}
		_, err = lag(ctx, servers, lanes)
		return err
	})
}

// try has the server validate what a folder makes, and store nothing of it.
func (r *run) try(ctx context.Context, folder string) error {
	text, err := cluster.Render(filepath.Join(r.o.Overlays, folder))
	if err != nil {
		return err
	}
	objects, err := cluster.Objects(text)
	if err != nil {
		return err
	}
	kinds := map[string]int{}
	for _, u := range objects {
		if u.GetNamespace() == "" && u.GetKind() == "NetworkPolicy" {
			u.SetNamespace("mongodb") // kubectl apply -n mongodb
		}
		if err := r.cluster.Apply(ctx, u, true); err != nil {
			return err
		}
		kinds[u.GetKind()]++
	}
	r.say("%s would be accepted: %s", filepath.Base(folder), count(kinds))
	return nil
}

// refuses: KEDA's webhook is asked, which shows when it refuses a formula with a lane that has
// no trigger.
func (r *run) refuses(ctx context.Context, production []byte) error {
	const formula = "formula: lane0 +"
	if n := strings.Count(string(production), formula); n != 1 {
		return fmt.Errorf("%q is %d times in the production overlay", formula, n)
	}
	broken, err := cluster.Objects([]byte(strings.Replace(string(production), formula, "formula: lane99 +", 1)))
	if err != nil {
		return err
	}
	for _, u := range broken {
		if u.GetKind() != "ScaledObject" || u.GetName() != "worker" {
			continue
		}
		err := r.cluster.Apply(ctx, u, true)
		if err == nil || !strings.Contains(err.Error(), "admission webhook") {
			return fmt.Errorf("a formula with a lane that has no trigger is accepted (%v)", err)
		}
		why := strings.Split(err.Error(), "\n") // and a picture of where
		r.say("a broken formula is refused: %s", strings.Join(why[:min(2, len(why))], ": "))
		return nil
	}
	return fmt.Errorf("the production overlay has no ScaledObject worker")
}

func count(kinds map[string]int) string {
	var parts []string
	total := 0
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		parts = append(parts, fmt.Sprintf("%d %s", kinds[kind], kind))
		total += kinds[kind]
	}
	return fmt.Sprintf("%d objects (%s)", total, strings.Join(parts, ", "))
}
