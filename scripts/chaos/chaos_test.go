package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// Whatever the weights are, every fault comes, and none that the store cannot have.
func TestEveryFaultComes(t *testing.T) {
	for _, store := range []string{"mongo", "ferret"} {
		c, err := faultsFor(store, "")
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		seen := map[string]bool{}
		for range 5000 {
			seen[c.pick(rng).name] = true
		}
		for _, f := range everything {
			want := store == "mongo" || !strings.HasPrefix(f.name, "store primary")
			if seen[f.name] != want {
				t.Errorf("%s: %q came: %v", store, f.name, seen[f.name])
			}
			if f.longest < f.shortest || f.choose == nil || f.weight < 1 {
				t.Errorf("%q is not complete", f.name)
			}
		}
	}
	if _, err := faultsFor("mongo", "no such thing"); !errors.Is(err, errUsage) {
		t.Errorf("a name that no fault has: %v", err)
	}
}

// The seed and the round's number say what a round does, and nothing else.
func TestTheSeedSaysWhatARoundDoes(t *testing.T) {
	draw := func(seed uint64, n, part int) uint64 {
		return (&round{o: &options{seed: seed}, n: n}).random(part).Uint64()
	}
	first := draw(7, 3, 5)
	if draw(7, 3, 5) != first {
		t.Error("the same seed, round and fault are different")
	}
	if draw(8, 3, 5) == first || draw(7, 4, 5) == first || draw(7, 3, 6) == first {
		t.Error("another seed, round or fault is the same")
	}
}

// Only a worker that was killed by a signal has read the message that kills.
func TestPoisoned(t *testing.T) {
	for _, c := range []struct {
		kind fleet.Kind
		exit string
		want bool
	}{
		{fleet.Worker, "signal: killed", true},
		{fleet.Worker, "exit status 2", false},
		{fleet.Edge, "signal: killed", false},
	} {
		if got := poisoned(fleet.Death{Process: &fleet.Process{Kind: c.kind}, Exit: c.exit}); got != c.want {
			t.Errorf("%s, %s: %v", c.kind, c.exit, got)
		}
	}
}

// A history that is there is judged, and one that broke off is found guilty.
func TestJudgeAHistory(t *testing.T) {
	var b bytes.Buffer
	w := history.NewWriter(&b)
	w.Add(history.Record{Kind: history.Run, Note: "a test"})
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "history.jsonl")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options{round: 1, from: 1, users: 4, rate: 1, check: path}
	if ok, err := o.run(context.Background()); ok || err != nil {
		t.Errorf("a torn history: %v, %v", ok, err)
	}
	o.check = path + ".not"
	if _, err := o.run(context.Background()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no history: %v", err)
	}
}

// The table sums up rounds, and one broken rule is enough.
func TestTable(t *testing.T) {
	tab := newTable(&options{})
	tab.add(&check.Report{Faults: []check.FaultStat{{Name: "x", Count: 2, Acked: 5, Outage: 3}}, Stats: check.Stats{Sends: check.Sends{Acked: 5}}})
	tab.add(&check.Report{Faults: []check.FaultStat{{Name: "x", Count: 1, Acked: 4, Outage: 2, Lost: 1}}, Counts: map[check.Rule]int{check.Lost: 1},
		Stats: check.Stats{Sends: check.Sends{Acked: 4}}})
	if r := tab.rows["x"]; r.Count != 3 || r.Acked != 9 || r.Outage != 3 || r.Lost != 1 {
		t.Errorf("row %+v", r)
	}
	if line := tab.line(); !strings.Contains(line, "3 faults, 9 messages") || !strings.Contains(line, "lost:1") {
		t.Errorf("line %q", line)
	}
	if tab.ok(&fleet.Fleet{}) {
		t.Error("a lost message is fine")
	}
}
