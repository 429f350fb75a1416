package intake

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/internal/journal"
)

// Tracing (docs/adr/011-tracing.md). A caller's span has a child for its wait
// here, which links to the trace of the frame it came into; in that trace lies
// the frame's commit. No span has an id of a person or a trial. Without a
// tracer none of this is reached.

// tracerName is the instrumentation scope of these spans.
const tracerName = "github.com/tidegate/tidegate/internal/intake"

// maxLinks bounds the links of a bulk: it comes into few frames.
const maxLinks = 8

func newTracer(p trace.TracerProvider) trace.Tracer {
	if p == nil {
		return nil
	}
	return p.Tracer(tracerName)
}

// frameContext is the place of a frame's spans.
func frameContext(h *journal.Header) trace.SpanContext {
	id, span := journal.TraceOf(h.Run, h.N)
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled, Remote: true})
}

// waiting begins the span of a caller's wait, if the caller is traced.
func (in *Intake) waiting(ctx context.Context, facts int) trace.Span {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return nil
	}
	_, span := in.tracer.Start(ctx, "intake.wait", trace.WithAttributes(
		attribute.Int64("tidegate.shard", int64(in.shard)), attribute.Int("tidegate.facts", facts),
	))
	return span
}

// waited ends it. outcomes are those of the facts, in order.
func waited(span trace.Span, outcomes ...Outcome) {
	var last trace.SpanContext
	links := 0
	for i := range outcomes {
		if err := outcomes[i].Err; err != nil {
			span.SetStatus(codes.Error, outcomeWord(err))
			continue
		}
		if c := &outcomes[i].Committed; c.Signed != nil {
			if frame := frameContext(&c.Signed.Header); !frame.Equal(last) && links < maxLinks {
				span.AddLink(trace.Link{SpanContext: frame})
				last = frame
				links++
			}
		}
	}
	span.End()
}

// outcomeWord says why a fact is not durable, without the error's text.
func outcomeWord(err error) string {
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		return refused.Reason
	case errors.Is(err, ErrUnknown):
		return "unknown"
	case errors.Is(err, ErrNotTaken):
		return "not-kept"
	case errors.Is(err, ErrStopped):
		return "stopped"
	}
	return "invalid"
}

// committed tells of a frame's commit, once it is over.
func (in *Intake) committed(h *journal.Header, began, ended time.Time, bytes int, class journal.Class, err error) {
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), frameContext(h))
	_, span := in.tracer.Start(ctx, "intake.commit", trace.WithTimestamp(began), trace.WithAttributes(
		attribute.Int64("tidegate.shard", int64(h.Shard)), attribute.Int64("tidegate.frame", int64(h.N)), //nolint:gosec // a count of frames
		attribute.Int64("tidegate.facts", int64(h.Count)), attribute.Int("tidegate.bytes", bytes),
	))
	if err != nil {
		word := "unknown"
		if errors.Is(err, journal.ErrNotAppended) || errors.Is(err, journal.ErrTooLarge) {
			word = "not-kept"
		}
		span.SetStatus(codes.Error, word)
	} else {
		span.SetAttributes(attribute.String("tidegate.durability", class.String()))
	}
	span.End(trace.WithTimestamp(ended))
}
