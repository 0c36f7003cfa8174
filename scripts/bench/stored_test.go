package main

import (
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/bench/figure"
	"github.com/wirepost/wirepost/scripts/bench/proc"
)

// Each process has its part of a message; the sum is that of the servers.
func TestByProcess(t *testing.T) {
	var table figure.Table
	all := []*proc.Process{{Name: "edge"}, {Name: "mongod"}, {Name: "load generator"}}
	byProcess(&table, all, []time.Duration{time.Millisecond, 3 * time.Millisecond, 50 * time.Millisecond}, 100)
	want := map[string]float64{"edge": 10, "mongod": 30, "load generator": 500, nameSum: 40}
	if len(table.Rows) != len(want) {
		t.Errorf("rows %+v", table.Rows)
	}
	for _, r := range table.Rows {
		if len(r.Values) != 1 || r.Values[0] != want[r.Name] {
			t.Errorf("%s: %v, want %v µs", r.Name, r.Values, want[r.Name])
		}
	}
}
