package envelope_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/envelope"
)

func TestRoundTrip(t *testing.T) {
	e := envelope.Event{
		Type: envelope.Disconnected, Edge: "edge-1", Conn: "edge-1-k3", N: 7,
		Time: time.UnixMilli(1700000000123).UTC(), Reason: envelope.ReasonSlow, Trace: "00-x-y-01",
	}
	got, err := envelope.Parse(e.Header())
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("Parse(Header) = %+v, %v; want %+v", got, err, e)
	}
}

func TestParseMalformed(t *testing.T) {
	for name, h := range map[string]map[string][]string{
		"empty":     {},
		"no source": {"ce-type": {"im.frame"}},
		"no conn":   {"ce-type": {"im.frame"}, "ce-source": {"/edges/e/conns/"}},
		"no type":   {"ce-source": {"/edges/e/conns/c"}},
	} {
		if e, err := envelope.Parse(h); !errors.Is(err, envelope.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}
