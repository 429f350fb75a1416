package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/telemetry"
	"github.com/tidegate/tidegate/internal/telemetry/telemetrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logBuffer keeps every log line.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// begin sets tracing up and ends it with the test.
func begin(t *testing.T, cfg telemetry.Config) (tracer trace.Tracer, shutdown func()) {
	t.Helper()
	stop, err := telemetry.Setup(t.Context(), cfg)
	must(t, err)
	once := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = stop(ctx)
	})
	t.Cleanup(once)
	return telemetry.Provider().Tracer("test"), once
}

func TestOffCostsNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	stop, err := telemetry.Setup(t.Context(), telemetry.Config{Ratio: math.NaN(), HeadersFile: "/there/is/none", Service: "x"})
	must(t, err)
	if n := runtime.NumGoroutine(); n != before {
		t.Errorf("%d goroutines more", n-before)
	}
	if telemetry.Provider() != nil {
		t.Error("a provider although tracing is off")
	}
	must(t, stop(t.Context()))
}

func TestSpansReachTheCollector(t *testing.T) {
	c := telemetrytest.New(t)
	headers := filepath.Join(t.TempDir(), "headers")
	must(t, os.WriteFile(headers, []byte("# for the collector\nAuthorization: Bearer secret-of-the-collector\n\nX-Tenant : trials\n"), 0o600))
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-from-environment=1")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=of-the-pod") // the one that may be used: platforms set it
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	stats, log := &telemetry.Stats{}, &logBuffer{}
	tracer, stop := begin(t, telemetry.Config{
		Endpoint: c.URL, Ratio: 1, HeadersFile: headers, Service: "tidegate-gateway", Version: "1.2.3", Instance: "a", Stats: stats,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if otel.GetTracerProvider() != telemetry.Provider() {
		t.Error("the global provider is another")
	}
	carrier := propagation.MapCarrier{}
	ctx, span := tracer.Start(t.Context(), "one", trace.WithAttributes(attribute.String("a", strings.Repeat("x", 1000))))
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	_, child := tracer.Start(ctx, "two")
	child.End()
	span.End()
	stop()
	one, two := c.Spans("one"), c.Spans("two")
	if len(one) != 1 || len(two) != 1 || two[0].Parent != one[0].ID || two[0].Trace != one[0].Trace || one[0].Service != "tidegate-gateway" {
		t.Fatalf("%+v %+v", one, two)
	}
	if len(one[0].Attributes["a"]) != 256 {
		t.Errorf("an attribute of %d bytes", len(one[0].Attributes["a"]))
	}
	if carrier["traceparent"] == "" {
		t.Error("the global propagator does not write traceparent")
	}
	if h := c.Header(); h.Get("Authorization") != "Bearer secret-of-the-collector" || h.Get("X-Tenant") != "trials" || h.Get("X-From-Environment") != "" {
		t.Errorf("%v", h)
	}
	if raw := string(c.Raw()); !strings.Contains(raw, "1.2.3") || !strings.Contains(raw, "of-the-pod") {
		t.Error("the resource is not the configured one, with what the platform adds")
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("a header in the log")
	}
	if stats.Sent.Load() != 2 || stats.Overflow.Load()+stats.Refused.Load() != 0 {
		t.Errorf("sent %d", stats.Sent.Load())
	}
	if telemetry.Provider() != nil {
		t.Error("still on after the stop")
	}
}

func TestSpansAreSentWithoutAStop(t *testing.T) {
	c := telemetrytest.New(t)
	tracer, _ := begin(t, telemetry.Config{Endpoint: c.URL, Ratio: 1})
	_, span := tracer.Start(t.Context(), "one")
	span.End()
	for limit := time.Now().Add(20 * time.Second); len(c.Spans("one")) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("nothing came")
		}
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	must(t, os.WriteFile(bad, []byte("ok: 1\nsecret-without-a-name\n"), 0o600))
	for _, c := range []struct {
		cfg  telemetry.Config
		want string
	}{
		{telemetry.Config{Endpoint: "collector:4318"}, "endpoint"},
		{telemetry.Config{Endpoint: "ftp://collector"}, "endpoint"},
		{telemetry.Config{Endpoint: "http://user:secret@collector"}, "headersFile"},
		{telemetry.Config{Endpoint: "http://c", Ratio: 1.5}, "ratio"},
		{telemetry.Config{Endpoint: "http://c", Ratio: math.NaN()}, "ratio"},
		{telemetry.Config{Endpoint: "http://c", HeadersFile: bad}, "line 2"},
		{telemetry.Config{Endpoint: "http://c", HeadersFile: filepath.Join(dir, "none")}, "headersFile"},
	} {
		stop, err := telemetry.Setup(t.Context(), c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", c.cfg, err)
		}
		must(t, stop(t.Context()))
	}
}

