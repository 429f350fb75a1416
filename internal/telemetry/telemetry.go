// Package telemetry sends traces to a collector, by OTLP over HTTP. It is the
// one home of OpenTelemetry's SDK and exporter; all others use its API alone,
// and only when they were handed a provider.
//
// It is off unless an endpoint is configured, and costs nothing then. While it
// is on, nothing ever waits for a collector: what it does not take is dropped,
// counted, and said in the log now and then. Spans hold no ids of people, no
// content and no addresses (docs/adr/011-tracing.md).
package telemetry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config of tracing.
type Config struct {
	Endpoint    string  // OTLP/HTTP: http://host:4318 or https://host/path; "" is off
	Ratio       float64 // part of the requests that is traced, 0 to 1
	HeadersFile string  // a file of lines "Name: value", sent with each batch; "" for none

	Service  string // e.g. "tidegate-gateway"
	Version  string // of the binary
	Instance string // tells several processes of a service apart

	Log   *slog.Logger // nil for none
	Stats *Stats       // filled while tracing is on; nil for none
}

// Bounds of what is kept for a collector, and of how long it may take.
const (
	queueSpans    = 8192 // about 8 MB
	batchSpans    = 512
	batchEvery    = 2 * time.Second
	exportTimeout = 5 * time.Second
	pauseAfter    = 5 * time.Second  // after a failed batch nothing is tried
	tellEvery     = 10 * time.Minute // lines about failures
)

// on is the provider while tracing is on.
var on atomic.Pointer[sdktrace.TracerProvider]

// Provider is what makes spans while tracing is on, and nil while it is off: the
// parts of this process take nil for "trace nothing" and then pay nothing.
func Provider() trace.TracerProvider {
	if p := on.Load(); p != nil {
		return p
	}
	return nil
}

// Setup starts tracing for the whole process, and sets OpenTelemetry's global
// provider and propagator (traceparent and tracestate; no baggage, which would
// hand on whatever a caller put there). Without an endpoint it does nothing.
//
// shutdown sends what is left until ctx ends, and switches tracing off. It is
// never nil, and may be called twice.
func Setup(ctx context.Context, cfg Config) (shutdown func(context.Context) error, err error) {
	nothing := func(context.Context) error { return nil }
	if cfg.Endpoint == "" {
		return nothing, nil
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Stats == nil {
		cfg.Stats = &Stats{}
	}
	if !(cfg.Ratio >= 0 && cfg.Ratio <= 1) { // so that NaN is refused too
		return nothing, fmt.Errorf("tracing: ratio is %v, it must be from 0 to 1", cfg.Ratio)
	}
	endpoint, err := tracesURL(cfg.Endpoint)
	if err != nil {
		return nothing, err
	}
	headers, err := readHeaders(cfg.HeadersFile)
	if err != nil {
		return nothing, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	exporter, err := otlptrace.New(ctx, otlptracehttp.NewClient(
		otlptracehttp.WithEndpointURL(endpoint),
		// Always given, so that nothing comes from the environment instead.
		otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithHTTPClient(&http.Client{Transport: transport, Timeout: exportTimeout}),
		otlptracehttp.WithTimeout(exportTimeout),
		// Not by the exporter: while it retries, everything behind it would wait.
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}),
	))
	if err != nil {
		return nothing, fmt.Errorf("tracing: %w", err)
	}
	queue := newQueue(exporter, cfg.Stats, cfg.Log)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sampler{ratio: cfg.Ratio, usual: sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Ratio))}),
		sdktrace.WithSpanProcessor(queue),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", cfg.Service), attribute.String("service.version", cfg.Version),
			attribute.String("service.instance.id", cfg.Instance),
		)),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
			AttributeValueLengthLimit: 256, AttributeCountLimit: 32, EventCountLimit: 16, LinkCountLimit: 16,
			AttributePerEventCountLimit: 8, AttributePerLinkCountLimit: 8,
		}),
	)
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	otel.SetErrorHandler(otel.ErrorHandlerFunc(queue.sdkError))
	on.Store(provider)
	cfg.Log.Info("traces are sent", "endpoint", redacted(endpoint), "ratio", cfg.Ratio)
	return func(ctx context.Context) error {
		on.CompareAndSwap(provider, nil)
		err := provider.Shutdown(ctx)
		transport.CloseIdleConnections()
		return err
	}, nil
}

// tracesURL is an endpoint with the path that OTLP gives to traces, unless it
// has a path of its own.
func tracesURL(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("tracing: endpoint must be a URL such as http://127.0.0.1:4318 or https://collector.example/v1/traces")
	}
	if u.User != nil {
		return "", errors.New("tracing: endpoint must hold no user or password: put an Authorization header into headersFile")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// redacted is the part of an endpoint that may stand in a log.
func redacted(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// readHeaders reads lines "Name: value". Values are secrets: no error holds one.
func readHeaders(path string) (map[string]string, error) {
	headers := map[string]string{}
	if path == "" {
		return headers, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tracing: headersFile: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || name == "" || value == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("tracing: headersFile, line %d: must be of the form Name: value", n)
		}
		headers[name] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("tracing: headersFile: %w", err)
	}
	return headers, nil
}
