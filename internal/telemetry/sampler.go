package telemetry

import (
	"fmt"
	"math/rand/v2"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// sampler decides what is traced.
//
//   - A request without a trace of its own: by ratio.
//   - A request over HTTP that brings one (traceparent): what its flag says, and
//     by ratio. Both flag and trace id are a stranger's choice, so the ratio is
//     drawn anew: nobody can make this process trace everything.
//   - A call between processes of this installation, which are known to each
//     other by TLS: what the caller decided.
//   - A frame: always. There are at most some hundred a second, however many
//     phones send, and links of requests shall lead somewhere.
type sampler struct {
	ratio float64
	usual sdktrace.Sampler
}

// httpMethod marks the span of a request over HTTP.
const httpMethod = "http.request.method"

// ShouldSample implements sdktrace.Sampler.
func (s sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	parent := trace.SpanContextFromContext(p.ParentContext)
	if parent.IsValid() && parent.IsRemote() && overHTTP(&p) && rand.Float64() >= s.ratio { //nolint:gosec // sampling needs no secrecy
		return sdktrace.SamplingResult{Decision: sdktrace.Drop, Tracestate: parent.TraceState()}
	}
	return s.usual.ShouldSample(p)
}

func overHTTP(p *sdktrace.SamplingParameters) bool {
	if p.Kind != trace.SpanKindServer {
		return false
	}
	for i := range p.Attributes {
		if p.Attributes[i].Key == httpMethod {
			return true
		}
	}
	return false
}

// Description implements sdktrace.Sampler.
func (s sampler) Description() string { return fmt.Sprintf("Tidegate{%g}", s.ratio) }
