package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/load/report"
	"github.com/wirepost/wirepost/scripts/load/tally"
	"github.com/wirepost/wirepost/scripts/usage"
)

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		count   tally.Count
		n       int64
		online  int64
		expects int64
		crash   bool
		want    string // in the failure; "": none
	}{
		"all well":          {online: 10},
		"offline":           {online: 9, want: "1 connections are missing"},
		"dropped":           {tally.Dropped, 3, 10, 0, false, "3 connections were lost"},
		"dropped on demand": {tally.Dropped, 3, 10, 3, true, ""},
		"more than that":    {tally.Dropped, 4, 10, 3, true, "1 connections were lost"},
		"given up":          {tally.Given, 1, 10, 0, false, "1 connections were given up"},
		"failed":            {tally.Failed, 1, 10, 0, false, "1 tries to connect"},
		"failed in a crash": {tally.Failed, 1, 10, 0, true, ""},
		"turned away":       {tally.TurnedAway, 1, 10, 0, false, ""},
		"not resumed":       {tally.NotResumed, 1, 10, 0, true, "not resumed"},
		"refused":           {tally.Refused, 1, 10, 0, false, "were refused"},
		"unanswered":        {tally.Unanswered, 2, 10, 0, false, "2 messages were neither"},
		"missing":           {tally.Missing, 2, 10, 0, false, "2 copies"},
		"foreign":           {tally.Foreign, 1, 10, 0, false, "not for"},
		"twice":             {tally.Twice, 1, 10, 0, false, ""},
	} {
		r := report.Result{Connections: 10}
		if c.crash {
			r.Crash = &report.Crash{}
		}
		r.Counts[c.count] = c.n
		r.Judge(c.online, c.expects)
		if got := strings.Join(r.Failures, "; "); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: failures %q, want %q", name, got, c.want)
		}
	}
}

func sample() *report.Result {
	var times tally.Times
	times.Record(tally.Deliver, 3*time.Millisecond)
	r := &report.Result{
		Mode: "chat", Connections: 15000, Latency: report.Latencies(&times),
		Ends: map[string]int64{"4408 slow": 2},
		Steps: []report.Step{
			{Connections: 5000, Use: []usage.Use{{Group: "edge", Processes: 1, RSS: 20 << 20, PSS: 18 << 20}}},
			{Connections: 15000, Use: []usage.Use{{Group: "edge", Processes: 1, RSS: 20<<20 + 10000*512, PSS: 18<<20 + 10000*500}}},
			{Connections: 15000, After: "messages", Use: []usage.Use{{Group: "edge", Processes: 1, RSS: 90 << 20, PSS: 90 << 20}}},
		},
		Traffic: &report.Traffic{Seconds: 1, Use: []usage.Use{{Group: "edge", CPU: time.Second}}},
	}
	for i := range 20 {
		r.Seconds = append(r.Seconds, report.Second{At: float64(i), Online: int64(i * 800), P50: 1, P99: float64(i),
			RSS: map[string]int64{"edge": int64(20+i) << 20, "nats": 30 << 20}})
	}
	return r
}

// A gateway that acknowledges half of what is due is not told to acknowledge all of it
// because everybody waited.
func TestTrafficOf(t *testing.T) {
	var c tally.Counts
	c[tally.Sent], c[tally.Acked] = 1000, 1000
	began := time.Unix(1000, 0)
	last, answered := began.Add(10*time.Second), began.Add(20*time.Second)
	if got := report.TrafficOf(c, began, last, answered, nil, nil); got.Seconds != 10 || got.Offered != 100 || got.Acked != 50 {
		t.Errorf("%+v, want 100/s due for 10 s and 50/s acknowledged", *got)
	}
	if got := report.TrafficOf(c, began, last, time.Time{}, nil, nil); got.Acked != 100 {
		t.Errorf("%v/s acknowledged, want 100", got.Acked)
	}
}

func TestSlope(t *testing.T) {
	r := sample()
	if each, ok := r.Slope("edge", func(u usage.Use) int64 { return u.RSS }); !ok || each != 512 {
		t.Errorf("%d bytes a connection, %v", each, ok)
	}
	r.Steps = r.Steps[:1]
	if _, ok := r.Slope("edge", func(u usage.Use) int64 { return u.RSS }); ok {
		t.Error("a slope of one point")
	}
}

func TestTableTells(t *testing.T) {
	r := sample()
	r.Failures = []string{"1 copies of acknowledged messages did not come"}
	var b bytes.Buffer
	r.Print(&b)
	for _, want := range []string{"15000 connections", "512 bytes of RSS and 500 of PSS a connection", "4408 slow", "missing", "FAILED: 1 copies", "delivered"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
	b.Reset()
	sample().Print(&b)
	if !strings.Contains(b.String(), "nothing was lost") {
		t.Errorf("the table of a good run:\n%s", b.String())
	}
}

func TestResultIsJSON(t *testing.T) {
	b, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if back["latency"].(map[string]any)["delivered"].(map[string]any)["P50"].(float64) < 2.9 || len(back["seconds"].([]any)) != 20 {
		t.Errorf("%s", b)
	}
}

func TestCharts(t *testing.T) {
	dir := t.TempDir()
	for name, r := range map[string]*report.Result{"full": sample(), "empty": {Mode: "idle"}} {
		file := filepath.Join(dir, name+".png")
		if err := r.Draw(file); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if img, err := png.Decode(bytes.NewReader(b)); err != nil || img.Bounds().Dx() < 500 {
			t.Errorf("%s: %v", file, err)
		}
		file = filepath.Join(dir, name+".svg")
		if err := r.Draw(file); err != nil {
			t.Fatal(err)
		}
		if b, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(bytes.NewReader(b)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
		if name == "full" && !bytes.Contains(b, []byte("p99")) {
			t.Error("the chart has no p99")
		}
	}
	if err := sample().Draw(filepath.Join(dir, "x.gif")); err == nil {
		t.Error("a .gif was drawn")
	}
}
