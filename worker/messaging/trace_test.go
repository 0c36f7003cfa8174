package messaging

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
)

const someTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// The context of a message goes to the store and with each frame that follows from it, and
// the sender's copy says which edge received the message, and when.
func TestTraceAndEcho(t *testing.T) {
	s, st, out := setup(t)
	ev, self, bad := send(ann, "bob", "c1", `1`), send(ann, "ann", "c2", `2`), frame(ann, `{"msgType":9}`)
	ev.Trace, bad.Trace = someTrace, someTrace
	seen := &watched{memory: st}
	s.store = seen
	work(t, s, ev, self, bad)
	if len(seen.msgs) != 2 || seen.msgs[0].Trace != someTrace || seen.msgs[1].Trace != "" {
		t.Errorf("the store was given %+v", seen.msgs)
	}
	frames := out.take()
	if len(frames) != 4 { // two of ev, one to oneself, a refusal
		t.Fatalf("frames %+v", frames)
	}
	for i, f := range frames {
		traced, echo := i != 2, envelope.EchoOf("e1", ev.Time)
		switch {
		case i == 2:
			echo = envelope.EchoOf("e1", self.Time)
		case i == 3 || f.To == bob:
			echo = ""
		}
		if (f.Trace == someTrace) != traced || f.Echo != echo {
			t.Errorf("frame %d to %s carries %q and the echo %q, want %q", i, f.To.Raw(), f.Trace, f.Echo, echo)
		}
	}
}

// watched keeps what it is asked to append.
type watched struct {
	*memory
	msgs []NewMessage
}

func (w *watched) Append(ctx context.Context, msgs []NewMessage) ([]Appended, error) {
	w.msgs = append(w.msgs, msgs...)
	return w.memory.Append(ctx, msgs)
}

// instant is a store and a deliverer that take everything at once.
type instant struct {
	Store
	out []Appended
}

func (i *instant) Append(context.Context, []NewMessage) ([]Appended, error) { return i.out, nil }
func (i *instant) Deliver(context.Context, []Frame) error                   { return nil }
func (i *instant) Reply(Frame) error                                        { return nil }

// traffic is a service, and a batch of n messages.
func traffic(n int, trace string) (*Service, []envelope.Event) {
	i := &instant{out: make([]Appended, n)}
	s := New(i, i, protocol.MaxBody, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	batch := make([]envelope.Event, n)
	for k := range batch {
		batch[k] = send(ann, "bob", fmt.Sprint("c", k), `{"text":"some words of one and another"}`)
		batch[k].Trace = trace
	}
	return s, batch
}

// Without spans a context costs nothing: it is a string that is handed on.
func TestTraceAllocatesNothing(t *testing.T) {
	allocs := func(trace string) float64 {
		s, batch := traffic(64, trace)
		return testing.AllocsPerRun(100, func() { work(t, s, batch...) })
	}
	if plain, traced := allocs(""), allocs(someTrace); traced != plain {
		t.Errorf("%v allocations for a batch, %v when its messages have a context", plain, traced)
	}
}

// BenchmarkWork is a batch of 256 messages, without the store and the downlink.
func BenchmarkWork(b *testing.B) {
	s, batch := traffic(256, "")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Work(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
}
