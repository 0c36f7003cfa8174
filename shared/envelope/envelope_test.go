package envelope_test

import (
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/envelope"
)

func TestRoundTrip(t *testing.T) {
	e := envelope.Event{
		Type: envelope.Disconnected, Edge: "edge-1", Conn: "edge-1-k3", N: 7,
		Time: time.UnixMilli(1700000000123).UTC(), Reason: envelope.ReasonSlow, Trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", After: 1<<32 - 1,
	}
	got, err := envelope.Parse(e.Header())
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("Parse(Header) = %+v, %v; want %+v", got, err, e)
	}
}

// The longest name that an edge may have, with its last connection.
func TestLongestNames(t *testing.T) {
	edge := strings.Repeat("e", 64)
	e := envelope.Event{Type: envelope.Frame, Edge: edge, Conn: edge + "-" + strconv.FormatUint(math.MaxUint64, 36), N: 1}
	if got, err := envelope.Parse(e.Header()); err != nil || got.Edge != e.Edge || got.Conn != e.Conn {
		t.Errorf("%+v, %v", got, err)
	}
}

// What an edge of another version writes is read as far as it can be.
func TestParseAfter(t *testing.T) {
	for text, want := range map[string]uint32{"": 0, "0": 0, "7": 7, "4294967295": 1<<32 - 1, "4294967296": 0, "-1": 0, "x": 0, "7x": 0} {
		h := envelope.Event{Type: envelope.Frame, Edge: "e", Conn: "c"}.Header()
		if h["ce-after"] != nil {
			t.Fatal("the header is there when nothing is known")
		}
		h["ce-after"] = []string{text}
		if e, err := envelope.Parse(h); err != nil || e.After != want {
			t.Errorf("%q: %d, %v, want %d", text, e.After, err, want)
		}
	}
}

func TestParseMalformed(t *testing.T) {
	for name, h := range map[string]map[string][]string{
		"empty":     {},
		"no source": {"ce-type": {"im.frame"}},
		"no conn":   {"ce-type": {"im.frame"}, "ce-source": {"/edges/e/conns/"}},
		"no type":   {"ce-source": {"/edges/e/conns/c"}},
		// An edge's name is part of subjects: with these nobody could look for its mark.
		"edge of two tokens": {"ce-type": {"im.frame"}, "ce-source": {"/edges/a.b/conns/c"}},
		"edge is a wildcard": {"ce-type": {"im.frame"}, "ce-source": {"/edges/*/conns/c"}},
		"conn of two tokens": {"ce-type": {"im.frame"}, "ce-source": {"/edges/e/conns/a.b"}},
		"long edge":          {"ce-type": {"im.frame"}, "ce-source": {"/edges/" + strings.Repeat("e", 65) + "/conns/c"}},
		"long conn":          {"ce-type": {"im.frame"}, "ce-source": {"/edges/e/conns/" + strings.Repeat("c", 79)}},
	} {
		if e, err := envelope.Parse(h); !errors.Is(err, envelope.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

// A dead message that is published again is no part of what its connection sent.
func TestADeadMessageHoldsNowhere(t *testing.T) {
	h := envelope.Event{Type: envelope.Frame, Edge: "e", Conn: "c", N: 2, After: 7}.Header()
	if e, err := envelope.Parse(h); err != nil || e.After != 7 {
		t.Fatalf("%+v, %v", e, err)
	}
	if e, err := envelope.Parse(envelope.WithReason(h, "why")); err != nil || e.After != 0 || e.Reason != "why" {
		t.Errorf("%+v, %v", e, err)
	}
}
