// Command echo serves a WebSocket that sends every message back, made of the edge's
// rooms: what other people's test suites and clients are run against.
//
//	go run ./scripts/conformance/echo -listen 127.0.0.1:9001
//
// It prints its address, serves until it gets SIGINT or SIGTERM, needs no token, and is
// no part of any binary that is shipped.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/wirepost/wirepost/scripts/conformance"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9001", "address")
	pieces := flag.String("pieces", "whole", "how the server's reads cut what comes: whole (16 KiB), bytes, random")
	seed := flag.Uint64("seed", 1, "of -pieces random")
	flag.Parse()
	if err := run(*listen, *pieces, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func run(listen, pieces string, seed uint64) error {
	cuts, known := map[string]conformance.Pieces{
		"whole": nil, "bytes": conformance.SingleBytes, "random": conformance.RandomPieces(seed),
	}[pieces]
	if !known {
		return fmt.Errorf("there are no pieces %q", pieces)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	e, err := conformance.StartEcho(listen, cuts)
	if err != nil {
		return err
	}
	fmt.Println("ws://" + e.Addr)
	<-ctx.Done()
	return e.Close()
}
