package tracing

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/messaging"
)

const (
	theTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	theSpan  = "00f067aa0ba902b7"
	sampled  = "00-" + theTrace + "-" + theSpan + "-01"
	unlikely = "00-" + theTrace + "-" + theSpan + "-00" // not sampled
)

var errAway = errors.New("away")

// backend is a store and a deliverer that take everything, or nothing.
type backend struct {
	messaging.Store
	storeErr, deliverErr error
	refuse               bool
	panics               bool
	frames               []messaging.Frame
}

func (b *backend) Append(_ context.Context, msgs []messaging.NewMessage) ([]messaging.Appended, error) {
	if b.panics {
		panic("the store")
	}
	out := make([]messaging.Appended, len(msgs))
	for i := range out {
		out[i].Seq = int64(i + 1)
		if b.refuse {
			out[i] = messaging.Appended{Outcome: messaging.Refused, Reason: "too deep"}
		}
	}
	return out, b.storeErr
}

func (b *backend) Deliver(_ context.Context, frames []messaging.Frame) error {
	b.frames = append(b.frames, frames...)
	return b.deliverErr
}

func (b *backend) Reply(messaging.Frame) error { return nil }

// spans works a batch with a business between traced seams, and returns the spans by name,
// and the error.
func spans(t *testing.T, b *backend, sampler sdk.Sampler, batch ...envelope.Event) (map[string]sdk.ReadOnlySpan, error) {
	t.Helper()
	rec := tracetest.NewSpanRecorder()
	tr := with(sdk.NewTracerProvider(sdk.WithSpanProcessor(rec), sdk.WithSampler(sampler)))
	s := messaging.New(tr.Store(b), tr.Deliverer(b), protocol.MaxBody, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	given := slices.Clone(batch)
	var err error
	func() {
		defer func() {
			if v := recover(); v != nil && !b.panics {
				panic(v)
			}
		}()
		_, err = tr.Business(s, 8).Work(t.Context(), batch)
	}()
	for i := range batch {
		if batch[i].Trace != given[i].Trace {
			t.Errorf("event %d of the caller's batch was changed", i)
		}
	}
	if n := len(rec.Started()) - len(rec.Ended()); n != 0 {
		t.Errorf("%d spans were not ended", n)
	}
	found := map[string]sdk.ReadOnlySpan{}
	for _, span := range rec.Ended() {
		if _, twice := found[span.Name()]; twice {
			t.Errorf("two spans %q", span.Name())
		}
		found[span.Name()] = span
	}
	return found, err
}

func send(trace string) envelope.Event {
	return envelope.Event{User: userid.MustParse("alice"), Type: envelope.Frame, Edge: "e1", Conn: "e1-7", N: 3, Time: time.Now(), Trace: trace,
		Data: []byte(`{"msgType":3,"bizType":1,"bizOptModule":1,"receivedUserId":"bob","clientMsgId":"c1","msgBody":"the secret"}`)}
}

// The three spans are one below the other, below the client's, and the frames carry the last
// one on.
func TestSpansOfAMessage(t *testing.T) {
	b := &backend{}
	got, err := spans(t, b, sdk.ParentBased(sdk.NeverSample()), send(sampled))
	if err != nil {
		t.Fatal(err)
	}
	process, insert, publish := got["process UP_7"], got["insert messages"], got["send im.down"] // alice's lane of 8
	if process == nil || insert == nil || publish == nil || len(got) != 3 {
		t.Fatalf("spans %v", got)
	}
	if process.Parent().TraceID().String() != theTrace || process.Parent().SpanID().String() != theSpan {
		t.Errorf("the parent is %v", process.Parent())
	}
	for _, child := range []sdk.ReadOnlySpan{insert, publish} {
		if child.Parent().SpanID() != process.SpanContext().SpanID() || child.SpanContext().TraceID() != process.SpanContext().TraceID() {
			t.Errorf("%s is not below %s", child.Name(), process.Name())
		}
	}
	if process.SpanKind() != trace.SpanKindConsumer || insert.SpanKind() != trace.SpanKindClient || publish.SpanKind() != trace.SpanKindProducer {
		t.Error("a kind is wrong")
	}
	want := "00-" + theTrace + "-" + publish.SpanContext().SpanID().String() + "-01"
	if len(b.frames) != 2 || b.frames[0].Trace != want || b.frames[1].Trace != want {
		t.Errorf("frames carry %+v, want %s", b.frames, want)
	}
	for _, a := range []string{"messaging.system=nats", "messaging.operation.type=process", "messaging.operation.name=process", "messaging.destination.name=UP_7",
		"messaging.consumer.group.name=work", "messaging.message.id=e1-7-3"} {
		if !has(process, a) {
			t.Errorf("%s lacks %s", process.Name(), a)
		}
	}
	for _, a := range []string{"db.system.name=mongodb", "db.operation.name=insert", "db.collection.name=messages", "wirepost.outcome=stored"} {
		if !has(insert, a) {
			t.Errorf("%s lacks %s", insert.Name(), a)
		}
	}
	for _, a := range []string{"messaging.system=nats", "messaging.operation.type=send", "messaging.operation.name=publish",
		"messaging.destination.name=im.down", "messaging.batch.message_count=2"} {
		if !has(publish, a) {
			t.Errorf("%s lacks %s", publish.Name(), a)
		}
	}
	for _, span := range got {
		for _, a := range span.Attributes() {
			for _, secret := range []string{"alice", "bob", "secret"} {
				if strings.Contains(a.Value.String(), secret) {
					t.Errorf("%s: %s is %s", span.Name(), a.Key, a.Value.String())
				}
			}
		}
	}
}

func has(span sdk.ReadOnlySpan, want string) bool {
	for _, a := range span.Attributes() {
		if string(a.Key)+"="+a.Value.String() == want {
			return true
		}
	}
	return false
}

// What is not sampled has no span, and its context travels on as it came. What has none
// begins a trace of its own where the sampler wants it.
func TestSampling(t *testing.T) {
	for _, c := range []struct {
		name    string
		trace   string
		sampler sdk.Sampler
		spans   int
		carried string // "new": the span's
	}{
		{"not sampled by the client", unlikely, sdk.ParentBased(sdk.AlwaysSample()), 0, unlikely},
		{"no context, not sampled", "", sdk.ParentBased(sdk.NeverSample()), 0, ""},
		{"no context, sampled", "", sdk.ParentBased(sdk.AlwaysSample()), 3, "new"},
		{"the operator samples nothing", sampled, sdk.NeverSample(), 0, sampled},
	} {
		b := &backend{}
		got, err := spans(t, b, c.sampler, send(c.trace))
		if err != nil || len(got) != c.spans {
			t.Errorf("%s: %d spans (%v), want %d", c.name, len(got), err, c.spans)
		}
		for _, f := range b.frames {
			if f.Trace != c.carried && (c.carried != "new" || !envelope.ValidTraceParent(f.Trace)) {
				t.Errorf("%s: a frame carries %q, want %q", c.name, f.Trace, c.carried)
			}
		}
	}
}

// A span says that something failed, and not what with.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name   string
		b      *backend
		failed map[string]string
	}{
		{"store", &backend{storeErr: errAway}, map[string]string{"process UP_7": "not committed", "insert messages": "not stored"}},
		{"downlink", &backend{deliverErr: errAway}, map[string]string{"process UP_7": "not committed", "insert messages": "", "send im.down": "not acknowledged"}},
		{"dead", &backend{refuse: true}, map[string]string{"process UP_7": "dead", "insert messages": "", "send im.down": ""}},
		{"panic", &backend{panics: true}, map[string]string{"process UP_7": "panic"}},
	} {
		got, _ := spans(t, c.b, sdk.AlwaysSample(), send(sampled))
		for name, failed := range c.failed {
			span := got[name]
			switch {
			case span == nil:
				t.Errorf("%s: there is no span %s", c.name, name)
			case span.Status().Description != failed || (span.Status().Code == codes.Error) != (failed != ""):
				t.Errorf("%s: %s ended with %+v, want %q", c.name, name, span.Status(), failed)
			}
		}
	}
}

// Events that are no frames have no spans; refusals are sent below theirs.
func TestOtherEvents(t *testing.T) {
	refused := send(sampled)
	refused.Data = []byte(`{"msgType":9}`)
	b := &backend{}
	got, err := spans(t, b, sdk.AlwaysSample(), envelope.Event{User: refused.User, Type: "im.unknown"}, refused)
	if err != nil || len(got) != 2 || got["process UP_7"] == nil || got["send im.down"] == nil {
		t.Errorf("spans %v (%v)", got, err)
	}
}
