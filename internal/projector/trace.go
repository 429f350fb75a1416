package projector

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/internal/journal"
)

// tracerName is the instrumentation scope of these spans.
const tracerName = "github.com/tidegate/tidegate/internal/projector"

// maxTraced bounds the spans of a transaction: one that takes more frames
// catches up, and then single frames are of little interest.
const maxTraced = 64

func newTracer(p trace.TracerProvider) trace.Tracer {
	if p == nil {
		return nil
	}
	return p.Tracer(tracerName)
}

// applied tells, in the trace of each frame, when it came into the tables: all
// frames of a transaction share its times (docs/adr/011-tracing.md).
func (p *Projector) applied(frames []*frame, began, ended time.Time) {
	for _, f := range frames[:min(len(frames), maxTraced)] {
		id, parent := journal.TraceOf(f.header.Run, f.header.N)
		ctx := trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: id, SpanID: parent, TraceFlags: trace.FlagsSampled, Remote: true,
		}))
		_, span := p.tracer.Start(ctx, "projector.apply", trace.WithTimestamp(began), trace.WithAttributes(
			attribute.Int64("tidegate.shard", int64(p.shard)), attribute.Int64("tidegate.position", int64(f.position)), //nolint:gosec // a position is far below 2^63
			attribute.Int("tidegate.facts", len(f.facts)), attribute.Int("tidegate.frames", len(frames)),
		))
		span.End(trace.WithTimestamp(ended))
	}
}
