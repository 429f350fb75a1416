package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidegate/tidegate/internal/gateway"
)

// site is the admin listener of a role that runs alone, from its first moment
// on: while it still waits for the journal, /readyz and /status say so. The
// gateway role answers with the gateway's own pages once it has one.
type site struct {
	p        *process
	registry *prometheus.Registry // of what a role has that is no gateway
	parts    *prometheus.Registry // of parts that bring their own figures: shown by every role
	mux      *http.ServeMux
	full     atomic.Pointer[http.Handler]
	shown    atomic.Pointer[[]gateway.Dependency] // once they can be asked
}

func newSite(p *process) *site {
	s := &site{p: p, registry: prometheus.NewRegistry(), parts: prometheus.NewRegistry(), mux: http.NewServeMux()}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), siteCollector{s})
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	s.mux.HandleFunc("GET /readyz", s.getReady)
	s.mux.HandleFunc("GET /status", s.getStatus)
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{s.registry, s.parts}, promhttp.HandlerOpts{Registry: s.registry}))
	s.mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	s.mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	s.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	s.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	s.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return s
}

// ServeHTTP implements http.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if full := s.full.Load(); full != nil {
		(*full).ServeHTTP(w, r)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// serve serves until ctx is done.
func (s *site) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: s, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.p.log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("admin: the listener ended: %w", err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err := srv.Shutdown(limit)
	if err != nil {
		err = srv.Close()
	}
	if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

func (s *site) notReady() string {
	if why := s.p.waiting.Load(); why != nil {
		return *why
	}
	return ""
}

func (s *site) getReady(w http.ResponseWriter, _ *http.Request) {
	if why := s.notReady(); why != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, why)
		return
	}
	fmt.Fprintln(w, "ready")
}

// siteStatus has the form of the gateway's status.
type siteStatus struct {
	Version      string                   `json:"version,omitempty"`
	Role         string                   `json:"role"`
	Ready        bool                     `json:"ready"`
	NotReady     string                   `json:"notReady,omitempty"`
	Dependencies map[string]gateway.State `json:"dependencies"`
	Intake       *siteIntake              `json:"intake,omitempty"`
	Projector    *siteLag                 `json:"projector,omitempty"`
}

type siteIntake struct {
	Facts      uint64  `json:"facts"`
	Frames     uint64  `json:"frames"`
	Open       int     `json:"open"`
	OldestMS   float64 `json:"oldestMs"`
	LastMS     float64 `json:"lastCommitMs"`
	Unresolved bool    `json:"unresolved"`
	Unknown    uint64  `json:"unknown"`
	// Of commands; it has no share for each participant, so nothing is too fast.
	RefusedRoom uint64 `json:"refusedForRoom"`
}

type siteLag struct {
	Applied  uint64  `json:"applied"`
	End      uint64  `json:"end"`
	BehindMS float64 `json:"behindMs"`
}

func (s *site) dependencies() []gateway.Dependency {
	if d := s.shown.Load(); d != nil {
		return *d
	}
	return []gateway.Dependency{{Name: "journal", Check: func() gateway.State {
		return gateway.State{State: "waiting", Note: "see the log for what it waits for"}
	}}}
}

func (s *site) getStatus(w http.ResponseWriter, r *http.Request) {
	answer := siteStatus{Version: s.p.version, Role: s.p.role, NotReady: s.notReady(), Dependencies: map[string]gateway.State{}}
	answer.Ready = answer.NotReady == ""
	for _, d := range s.dependencies() {
		answer.Dependencies[d.Name] = d.Check()
	}
	if s.shown.Load() != nil {
		if in := s.p.intake; in != nil {
			st := in.Stats()
			answer.Intake = &siteIntake{
				Facts: st.Facts, Frames: st.Frames, Open: st.Open, OldestMS: float64(st.Oldest.Microseconds()) / 1000,
				LastMS: float64(st.LastCommit.Microseconds()) / 1000, Unresolved: st.Unresolved, Unknown: st.Unknown,
				RefusedRoom: st.FrameFull + st.CommitSlow + st.DiskLow + st.TrialShare,
			}
		}
		if lag, ok := s.lag(r.Context()); ok {
			answer.Projector = &siteLag{Applied: uint64(lag.Applied), End: uint64(lag.End), BehindMS: float64(lag.Age.Microseconds()) / 1000}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(answer) // an error means that the client went away
}

// lag asks how far the tables are, for 2 s at most.
func (s *site) lag(ctx context.Context) (gateway.Lag, bool) {
	ctx, cancel := context.WithTimeout(ctx, watchLimit)
	defer cancel()
	l, err := s.p.projector.Lag(ctx)
	return gateway.Lag(l), err == nil
}

// siteCollector shows what /status does, under the names that the gateway uses.
type siteCollector struct{ *site }

var (
	upDesc      = prometheus.NewDesc("tidegate_dependency_up", "1 while the dependency is well.", []string{"dependency"}, nil)
	readyDesc   = prometheus.NewDesc("tidegate_ready", "1 while the role is ready.", []string{"role"}, nil)
	appliedDesc = prometheus.NewDesc("tidegate_projector_applied_position", "Position of the last frame in the tables.", nil, nil)
	endDesc     = prometheus.NewDesc("tidegate_projector_end_position", "Position of the last frame in the journal.", nil, nil)
	lagDesc     = prometheus.NewDesc("tidegate_projector_lag_seconds", "Age of the oldest frame that is not in the tables yet; 0 when all are.", nil, nil)
	activeDesc  = prometheus.NewDesc("tidegate_projector_active", "1 while this process moves the tables' cursor.", nil, nil)
	framesDesc  = prometheus.NewDesc("tidegate_projector_frames_total", "Frames applied by this process since it became active.", nil, nil)
	factsDesc   = prometheus.NewDesc("tidegate_projector_facts_total", "Facts applied by this process since it became active.", nil, nil)
	retriesDesc = prometheus.NewDesc("tidegate_projector_retries_total", "Transactions and reads that failed and were tried again, since it became active.", nil, nil)
)

// Describe implements prometheus.Collector.
func (siteCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, readyDesc, appliedDesc, endDesc, lagDesc, activeDesc, framesDesc, factsDesc, retriesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c siteCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(readyDesc, number(c.notReady() == ""), c.p.role)
	for _, d := range c.dependencies() {
		gauge(upDesc, number(d.Check().OK), d.Name)
	}
	if c.shown.Load() == nil {
		return
	}
	if lag, ok := c.lag(context.Background()); ok {
		gauge(appliedDesc, float64(lag.Applied))
		gauge(endDesc, float64(lag.End))
		gauge(lagDesc, lag.Age.Seconds())
	}
	if l := c.p.lead; l != nil {
		gauge(activeDesc, number(l.now().State == stateActive))
		if counters := l.counters.Load(); counters != nil {
			counter := func(d *prometheus.Desc, v uint64) {
				ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
			}
			counter(framesDesc, counters.Frames.Load())
			counter(factsDesc, counters.Facts.Load())
			counter(retriesDesc, counters.Retries.Load())
		}
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
