package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/wirepost/wirepost/scripts/bench/figure"
)

// loading is one run of bin/load, which starts a whole system of its own: two edges, a
// worker, a nats-server and a mongod.
type loading struct {
	mode     string
	conns    int
	rate     int // logins a second; 0: as fast as they are accepted
	messages int // a second; 0: none
}

// loads are what the report tells of. Below a quarter of what was reached with one edge
// flat out, so that latency is that of a system with room.
func (s spans) loads() []loading {
	n := max(s.idleTo/15, 20) // 1,000 in a full run
	return []loading{
		{mode: "connect", conns: 10 * n, rate: 3 * n},
		{mode: "echo-self", conns: n, messages: 2 * n},
		{mode: "chat", conns: 2 * n, messages: 2 * n},
		{mode: "fanout", conns: 2 * n, messages: n / 5},
		{mode: "reconnect", conns: 4 * n, messages: n / 2},
	}
}

// outcome is what this program reads of the JSON that bin/load writes; scripts/load/report
// has the whole.
type outcome struct {
	Connect struct {
		Rate float64 `json:"per_second"`
	}
	Traffic *struct {
		CPU float64 `json:"server_cpu_us_per_message"`
	}
	Crash *struct {
		Back float64 `json:"all_back_seconds"`
	}
	Latency map[string]struct{ P50, P99 float64 }
}

// load runs the modes of bin/load in turns. What it counts as a failure ends the run.
func load(ctx context.Context, b *bench) error {
	t := loadTables{
		latency: b.table(figure.Table{Title: "Load: latency", Unit: "ms",
			Note: "By bin/load, from the time at which something was due. Two edges, a worker, a nats-server, a mongod and the load share the machine."}),
		cpu:  b.table(figure.Table{Title: "Load: CPU of all servers", Unit: "µs a message"}),
		back: b.table(figure.Table{Title: "Load: after all edges were killed", Unit: "s", Note: "Until every connection is back and resumed. Nothing was lost, or there would be no figure."}),
	}
	dir, err := os.MkdirTemp("", "wirepost-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for round := range b.spans.rounds {
		for _, l := range b.spans.loads() {
			fmt.Fprintf(os.Stderr, "load, round %d of %d: %s\n", round+1, b.spans.rounds, l.mode)
			o, err := l.run(ctx, b, filepath.Join(dir, "result.json"))
			if err != nil {
				return fmt.Errorf("%s: %w", l.mode, err)
			}
			t.add(l, o)
		}
	}
	return nil
}

func (l loading) run(ctx context.Context, b *bench, file string) (o outcome, err error) {
	args := []string{"-mode", l.mode, "-n", strconv.Itoa(l.conns), "-rate", strconv.Itoa(l.rate), "-own-store", "mongo",
		"-bin", filepath.Dir(b.load), "-duration", b.spans.load.String(), "-settle", "1s", "-json", file}
	if l.messages > 0 {
		args = append(args, "-messages", strconv.Itoa(l.messages))
	}
	cmd := exec.CommandContext(ctx, b.load, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it ends its system
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return o, fmt.Errorf("%w\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return o, err
	}
	return o, json.Unmarshal(text, &o)
}

type loadTables struct{ latency, cpu, back *figure.Table }

func (t loadTables) add(l loading, o outcome) {
	row := fmt.Sprintf("%s, %s connections", l.mode, figure.Number(float64(l.conns)))
	switch {
	case l.messages > 0:
		row += fmt.Sprintf(", %s messages/s", figure.Number(float64(l.messages)))
	case l.rate > 0:
		row += fmt.Sprintf(", %s logins/s", figure.Number(float64(l.rate)))
	}
	for _, kind := range l.kinds() {
		t.latency.Add(row+": "+kind+", p50", o.Latency[kind].P50)
		t.latency.Add(row+": "+kind+", p99", o.Latency[kind].P99)
	}
	if o.Crash != nil {
		t.back.Add(row, o.Crash.Back)
	} else if o.Traffic != nil {
		t.cpu.Add(row, o.Traffic.CPU)
	}
}

// kinds are the latencies that a mode is about.
func (l loading) kinds() []string {
	switch l.mode {
	case "connect":
		return []string{"login"}
	case "fanout":
		return []string{"acknowledged", "delivered"}
	case "reconnect":
		return []string{"back"}
	default:
		return []string{"acknowledged"}
	}
}
