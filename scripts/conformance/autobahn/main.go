// Command autobahn runs the Autobahn test suite, which nobody here wrote, against a
// server made of the edge's rooms, and fails on every verdict but OK.
//
//	make autobahn
//	go run ./scripts/conformance/autobahn -wstest .cache/autobahn/env/bin/wstest
//
// It runs the suite's groups 1 to 7, 9 and 10, reads its JSON report, and compares the
// list of cases with the one of package conformance, so that neither misses one. Where
// the suite itself has no opinion (informational) INFORMATIONAL is taken.
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
	"strings"
	"syscall"
	"time"

	"github.com/wirepost/wirepost/scripts/conformance"
)

type options struct {
	wstest   string // command line
	out      string // folder of the reports
	docs     string // file whose table is renewed; "": none
	commit   string
	patience time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.wstest, "wstest", ".cache/autobahn/env/bin/wstest", "the command, with arguments that come before its own")
	flag.StringVar(&o.out, "out", ".data/autobahn", "where the suite leaves its reports")
	flag.StringVar(&o.docs, "write", "", "a document whose table is renewed")
	flag.StringVar(&o.commit, "commit", "", "what the table says was tested")
	flag.DurationVar(&o.patience, "patience", 20*time.Minute, "the longest that the suite may take")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "autobahn:", err)
		os.Exit(1)
	}
}

func run(o options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.patience)
	defer cancel()
	echo, err := conformance.StartEcho("127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, echo.Close()) }()
	version, err := versionOf(ctx, o.wstest)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := runSuite(ctx, o, echo.Addr); err != nil {
		return err
	}
	took := time.Since(began)
	results, err := readResults(filepath.Join(o.out, "index.json"))
	if err != nil {
		return err
	}
	table := tableOf(results)
	fmt.Print(table)
	fmt.Printf("\nwstest %s, %d cases in %.0f s\n", version, len(results), took.Seconds())
	if err := judge(results); err != nil {
		return err
	}
	if o.docs == "" {
		return nil
	}
	head := fmt.Sprintf("`wstest` %s against commit %s, %s, %.0f s:\n\n", version, o.commit, began.UTC().Format("January 2006"), took.Seconds())
	return renew(o.docs, head+table)
}

// command is o.wstest with more arguments.
func command(ctx context.Context, wstest string, args ...string) (*exec.Cmd, error) {
	words := strings.Fields(wstest)
	if len(words) == 0 {
		return nil, errors.New("-wstest is empty")
	}
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd, nil
}

// versionOf asks wstest for the suite's version.
func versionOf(ctx context.Context, wstest string) (string, error) {
	cmd, err := command(ctx, wstest, "--autobahnversion")
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s --autobahnversion: %w: %s", wstest, err, strings.TrimSpace(string(out)))
	}
	return parseVersion(string(out))
}

// runSuite runs the fuzzing client. Its reports replace earlier ones.
func runSuite(ctx context.Context, o options, addr string) error {
	if err := os.RemoveAll(o.out); err != nil {
		return fmt.Errorf("remove old reports: %w", err)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	out, err := filepath.Abs(o.out)
	if err != nil {
		return err
	}
	spec := filepath.Join(out, "fuzzingclient.json")
	if err := os.WriteFile(spec, specOf(out, "ws://"+addr+conformance.Path), 0o600); err != nil {
		return fmt.Errorf("write spec: %w", err)
	}
	cmd, err := command(ctx, o.wstest, "-m", "fuzzingclient", "-s", spec)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(out, "wstest.log"))
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	fmt.Printf("wstest runs against ws://%s%s, its log is %s\n", addr, conformance.Path, log.Name())
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("wstest: %w; see %s", err, log.Name())
	}
	return nil
}
