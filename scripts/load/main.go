// Command load puts a gateway under load, and counts what comes back: connections by the
// thousand, and messages whose every latency counts from when they were due.
//
//	go run ./scripts/load -mode chat -n 2000          (make load MODE=chat N=2000)
//
// Without -url it starts a system of its own on loopback. docs/load.md tells the rest.
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

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/crew"
)

// Exit codes.
const (
	exitLost  = 1 // something was lost or failed
	exitUsage = 2 // wrong flags
	exitBroke = 3 // the load could not be run
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == crew.Argument {
		os.Exit(beAgent())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv(devkeys.Env), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// beAgent is the life of a process that crew has started. An interrupt from the terminal
// is for the one who gives the commands.
func beAgent() int {
	signal.Ignore(os.Interrupt)
	if err := agent.Run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		return exitBroke
	}
	return 0
}

// run is the command: it prints to out and returns the exit code.
func run(ctx context.Context, args []string, secret string, out, errOut io.Writer) int {
	cfg, err := parse(args, secret, errOut)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(errOut, "load:", err)
		return exitUsage
	}
	s, err := newSession(ctx, cfg, out)
	if err != nil {
		fmt.Fprintln(errOut, "load:", err)
		return exitBroke
	}
	defer s.close()
	result, err := s.run(ctx)
	if err != nil {
		fmt.Fprintln(errOut, "load:", err)
		return exitBroke
	}
	if err := tell(cfg, result, out); err != nil {
		fmt.Fprintln(errOut, "load:", err)
		return exitBroke
	}
	if len(result.Failures) > 0 {
		return exitLost
	}
	return 0
}
