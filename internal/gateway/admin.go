package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidegate/tidegate/internal/journal"
)

// Dependency is something that this process needs or feeds, by name.
type Dependency struct {
	Name string
	// Check says how it is now. It must answer from memory, at once.
	Check func() State
}

// State is how a dependency is.
type State struct {
	OK    bool      `json:"ok"`
	State string    `json:"state"` // a word: "serving", "degraded", "stopped", …
	Since time.Time `json:"since,omitzero"`
	Note  string    `json:"note,omitempty"` // a sentence: what is wrong and what to do
}

// Lag is how far the tables are behind the journal.
type Lag struct {
	Applied, End journal.Position
	Age          time.Duration // of the oldest frame that is not in the tables; 0 when all are
}

// lagTime bounds the question, so that no page of numbers hangs on the tables.
const lagTime = 2 * time.Second

func (s *Server) lag() (Lag, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), lagTime)
	defer cancel()
	lag, err := s.opts.Lag(ctx)
	return lag, err == nil
}

// newAdmin is the handler of the admin listener. It must not be reachable from
// outside: it answers anybody.
func (s *Server) newAdmin() http.Handler {
	if s.opts.Lag != nil {
		s.metrics.registry.MustRegister(newLagCollector(s))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.getReady)
	mux.HandleFunc("GET /status", s.getStatus)
	metrics := prometheus.Gatherers{s.metrics.registry}
	if s.opts.Metrics != nil {
		metrics = append(metrics, s.opts.Metrics)
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{Registry: s.metrics.registry}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	if s.opts.Control != nil {
		mux.Handle("/control/", s.opts.Control)
	}
	return mux
}

// notReady says why no more requests should be sent here, "" if they may be.
// The projector has no part in it: reports are taken without it.
func (s *Server) notReady() string {
	st := s.intake.Stats()
	switch {
	case !s.ready.Load():
		return "starting or stopping"
	case st.Stopped:
		return "intake has stopped"
	case st.LowDisk:
		return "the disk is nearly full"
	}
	return ""
}

func (s *Server) getReady(w http.ResponseWriter, _ *http.Request) {
	if why := s.notReady(); why != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, why)
		return
	}
	fmt.Fprintln(w, "ready")
}

type statusAnswer struct {
	Version      string           `json:"version,omitempty"`
	Role         string           `json:"role"`
	Ready        bool             `json:"ready"`
	NotReady     string           `json:"notReady,omitempty"`
	Dependencies map[string]State `json:"dependencies"`
	Intake       intakeStatus     `json:"intake"`
	Projector    *lagStatus       `json:"projector,omitempty"`
	Directory    *directoryStatus `json:"directory,omitempty"`
}

type intakeStatus struct {
	Facts       uint64  `json:"facts"`
	Frames      uint64  `json:"frames"`
	Open        int     `json:"open"`
	OldestMS    float64 `json:"oldestMs"`
	LastMS      float64 `json:"lastCommitMs"`
	Unresolved  bool    `json:"unresolved"`
	Remembered  uint64  `json:"remembered"`
	Unknown     uint64  `json:"unknown"`
	RefusedRoom uint64  `json:"refusedForRoom"`
	RefusedRate uint64  `json:"refusedForRate"`
}

type lagStatus struct {
	Applied  uint64  `json:"applied"`
	End      uint64  `json:"end"`
	BehindMS float64 `json:"behindMs"`
}

func (s *Server) getStatus(w http.ResponseWriter, _ *http.Request) {
	st := s.intake.Stats()
	answer := statusAnswer{
		Version: s.opts.Version, Role: s.role(), NotReady: s.notReady(), Dependencies: make(map[string]State, len(s.opts.Dependencies)),
		Intake: intakeStatus{
			Facts: st.Facts, Frames: st.Frames, Open: st.Open, OldestMS: ms(st.Oldest), LastMS: ms(st.LastCommit),
			Unresolved: st.Unresolved, Remembered: st.Remembered, Unknown: st.Unknown,
			RefusedRoom: st.FrameFull + st.CommitSlow + st.DiskLow + st.TrialShare, RefusedRate: st.TooFast,
		},
	}
	answer.Ready = answer.NotReady == ""
	for _, d := range s.opts.Dependencies {
		answer.Dependencies[d.Name] = d.Check()
	}
	if s.opts.Directory != nil {
		state := s.opts.Directory.State()
		answer.Directory = viewDirectory(&state)
	}
	if s.opts.Lag != nil {
		if lag, ok := s.lag(); ok {
			answer.Projector = &lagStatus{Applied: uint64(lag.Applied), End: uint64(lag.End), BehindMS: ms(lag.Age)}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(answer) // an error means that the client went away
}

// role is the role of the process.
func (s *Server) role() string {
	if s.opts.Role == "" {
		return RoleAll
	}
	return s.opts.Role
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
