package trialrpc_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/zrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"

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
	if lines := strings.Count(w.log.String(), "was not answered for want of"); lines == 0 || lines > 50 {
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
			if v := a.Value.Emit(); strings.Contains(v, "P-1") || strings.Contains(v, "T001") {
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

// TestLimits fills a service, and sends it more than its rate.
func TestLimits(t *testing.T) {
	w := newWorld(t)
	registry := prometheus.NewRegistry()
	full := w.serve(func(o *trialrpc.Options) { o.Settings.MaxConcurrent, o.Metrics = 2, registry })
	c, ctx := dial(t, full.addr), t.Context()
	w.reader.slow.Store(int64(time.Second))
	var inside sync.WaitGroup
	for range 2 {
		inside.Go(func() {
			if _, err := c.GetPatientTrials(ctx, patient1); err != nil {
				t.Error(err)
			}
		})
	}
	w.eventually("two calls are in", func() bool { return gather(t, registry)["tidegate_rpc_in_flight"] == 2 })
	_, err := c.GetPatientTrials(ctx, patient1)
	if f := failureOf(err); f.code != grpccodes.ResourceExhausted || f.reason != "too-many-at-once" || f.retry <= 0 {
		t.Errorf("the third: %v, %+v", err, f)
	}
	if r, err := grpc_health_v1.NewHealthClient(connect(t, full.addr)).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("a full service is %v, %v", r, err)
	}
	inside.Wait()
	w.reader.slow.Store(0)
	if _, err := c.GetPatientTrials(ctx, patient1); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if n := gather(t, registry)["tidegate_rpc_refused_total too-many-at-once"]; n != 1 {
		t.Errorf("%v were refused", n)
	}

	fast := dial(t, w.serve(func(o *trialrpc.Options) { o.Settings.Rate, o.Settings.Burst = 1, 3 }).addr)
	answered := 0
	for range 5 {
		_, err := fast.GetPatientTrials(ctx, patient1)
		switch f := failureOf(err); f.code {
		case grpccodes.OK:
			answered++
		case grpccodes.ResourceExhausted:
			if f.reason != "too-fast" || f.retry <= 0 {
				t.Errorf("%+v", f)
			}
		default:
			t.Error(err)
		}
	}
	if answered < 3 || answered > 4 {
		t.Errorf("%d of 5 calls passed a burst of 3", answered)
	}
}

// TestShedding keeps go-zero's shedder usable: on a machine with time it sheds
// nothing.
func TestShedding(t *testing.T) {
	w := newWorld(t)
	c := dial(t, w.serve(func(o *trialrpc.Options) { o.Settings.Shedding = true }).addr)
	for range 50 {
		if _, err := c.GetPatientTrials(t.Context(), patient1); err != nil && failureOf(err).reason != "busy" {
			t.Fatal(err)
		}
	}
}

// TestTimeouts has the service's own time, the caller's, and that both reach
// what the call waits for.
func TestTimeouts(t *testing.T) {
	w := newWorld(t)
	s := w.serve(func(o *trialrpc.Options) { o.Settings.Timeout = 300 * time.Millisecond })
	w.reader.slow.Store(int64(time.Hour))
	patient, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	if _, err := dial(t, s.addr).GetPatientTrials(patient, patient1); failureOf(err).code != grpccodes.DeadlineExceeded || !strings.Contains(err.Error(), "this service gives") {
		t.Errorf("the service's time: %v", err)
	}
	client := w.client(func(o *trialrpc.ClientOptions) {
		o.Settings.Endpoints, o.Settings.Timeout = []string{w.serve(nil).addr}, 200*time.Millisecond
	})
	if _, err := client.Service().GetPatientTrials(t.Context(), patient1); failureOf(err).code != grpccodes.DeadlineExceeded {
		t.Errorf("the client's time: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.Service().GetPatientTrials(ctx, patient1); failureOf(err).code != grpccodes.DeadlineExceeded {
		t.Errorf("the call's time: %v", err)
	}
	// Stopping within the stop's time shows that no handler waits its hour out.
}

// TestBreaker has a service that fails, is left alone, and is called again when
// it is well.
func TestBreaker(t *testing.T) {
	w := newWorld(t)
	registry := prometheus.NewRegistry()
	s := w.serve(func(o *trialrpc.Options) { o.Metrics = registry })
	client := w.client(func(o *trialrpc.ClientOptions) { o.Settings.Endpoints = []string{s.addr} })
	call := func() failure {
		_, err := client.Service().GetPatientTrials(t.Context(), patient1)
		return failureOf(err)
	}
	w.reader.fail.Store(true)
	w.eventually("the breaker opens", func() bool { return call().reason == "breaker-open" })
	before := gather(t, registry)["tidegate_rpc_requests_total Unavailable getPatientTrials"]
	spared := 0
	for range 100 {
		if f := call(); f.reason == "breaker-open" {
			spared++
			if f.code != grpccodes.Unavailable || f.retry <= 0 {
				t.Errorf("%+v", f)
			}
		}
	}
	reached := gather(t, registry)["tidegate_rpc_requests_total Unavailable getPatientTrials"] - before
	if spared < 50 || reached > 150 {
		t.Errorf("of 100 calls %d were spared, and %v reached the service", spared, reached)
	}
	w.reader.fail.Store(false)
	w.eventually("the breaker closes", func() bool {
		for range 20 {
			if call().code != grpccodes.OK {
				return false
			}
		}
		return true
	})
}

// TestMessageSizes refuses what no request of the contract is as long as.
func TestMessageSizes(t *testing.T) {
	w := newWorld(t)
	_, err := dial(t, w.serve(nil).addr).GetPatientTrials(t.Context(), &trialv1.GetPatientTrialsRequest{PatientId: strings.Repeat("x", 65<<10)})
	if failureOf(err).code != grpccodes.ResourceExhausted {
		t.Error(err)
	}
}

// TestKeepaliveIsEnforced cuts off who pings more often than allowed.
func TestKeepaliveIsEnforced(t *testing.T) {
	w := newWorld(t)
	addr := w.serve(nil).addr
	// A client of gRPC itself cannot ping faster than every ten seconds, so pings
	// are written by hand: the connection's preface, settings, then PING frames.
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	must(t, err)
	ping := append([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0}, "abcdefgh"...)
	go func() {
		for range 100 {
			if _, err := conn.Write(ping); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	var said []byte
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		said = append(said, buf[:n]...)
		if err != nil {
			break
		}
	}
	if !strings.Contains(string(said), "too_many_pings") {
		t.Errorf("the service ended with %q", said)
	}
}

// TestHealthAndReflection: health always, reflection only when asked for.
func TestHealthAndReflection(t *testing.T) {
	w := newWorld(t)
	reflects := func(addr string) error {
		stream, err := grpc_reflection_v1.NewServerReflectionClient(connect(t, addr)).ServerReflectionInfo(t.Context())
		must(t, err)
		_ = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
		_, err = stream.Recv()
		return err
	}
	s := w.serve(nil)
	for _, service := range []string{"", "trial.Trial"} {
		r, err := grpc_health_v1.NewHealthClient(connect(t, s.addr)).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, r, err)
		}
	}
	if err := reflects(s.addr); failureOf(err).code != grpccodes.Unimplemented {
		t.Errorf("reflection without being asked for: %v", err)
	}
	if err := reflects(w.serve(func(o *trialrpc.Options) { o.Settings.Reflection = true }).addr); err != nil {
		t.Errorf("reflection: %v", err)
	}
}

// TestStartsAndStopsManyTimes: go-zero's own Stop would leave the server up.
func TestStartsAndStopsManyTimes(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		a, b := w.serve(nil), w.serve(nil)
		for _, s := range []*service{a, b} {
			if _, err := dial(t, s.addr).GetPatientTrials(t.Context(), patient1); err != nil {
				t.Fatal(err)
			}
		}
		must(t, a.end())
		closed(t, a.addr)
		// One server's stop is not the other's.
		if _, err := dial(t, b.addr).GetPatientTrials(t.Context(), patient1); err != nil {
			t.Fatalf("after another one stopped: %v", err)
		}
		must(t, b.end())
		closed(t, a.addr)
		closed(t, b.addr)
	}
	// The same server on the same port again.
	o := w.options()
	s, err := trialrpc.NewServer(o)
	must(t, err)
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, l) }()
		w.eventually("it serves", func() bool { return s.State().Serving })
		cancel()
		must(t, <-ended)
	}
}

