package tracing

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/wirepost/wirepost/worker/messaging"
)

// collection and downlink are what the spans call the two destinations.
const (
	collection = "messages"
	downlink   = "im.down"
)

// Store returns next with a span for each message that is stored.
func (t *Tracing) Store(next messaging.Store) messaging.Store { return store{next, t} }

type store struct {
	messaging.Store
	t *Tracing
}

// Append is messaging.Store.
func (s store) Append(ctx context.Context, msgs []messaging.NewMessage) ([]messaging.Appended, error) {
	spans := make([]trace.Span, len(msgs))
	for i := range msgs {
		spans[i] = s.t.child(ctx, msgs[i].Trace, "insert "+collection, trace.SpanKindClient, semconv.DBSystemNameMongoDB,
			semconv.DBOperationName("insert"), semconv.DBCollectionName(collection), semconv.DBOperationBatchSize(len(msgs)))
	}
	failed := panicked
	defer func() { end(spans, failed) }()
	out, err := s.Store.Append(ctx, msgs)
	if failed = ""; err != nil {
		failed = "not stored"
		return out, err
	}
	for i, span := range spans {
		if span != nil {
			span.SetAttributes(attribute.String("wirepost.outcome", out[i].Outcome.String()))
		}
	}
	return out, nil
}

// Deliverer returns next with a span for the frames that follow from one client's frame.
func (t *Tracing) Deliverer(next messaging.Deliverer) messaging.Deliverer { return deliverer{next, t} }

type deliverer struct {
	messaging.Deliverer
	t *Tracing
}

// Deliver is messaging.Deliverer.
func (d deliverer) Deliver(ctx context.Context, frames []messaging.Frame) error {
	frames = slices.Clone(frames) // each gets its span as parent
	var spans []trace.Span
	for from := 0; from < len(frames); {
		upto := from + 1
		for upto < len(frames) && frames[upto].Trace == frames[from].Trace {
			upto++
		}
		span := d.t.child(ctx, frames[from].Trace, "send "+downlink, trace.SpanKindProducer, systemNATS,
			semconv.MessagingOperationTypeSend, semconv.MessagingOperationName("publish"),
			semconv.MessagingDestinationName(downlink), semconv.MessagingBatchMessageCount(upto-from))
		if span != nil {
			spans = append(spans, span)
			parent := parentOf(span)
			for i := from; i < upto; i++ {
				frames[i].Trace = parent
			}
		}
		from = upto
	}
	failed := panicked
	defer func() { end(spans, failed) }()
	err := d.Deliverer.Deliver(ctx, frames)
	if failed = ""; err != nil {
		failed = "not acknowledged"
	}
	return err
}
