package store

import "github.com/tidegate/tidegate/internal/epro"

// Words of an audit entry's outcome.
const (
	outcomeApplied  = "applied"
	outcomeRejected = "rejected: "
	outcomeRepeated = "repeated: the first outcome stands"
)

// CommandOutcome is what became of the command that the fact is.
func (f *FactRow) CommandOutcome() Outcome {
	return Outcome{
		CommandID: f.FactID, Kind: f.Kind, TrialID: f.TrialID, Applied: f.Applied,
		Reason: f.Rejection, Code: f.Code, Version: f.Version, Ref: f.Ref, Meaning: f.Meaning,
	}
}

// Audit is the fact as an auditor reads it.
func (f *FactRow) Audit() AuditEntry {
	a := f.AuditEntry
	switch {
	case f.Repeats != nil && f.Code == "":
		a.Outcome = outcomeRepeated
	case f.Applied:
		a.Outcome = outcomeApplied
	default:
		a.Outcome = outcomeRejected + f.Rejection
	}
	return a
}

// Audit is the report as an auditor reads it, without its content.
func (r *Report) Audit() AuditEntry {
	return AuditEntry{
		Ref: r.Ref, Kind: epro.KindReport, FactID: r.ReportID, TrialID: r.TrialID, Subject: r.PatientID, Actor: r.Actor,
		OccurredAt: r.CompletedAt, ReceivedAt: r.ReceivedAt, CommittedAt: r.CommittedAt,
		Summary: "report", Outcome: string(r.Disposition),
	}
}

// Audit is the repeated report as an auditor reads it.
func (d *Duplicate) Audit() AuditEntry {
	return AuditEntry{
		Ref: d.Ref, Kind: epro.KindReport, FactID: d.ReportID, TrialID: d.TrialID, Subject: d.PatientID, Actor: d.Actor,
		OccurredAt: d.OccurredAt, ReceivedAt: d.ReceivedAt, CommittedAt: d.CommittedAt,
		Summary: "report", Outcome: string(epro.Duplicate),
	}
}
