package socket_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/shared/envelope"
)

// What a client says its message is a part of goes to the uplink with that message, and with
// no other event of the connection.
func TestTraceParentIsPassedOn(t *testing.T) {
	t.Parallel()
	r := serve(t, nil)
	p := r.login("u1")
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for body, want := range map[string]string{
		`{"msgType":3,"msgBody":1,"traceparent":"` + trace + `"}`: trace,
		`{"traceparent":"` + trace + `","msgType":3,"msgBody":1}`: trace,
		`{"msgType":3,"msgBody":1}`:                               "",
		`{"msgType":3,"traceparent":"` + trace + `\u0000"}`:       "",
	} {
		p.text(body)
		if ev := r.up.next(t); ev.Type != envelope.Frame || ev.data != body || ev.Trace != want {
			t.Errorf("%s was passed on with the context %q", ev.data, ev.Trace)
		}
	}
	p.text(`{"traceparent":"` + trace + `","msgType":1}`)
	p.expectText(plain)
	_ = p.Close()
	if ev := r.up.next(t); ev.Type != envelope.Disconnected || ev.Trace != "" {
		t.Errorf("%s has the context %q", ev.Type, ev.Trace)
	}
}

// The time from a message's receipt to its echo is measured at each socket that gets it, and
// for no other frame.
func TestEchoIsMeasured(t *testing.T) {
	t.Parallel()
	r := serve(t, nil)
	p := r.login("u1")
	a := r.down.next(t)
	sum := func() (count uint64, seconds float64) {
		families, err := r.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "wirepost_edge_echo_seconds" {
				h := f.GetMetric()[0].GetHistogram()
				count, seconds = h.GetSampleCount(), h.GetSampleSum()
			}
		}
		return count, seconds
	}
	for i, echoes := range []int64{0, time.Now().Add(-time.Minute).UnixMilli(), time.Now().Add(time.Hour).UnixMilli()} {
		text := `{"n":` + strconv.Itoa(i) + `}`
		a.r.Deliver(downlink.Frame{Data: []byte(text), Echoes: echoes})
		p.expectText(text)
	}
	p.text(plain) // the loop has measured what it has sent
	p.expectText(plain)
	if count, seconds := sum(); count != 2 || seconds < 59 || 90 < seconds {
		t.Errorf("%d echoes in %v s, want 2 of a minute together", count, seconds)
	}
}
