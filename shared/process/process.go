// Package process is the shell around a binary: it turns configuration, signals and the
// exit code into one call of Run(ctx, cfg), builds the logger, knows the version, and
// stops what was started in reverse order.
//
// LoadEnv is the one place where the environment is read; which variables there are says the
// struct in a binary's config.go. Nothing here exits below main.
package process

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Exit codes of a binary.
const (
	ExitOK     = 0
	ExitFailed = 1 // Run returned an error, which is in the log
	// ExitConfig: the configuration is wrong, or an argument; nothing was started. It is
	// EX_CONFIG of sysexits.h, and not 2, with which Go ends a process that panics.
	ExitConfig = 78
	// ExitSignal plus the number of the second signal: the stop was cut off.
	ExitSignal = 128
)

// Program is one binary. C is its configuration.
type Program[C any] struct {
	Name string // as in logs, such as "wirepost-edge"
	// Load returns the configuration, or an error that holds a ConfigError for each
	// variable that is wrong.
	Load func() (C, error)
	Log  func(C) LogOptions
	// Admin returns the address of the admin port, which -ready asks.
	Admin func(C) string
	// Run serves until ctx ends, then stops gracefully and returns.
	Run func(ctx context.Context, cfg C, log *slog.Logger) error
}

// Main runs p with the process's arguments and signals and returns the exit code, which
// main gives to os.Exit. The first SIGTERM or SIGINT ends Run's context, the second
// ends the process at once.
func (p Program[C]) Main() int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	return p.main(os.Args[1:], os.Stdout, os.Stderr, signals, os.Exit)
}

func (p Program[C]) main(args []string, stdout, stderr io.Writer, signals <-chan os.Signal, exit func(int)) int {
	version := Build()
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "%s is configured by environment variables, see README.md. Flags:\n", p.Name)
		flags.PrintDefaults()
	}
	show := flags.Bool("version", false, "print the version and exit")
	ready := flags.Bool("ready", false, "ask the process that runs with this environment whether it is ready, and exit with 0 or 1")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return ExitOK
	case err != nil:
		return ExitConfig
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "%s: unexpected argument %q\n", p.Name, flags.Arg(0))
		return ExitConfig
	case *show:
		fmt.Fprintf(stdout, "%s %s\n", p.Name, version)
		return ExitOK
	}
	cfg, err := p.Load()
	if err != nil {
		for _, line := range configLines(err) {
			fmt.Fprintf(stderr, "%s: configuration: %s\n", p.Name, line)
		}
		return ExitConfig
	}
	if *ready {
		if err := askReady(p.Admin(cfg)); err != nil {
			fmt.Fprintf(stderr, "%s: not ready: %s\n", p.Name, strings.TrimSpace(err.Error()))
			return ExitFailed
		}
		return ExitOK
	}
	log := NewLogger(stderr, p.Log(cfg))
	log.Info("start", "program", p.Name, "version", version.Version, "commit", version.Commit, "go", version.Go)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go watch(log, signals, done, cancel, exit)

	if err := p.Run(ctx, cfg, log); err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		log.Error("failed", "err", err)
		return ExitFailed
	}
	log.Info("stopped")
	return ExitOK
}

// watch ends ctx at the first signal and the process at the second, until done.
func watch(log *slog.Logger, signals <-chan os.Signal, done <-chan struct{}, cancel func(), exit func(int)) {
	for n := 0; ; n++ {
		select {
		case <-done:
			return
		case s := <-signals:
			if n == 0 {
				log.Info("stopping, a second signal cuts it off", "signal", s.String())
				cancel()
				continue
			}
			log.Warn("cut off", "signal", s.String())
			code := ExitSignal
			if num, ok := s.(syscall.Signal); ok {
				code += int(num)
			}
			exit(code)
			return
		}
	}
}
