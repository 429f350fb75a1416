package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
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
	Frames uint64        // in the journal, not yet in the tables
	Age    time.Duration // of the oldest of them; 0 when there is none
}

// newAdmin is the handler of the admin listener. It must not be reachable from
// outside: it answers anybody.
func (s *Server) newAdmin() http.Handler {
	if s.opts.Projected != nil {
		s.metrics.registry.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "tidegate_projector_lag_frames", Help: "Frames in the journal that are not in the tables yet.",
			}, func() float64 { return float64(s.opts.Projected().Frames) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "tidegate_projector_lag_seconds", Help: "Age of the oldest frame that is not in the tables yet.",
			}, func() float64 { return s.opts.Projected().Age.Seconds() }),
		)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.getReady)
	mux.HandleFunc("GET /status", s.getStatus)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{Registry: s.metrics.registry}))
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
	Ready        bool             `json:"ready"`
	NotReady     string           `json:"notReady,omitempty"`
	Dependencies map[string]State `json:"dependencies"`
	Intake       intakeStatus     `json:"intake"`
	Projector    *lagStatus       `json:"projector,omitempty"`
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
	Frames uint64  `json:"framesBehind"`
	AgeMS  float64 `json:"behindMs"`
}

func (s *Server) getStatus(w http.ResponseWriter, _ *http.Request) {
	st := s.intake.Stats()
	answer := statusAnswer{
		Version: s.opts.Version, NotReady: s.notReady(), Dependencies: make(map[string]State, len(s.opts.Dependencies)),
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
	if s.opts.Projected != nil {
		lag := s.opts.Projected()
		answer.Projector = &lagStatus{Frames: lag.Frames, AgeMS: ms(lag.Age)}
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(answer) // an error means that the client went away
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
