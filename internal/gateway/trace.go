package gateway

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// tracerName is the instrumentation scope of these spans.
const tracerName = "github.com/tidegate/tidegate/internal/gateway"

func newTracer(p trace.TracerProvider) trace.Tracer {
	if p == nil {
		return nil
	}
	return p.Tracer(tracerName)
}

// started begins the span of a request, in the caller's trace if it brings one
// (W3C traceparent), and puts it into the request's context. It holds the route,
// never the path: that may name people. Whether the caller's flag counts is for
// the sampler, which knows by http.request.method that a stranger set it.
//
// The caller's tracestate is not taken on: it would put a stranger's text, of
// any content, into every span of the request.
func (s *Server) started(c *gin.Context, r *route) trace.Span {
	ctx := c.Request.Context()
	if caller := c.Request.Header["Traceparent"]; len(caller) == 1 {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": caller[0]})
	}
	method := r.method
	if method == "any" {
		method = knownMethod(c.Request.Method)
	}
	ctx, span := s.tracer.Start(ctx, method+" "+r.path, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", method), attribute.String("http.route", r.path),
	))
	c.Request = c.Request.WithContext(ctx)
	return span
}

// knownMethod is a method of HTTP, and not what else a caller may write there.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER"
}

func ended(span trace.Span, status int) {
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, http.StatusText(status))
	}
	span.End()
}
