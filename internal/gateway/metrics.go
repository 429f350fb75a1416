package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics has a registry of its own. No label holds an id: a label is a route,
// a method, a class of status, or a fixed word.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	panics   prometheus.Counter

	connections      prometheus.Gauge
	connectionsOver  prometheus.Counter
	handshakesFailed prometheus.Counter
}

// statusClasses are the values of the label "status".
var statusClasses = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidegate_http_requests_total", Help: "Requests answered, by route, method and class of status.",
		}, []string{"route", "method", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tidegate_http_request_seconds", Help: "Time from the header of a request to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "method"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidegate_http_panics_total", Help: "Requests that ended in a panic.",
		}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidegate_http_connections", Help: "Connections open on the public listener.",
		}),
		connectionsOver: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidegate_http_connections_refused_total", Help: "Connections closed unanswered because too many were open.",
		}),
		handshakesFailed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidegate_tls_handshakes_failed_total", Help: "TLS handshakes that failed, also because too many were under way.",
		}),
	}
	m.registry.MustRegister(m.requests, m.latency, m.panics, m.connections, m.connectionsOver, m.handshakesFailed,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newIntakeCollector(s.intake), dependencyCollector(s.opts.Dependencies), readyCollector{s})
	if s.opts.Directory != nil {
		m.registry.MustRegister(newDirectoryCollector(s.opts.Directory))
	}
	return m
}

// routeMetrics is resolved once a route, so that counting allocates nothing.
type routeMetrics struct {
	requests [len(statusClasses)]prometheus.Counter
	latency  prometheus.Observer
}

func (m *metrics) route(method, path string) *routeMetrics {
	r := &routeMetrics{latency: m.latency.WithLabelValues(path, method)}
	for i, class := range statusClasses {
		r.requests[i] = m.requests.WithLabelValues(path, method, class)
	}
	return r
}

func (r *routeMetrics) observe(status int, d time.Duration) {
	if i := status/100 - 1; i >= 0 && i < len(r.requests) {
		r.requests[i].Inc()
	}
	r.latency.Observe(d.Seconds())
}

// intakeCollector reads intake's counters when it is asked.
type intakeCollector struct {
	intake Intake

	facts, frames, remembered, refused, unknown, open, oldest, commit, unresolved *prometheus.Desc
}

func newIntakeCollector(in Intake) *intakeCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tidegate_intake_"+name, help, labels, nil)
	}
	return &intakeCollector{
		intake:     in,
		facts:      desc("facts_total", "Facts made durable."),
		frames:     desc("frames_total", "Frames made durable."),
		remembered: desc("remembered_total", "Retries that got the original receipt."),
		refused:    desc("refused_total", "Facts surely not taken, by reason.", "reason"),
		unknown:    desc("unknown_total", "Callers that left, or were sent away, before the outcome was known."),
		open:       desc("open_facts", "Facts in the frame that fills."),
		oldest:     desc("oldest_seconds", "Age of the oldest waiter."),
		commit:     desc("last_commit_seconds", "Time the last frame took to become durable."),
		unresolved: desc("unresolved", "1 while the outcome of a frame is unknown."),
	}
}

// Describe implements prometheus.Collector.
func (c *intakeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.facts, c.frames, c.remembered, c.refused, c.unknown, c.open, c.oldest, c.commit, c.unresolved} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *intakeCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.intake.Stats()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	counter(c.facts, st.Facts)
	counter(c.frames, st.Frames)
	counter(c.remembered, st.Remembered)
	counter(c.refused, st.TooFast, "participant-rate")
	counter(c.refused, st.FrameFull, "frame-full")
	counter(c.refused, st.CommitSlow, "commit-slow")
	counter(c.refused, st.DiskLow, "disk-low")
	counter(c.refused, st.TrialShare, "trial-share")
	counter(c.refused, st.NotTaken, "not-kept")
	counter(c.unknown, st.Unknown)
	gauge(c.open, float64(st.Open))
	gauge(c.oldest, st.Oldest.Seconds())
	gauge(c.commit, st.LastCommit.Seconds())
	unresolved := 0.0
	if st.Unresolved {
		unresolved = 1
	}
	gauge(c.unresolved, unresolved)
}

// lagCollector asks the projector once for all its numbers. While the tables
// cannot be asked, the numbers are missing, not old.
type lagCollector struct {
	server            *Server
	applied, end, age *prometheus.Desc
}

func newLagCollector(s *Server) *lagCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("tidegate_projector_"+name, help, nil, nil)
	}
	return &lagCollector{
		server:  s,
		applied: desc("applied_position", "Position of the last frame in the tables."),
		end:     desc("end_position", "Position of the last frame in the journal."),
		age:     desc("lag_seconds", "Age of the oldest frame that is not in the tables yet; 0 when all are."),
	}
}

// Describe implements prometheus.Collector.
func (c *lagCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.applied
	ch <- c.end
	ch <- c.age
}

// Collect implements prometheus.Collector.
func (c *lagCollector) Collect(ch chan<- prometheus.Metric) {
	lag, ok := c.server.lag()
	if !ok {
		return
	}
	ch <- prometheus.MustNewConstMetric(c.applied, prometheus.GaugeValue, float64(lag.Applied))
	ch <- prometheus.MustNewConstMetric(c.end, prometheus.GaugeValue, float64(lag.End))
	ch <- prometheus.MustNewConstMetric(c.age, prometheus.GaugeValue, lag.Age.Seconds())
}

// readyCollector shows what /readyz answers.
type readyCollector struct{ server *Server }

// RoleAll is the role of a process that runs all of them.
const RoleAll = "all"

var readyDesc = prometheus.NewDesc("tidegate_ready", "1 while the role is ready.", []string{"role"}, nil)

// Describe implements prometheus.Collector.
func (readyCollector) Describe(ch chan<- *prometheus.Desc) { ch <- readyDesc }

// Collect implements prometheus.Collector.
func (c readyCollector) Collect(ch chan<- prometheus.Metric) {
	ready := 0.0
	if c.server.notReady() == "" {
		ready = 1
	}
	ch <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, ready, c.server.role())
}

// dependencyCollector shows every dependency by name, as /status does.
type dependencyCollector []Dependency

var dependencyUp = prometheus.NewDesc("tidegate_dependency_up", "1 while the dependency is well.", []string{"dependency"}, nil)

// Describe implements prometheus.Collector.
func (dependencyCollector) Describe(ch chan<- *prometheus.Desc) { ch <- dependencyUp }

// Collect implements prometheus.Collector.
func (c dependencyCollector) Collect(ch chan<- prometheus.Metric) {
	for _, d := range c {
		up := 0.0
		if d.Check().OK {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(dependencyUp, prometheus.GaugeValue, up, d.Name)
	}
}
