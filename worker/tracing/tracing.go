// Package tracing makes spans of what a worker does with clients' frames, and exports them
// by OTLP:
//
//	client's span ─► process UP_<lane> ─┬─► insert messages
//	                                    └─► send im.down ─► traceparent of the frames
//
// It stands around the seams of the rooms (lane.Business, messaging.Store,
// messaging.Deliverer) and is put there only when an operator wants traces: the rooms
// themselves know of nothing but the traceparent that travels with a message, and without
// this room no message costs anything more.
//
// No span holds a user's id, a token or a part of a message.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/wirepost/wirepost/shared/envelope"
)

// tellEvery is the time between log lines while spans cannot be exported.
const tellEvery = 30 * time.Second

// The system of the messaging spans; OpenTelemetry has no name of its own for NATS.
var systemNATS = semconv.MessagingSystemKey.String("nats")

// Options say whose spans they are.
type Options struct {
	Service  string // service.name
	Instance string // service.instance.id: the worker's name
	Version  string // service.version
	Log      *slog.Logger
}

// Tracing makes and exports spans. Its methods may be called concurrently.
type Tracing struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// New returns a Tracing that exports by OTLP over HTTP. Where to, how often, and which traces
// are sampled say the standard variables of OpenTelemetry, which its SDK reads. A collector
// that does not answer is no error: spans are dropped, which the log tells. Stop ends it.
func New(ctx context.Context, o Options) (*Tracing, error) {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("export of traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithFromEnv(), resource.WithAttributes(
		semconv.ServiceName(o.Service), semconv.ServiceInstanceID(o.Instance), semconv.ServiceVersion(o.Version)))
	if err != nil {
		return nil, fmt.Errorf("resource of traces: %w", err)
	}
	otel.SetErrorHandler(&complain{log: o.Log})
	otel.SetLogger(logr.FromSlogHandler(o.Log.Handler()))
	return with(sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))), nil
}

func with(p *sdk.TracerProvider) *Tracing {
	return &Tracing{provider: p, tracer: p.Tracer("github.com/wirepost/wirepost/worker")}
}

// Stop exports what is left until ctx ends.
func (t *Tracing) Stop(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// start begins a span below parent, which is a traceparent; "" begins a trace of its own.
func (t *Tracing) start(ctx context.Context, parent, name string, kind trace.SpanKind, about ...attribute.KeyValue) trace.Span {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{envelope.TraceParent: parent})
	_, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(about...))
	return span
}

// child is start for a parent of this worker: nil unless that one is sampled.
func (t *Tracing) child(ctx context.Context, parent, name string, kind trace.SpanKind, about ...attribute.KeyValue) trace.Span {
	if parent == "" {
		return nil
	}
	if span := t.start(ctx, parent, name, kind, about...); span.IsRecording() {
		return span
	}
	return nil
}

// parentOf is the traceparent of what comes below span.
func parentOf(span trace.Span) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpan(context.Background(), span), carrier)
	return carrier[envelope.TraceParent]
}

// panicked is why spans failed whose work did not return.
const panicked = "panic"

// end ends those of the spans that are there; failed says what did not work, "" that all did.
func end(spans []trace.Span, failed string) {
	for _, span := range spans {
		if span == nil {
			continue
		}
		if failed != "" {
			span.SetStatus(codes.Error, failed)
		}
		span.End()
	}
}

// complain logs what OpenTelemetry cannot do, once in a while.
type complain struct {
	log *slog.Logger

	mu   sync.Mutex
	told time.Time
}

// Handle is otel.ErrorHandler.
func (c *complain) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.told) >= tellEvery {
		c.told = now
		c.log.Warn("spans are lost", "err", err)
	}
}
