// Command dev runs the whole system in one process: nats-server with JetStream, a store,
// two edges, a worker, and the demo page that lets people attack them.
//
//	go run ./scripts/dev        (make run)
//
// It is for development alone: it hands out tokens for every name to whoever reaches its
// loopback port. Everything listens on 127.0.0.1. With NATS_URL or MONGODB_URI set, that
// server is used in place of the embedded one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/shared/process"
)

func main() {
	o := options{natsURL: os.Getenv("NATS_URL"), mongoURI: os.Getenv("MONGODB_URI"), secret: os.Getenv(devkeys.Env)}
	if err := o.parse(os.Args[1:], os.Stderr); err != nil {
		os.Exit(process.ExitConfig)
	}
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		fmt.Fprintln(os.Stderr, "stopping; once more stops at once, and loses nothing either")
		cancel()
		<-signals
		os.Exit(process.ExitSignal + int(syscall.SIGINT))
	}()
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		os.Exit(process.ExitFailed)
	}
}

// options are the command's flags, and what it takes from the environment.
type options struct {
	data     string
	page     int
	edges    [2]int
	admins   [3]int // of the edges and of the worker
	natsURL  string // "": an embedded nats-server
	mongoURI string // "": an embedded store
	secret   string // "": the one in the data folder
	verbose  bool
	tests    tuning
}

func (o *options) parse(args []string, out io.Writer) error {
	f := flag.NewFlagSet("dev", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.data, "data", devkeys.Dir, "folder of all data; remove it to begin anew")
	f.IntVar(&o.page, "port", 8080, "port of the demo page")
	f.IntVar(&o.edges[0], "edge1", 8081, "port of the first edge")
	f.IntVar(&o.edges[1], "edge2", 8082, "port of the second edge")
	f.IntVar(&o.admins[0], "admin1", 9081, "admin port of the first edge")
	f.IntVar(&o.admins[1], "admin2", 9082, "admin port of the second edge")
	f.IntVar(&o.admins[2], "admin3", 9083, "admin port of the worker")
	f.BoolVar(&o.verbose, "v", false, "log what the parts do, not only what goes wrong")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		fmt.Fprintf(out, "dev: unexpected argument %q\n", f.Arg(0))
		return errUsage
	}
	return nil
}

var errUsage = errors.New("wrong arguments")

// run serves until ctx ends, then stops in order.
func run(ctx context.Context, o options, out, logs io.Writer) error {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelInfo
	}
	log := process.NewLogger(logs, process.LogOptions{Format: process.LogText, Level: level})
	fmt.Fprintf(out, "starting; data is in %s\n", absolute(o.data))
	s, err := newSystem(ctx, o, log)
	if err != nil {
		return err
	}
	ready, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if s.awaitReady(ready) == nil {
			fmt.Fprint(out, s.banner())
		}
	}()
	err = s.run(ctx)
	if err == nil {
		fmt.Fprintln(out, "stopped; the data stays")
	}
	return err
}
