package check

import (
	"bytes"
	"testing"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// judged returns how often each rule is broken, without the way over JSON.
func judged(recs []history.Record, l Limits) *model {
	m := newModel(l)
	for i := range recs {
		m.add(&recs[i])
	}
	m.finish()
	m.judge(m.outages())
	return m
}

func TestASystemThatKeepsItsPromisesPasses(t *testing.T) {
	for seed := range uint64(20) {
		m := judged(newSystem(seed, 6).run(400), DefaultLimits())
		for _, v := range m.report.found {
			t.Errorf("seed %d: %s: %s", seed, v.Rule, v.What)
		}
	}
}

func TestALongRunPasses(t *testing.T) {
	rep, err := Check(bytes.NewReader(encode(t, newSystem(1, 60).run(60_000))), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if !rep.OK() {
		t.Fatalf("a clean history breaks rules:\n%s", rep)
	}
	if c := rep.Stats.Connections; c.Resumed < 100 || c.Anew < 100 || c.Crashes < 100 {
		t.Errorf("the run was too quiet: %+v", c)
	}
	if s := rep.Stats.Sends; s.Stored < 50_000 || s.Again == 0 || s.Reused == 0 || s.Refused == 0 || s.Excused == 0 || s.Missing != 0 {
		t.Errorf("the run counts %+v", s)
	}
	t.Logf("\n%s", rep)
}

func BenchmarkCheck(b *testing.B) {
	raw := encode(b, newSystem(1, 60).run(60_000))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		rep, err := Check(bytes.NewReader(raw), DefaultLimits())
		if err != nil || !rep.OK() {
			b.Fatal(err, rep)
		}
	}
}
