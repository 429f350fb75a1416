package gateway

import (
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// The rows of the tables as the API shows them. Names are camelCase, times
// RFC 3339 with offset; what is not known is left out.

type trialView struct {
	TrialID     string           `json:"trialId"`
	Name        string           `json:"name"`
	Status      epro.TrialStatus `json:"status"`
	Version     uint64           `json:"version"`
	Instruments []string         `json:"instruments"`
	CreatedAt   time.Time        `json:"createdAt"`
}

func viewTrial(t *store.Trial) trialView {
	v := trialView{TrialID: t.ID, Name: t.Name, Status: t.Status, Version: t.Version, Instruments: t.Instruments, CreatedAt: t.CreatedAt}
	if v.Instruments == nil {
		v.Instruments = []string{}
	}
	return v
}

type siteView struct {
	SiteID    string    `json:"siteId"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"createdAt"`
}

func viewSite(s *store.Site) siteView {
	return siteView{SiteID: s.ID, Name: s.Name, CreatedAt: s.CreatedAt}
}

type participantView struct {
	PatientID   string                `json:"patientId"`
	SiteID      string                `json:"siteId"`
	Status      epro.EnrollmentStatus `json:"status"`
	MinEpoch    uint32                `json:"minEpoch"`
	Version     uint64                `json:"version"`
	EnrolledAt  time.Time             `json:"enrolledAt"`
	WithdrawnAt time.Time             `json:"withdrawnAt,omitzero"`
}

func viewParticipant(e *store.Enrollment) participantView {
	return participantView{
		PatientID: e.PatientID, SiteID: e.SiteID, Status: e.Status, MinEpoch: e.MinEpoch, Version: e.Version,
		EnrolledAt: e.EnrolledAt, WithdrawnAt: e.WithdrawnAt,
	}
}

type actorView struct {
	Type   string `json:"type"`
	ID     string `json:"id"`
	Device string `json:"device,omitempty"`
}

func viewActor(a epro.Actor) actorView {
	return actorView{Type: a.Type.String(), ID: a.ID, Device: a.Device}
}

// ownReportView is a report as its participant sees it: what was sent, and what
// became of it; not who at the site decided what.
type ownReportView struct {
	ReportID    epro.UUID               `json:"reportId"`
	Version     int                     `json:"version"`
	Disposition epro.Disposition        `json:"disposition"`
	Reasons     []epro.QuarantineReason `json:"reasons,omitempty"`
	Instrument  string                  `json:"instrument,omitempty"`
	Score       *int                    `json:"qolScore,omitempty"`
	Comments    *string                 `json:"comments,omitempty"`
	Timestamp   time.Time               `json:"timestamp"`
	ReceivedAt  time.Time               `json:"receivedAt"`
	CommittedAt time.Time               `json:"committedAt"`
	Erased      bool                    `json:"erased,omitempty"`
	Resolution  epro.Resolution         `json:"resolution,omitempty"`
}

func viewOwnReport(r *store.Report) ownReportView {
	return ownReportView{
		ReportID: r.ReportID, Version: r.Version, Disposition: r.Disposition, Reasons: r.Reasons, Instrument: r.Instrument,
		Score: r.Score, Comments: r.Comments, Timestamp: r.CompletedAt, ReceivedAt: r.ReceivedAt, CommittedAt: r.CommittedAt,
		Erased: r.Erased, Resolution: r.Resolution,
	}
}

type reportView struct {
	PatientID string `json:"patientId"`
	SiteID    string `json:"siteId,omitempty"`
	ownReportView
	Actor            actorView `json:"actor"`
	ClockApart       bool      `json:"clockApart,omitempty"`
	ResolutionCount  uint64    `json:"resolutionCount"`
	ResolutionReason string    `json:"resolutionReason,omitempty"`
	ResolvedBy       string    `json:"resolvedBy,omitempty"`
	ResolvedAt       time.Time `json:"resolvedAt,omitzero"`
}

func viewReport(r *store.Report) reportView {
	return reportView{
		PatientID: r.PatientID, SiteID: r.SiteID, ownReportView: viewOwnReport(r), Actor: viewActor(r.Actor), ClockApart: r.ClockApart,
		ResolutionCount: r.ResolutionCount, ResolutionReason: r.ResolutionReason, ResolvedBy: r.ResolvedBy, ResolvedAt: r.ResolvedAt,
	}
}

type auditView struct {
	FactID      epro.UUID `json:"factId"`
	Kind        string    `json:"kind"`
	PatientID   string    `json:"patientId,omitempty"`
	Actor       actorView `json:"actor"`
	OccurredAt  time.Time `json:"occurredAt"`
	ReceivedAt  time.Time `json:"receivedAt"`
	CommittedAt time.Time `json:"committedAt"`
	Summary     string    `json:"summary"`
	Reason      string    `json:"reason,omitempty"`
	Outcome     string    `json:"outcome"`
	Position    uint64    `json:"position"`
	Index       uint32    `json:"index"`
}

func viewAudit(a *store.AuditEntry) auditView {
	return auditView{
		FactID: a.FactID, Kind: a.Kind.String(), PatientID: a.Subject, Actor: viewActor(a.Actor), OccurredAt: a.OccurredAt,
		ReceivedAt: a.ReceivedAt, CommittedAt: a.CommittedAt, Summary: a.Summary, Reason: a.Reason, Outcome: a.Outcome,
		Position: uint64(a.Ref.Position), Index: a.Ref.Index,
	}
}

type grantView struct {
	Role    string `json:"role"`
	TrialID string `json:"trialId,omitempty"`
	SiteID  string `json:"siteId,omitempty"`
}

type staffView struct {
	StaffID string      `json:"staffId"`
	Name    string      `json:"name"`
	Removed bool        `json:"removed,omitempty"`
	Roles   []grantView `json:"roles"`
	Version uint64      `json:"version"`
}

func viewStaff(m *store.Staff) staffView {
	return staffView{
		StaffID: m.ID, Name: m.Name, Removed: m.Removed, Version: m.Version,
		Roles: mapped(m.Grants, func(g *store.Grant) grantView {
			return grantView{Role: g.Role, TrialID: g.TrialID, SiteID: g.SiteID}
		}),
	}
}
