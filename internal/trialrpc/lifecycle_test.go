package trialrpc_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeromicro/go-zero/zrpc"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc"
)

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

func (l lying) Close() error { return nil }

func (l lying) Addr() net.Addr { return l.addr }

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
