// Command million holds a million connections on one machine: more than fifty edges, one
// nats-server, one store, one worker, and the clients, all on 127.0.0.0/8.
//
//	go run ./scripts/million -n 1000000          (make million, make million N=100000)
//
// Every connection is authenticated and routable and sends heartbeats. When all are there
// they are held for a while; then each user gets one message, through the whole path; then
// a tenth of the edges is killed while more messages flow, and everybody must be back and
// have everything. docs/load.md tells the rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/crew"
	"github.com/wirepost/wirepost/scripts/load/system"
)

const (
	// Descriptors of a process that are for no connection. An edge keeps 512 itself.
	edgeDescriptors   = 600
	clientDescriptors = 200
)

// plan is what the flags say and what follows from them.
type plan struct {
	n                  int
	edges, clients     int
	perEdge, perClient int
	kill               int // edges
	rate, messages     float64
	inFlight           int
	hold, heartbeat    time.Duration
	store              system.Store
	bin, json, chart   string
	force              bool
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == crew.Argument {
		signal.Ignore(os.Interrupt) // from the terminal: it is for the one who gives the commands
		if err := agent.Run(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "million:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "million:", err)
		os.Exit(1)
	}
}

func parse(args []string) (plan, error) {
	var p plan
	var store string
	var each int
	f := flag.NewFlagSet("million", flag.ContinueOnError)
	f.IntVar(&p.n, "n", 1_000_000, "connections")
	f.IntVar(&each, "per-process", 19_300, "connections of an edge and of a client process, at most")
	f.Float64Var(&p.rate, "rate", 0, "connections begun a second; 0: as fast as they are accepted")
	f.IntVar(&p.inFlight, "inflight", 512, "handshakes at once, all together")
	f.Float64Var(&p.messages, "messages", 2000, "messages a second")
	f.DurationVar(&p.hold, "hold", 3*time.Minute, "how long to hold the connections before the messages")
	f.DurationVar(&p.heartbeat, "heartbeat", 25*time.Second, "between two heartbeats of a connection; 40,000 a second of a million may be more than the machine can do")
	f.StringVar(&store, "store", string(system.Auto), "mongo, ferret, or auto")
	f.StringVar(&p.bin, "bin", "bin", "folder of the programs edge, worker, nats-server, ferret")
	f.StringVar(&p.json, "json", "", "file for the result as JSON")
	f.StringVar(&p.chart, "plot", "", "file for a chart, .png or .svg")
	f.BoolVar(&p.force, "force", false, "try although the machine has too little")
	if err := f.Parse(args); err != nil {
		return p, err
	}
	if p.n < 100 || each < 10 || p.messages <= 0 || p.inFlight < 1 {
		return p, errors.New("-n must be 100 at least, -per-process 10, -messages and -inflight positive")
	}
	p.store = system.Store(store)
	p.edges = max(2, (p.n+each-1)/each)
	p.clients = (p.n + each - 1) / each
	p.perEdge, p.perClient = (p.n+p.edges-1)/p.edges, (p.n+p.clients-1)/p.clients
	p.kill = max(1, p.edges/10)
	return p, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	p, err := parse(args)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d connections: %d edges with at most %d each, %d client processes\n", p.n, p.edges, p.perEdge, p.clients)
	if err := check(facts(p), out); err != nil && !p.force {
		return err
	}
	return play(ctx, p, out)
}
