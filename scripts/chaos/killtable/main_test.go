package main

import (
	"slices"
	"testing"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/mutant"
)

// Every mutant has a trouble and rules that it breaks in it, and no trouble is for a
// mutant that is none.
func TestEveryMutantHasItsTrouble(t *testing.T) {
	var names []string
	for _, m := range mutant.All() {
		names = append(names, m.Name)
		s := scenarios[m.Name]
		if s == nil {
			t.Errorf("no trouble for %s", m.Name)
			continue
		}
		rules := s.shows[m.Name]
		if len(rules) == 0 {
			t.Errorf("%s breaks no rule in %q", m.Name, s.name)
		}
		for _, r := range rules {
			if !slices.Contains(check.Rules, r) {
				t.Errorf("%s is to break %q, which is no rule of the checker", m.Name, r)
			}
		}
	}
	for name := range scenarios {
		if !slices.Contains(names, name) {
			t.Errorf("a trouble is for %s, which is no mutant", name)
		}
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		row  row
		want string
	}{
		{row{name: "none", good: true}, "ok    "},
		{row{name: "none"}, "GUILTY"},
		{row{name: "no-sweep", good: true}, "caught"},
		{row{name: "no-sweep"}, "MISSED"},
	} {
		if got := verdict(c.row); got != c.want {
			t.Errorf("%+v: %q, want %q", c.row, got, c.want)
		}
	}
}

// Two users whose shards and lanes differ are found, or it is said that there are none.
func TestApart(t *testing.T) {
	from, to, err := apart([]string{"u0", "u1", "u2", "u3 .*/>=%𝄞", "u4", "u5", "u6", "u8"})
	if err != nil || shardOf(from) == shardOf(to) || laneOf(from) == laneOf(to) {
		t.Errorf("%s and %s, %v", from, to, err)
	}
	if _, _, err := apart([]string{"u0"}); err == nil {
		t.Error("one user is apart from himself")
	}
}
