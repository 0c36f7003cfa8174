package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/bench/figure"
	"github.com/wirepost/wirepost/scripts/bench/gen"
	"github.com/wirepost/wirepost/scripts/bench/peer"
	"github.com/wirepost/wirepost/scripts/bench/system"
)

// TestMain is also the program that the benchmark starts: servers and load generators.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"server", "load"}, os.Args[1]) {
		if err := start(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func newBench(t *testing.T) *bench {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &bench{self: self, spans: spans{rounds: 2, idleFrom: 50, idleTo: 200, settle: 10 * time.Millisecond, hold: 100 * time.Millisecond,
		warm: 50 * time.Millisecond, span: 300 * time.Millisecond, chat: 300 * time.Millisecond, load: time.Second, natsMessages: 2000, accepts: 200}}
}

var peers = []subject{
	{name: "tcp", kind: peer.TCP, dialect: gen.Plain},
	{name: "gobwas", kind: peer.Gobwas, dialect: gen.Plain},
	{name: "edge-echo", kind: peer.EdgeEcho, dialect: gen.Plain},
	{name: "nbio", kind: peer.Nbio, dialect: gen.Plain},
	{name: "gws", kind: peer.Gws, dialect: gen.Plain},
	{name: "gorilla", kind: peer.Gorilla, dialect: gen.Plain},
	{name: "centrifuge", kind: peer.Centrifuge, dialect: gen.Centrifuge},
}

// Each reference server answers each message once, at a rate and flat out, and pings; in
// Fanout mode each message reaches everybody once.
func TestReferenceServers(t *testing.T) {
	const conns = 50
	b := newBench(t)
	for _, s := range peers {
		t.Run(s.name, func(t *testing.T) {
			s.mode = peer.Echo
			target, err := b.start(t.Context(), s, conns)
			if err != nil {
				t.Fatal(err)
			}
			defer target.stop()
			do(t, target, gen.Command{Do: gen.Open, N: conns}, conns)
			do(t, target, gen.Command{Do: gen.Ask, N: conns, Rate: 2000, For: 200 * time.Millisecond}, 400)
			if r := do(t, target, gen.Command{Do: gen.Ask, N: conns, For: 100 * time.Millisecond}, -1); r.Count < conns || r.P50 <= 0 || r.P99 < r.P50 {
				t.Errorf("flat out: %+v", r)
			}
			do(t, target, gen.Command{Do: gen.Hold, N: conns, Every: time.Second, For: 500 * time.Millisecond}, conns/2)
			do(t, target, gen.Command{Do: gen.Ask, N: conns, Rate: 1000, For: 100 * time.Millisecond}, 100)
		})
		if s.kind == peer.TCP || s.kind == peer.EdgeEcho {
			continue
		}
		t.Run(s.name+" fanout", func(t *testing.T) {
			s.mode = peer.Fanout
			target, err := b.start(t.Context(), s, conns)
			if err != nil {
				t.Fatal(err)
			}
			defer target.stop()
			do(t, target, gen.Command{Do: gen.Open, N: conns}, conns)
			do(t, target, gen.Command{Do: gen.Fan, N: conns, Rate: 50, For: 200 * time.Millisecond}, 10*conns)
		})
	}
}

// do has a job done and holds it to a count, unless that is negative.
func do(t *testing.T, target *target, c gen.Command, want int) gen.Result {
	t.Helper()
	r, err := target.load.Do(c)
	if err != nil {
		t.Fatal(err)
	}
	if want >= 0 && r.Count != want {
		t.Fatalf("%s: count %d, want %d", c.Do, r.Count, want)
	}
	return r
}

// A server that goes away, or is not what it should be, is an error and no figure.
func TestTheGeneratorNoticesBadServers(t *testing.T) {
	b := newBench(t)
	target, err := b.start(t.Context(), subject{name: "gobwas", kind: peer.Gobwas, mode: peer.Echo, dialect: gen.Plain}, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer target.stop()
	if _, err := target.load.Do(gen.Command{Do: gen.Ask, N: 10, For: time.Second}); err == nil {
		t.Error("10 connections were used before any was open")
	}
	do(t, target, gen.Command{Do: gen.Open, N: 10}, 10)
	time.AfterFunc(100*time.Millisecond, target.server.Kill)
	if r, err := target.load.Do(gen.Command{Do: gen.Ask, N: 10, For: 10 * time.Second}); err == nil {
		t.Errorf("a server that was killed gave %+v", r)
	}
	if err := peer.Serve(peer.TCP, peer.Fanout, "127.0.0.1:0"); !errors.Is(err, peer.ErrUnknown) {
		t.Errorf("the TCP floor knows no fan-out, got %v", err)
	}
	if err := peer.Serve("none", peer.Echo, "127.0.0.1:0"); !errors.Is(err, peer.ErrUnknown) {
		t.Errorf("got %v", err)
	}
}

func TestChoose(t *testing.T) {
	if got, err := choose(""); err != nil || len(got) != len(suites) {
		t.Errorf("all suites: %v, %v", got, err)
	}
	if got, err := choose("echo,connect"); err != nil || !slices.Contains(got, "idle") || slices.Contains(got, "fanout") {
		t.Errorf("echo,connect: %v, %v", got, err)
	}
	if _, err := choose("ech"); err == nil {
		t.Error("a suite that is not there was taken")
	}
}

// The whole benchmark, as small as it goes: every table has a positive figure of each
// round for each subject.
func TestEverySuite(t *testing.T) {
	b := newBench(t)
	b.bin = binaries(t)
	b.load = filepath.Join(filepath.Dir(b.bin.Edge), "load")
	for _, s := range suites {
		if (s.name == "stored" || s.name == "load") && b.bin.Mongod == "" {
			if os.Getenv("CI") == "true" {
				t.Fatal(system.ErrNoMongod)
			}
			t.Log(s.name, "is skipped: ", system.ErrNoMongod)
			continue
		}
		before := len(b.tables)
		if err := s.run(t.Context(), b); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if len(b.tables) == before {
			t.Errorf("%s made no table", s.name)
		}
	}
	for _, table := range b.tables {
		if len(table.Rows) == 0 {
			t.Errorf("%s is empty", table.Title)
		}
		for _, r := range table.Rows {
			for _, v := range r.Values {
				// So few connections may take less memory than the garbage that was collected.
				if positive := v > 0 || strings.HasPrefix(table.Title, "Memory"); !positive || math.IsInf(v, 0) || math.IsNaN(v) {
					t.Errorf("%s: %s is %v", table.Title, r.Name, v)
				}
			}
			if len(r.Values) != b.spans.rounds {
				t.Errorf("%s: %s has %d values of %d rounds", table.Title, r.Name, len(r.Values), b.spans.rounds)
			}
		}
		for _, base := range []string{table.Floor, table.Ours, table.Whole} {
			if base != "" && !slices.ContainsFunc(table.Rows, func(r figure.Row) bool { return r.Name == base }) {
				t.Errorf("%s has no row %q to compare with", table.Title, base)
			}
		}
	}
}

// binaries builds what `make bench` builds.
func binaries(t *testing.T) system.Binaries {
	t.Helper()
	dir := t.TempDir()
	b := system.Binaries{Edge: filepath.Join(dir, "edge"), Worker: filepath.Join(dir, "worker"), NATS: filepath.Join(dir, "nats-server")}
	for _, p := range []struct{ folder, out, pkg string }{
		{"../../edge", b.Edge, "./cmd/edge"},
		{"../../worker", b.Worker, "./cmd/worker"},
		{"..", b.NATS, "github.com/nats-io/nats-server/v2"},
		{"..", filepath.Join(dir, "load"), "./load"},
	} {
		cmd := exec.CommandContext(context.Background(), "go", "build", "-buildvcs=false", "-o", p.out, p.pkg)
		cmd.Dir, cmd.Env = p.folder, append(os.Environ(), "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", p.pkg, err, out)
		}
	}
	if path, err := exec.LookPath("mongod"); err == nil {
		b.Mongod = path
	} else if path, err := filepath.Abs("../../.cache/mongod/fiftyone/db/bin/mongod"); err == nil {
		if _, err := os.Stat(path); err == nil {
			b.Mongod = path
		}
	}
	return b
}
