package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/crew"
)

// TestMain makes this test program an agent when crew starts it as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == crew.Argument {
		if agent.Run(os.Stdin, os.Stdout) != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// A small one with everything that the big one has: several edges and clients, a message
// to each user, a killed edge, and everybody back.
func TestSmallMillion(t *testing.T) {
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if _, err := fleet.Build(t.Context(), root, bin, fleet.BuildOptions{Ferret: true}); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "result.json")
	err = run(t.Context(), strings.Fields("-n 300 -per-process 120 -messages 300 -hold 1s -bin "+bin+" -json "+file), &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"3 edges with at most 100 each, 3 client processes", "one message to each user: expected 300, seen 300",
		"connections resumed: expected 100, seen 100", "during the crash too: expected 330, seen 330", "nothing was lost",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Contains(b, []byte(`"mode": "million"`)) {
		t.Errorf("result: %v", err)
	}
}

func TestCheckSaysWhatIsTooLittle(t *testing.T) {
	var out bytes.Buffer
	if err := check([]fact{{"sheep", 5, 5, "shear"}, {"goats", 7, 6, "buy a goat"}}, &out); !errors.Is(err, errMachine) {
		t.Errorf("check: %v", err)
	}
	lines := strings.Split(out.String(), "\n")
	if !strings.HasSuffix(lines[0], "enough") || !strings.Contains(lines[1], "TOO LITTLE: buy a goat") {
		t.Errorf("%s", out.String())
	}
	if err := check([]fact{{"sheep", 5, 5, ""}}, &out); err != nil {
		t.Errorf("check: %v", err)
	}
}

func TestFactsOfThisMachine(t *testing.T) {
	small, err := parse([]string{"-n", "1000"})
	if err != nil {
		t.Fatal(err)
	}
	absurd, err := parse([]string{"-n", "2000000000", "-per-process", "1000000000"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := check(facts(small), &out); err != nil {
		t.Errorf("1000 connections: %v\n%s", err, out.String())
	}
	for _, f := range facts(absurd) {
		if f.have <= 0 || strings.Contains(f.what, "memory") && f.have >= f.need || strings.Contains(f.what, "descriptors") && f.have >= f.need {
			t.Errorf("two billion connections: %+v", f)
		}
	}
	if a, b := facts(small), facts(absurd); len(a) < 3 || len(a) != len(b) {
		t.Errorf("%d and %d facts", len(a), len(b))
	}
}

func TestPlanOfAMillion(t *testing.T) {
	p, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.n != 1_000_000 || p.edges != 52 || p.clients != 52 || p.perEdge > 19_300 || p.kill != 5 {
		t.Errorf("%+v", p)
	}
	for _, args := range []string{"-n 10", "-messages 0", "-inflight 0"} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%s was taken", args)
		}
	}
}
