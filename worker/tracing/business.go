package tracing

import (
	"context"
	"slices"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/worker/lane"
	"github.com/wirepost/wirepost/worker/messaging"
)

// Business returns next with a span for each frame of a batch, from the begin of the
// batch's work to its end; a batch that is worked again has new ones. lanes is the system's
// number of lanes.
func (t *Tracing) Business(next lane.Business, lanes int) lane.Business {
	return business{t, next, lanes}
}

type business struct {
	t     *Tracing
	next  lane.Business
	lanes int
}

// Work is lane.Business.
func (b business) Work(ctx context.Context, batch []envelope.Event) (dead []messaging.Dead, err error) {
	batch = slices.Clone(batch) // it is the caller's, and each frame gets its span as parent
	spans := make([]trace.Span, len(batch))
	for i := range batch {
		if batch[i].Type == envelope.Frame {
			spans[i] = b.begin(ctx, &batch[i])
		}
	}
	failed := panicked
	defer func() { end(spans, failed) }()
	dead, err = b.next.Work(ctx, batch)
	if failed = ""; err != nil {
		failed = "not committed"
	}
	for _, d := range dead {
		end(spans[d.Index:d.Index+1], "dead")
		spans[d.Index] = nil
	}
	return dead, err
}

// begin starts the span of a frame, nil if it is not sampled. What follows from the frame is
// below it.
func (b business) begin(ctx context.Context, ev *envelope.Event) trace.Span {
	name := stream.Up(subject.Lane(ev.User, b.lanes))
	span := b.t.start(ctx, ev.Trace, "process "+name, trace.SpanKindConsumer, systemNATS,
		semconv.MessagingOperationTypeProcess, semconv.MessagingOperationName("process"),
		semconv.MessagingDestinationName(name), semconv.MessagingConsumerGroupName(stream.Consumer),
		semconv.MessagingMessageID(ev.ID()), semconv.MessagingMessageBodySize(len(ev.Data)))
	if !span.IsRecording() {
		return nil
	}
	if !ev.Time.IsZero() {
		span.AddEvent("received by the edge", trace.WithTimestamp(ev.Time))
	}
	ev.Trace = parentOf(span)
	return span
}