// TestADeadCollectorHurtsNobody: ending a span never waits, what cannot be sent
// is dropped and counted, and the log has one line of it.
func TestADeadCollectorHurtsNobody(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	failing := telemetrytest.New(t)
	failing.Fail(503)
	silent := telemetrytest.New(t)
	silent.Hold()
	for name, url := range map[string]string{"nobody there": "http://" + closed.Addr().String(), "failing": failing.URL, "silent": silent.URL} {
		t.Run(name, func(t *testing.T) {
			stats, log := &telemetry.Stats{}, &logBuffer{}
			stop, err := telemetry.Setup(t.Context(), telemetry.Config{Endpoint: url, Ratio: 1, Stats: stats, Log: slog.New(slog.NewTextHandler(log, nil))})
			must(t, err)
			tracer := telemetry.Provider().Tracer("test")
			const spans = 30_000
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for range spans {
					_, span := tracer.Start(context.Background(), "one")
					span.End()
				}
			}()
			select {
			case <-ended:
			case <-time.After(time.Minute): // were each batch waited for, it would be several
				t.Fatal("ending spans waits for the collector")
			}
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			err = stop(ctx)
			if name == "silent" && err == nil {
				t.Error("nothing was said of the spans that were not sent")
			}
			if got := stats.Sent.Load() + stats.Overflow.Load() + stats.Refused.Load(); got != spans || stats.Sent.Load() != 0 {
				t.Errorf("sent %d, too many %d, refused %d of %d", stats.Sent.Load(), stats.Overflow.Load(), stats.Refused.Load(), spans)
			}
			if n := strings.Count(log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d lines: %s", n, log)
			}
		})
	}
	if n := failing.Posts(); n > 3 {
		t.Errorf("a collector that fails was asked %d times at once", n)
	}
}

func TestRatioHoldsAgainstStrangers(t *testing.T) {
	c := telemetrytest.New(t)
	tracer, stop := begin(t, telemetry.Config{Endpoint: c.URL, Ratio: 0.1})
	const n = 2000
	// A trace id that a sampler by trace id would always take.
	low := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{15: 1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled, Remote: true})
	unsampled := low.WithTraceFlags(0)
	start := func(name string, parent trace.SpanContext, opts ...trace.SpanStartOption) {
		ctx := context.Background()
		if parent.IsValid() {
			ctx = trace.ContextWithSpanContext(ctx, parent)
		}
		_, span := tracer.Start(ctx, name, opts...)
		span.End()
	}
	server := trace.WithSpanKind(trace.SpanKindServer)
	http, rpc := trace.WithAttributes(attribute.String("http.request.method", "POST")), trace.WithAttributes(attribute.String("rpc.system", "grpc"))
	for range n {
		start("alone", trace.SpanContext{}, server, http)
		start("stranger", low, server, http)
		start("unwilling", unsampled, server, http)
	}
	for range 50 {
		start("colleague", low, server, rpc)
		start("not followed", unsampled, server, rpc)
		start("frame", low)
	}
	stop()
	for name, bounds := range map[string][2]int{
		"alone": {n / 20, n / 5}, "stranger": {n / 20, n / 5}, "unwilling": {0, 0}, "colleague": {50, 50}, "not followed": {0, 0}, "frame": {50, 50},
	} {
		if got := len(c.Spans(name)); got < bounds[0] || got > bounds[1] {
			t.Errorf("%s: %d spans, want %v", name, got, bounds)
		}
	}
}

func TestLogLinesNameTheirTrace(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(telemetry.LogHandler(slog.NewJSONHandler(&b, nil))).With("part", "x")
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, 2}, SpanID: trace.SpanID{3}})
	log.InfoContext(trace.ContextWithSpanContext(t.Context(), sc), "with", "n", 1)
	log.InfoContext(t.Context(), "without")
	log.Info("without")
	var lines []map[string]any
	for line := range bytes.Lines(b.Bytes()) {
		var m map[string]any
		must(t, json.Unmarshal(line, &m))
		lines = append(lines, m)
	}
	if l := lines[0]; l["traceId"] != sc.TraceID().String() || l["spanId"] != sc.SpanID().String() || l["part"] != "x" || l["n"] != 1.0 {
		t.Errorf("%v", l)
	}
	for _, l := range lines[1:] {
		if l["traceId"] != nil || l["part"] != "x" {
			t.Errorf("%v", l)
		}
	}
	b.Reset()
	log.WithGroup("g").InfoContext(trace.ContextWithSpanContext(t.Context(), sc), "in a group")
	if !strings.Contains(b.String(), sc.TraceID().String()) {
		t.Error(b.String())
	}
}

func TestAShutdownTwice(t *testing.T) {
	c := telemetrytest.New(t)
	stop, err := telemetry.Setup(t.Context(), telemetry.Config{Endpoint: c.URL, Ratio: 1})
	must(t, err)
	_, span := telemetry.Provider().Tracer("test").Start(t.Context(), "late")
	must(t, stop(t.Context()))
	must(t, errors.Join(stop(t.Context()), stop(t.Context())))
	span.End() // goes nowhere, and hurts nobody
	if n := len(c.Spans("")); n != 0 {
		t.Errorf("%d spans", n)
	}
}
