// Command chaos proves the promises: it runs edges, workers, a NATS cluster and a store as
// real processes, lets users talk through them, breaks whatever can break, and lets a
// checker judge the history of what every client did and saw.
//
//	go run ./scripts/chaos [-faults 60] [-seed N] [-store mongo|ferret|both] [-rate 250] [-keep folder]
//	go run ./scripts/chaos -seed N -from 7 -faults 30   # round 7 of that seed again, alone
//	go run ./scripts/chaos -check history.jsonl …       # judge histories that are there
//
// It ends with a table (fault, how often, what was lost, doubled, out of order, the
// longest outage) and exit status 1 when a promise was broken. A run with the same seed
// chooses the same faults in the same order, and the same targets where they do not depend
// on the system's state (who leads, which process runs); when exactly each hits what is
// under way is up to the machine.
//
// The rooms, in the order in which a run passes them:
//
//	mutant    changes to the production code, for go build -overlay
//	fleet     the processes, the proxies between them, and every way to break them
//	load      the clients, and what they write down
//	trial     one history: its users, its end, its verdict
//	history   what is written down: the contract between load and check
//	check     the rules, and what a history says about them
//	killtable the mutants in the troubles that their rules are there for
//	killpoint a crash at each step of a message; model: the protocol in Promela
//
// This package is the matrix: which faults (faults.go), one round of them (round.go), the
// poison (poison.go), the sum of all rounds (table.go).
//
// Everything listens on loopback, and ends with this process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/checkout"
)

type options struct {
	faults  int
	seed    uint64
	store   string
	rate    float64
	users   int
	round   int
	from    int
	disturb time.Duration
	keep    string
	only    string
	check   string

	catalog catalog
	version string
}

func main() {
	o := options{}
	flag.IntVar(&o.faults, "faults", 60, "how many faults; 60 take some 10 minutes")
	flag.Uint64Var(&o.seed, "seed", 0, "of the faults; 0: a random one, which is printed")
	flag.StringVar(&o.store, "store", "both", "mongo (three mongods), ferret, or both: the second with a fifth of the faults")
	flag.Float64Var(&o.rate, "rate", 250, "messages a second, over all users")
	flag.IntVar(&o.users, "users", 40, "how many users")
	flag.IntVar(&o.round, "round", 30, "faults of one history; then it is checked and another one begins")
	flag.IntVar(&o.from, "from", 1, "the first round: what a round chooses depends on the seed and its number alone")
	flag.DurationVar(&o.disturb, "disturb", 20*time.Second, "mean time between two disturbances of a device: cut, restarted, crashed")
	flag.StringVar(&o.keep, "keep", "", "folder for histories and logs, which are kept; otherwise only those of a failure are")
	flag.StringVar(&o.only, "only", "", "only faults whose name holds this")
	flag.StringVar(&o.check, "check", "", "judge this history, and those in the arguments, and run nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	ok, err := o.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong flags, see -help")

func (o *options) run(ctx context.Context) (ok bool, err error) {
	if flag.NArg() > 0 && o.check == "" || o.faults < 0 || o.round < 1 || o.from < 1 || o.users < 4 || o.rate <= 0 {
		return false, errUsage
	}
	if o.check != "" {
		return o.judge(append([]string{o.check}, flag.Args()...))
	}
	if o.seed == 0 {
		o.seed = uint64(rand.Uint32()) + 1
	}
	o.version = checkout.Version()
	switch o.store {
	case "mongo", "ferret":
		return o.matrix(ctx)
	case "both":
		second := *o
		o.store, second.store = "mongo", "ferret"
		second.faults = (o.faults + 4) / 5
		second.rate = min(o.rate, ferretRate)
		if ok, err = o.matrix(ctx); !ok || err != nil {
			return ok, err
		}
		fmt.Println()
		return second.matrix(ctx)
	}
	return false, errUsage
}

// ferretRate is how many messages a second FerretDB takes beside everything else on two
// cores, catching up after a fault included.
const ferretRate = 60

// judge checks histories that were recorded before, and prints one table of all.
func (o *options) judge(paths []string) (ok bool, err error) {
	t := newTable(o)
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return false, err
		}
		rep, err := check.Check(f, check.DefaultLimits())
		_ = f.Close() // it was read
		if err != nil {
			return false, fmt.Errorf("%s: %w", path, err)
		}
		t.add(rep)
		fmt.Printf("%s: %s\n", path, t.line())
		if !rep.OK() || len(paths) == 1 {
			if _, err := rep.WriteTo(os.Stdout); err != nil {
				return false, err
			}
		}
	}
	if len(paths) == 1 {
		return len(t.broken) == 0, nil
	}
	return len(t.broken) == 0, t.print(nil)
}
