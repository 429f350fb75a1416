package trialrpc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeromicro/go-zero/core/logx"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc"
)

var patient1 = &trialv1.GetPatientTrialsRequest{PatientId: "P-1"}

// TestNothingSentIsLogged sends a canary by every way on which go-zero, gRPC or
// we could write it down: a refusal, an error, a slow call, a panic, a client's
// failed and slow calls.
func TestNothingSentIsLogged(t *testing.T) {
	const canary = "CANARY-7f3a"
	w := newWorld(t)
	token := w.everyone()
	registry := prometheus.NewRegistry()
	s := w.serve(func(o *trialrpc.Options) { o.Metrics = registry })
	client := w.client(func(o *trialrpc.ClientOptions) { o.Settings.Endpoints = []string{s.addr} })
	c, ctx := client.Service(), t.Context()
	as := trialrpc.WithToken(token)
	ask := func() error {
		_, err := c.GetPatientTrials(ctx, &trialv1.GetPatientTrialsRequest{PatientId: canary})
		return err
	}
	must(t, ask())
	if _, err := c.GetPatientTrials(ctx, &trialv1.GetPatientTrialsRequest{PatientId: canary + " "}); failureOf(err).code != grpccodes.InvalidArgument {
		t.Error(err)
	}
	if _, err := c.CreateSite(ctx, &trialv1.CreateSiteRequest{CommandId: newID(), TrialId: canary, SiteId: canary, Name: canary}, as); failureOf(err).code != grpccodes.NotFound {
		t.Error(err)
	}
	if _, err := c.ListTrials(ctx, &trialv1.ListTrialsRequest{Cursor: canary}, trialrpc.WithToken(canary)); failureOf(err).code != grpccodes.Unauthenticated {
		t.Error(err)
	}
	// Longer than the 500 ms from which go-zero calls a call slow.
	w.reader.slow.Store(int64(700 * time.Millisecond))
	must(t, ask())
	w.reader.slow.Store(0)
	w.reader.fail.Store(true)
	if err := ask(); failureOf(err).code != grpccodes.Unavailable {
		t.Error(err)
	}
	w.reader.fail.Store(false)
	words := "patient wrote " + canary
	w.reader.panic.Store(&words)
	err := ask()
	if f := failureOf(err); f.code != grpccodes.Internal || strings.Contains(err.Error(), canary) {
		t.Errorf("a panic is answered %v", err)
	}
	w.reader.panic.Store(nil)
	must(t, ask()) // the server goes on
	// What go-zero itself would say.
	logx.WithContext(ctx).Slowf("[RPC] ok - slowcall - %v", canary)
	logx.Severe(canary)
	logx.ErrorStack(canary)

	for _, part := range []string{canary, token} {
		if strings.Contains(w.log.String(), part) {
			t.Errorf("the log has %s:\n%s", part, w.log)
		}
	}
	if !strings.Contains(w.log.String(), "a call ended in a panic") || !strings.Contains(w.log.String(), "world_test.go") {
		t.Errorf("the log does not say where the panic was:\n%s", w.log)
	}
	families, err := registry.Gather()
	must(t, err)
	for _, f := range families {
		if strings.Contains(f.String(), canary) {
			t.Errorf("a metric has it: %v", f)
		}
	}
}

// TestTroubleIsToldOnce: while the tables are away every call fails, and the log
// does not have a line for each.
func TestTroubleIsToldOnce(t *testing.T) {
	w := newWorld(t)
	c := dial(t, w.serve(nil).addr)
	w.reader.fail.Store(true)
	for range 200 {
		_, _ = c.GetPatientTrials(t.Context(), patient1)
	}
	if lines := strings.Count(w.log.String(), "was not answered for want of"); lines != 1 {
		t.Errorf("200 failed calls left %d lines", lines)
	}
}

// TestOneLog turns go-zero's log into slog, and keeps standard output clean.
func TestOneLog(t *testing.T) {
	w := newWorld(t)
	w.serve(nil)
	logx.Error("from go-zero\nsecond line")
	logx.Info("chatter")
	logx.Stat("figures")
	got := w.log.String()
	if !strings.Contains(got, `"level":"WARN","msg":"go-zero","said":"from go-zero"`) || strings.Contains(got, "second line") ||
		!strings.Contains(got, `"level":"DEBUG","msg":"go-zero","said":"chatter"`) || strings.Contains(got, "figures") {
		t.Errorf("the log is %s", got)
	}
}

