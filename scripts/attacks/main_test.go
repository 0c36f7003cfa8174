package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/attacks/site"
)

// binary is where TestMain has built the edge: as it is shipped, also when these tests run
// under the race detector, which multiplies memory. The detector sees the edge's own tests.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "attacks-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "edge")
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", dir+"/",
		"github.com/wirepost/wirepost/edge/cmd/edge", "github.com/wirepost/wirepost/worker/cmd/worker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	code := 1
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
	} else if code = m.Run(); code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// attacked starts an edge for the test. Its log is shown when the test fails.
func attacked(t *testing.T, o site.Options) *site.Site {
	t.Helper()
	o.Edge, o.Dir = binary, t.TempDir()
	s, err := site.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		text, err := os.ReadFile(s.Log)
		if err != nil || strings.Contains(string(text), "panic:") {
			t.Errorf("the edge panicked, or has no log: %v", err)
		}
		if t.Failed() {
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			t.Logf("log of the edge:\n%s", strings.Join(lines[max(len(lines)-40, 0):], "\n"))
		}
	})
	return s
}

func addrPort(t *testing.T, s *site.Site) netip.AddrPort {
	t.Helper()
	to, err := netip.ParseAddrPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func metrics(t *testing.T, s *site.Site) site.Metrics {
	t.Helper()
	m, err := s.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// eventually polls what gives no signal.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(within)
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("%v passed and it is not so: %s", within, what)
		}
	}
}
