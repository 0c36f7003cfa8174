package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/history"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The short rehearsal: one part of each kind is replaced, workers follow the lag, and
// nothing is lost. It takes a minute.
func TestShort(t *testing.T) {
	o := options{short: true, seed: 1}
	if err := o.need(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	var out bytes.Buffer
	if err := o.run(context.Background(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log(out.String())
	for _, want := range []string{"primary steps down", "nats-2 replaced", "worker-0 replaced", "edge-0 replaced", nameReload,
		"lost 0, doubled 0, out of order 0", "workers: 1 → "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
}

// What clients felt is put down to the step in which it began.
func TestFeel(t *testing.T) {
	ms := func(n int64) int64 { return n * 1e6 }
	records := []history.Record{
		{T: ms(0), Kind: history.Open, Dev: "a"},
		{T: ms(10), Kind: history.Send, CID: "m1"},
		{T: ms(100), Kind: history.Fault, Name: "edge"},
		{T: ms(110), Kind: history.Send, CID: "m2"},
		{T: ms(120), Kind: history.Close, Dev: "a"},
		{T: ms(130), Kind: history.Ack, CID: "m1"},
		{T: ms(150), Kind: history.Heal},
		{T: ms(200), Kind: history.Fault, Name: "worker"},
		{T: ms(220), Kind: history.Open, Dev: "a"},
		{T: ms(230), Kind: history.Ack, CID: "m2"},
		{T: ms(240), Kind: history.Send, CID: "m2", Again: true},
		{T: ms(250), Kind: history.Ack, CID: "m2"},
		{T: ms(300), Kind: history.Quiet},
		{T: ms(310), Kind: history.Close, Dev: "a"},
	}
	var lines bytes.Buffer
	to := json.NewEncoder(&lines) // a history.Writer would set the times
	for _, r := range records {
		if err := to.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	steps, err := feel(&lines)
	if err != nil || len(steps) != 3 {
		t.Fatalf("%+v, %v", steps, err)
	}
	before, edge, worker := steps[0], steps[1], steps[2]
	if len(before.ack) != 1 || before.ack[0] != 120*time.Millisecond || len(before.away) != 0 {
		t.Errorf("before: %+v", before)
	}
	if edge.took != 50*time.Millisecond || len(edge.away) != 1 || edge.away[0] != 100*time.Millisecond || len(edge.ack) != 1 || edge.ack[0] != 120*time.Millisecond {
		t.Errorf("edge: %+v", edge)
	}
	if len(worker.away) != 0 || len(worker.ack) != 0 {
		t.Errorf("worker: %+v", worker)
	}
	var out bytes.Buffer
	printFelt(&out, steps, &check.Report{Faults: []check.FaultStat{{Name: "edge", Lost: 3}}})
	if row := strings.Fields(strings.Split(out.String(), "\n")[2]); strings.Join(row, " ") != "edge 0.1s 1 100ms 100ms 120ms 120ms 120ms 1 3 0 0" {
		t.Errorf("%q", row)
	}
}
