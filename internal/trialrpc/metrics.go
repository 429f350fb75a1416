package trialrpc

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// callMetrics are rate, errors and duration of calls, by method. No label holds
// an id: a label is a method of the contract, a status code or a fixed word.
type callMetrics struct {
	calls   *prometheus.CounterVec
	latency *prometheus.HistogramVec
}

// latencyBuckets are seconds.
var latencyBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}

func newCallMetrics(r prometheus.Registerer, prefix, side string) callMetrics {
	return callMetrics{
		calls: registered(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "_requests_total", Help: "Calls of the Trial service " + side + ", by method and status code.",
		}, []string{"method", "code"})),
		latency: registered(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "_request_seconds", Help: "Time of a call of the Trial service " + side + ".", Buckets: latencyBuckets,
		}, []string{"method"})),
	}
}

func (m *callMetrics) observe(method string, code codes.Code, began time.Time) {
	m.calls.WithLabelValues(method, code.String()).Inc()
	m.latency.WithLabelValues(method).Observe(time.Since(began).Seconds())
}

// serverMetrics are of a service.
type serverMetrics struct {
	callMetrics
	inFlight prometheus.Gauge
	watching prometheus.Gauge
	refused  *prometheus.CounterVec
	panics   prometheus.Counter
}

func newServerMetrics(r prometheus.Registerer) *serverMetrics {
	return &serverMetrics{
		callMetrics: newCallMetrics(r, "tidegate_rpc", "answered here"),
		inFlight: registered(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidegate_rpc_in_flight", Help: "Calls of the Trial service being answered now.",
		})),
		watching: registered(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidegate_rpc_directory_streams", Help: "Directories that follow this instance now.",
		})),
		refused: registered(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidegate_rpc_refused_total", Help: "Calls refused before they were looked at, by reason.",
		}, []string{"reason"})),
		panics: registered(r, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidegate_rpc_panics_total", Help: "Calls of the Trial service that ended in a panic.",
		})),
	}
}

// registered registers a collector, or finds the one that an earlier server or
// client of the process registered under its name.
func registered[C prometheus.Collector](r prometheus.Registerer, c C) C {
	if r == nil {
		return c
	}
	var twice prometheus.AlreadyRegisteredError
	if err := r.Register(c); errors.As(err, &twice) {
		if same, ok := twice.ExistingCollector.(C); ok {
			return same
		}
	}
	return c
}
