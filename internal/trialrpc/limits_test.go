package trialrpc_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc"
)

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
		patientServer := w.serve(func(o *trialrpc.Options) { o.Settings.Timeout = time.Hour })
		o.Settings.Endpoints, o.Settings.Timeout = []string{patientServer.addr}, 200*time.Millisecond
	})
	if _, err := client.Service().GetPatientTrials(t.Context(), patient1); failureOf(err).code != grpccodes.DeadlineExceeded {
		t.Errorf("the client's time: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.Service().GetPatientTrials(ctx, patient1); failureOf(err).code != grpccodes.DeadlineExceeded {
		t.Errorf("the call's time: %v", err)
	}
	// The second service gives a call an hour. That it stops within the stop's time
	// shows that the caller's deadline reached what its handlers wait for.
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
