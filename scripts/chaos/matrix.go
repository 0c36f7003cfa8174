package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/mutant"
	"github.com/wirepost/wirepost/scripts/checkout"
)

// What the processes of the matrix are told. Clients are quick to notice that their edge
// is gone, a drain is quick; everything else is as users have it.
var edgeEnv = []string{"HEARTBEAT=2s", "DRAIN_NOTICE=300ms"}

const (
	edges     = 3
	workers   = 2
	natsNodes = 3
	members   = 3 // of the replica set
	lanes     = 4 // half of the default: as many lanes as there are processes to share two processors
	shards    = 2
)

// matrix runs the faults, in rounds, and prints the table.
func (o *options) matrix(ctx context.Context) (ok bool, err error) {
	began := time.Now()
	if o.catalog, err = faultsFor(o.store, o.only); err != nil {
		return false, err
	}
	fmt.Printf("chaos: seed %d, %d faults, %g messages/s of %d users, store %s\n", o.seed, o.faults, o.rate, o.users, o.store)
	dir, err := o.folder()
	if err != nil {
		return false, err
	}
	defer func() {
		if ok && err == nil && o.keep == "" {
			_ = os.RemoveAll(dir)
			return
		}
		fmt.Println("histories and logs are in", dir)
	}()
	f, err := o.fleet(ctx, dir)
	if err != nil {
		return false, err
	}
	defer func() {
		f.Close()
		f.RemoveData()
	}()
	fmt.Printf("%v: %d processes run\n", since(began), len(f.Processes()))
	t := newTable(o)
	for n, left := o.from, o.faults; n == o.from || left > 0; n++ {
		r := &round{o: o, n: n, f: f, say: func(format string, args ...any) {
			fmt.Printf("%v round %d: %s\n", since(began), n, fmt.Sprintf(format, args...))
		}}
		path := filepath.Join(dir, fmt.Sprintf("round-%03d.jsonl", n))
		rep, failures, err := r.run(ctx, min(left, o.round), path)
		if err != nil {
			fmt.Printf("\nABORTED in round %d; what the rounds before it showed:\n", n)
			return false, errors.Join(err, t.print(f))
		}
		left -= o.round
		t.add(rep)
		for _, err := range failures {
			t.complain(err.Error())
		}
		if !rep.OK() {
			_, _ = rep.WriteTo(os.Stdout)
		} else if o.keep == "" {
			_ = os.Remove(path)
		}
		r.say("%s", t.line())
	}
	return t.ok(f), t.print(f)
}

func since(t time.Time) string { return fmt.Sprintf("%6.1fs", time.Since(t).Seconds()) }

// folder is where everything of the run is.
func (o *options) folder() (string, error) {
	if o.keep == "" {
		return os.MkdirTemp("", "wirepost-chaos-")
	}
	dir := filepath.Join(o.keep, o.store)
	return dir, os.MkdirAll(dir, 0o700)
}

// fleet builds and starts everything.
func (o *options) fleet(ctx context.Context, dir string) (*fleet.Fleet, error) {
	root, err := checkout.Root()
	if err != nil {
		return nil, err
	}
	// The worker of the matrix is the real one, with one line more: it kills itself over a
	// frame that says so.
	overlay, err := mutant.Overlay(root, filepath.Join(dir, "overlay"), mutant.Killer)
	if err != nil {
		return nil, err
	}
	fmt.Println("building")
	bin, err := fleet.Build(ctx, root, dir, fleet.BuildOptions{Ferret: o.store == "ferret", WorkerOverlay: overlay})
	if err != nil {
		return nil, err
	}
	spec := fleet.Spec{Dir: filepath.Join(dir, "fleet"), Bin: bin, Edges: edges, Workers: workers, NATS: natsNodes,
		Store: fleet.Store{Kind: fleet.Mongo, Members: members}, Lanes: lanes, Shards: shards, EdgeEnv: edgeEnv, OnDeath: revive}
	if o.store == "ferret" {
		spec.Store = fleet.Store{Kind: fleet.Ferret}
	}
	sctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return fleet.Start(sctx, spec)
}

// revive starts a worker again that killed itself, as its supervisor would. That it runs
// is looked at after each fault.
func revive(d fleet.Death) {
	if poisoned(d) {
		_ = d.Process.Start() // it may be running again
	}
}

// poisoned: the frame that kills its worker ends a worker in this way. So does a kernel
// that is out of memory: table.ok counts.
func poisoned(d fleet.Death) bool {
	return d.Process.Kind == fleet.Worker && strings.Contains(d.Exit, syscall.SIGKILL.String())
}
