// Command killtable proves that the checker of chaos sees what it must: it runs each mutant (package mutant: the
// production code with one rule of the design broken) through the trouble that the rule is
// there for, and the checker must find a broken promise. The same trouble is run with the
// code as it is, and the checker must find nothing.
//
//	go run ./scripts/chaos/killtable [-only name] [-keep folder]
//
// It prints a table and ends with status 1 when a mutant went unnoticed, or when the code
// as it is was found guilty.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/history"
	"github.com/wirepost/wirepost/scripts/chaos/mutant"
	"github.com/wirepost/wirepost/scripts/chaos/trial"
	"github.com/wirepost/wirepost/scripts/checkout"
)

func main() {
	only := flag.String("only", "", "only mutants whose name holds this")
	keep := flag.String("keep", "", "folder for histories and logs, which are kept")
	baseline := flag.Bool("baseline", true, "run each trouble with the code as it is, too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	ok, err := run(ctx, *only, *keep, *baseline)
	if err != nil {
		fmt.Fprintln(os.Stderr, "killtable:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// patience is how long a trial waits for what a mutant may never bring: its clients repeat
// a send after 10 s.
const patience = 25 * time.Second

// row is one run of a trouble.
type row struct {
	name   string // the mutant's; "none" for the code as it is
	where  string // the scenario
	broken []string
	good   bool
}

// table runs the trials.
type table struct {
	root, dir string
	base      fleet.Binaries // the code as it is
	rows      []row
}

func run(ctx context.Context, only, keep string, baseline bool) (ok bool, err error) {
	t := table{dir: keep}
	if t.root, err = checkout.Root(); err != nil {
		return false, err
	}
	if keep == "" {
		if t.dir, err = os.MkdirTemp("", "wirepost-killtable-"); err != nil {
			return false, err
		}
		defer func() { _ = os.RemoveAll(t.dir) }()
	}
	if t.base, err = fleet.Build(ctx, t.root, filepath.Join(t.dir, "bin"), fleet.BuildOptions{}); err != nil {
		return false, err
	}
	done := map[string]bool{}
	for _, m := range mutant.All() {
		if !strings.Contains(m.Name, only) {
			continue
		}
		s, found := scenarios[m.Name]
		if !found {
			return false, fmt.Errorf("no trouble for mutant %s", m.Name)
		}
		if baseline && !done[s.name] {
			done[s.name] = true
			if err := t.try(ctx, s, nil); err != nil {
				return false, err
			}
		}
		if err := t.try(ctx, s, &m); err != nil {
			return false, err
		}
	}
	return t.print(), nil
}

// try runs one scenario, with a mutant or without.
func (t *table) try(ctx context.Context, s *scenario, m *mutant.Mutant) error {
	r := row{where: s.name, name: "none"}
	bin := t.base
	if m != nil {
		r.name = m.Name
		var err error
		if bin, err = t.mutate(ctx, m); err != nil {
			return err
		}
	}
	dir := filepath.Join(t.dir, strings.ReplaceAll(s.name, " ", "-")+"--"+r.name)
	rep, err := s.run(ctx, bin, dir, r.name)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil { // the others are tried all the same
		r.broken = []string{"the run failed: " + err.Error()}
		fmt.Printf("%-18s %-26s %s  %s\n", r.name, r.where, verdict(r), r.broken[0])
		t.rows = append(t.rows, r)
		return nil
	}
	for _, rule := range check.Rules {
		if n := rep.Counts[rule]; n > 0 {
			r.broken = append(r.broken, fmt.Sprintf("%s %d", rule, n))
		}
	}
	if m == nil {
		r.good = rep.OK()
	} else {
		r.good = slices.ContainsFunc(s.shows[m.Name], func(rule check.Rule) bool { return rep.Counts[rule] > 0 })
	}
	fmt.Printf("%-18s %-26s %s  %s\n", r.name, r.where, verdict(r), strings.Join(r.broken, ", "))
	if m == nil && !r.good {
		_, _ = rep.WriteTo(os.Stdout)
	}
	t.rows = append(t.rows, r)
	return nil
}

func verdict(r row) string {
	switch {
	case r.name == "none" && r.good:
		return "ok    "
	case r.name == "none":
		return "GUILTY"
	case r.good:
		return "caught"
	}
	return "MISSED"
}

// mutate builds a mutant's binary.
func (t *table) mutate(ctx context.Context, m *mutant.Mutant) (fleet.Binaries, error) {
	dir := filepath.Join(t.dir, "bin-"+m.Name)
	overlay, err := mutant.Overlay(t.root, dir, m.Name)
	if err != nil {
		return fleet.Binaries{}, err
	}
	bin := t.base
	path, pkg := &bin.Edge, "edge/cmd/edge"
	if m.Binary == "worker" {
		path, pkg = &bin.Worker, "worker/cmd/worker"
	}
	*path = filepath.Join(dir, "bin", m.Binary)
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-overlay", overlay, "-o", *path, "./"+pkg)
	cmd.Dir = t.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return bin, fmt.Errorf("build mutant %s: %w\n%s", m.Name, err, out)
	}
	return bin, nil
}

func (t *table) print() (ok bool) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nmutant\ttrouble\tverdict\tbroken rules")
	ok = true
	for _, r := range t.rows {
		ok = ok && r.good
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.name, r.where, verdict(r), strings.Join(r.broken, ", "))
	}
	_ = w.Flush()
	return ok
}

var errNoChoice = errors.New("the fleet has not what the trouble needs")

// run starts the scenario's fleet, plays it, and returns the verdict.
func (s *scenario) run(ctx context.Context, bin fleet.Binaries, dir, mutant string) (*check.Report, error) {
	spec := s.spec
	spec.Dir, spec.Bin = filepath.Join(dir, "fleet"), bin
	sctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	f, err := fleet.Start(sctx, spec)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := trial.Begin(ctx, f, filepath.Join(dir, "history.jsonl"), history.Record{Note: s.name, Env: map[string]string{"mutant": mutant}}, s.users)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	t.Patience = patience
	pctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.play(pctx, t); err != nil {
		return nil, err
	}
	return t.Finish(ctx)
}