func closed(t *testing.T, addr string) {
	t.Helper()
	if c, err := net.Dial("tcp", addr); err == nil {
		_ = c.Close()
		t.Fatalf("%s still listens", addr)
	}
}

// TestPortInUse is an error and no panic of go-zero's.
func TestPortInUse(t *testing.T) {
	w := newWorld(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	s, err := trialrpc.NewServer(w.options())
	must(t, err)
	err = s.Serve(t.Context(), lying{taken.Addr()})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a port in use: %v", err)
	}
	// And the next one starts.
	w.serve(nil)
}

// lying is a listener that has an address and nothing behind it.
type lying struct{ addr net.Addr }

func (l lying) Accept() (net.Conn, error) { return nil, errors.New("not a listener") }
func (l lying) Close() error              { return nil }
func (l lying) Addr() net.Addr            { return l.addr }

// TestCallsInHandAreAnswered stops a service with a call inside.
func TestCallsInHandAreAnswered(t *testing.T) {
	w := newWorld(t)
	registry := prometheus.NewRegistry()
	s := w.serve(func(o *trialrpc.Options) { o.Metrics = registry })
	w.reader.slow.Store(int64(500 * time.Millisecond))
	answer := make(chan error, 1)
	c := dial(t, s.addr)
	go func() {
		_, err := c.GetPatientTrials(t.Context(), patient1)
		answer <- err
	}()
	w.eventually("the call is in", func() bool { return gather(t, registry)["tidegate_rpc_in_flight"] == 1 })
	must(t, s.end())
	if err := <-answer; err != nil {
		t.Errorf("the call in hand: %v", err)
	}
	// One that does not end in the stop's time is cut off, and the stop says so.
	w.reader.slow.Store(int64(time.Hour))
	s = w.serve(func(o *trialrpc.Options) {
		o.Metrics, o.StopTimeout, o.Settings.Timeout = registry, 200*time.Millisecond, time.Hour
	})
	c = dial(t, s.addr)
	go func() {
		_, err := c.GetPatientTrials(t.Context(), patient1)
		answer <- err
	}()
	w.eventually("the call is in", func() bool { return gather(t, registry)["tidegate_rpc_in_flight"] == 1 })
	if err := s.end(); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("the stop says %v", err)
	}
	if err := <-answer; err == nil {
		t.Error("a call of an hour was answered")
	}
}

// TestStockClient is go-zero's own client with go-zero's defaults.
func TestStockClient(t *testing.T) {
	w := newWorld(t)
	c, err := zrpc.NewClient(zrpc.NewDirectClientConf([]string{w.serve(nil).addr}, "", ""))
	must(t, err)
	defer c.Conn().Close()
	r, err := trialv1.NewTrialClient(c.Conn()).GetPatientTrials(t.Context(), patient1)
	if err != nil || len(r.GetTrials()) != 1 {
		t.Errorf("%v, %v", r, err)
	}
}
