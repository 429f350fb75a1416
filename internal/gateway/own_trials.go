package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// Directory is this process's own copy of the registry, for what participants
// see while tables, vault and Trial service are away. *directory.Directory is
// one. It answers from memory, at once.
//
// It decides nothing about reports: no code on their path reads it.
type Directory interface {
	PatientTrial(trial, patient string) (directory.PatientTrial, error)
	Enrollment(trial, patient string) (store.Enrollment, error)
	State() directory.State
}

type ownTrialView struct {
	TrialID          string                `json:"trialId"`
	Name             string                `json:"name"`
	Status           epro.TrialStatus      `json:"status"`
	Instruments      []string              `json:"instruments"`
	SiteID           string                `json:"siteId"`
	SiteName         string                `json:"siteName,omitempty"`
	EnrollmentStatus epro.EnrollmentStatus `json:"enrollmentStatus"`
	EnrolledAt       time.Time             `json:"enrolledAt"`
	WithdrawnAt      time.Time             `json:"withdrawnAt,omitzero"`
}

func viewOwnTrial(p *directory.PatientTrial) ownTrialView {
	v := ownTrialView{
		TrialID: p.Trial.ID, Name: p.Trial.Name, Status: p.Trial.Status, Instruments: p.Trial.Instruments,
		SiteID: p.Enrollment.SiteID, SiteName: p.Site.Name,
		EnrollmentStatus: p.Enrollment.Status, EnrolledAt: p.Enrollment.EnrolledAt, WithdrawnAt: p.Enrollment.WithdrawnAt,
	}
	if v.Instruments == nil {
		v.Instruments = []string{}
	}
	return v
}

type ownTrialList struct {
	Trials []ownTrialView `json:"trials"`
	// AsOf is when the list was last known to be complete, Version up to where
	// in the journal it is.
	AsOf    time.Time `json:"asOf"`
	Version uint64    `json:"version"`
}

// listOwnTrials shows the token's own trial: GET /v1/patient/trials. Its list has
// one trial or none. Ids of participants are pseudonyms of one trial: under the
// same id another person may be in another one, and that somebody is in a trial
// is not for everybody to know. So nothing of another trial is shown, also where
// it is the same person; a phone has a token for each.
//
// It reads the directory alone; that also knows which tokens are revoked, as far
// as it has come.
func (s *Server) listOwnTrials(c *gin.Context) error {
	claims, err := s.claims(c.Request, s.now())
	if err != nil {
		return err
	}
	if claims.Kind != auth.KindParticipant || !claims.Scope.Has(auth.ScopeRead) {
		return problemScope
	}
	if err := parseParams(c.Request).err(); err != nil {
		return err
	}
	d := s.opts.Directory
	if d == nil {
		return directoryEmpty()
	}
	state := d.State()
	if !state.Loaded() {
		return directoryEmpty()
	}
	if e, err := d.Enrollment(claims.Trial, claims.Participant); err == nil && claims.Epoch < e.MinEpoch {
		return problemRevoked
	}
	list := ownTrialList{Trials: []ownTrialView{}, AsOf: state.AsOf.UTC(), Version: uint64(state.Version.Position(0))}
	switch p, err := d.PatientTrial(claims.Trial, claims.Participant); {
	case err == nil:
		list.Trials = append(list.Trials, viewOwnTrial(&p))
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	return answerJSON(c, http.StatusOK, list)
}

func directoryEmpty() *problem {
	return &problem{
		status: http.StatusServiceUnavailable, code: codeDirectoryEmpty, retryAfter: spread(5 * time.Second),
		detail: "This server has not been told of any trial yet. Reports are taken all the same; ask again after the time in Retry-After.",
	}
}

// staleAfter is the age from which a directory counts as old although its
// source is being followed: several signs of life are missing then.
const staleAfter = 30 * time.Second

// directoryDependency shows the directory on /status and in the metrics.
func directoryDependency(d Directory) Dependency {
	return Dependency{Name: "directory", Check: func() State {
		s := d.State()
		why := "its source is silent"
		if s.Err != nil {
			why = s.Err.Error()
		}
		switch {
		case !s.Loaded():
			return State{State: "empty", Since: s.Since, Note: "no trial is shown to participants yet; reports are taken: " + why}
		case !s.Connected, s.Age > staleAfter:
			return State{State: "stale", Since: s.AsOf, Note: fmt.Sprintf("participants are shown what was known at %s; reports are taken: %s", s.AsOf.UTC().Format(time.RFC3339), why)}
		case s.SaveErr != nil:
			return State{OK: true, State: "not kept", Since: s.Since, Note: "after a restart it would begin with an older state: " + s.SaveErr.Error()}
		}
		return State{OK: true, State: "serving", Since: s.Since}
	}}
}

type directoryStatus struct {
	Position       uint64    `json:"position"`
	AsOf           time.Time `json:"asOf,omitzero"`
	AgeMS          float64   `json:"ageMs"`
	Trials         int       `json:"trials"`
	Sites          int       `json:"sites"`
	Enrollments    int       `json:"enrollments"`
	Connected      bool      `json:"connected"`
	LoadedFromDisk bool      `json:"loadedFromDisk,omitempty"`
	FileBytes      int64     `json:"fileBytes"`
}

func viewDirectory(s *directory.State) *directoryStatus {
	return &directoryStatus{
		Position: uint64(s.Version.Position(0)), AsOf: s.AsOf.UTC(), AgeMS: ms(s.Age), Trials: s.Trials, Sites: s.Sites, Enrollments: s.Enrollments,
		Connected: s.Connected, LoadedFromDisk: s.LoadedFromDisk, FileBytes: s.FileBytes,
	}
}

// directoryCollector shows how old and how large the directory is. Its age is
// missing, not zero, while it was never complete.
type directoryCollector struct {
	directory Directory

	age, position, trials, enrollments, bytes, connected *prometheus.Desc
}

func newDirectoryCollector(d Directory) *directoryCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("tidegate_directory_"+name, help, nil, nil)
	}
	return &directoryCollector{
		directory:   d,
		age:         desc("age_seconds", "How long ago the directory was last known to be complete."),
		position:    desc("position", "Position in the journal up to which the directory is complete."),
		trials:      desc("trials", "Trials in the directory."),
		enrollments: desc("enrollments", "Enrolments in the directory."),
		bytes:       desc("file_bytes", "Size of the file that keeps the directory over restarts."),
		connected:   desc("connected", "1 while the directory's source is being followed."),
	}
}

// Describe implements prometheus.Collector.
func (c *directoryCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.age, c.position, c.trials, c.enrollments, c.bytes, c.connected} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *directoryCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.directory.State()
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	if s.Loaded() {
		gauge(c.age, s.Age.Seconds())
		gauge(c.position, float64(s.Version.Position(0)))
	}
	gauge(c.trials, float64(s.Trials))
	gauge(c.enrollments, float64(s.Enrollments))
	gauge(c.bytes, float64(s.FileBytes))
	connected := 0.0
	if s.Connected {
		connected = 1
	}
	gauge(c.connected, connected)
}
