package trialrpc

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"runtime"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/edge"
)

// maxStreams is how many directories follow one instance at once; a site has a
// few gateways.
const maxStreams = 256

// interceptor is what stands around every call: trace, counting, recovery,
// limits, the deadline, and the mapping of errors. It takes the place of
// go-zero's middlewares, which put requests into logs and say no time to come
// again.
type interceptor struct {
	log     *slog.Logger
	trouble *edge.Trouble
	tracer  trace.Tracer
	metrics *serverMetrics
	limits  *limiter
	streams chan struct{}
	timeout time.Duration
}

// ours says whether a method is of the contract. Health and reflection are not
// counted or limited: they must answer when the service is full.
func ours(fullMethod string) bool {
	return path.Dir(fullMethod) == "/"+trialv1.Trial_ServiceDesc.ServiceName
}

func (i *interceptor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (reply any, err error) {
	if !ours(info.FullMethod) {
		defer i.recovered(ctx, info.FullMethod, &err)
		return handler(ctx, req)
	}
	began := time.Now()
	ctx, span := startSpan(extract(ctx), i.tracer, info.FullMethod, trace.SpanKindServer)
	i.metrics.inFlight.Inc()
	defer func() {
		i.metrics.inFlight.Dec()
		i.metrics.observe(path.Base(info.FullMethod), status.Code(err), began)
		endSpan(span, status.Code(err))
	}()
	defer i.recovered(ctx, info.FullMethod, &err)
	leave, no := i.limits.enter()
	if no != nil {
		i.metrics.refused.WithLabelValues(no.Reason).Inc()
		return nil, no.GRPCStatus().Err()
	}
	// The time is the caller's, propagated, or this service's, whichever is
	// shorter. It is the context's alone: nothing answers while the handler goes
	// on, and a handler hears of it through every wait it does.
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	late := true
	defer func() { leave(late) }()
	reply, err = handler(ctx, req)
	late = err != nil && ctx.Err() != nil
	if err != nil {
		return nil, edge.Status(ctx, i.trouble, path.Base(info.FullMethod), err)
	}
	i.trouble.Answered(ctx, path.Base(info.FullMethod))
	return reply, nil
}

func (i *interceptor) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	if !ours(info.FullMethod) {
		defer i.recovered(ss.Context(), info.FullMethod, &err)
		return handler(srv, ss)
	}
	began := time.Now()
	ctx, span := startSpan(extract(ss.Context()), i.tracer, info.FullMethod, trace.SpanKindServer)
	// The span is of the opening: a directory is followed for weeks.
	endSpan(span, codes.OK)
	defer func() { i.metrics.observe(path.Base(info.FullMethod), status.Code(err), began) }()
	defer i.recovered(ctx, info.FullMethod, &err)
	select {
	case i.streams <- struct{}{}:
		defer func() { <-i.streams }()
	default:
		no := refused("too-many-at-once", "This instance is followed by no more directories.", 5*time.Second)
		i.metrics.refused.WithLabelValues(no.Reason).Inc()
		return no.GRPCStatus().Err()
	}
	i.metrics.watching.Inc()
	defer i.metrics.watching.Dec()
	return edge.Status(ss.Context(), i.trouble, path.Base(info.FullMethod), handler(srv, &tracedStream{ss, ctx, func() { i.trouble.Answered(ctx, path.Base(info.FullMethod)) }}))
}

// tracedStream is a stream with the context of its span.
type tracedStream struct {
	grpc.ServerStream
	ctx      context.Context // as grpc.ServerStream has it
	answered func()          // something was sent
}

// Context implements grpc.ServerStream.
func (s *tracedStream) Context() context.Context { return s.ctx }

// SendMsg implements grpc.ServerStream. A caller that went away while something
// was on its way to it is no trouble of this server's.
func (s *tracedStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	switch {
	case err == nil:
		s.answered()
	case status.Code(err) == codes.Unavailable, status.Code(err) == codes.Canceled:
		return edge.ErrGone
	}
	return err
}

// recovered turns a panic into an answer and says where it happened. The value
// of a panic is never logged, nor are the arguments on its stack: either may
// hold what was sent.
func (i *interceptor) recovered(ctx context.Context, method string, err *error) {
	v := recover() //nolint:revive // it is deferred by its callers
	if v == nil {
		return
	}
	i.metrics.panics.Inc()
	i.log.ErrorContext(ctx, "a call ended in a panic; the server goes on", "method", path.Base(method), "panicType", fmt.Sprintf("%T", v), "stack", stack())
	*err = (&edge.Error{
		Code: codes.Internal, Reason: "internal",
		Text: "The server made a mistake. Whether this was recorded is not known; a command may be sent again, with the same commandId.",
	}).GRPCStatus().Err()
}

// stack is the places on the panicking stack, innermost first, without values.
func stack() string {
	var pcs [48]uintptr
	// Skip runtime.Callers, this, recovered, and runtime's call of it.
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs[:])])
	var b strings.Builder
	for {
		f, more := frames.Next()
		if b.Len() > 0 {
			b.WriteString(" < ")
		}
		fmt.Fprintf(&b, "%s (%s:%d)", f.Function, path.Base(f.File), f.Line)
		if !more {
			return b.String()
		}
	}
}
