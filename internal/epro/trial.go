package epro

import "time"

// TrialStatus is where a trial is in its life.
type TrialStatus string

// The statuses. A trial takes reports while it is open: Recruiting or Active.
const (
	TrialPlanned    TrialStatus = "Planned"
	TrialRecruiting TrialStatus = "Recruiting"
	TrialActive     TrialStatus = "Active"
	TrialSuspended  TrialStatus = "Suspended"
	TrialCompleted  TrialStatus = "Completed"
	TrialTerminated TrialStatus = "Terminated"
)

// trialMoves is the state machine: which status may follow which.
var trialMoves = map[TrialStatus][]TrialStatus{
	TrialPlanned:    {TrialRecruiting, TrialActive, TrialTerminated},
	TrialRecruiting: {TrialActive, TrialSuspended, TrialCompleted, TrialTerminated},
	TrialActive:     {TrialRecruiting, TrialSuspended, TrialCompleted, TrialTerminated},
	TrialSuspended:  {TrialRecruiting, TrialActive, TrialCompleted, TrialTerminated},
	TrialCompleted:  nil,
	TrialTerminated: nil,
}

// Valid says whether s is a known status.
func (s TrialStatus) Valid() bool { _, ok := trialMoves[s]; return ok }

// Open says whether a trial in status s takes reports.
func (s TrialStatus) Open() bool { return s == TrialRecruiting || s == TrialActive }

// MayBecome says whether a trial may change from s to next.
func (s TrialStatus) MayBecome(next TrialStatus) bool {
	for _, to := range trialMoves[s] {
		if to == next {
			return true
		}
	}
	return false
}

// EnrollmentStatus is where a participant is in a trial.
type EnrollmentStatus string

// The statuses of an enrolment.
const (
	Enrolled  EnrollmentStatus = "Enrolled"
	Withdrawn EnrollmentStatus = "Withdrawn"
)

// Disposition is what the projector made of a report. It is given once and
// never changes; what staff decide later is a [Resolution].
type Disposition string

// The dispositions. Every accepted report has exactly one, or is pending.
const (
	Recorded    Disposition = "recorded"
	Duplicate   Disposition = "duplicate"
	Conflict    Disposition = "conflict"
	Quarantined Disposition = "quarantined"
)

// QuarantineReason says why a report was set aside for the site to look at.
type QuarantineReason string

// The reasons, in the order in which they are looked for.
const (
	ReasonMalformed         QuarantineReason = "content-unreadable"
	ReasonTrialNotOpen      QuarantineReason = "trial-not-open"
	ReasonNotEnrolled       QuarantineReason = "participant-not-enrolled"
	ReasonWithdrawn         QuarantineReason = "participant-withdrawn"
	ReasonEpochRevoked      QuarantineReason = "token-revoked"
	ReasonForeignSite       QuarantineReason = "relay-of-another-site"
	ReasonUnknownInstrument QuarantineReason = "instrument-version-unknown"
	ReasonClockAhead        QuarantineReason = "device-clock-ahead"
)

// MaxClockAhead is how far a device's clock may be ahead of the gateway's
// before its report is set aside.
const MaxClockAhead = 10 * time.Minute

// Resolution is what staff decided about a conflict or a quarantined report.
type Resolution string

// The resolutions.
const (
	ResolutionAccept Resolution = "accept" // counts as study data
	ResolutionVoid   Resolution = "void"   // does not
)

// Valid says whether r is a known resolution.
func (r Resolution) Valid() bool { return r == ResolutionAccept || r == ResolutionVoid }
