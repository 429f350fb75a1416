package trialrpc

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// carrier is metadata as a carrier of trace contexts.
type carrier metadata.MD

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string {
	if v := metadata.MD(c).Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set implements propagation.TextMapCarrier.
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

// traceContext is W3C's traceparent and tracestate. Baggage is not read: it
// would take what a caller put there on to others.
var traceContext = propagation.TraceContext{}

func extract(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	return traceContext.Extract(ctx, carrier(md))
}

func inject(ctx context.Context) context.Context {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	traceContext.Inject(ctx, carrier(md))
	return metadata.NewOutgoingContext(ctx, md)
}

// startSpan begins the span of a call, named by its method. It has no
// attribute of what was asked: neither ids nor texts.
func startSpan(ctx context.Context, t trace.Tracer, fullMethod string, kind trace.SpanKind) (context.Context, trace.Span) {
	name := strings.TrimPrefix(fullMethod, "/")
	service, method, _ := strings.Cut(name, "/")
	return t.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(
		attribute.String("rpc.system", "grpc"), attribute.String("rpc.service", service), attribute.String("rpc.method", method),
	))
}

// endSpan ends it. The text of a status may name people, so the code stands alone.
func endSpan(span trace.Span, code codes.Code) {
	span.SetAttributes(attribute.Int("rpc.grpc.status_code", int(code)))
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		span.SetStatus(otelcodes.Error, code.String())
	default:
	}
	span.End()
}
