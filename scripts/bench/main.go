// Command bench measures wirepost beside other servers and beside the machine's floors, in
// one run, interleaved, and prints tables of medians, spreads and ratios.
//
//	make bench                             # all of it, some 15 minutes
//	make bench ARGS="-quick -only echo"
//
// Each server is a process of its own (`bench server <kind> <mode> <address>`, bin/edge,
// bin/worker, nats-server, mongod), and so is the load generator (`bench load …`).
// Everything is on loopback. docs/performance.md says what each figure means.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/wirepost/wirepost/scripts/bench/figure"
	"github.com/wirepost/wirepost/scripts/bench/gen"
	"github.com/wirepost/wirepost/scripts/bench/peer"
)

func main() {
	if err := start(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func start(args []string) error {
	switch {
	case len(args) == 4 && args[0] == "server":
		return peer.Serve(peer.Kind(args[1]), peer.Mode(args[2]), args[3])
	case len(args) > 0 && args[0] == "load":
		return gen.Main(args[1:])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return measure(ctx, args)
}

// suites in the order in which they run.
var suites = []struct {
	name string
	run  func(context.Context, *bench) error
}{{"idle", idle}, {"echo", echo}, {"fanout", fanout}, {"stored", stored}, {"floors", floors}, {"load", load}}

func measure(ctx context.Context, args []string) error {
	b := &bench{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&b.bin.Edge, "edge", "bin/edge", "the edge's binary")
	flags.StringVar(&b.bin.Worker, "worker", "bin/worker", "the worker's binary")
	flags.StringVar(&b.bin.NATS, "nats-server", "bin/nats-server", "the nats-server's binary")
	flags.StringVar(&b.bin.Mongod, "mongod", "", "the mongod's binary, for the stored messages")
	flags.StringVar(&b.load, "load", "bin/load", "the load tool's binary; the servers that it starts lie beside it")
	quick := flags.Bool("quick", false, "one round, few connections, short spans: some 2 minutes, to try it")
	flags.IntVar(&b.spans.rounds, "rounds", 3, "rounds")
	only := flags.String("only", "", "suites, separated by commas: idle, echo, fanout, stored, floors, load; idle tells of connecting too")
	jsonOut := flags.String("json", "", "a file that gets every value as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b.spans = full(b.spans.rounds)
	if *quick {
		b.spans = short()
	}
	wanted, err := choose(*only)
	if err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	began := time.Now()
	for _, s := range suites {
		if !slices.Contains(wanted, s.name) {
			continue
		}
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	command := "bench"
	flags.Visit(func(f *flag.Flag) { // where programs and files lie is not part of it
		if slices.Contains([]string{"quick", "rounds", "only"}, f.Name) {
			command += " -" + f.Name + "=" + f.Value.String()
		}
	})
	return b.report(command, began, *jsonOut)
}

// choose returns the names of the suites that are wanted.
func choose(only string) ([]string, error) {
	var all []string
	for _, s := range suites {
		all = append(all, s.name)
	}
	if only == "" {
		return all, nil
	}
	wanted := strings.Split(only, ",")
	for _, w := range wanted {
		if w == "connect" { // is measured with idle
			wanted = append(wanted, "idle")
		} else if !slices.Contains(all, w) {
			return nil, fmt.Errorf("there is no suite %q: %s", w, strings.Join(all, ", "))
		}
	}
	return wanted, nil
}

func (b *bench) report(command string, began time.Time, jsonOut string) error {
	r := figure.Report{Machine: figure.ThisMachine(), Command: command, Began: began.UTC().Format("2006-01-02 15:04 UTC"), Took: time.Since(began).Round(time.Second).String(),
		Rounds: b.spans.rounds, Tables: b.tables}
	if jsonOut != "" {
		f, err := os.Create(jsonOut)
		if err != nil {
			return err
		}
		if err := errors.Join(r.JSON(f), f.Close()); err != nil {
			return err
		}
	}
	return r.Markdown(os.Stdout)
}
