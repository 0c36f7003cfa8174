package figure_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/scripts/bench/figure"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{1, 2}, 1.5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := (figure.Row{Values: c.values}).Median(); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
	if got := (figure.Row{}).Median(); !math.IsNaN(got) {
		t.Errorf("median of nothing is %v", got)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0.5: "0.50", 9.876: "9.88", 12.34: "12.3", 123.4: "123", 1234: "1,234", 123456: "123,456", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := figure.Number(v); got != want {
			t.Errorf("Number(%v) = %q, want %q", v, got, want)
		}
	}
}

// The ratios are of medians, and to the rows that are named; a table without such a row
// shows none.
func TestMarkdown(t *testing.T) {
	tab := figure.Table{Title: "Echo", Unit: "µs", Note: "(less is better)", Floor: "floor", Ours: "ours"}
	for _, v := range []float64{10, 30, 8} {
		tab.Add("floor", v)
		tab.Add("ours", 2*v)
	}
	tab.Add("other", 5)
	var b strings.Builder
	if err := tab.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	want := `**Echo** (less is better)

|  | µs | lowest – highest | ÷ floor | ÷ ours |
| --- | ---: | ---: | ---: | ---: |
| floor | 10.0 | 8.00 – 30.0 | 1.00 | 0.50 |
| ours | 20.0 | 16.0 – 60.0 | 2.00 | 1.00 |
| other | 5.00 | 5.00 – 5.00 | 0.50 | 0.25 |

`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestShare(t *testing.T) {
	tab := figure.Table{Unit: "µs", Whole: "sum"}
	tab.Add("a", 1)
	tab.Add("sum", 4)
	var b strings.Builder
	if err := tab.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "| share |") || !strings.Contains(b.String(), "| a | 1.00 | 1.00 – 1.00 | 0.25 |") {
		t.Errorf("got\n%s", b.String())
	}
}

func TestJSONHoldsEveryValue(t *testing.T) {
	r := figure.Report{Machine: figure.ThisMachine(), Tables: []*figure.Table{{Title: "x", Rows: []figure.Row{{Name: "a", Values: []float64{1, 2, 3}}}}}}
	var b strings.Builder
	if err := r.JSON(&b); err != nil {
		t.Fatal(err)
	}
	var back figure.Report
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Tables) != 1 || len(back.Tables[0].Rows[0].Values) != 3 || back.Machine.Cores < 1 || back.Machine.Kernel == "unknown" {
		t.Errorf("came back as %+v", back)
	}
}