// TestOneTrace has a call's spans, at the client and at the service, in the
// trace of the caller, and go-zero leaves the process's provider alone.
func TestOneTrace(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	defer otel.SetTracerProvider(before)
	w := newWorld(t)
	s := w.serve(nil)
	client := w.client(func(o *trialrpc.ClientOptions) { o.Settings.Endpoints = []string{s.addr} })
	if otel.GetTracerProvider() != oteltrace.TracerProvider(provider) {
		t.Fatal("go-zero replaced the tracer provider")
	}
	ctx, root := provider.Tracer("test").Start(t.Context(), "request")
	_, err := client.PatientTrials(ctx, "P-1")
	must(t, err)
	_, err = client.Service().GetTrial(ctx, &trialv1.GetTrialRequest{TrialId: "T001"})
	if failureOf(err).code != grpccodes.Unauthenticated {
		t.Fatal(err)
	}
	w.reader.fail.Store(true)
	if _, err := client.PatientTrials(ctx, "P-1"); err == nil {
		t.Fatal("no tables, and an answer")
	}
	root.End()
	spans := recorder.Ended()
	kinds := map[string]int{}
	for _, span := range spans {
		if span.SpanContext().TraceID() != root.SpanContext().TraceID() {
			t.Errorf("%s is in another trace", span.Name())
		}
		kinds[span.Name()+" "+span.SpanKind().String()]++
		for _, a := range span.Attributes() {
			if v := a.Value.String(); strings.Contains(v, "P-1") || strings.Contains(v, "T001") {
				t.Errorf("%s has the attribute %s=%s", span.Name(), a.Key, v)
			}
		}
		if span.Status().Code == codes.Error && span.Status().Description != "Unavailable" {
			t.Errorf("%s ends with %q", span.Name(), span.Status().Description)
		}
	}
	// The failed call is tried three times: three spans at the service, one at the client.
	if kinds["trial.Trial/getPatientTrials client"] != 2 || kinds["trial.Trial/getPatientTrials server"] != 4 ||
		kinds["trial.Trial/getTrial client"] != 1 || kinds["trial.Trial/getTrial server"] != 1 {
		t.Errorf("the trace has %v", kinds)
	}
}

// TestTraceparent takes the trace of a client that is not ours.
func TestTraceparent(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	w := newWorld(t)
	s := w.serve(func(o *trialrpc.Options) {
		o.Tracing = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	_, err := dial(t, s.addr).GetPatientTrials(ctx, patient1)
	must(t, err)
	w.eventually("the span ends", func() bool { return len(recorder.Ended()) == 1 })
	if span := recorder.Ended()[0]; span.SpanContext().TraceID().String() != "0af7651916cd43dd8448eb211c80319c" || span.Parent().SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("the span is %v under %v", span.SpanContext(), span.Parent())
	}
}

// TestCounted has rate, errors and duration by method.
func TestCounted(t *testing.T) {
	w := newWorld(t)
	registry := prometheus.NewRegistry()
	s := w.serve(func(o *trialrpc.Options) { o.Metrics = registry })
	c, ctx := dial(t, s.addr), t.Context()
	for range 3 {
		_, err := c.GetPatientTrials(ctx, patient1)
		must(t, err)
	}
	_, _ = c.GetTrial(ctx, &trialv1.GetTrialRequest{TrialId: "T001"})
	want := map[string]float64{
		`tidegate_rpc_requests_total OK getPatientTrials`:      3,
		`tidegate_rpc_requests_total Unauthenticated getTrial`: 1,
		`tidegate_rpc_request_seconds getPatientTrials`:        3,
		`tidegate_rpc_in_flight`:                               0,
	}
	w.eventually("the calls are counted", func() bool { return gather(t, registry)["tidegate_rpc_request_seconds getTrial"] == 1 })
	got := gather(t, registry)
	for name, n := range want {
		if v, there := got[name]; !there || v != n {
			t.Errorf("%s is %v, want %v", name, v, n)
		}
	}
}

// gather is every metric by its name and labels; of a histogram, the count.
func gather(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	must(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}
