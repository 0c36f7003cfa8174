package envelope

import (
	"strings"
	"testing"
	"time"
)

const traced = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestValidTraceParent(t *testing.T) {
	for _, good := range []string{traced, strings.TrimSuffix(traced, "1") + "0", strings.TrimSuffix(traced, "01") + "ff"} {
		if !ValidTraceParent(good) || !ValidTraceParent([]byte(good)) {
			t.Errorf("%q is not taken", good)
		}
	}
	for _, bad := range []string{
		"", "00", traced[:54], traced + "0", traced + "-00", " " + traced[1:], strings.ToUpper(traced),
		"01" + traced[2:], "ff" + traced[2:],
		strings.Replace(traced, "4bf92f3577b34da6a3ce929d0e0e4736", strings.Repeat("0", 32), 1),
		strings.Replace(traced, "00f067aa0ba902b7", strings.Repeat("0", 16), 1),
		strings.Replace(traced, "-00f", "_00f", 1), strings.Replace(traced, "4b", "4g", 1), strings.Replace(traced, "4b", "4\n", 1),
		strings.Replace(traced, "-01", "-0x", 1),
	} {
		if ValidTraceParent(bad) || ValidTraceParent([]byte(bad)) {
			t.Errorf("%q is taken", bad)
		}
	}
}

// What stands in the header of an event is bounded and well formed, or it is not there.
func TestParseTakesNoMalformedTraceParent(t *testing.T) {
	e := Event{Type: Frame, Edge: "e", Conn: "c", N: 1, Time: time.Now(), Trace: traced}
	if got, err := Parse(e.Header()); err != nil || got.Trace != traced {
		t.Errorf("read %q (%v)", got.Trace, err)
	}
	for _, bad := range []string{"t", strings.Repeat("x", 1<<20), traced + traced} {
		e.Trace = bad
		if got, err := Parse(e.Header()); err != nil || got.Trace != "" {
			t.Errorf("read %.80q of %.80q (%v)", got.Trace, bad, err)
		}
	}
}

func TestEcho(t *testing.T) {
	at := time.UnixMilli(1764000000123)
	value := []byte(EchoOf("e-1", at))
	if got := ParseEcho(value, "e-1"); got != at.UnixMilli() {
		t.Errorf("%q says %d", value, got)
	}
	for edge, values := range map[string][]string{
		"e-2": {string(value)},
		"e-1": {"", "e-1", "e-1 ", "e-1 12a", "e-1 -5", "e-1 1764000000123456789", "e-1  5", "e-11 5", " 5"},
		"":    {"e-1 5", ""},
	} {
		for _, v := range values {
			if got := ParseEcho([]byte(v), edge); got != 0 {
				t.Errorf("%q says %d at the edge %q", v, got, edge)
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() { ParseEcho(value, "e-1") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseEcho(f *testing.F) {
	f.Add([]byte("e-1 1764000000123"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ms := ParseEcho(b, "e-1"); ms < 0 {
			t.Errorf("%q is %d", b, ms)
		}
	})
}
