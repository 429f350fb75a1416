package epro

// The bodies of all facts but reports. Each is stored as canonical JSON
// ([CanonicalJSON]); its shape belongs to the kind@version for ever, so a
// change of shape is a new version beside the old one.
//
// Commands carry Expect: the version of the entity they change, as the caller
// saw it; 0 where it must not exist yet. The projector applies a command whose
// Expect is the entity's version at that place in the order, and rejects any
// other: two staff members who edit at once do not overwrite each other.

// TrialCreated is the body of trial.created@1.
type TrialCreated struct {
	TrialID string      `json:"trialId"`
	Name    string      `json:"name"`
	Status  TrialStatus `json:"status"`
	Shard   uint32      `json:"shard"` // fixed for the trial's life
}

// TrialStatusChanged is the body of trial.status-changed@1.
type TrialStatusChanged struct {
	TrialID string      `json:"trialId"`
	Status  TrialStatus `json:"status"`
	Reason  string      `json:"reason"`
	Expect  uint64      `json:"expect"`
}

// SiteCreated is the body of site.created@1.
type SiteCreated struct {
	TrialID string `json:"trialId"`
	SiteID  string `json:"siteId"`
	Name    string `json:"name"`
}

// ParticipantEnrolled is the body of participant.enrolled@1. Expect is 0 for a
// new participant, or the version of a withdrawn enrolment that is taken up
// again.
type ParticipantEnrolled struct {
	TrialID   string `json:"trialId"`
	SiteID    string `json:"siteId"`
	PatientID string `json:"patientId"`
	Expect    uint64 `json:"expect"`
}

// ParticipantWithdrawn is the body of participant.withdrawn@1.
type ParticipantWithdrawn struct {
	TrialID   string `json:"trialId"`
	PatientID string `json:"patientId"`
	Reason    string `json:"reason"`
	Expect    uint64 `json:"expect"`
}

// TokensRevoked is the body of participant.tokens-revoked@1: reports under a
// token of an epoch below MinEpoch are quarantined from here on.
type TokensRevoked struct {
	TrialID   string `json:"trialId"`
	PatientID string `json:"patientId"`
	MinEpoch  uint32 `json:"minEpoch"`
	Reason    string `json:"reason"`
	Expect    uint64 `json:"expect"`
}

// InstrumentPublished is the body of instrument.published@1: this version of
// the instrument may be answered in this trial from here on.
type InstrumentPublished struct {
	TrialID    string `json:"trialId"`
	Instrument string `json:"instrument"`
	Version    uint32 `json:"version"`
}

// ReportResolved is the body of report.resolved@1: what staff decided about a
// conflict or a quarantined report. The disposition itself never changes.
type ReportResolved struct {
	TrialID    string     `json:"trialId"`
	PatientID  string     `json:"patientId"`
	ReportID   UUID       `json:"reportId"`
	Version    int        `json:"version"` // 1 for the first content under the id, 2 for the next
	Resolution Resolution `json:"resolution"`
	Reason     string     `json:"reason"`
	Expect     uint64     `json:"expect"` // number of resolutions so far
}

// StaffAdded is the body of staff.added@1.
type StaffAdded struct {
	StaffID string `json:"staffId"`
	Name    string `json:"name"`
}

// StaffRole is the body of staff.role-granted@1 and staff.role-revoked@1. An
// empty TrialID means every trial, an empty SiteID every site of the trial.
type StaffRole struct {
	StaffID string `json:"staffId"`
	Role    string `json:"role"`
	TrialID string `json:"trialId,omitempty"`
	SiteID  string `json:"siteId,omitempty"`
}

// StaffRemoved is the body of staff.removed@1.
type StaffRemoved struct {
	StaffID string `json:"staffId"`
	Reason  string `json:"reason"`
}

// RulesActivated is the body of rules.activated@1: from here on, facts are
// judged by this rule set and this version of the time zone database.
type RulesActivated struct {
	RuleSet string `json:"ruleSet"`
	TZ      string `json:"tz"`
}

// EraOpened is the body of era.opened@1: the operator's word that the journal
// goes on although it ends below an anchor, and why.
type EraOpened struct {
	Reason       string `json:"reason"`
	Era          uint64 `json:"era"`          // 2 for the first one opened
	AnchorDigest string `json:"anchorDigest"` // SHA-256 of the anchor's bytes, hexadecimal
	AnchorFrames uint64 `json:"anchorFrames"` // frames the anchor had seen
	Frames       uint64 `json:"frames"`       // frames the journal has now
}

// Erased is the body of erased@1: salt and body of one report were destroyed.
// It tells again what the projector had read in the body, so that tables made
// anew, without the body, come out the same.
type Erased struct {
	TrialID     string             `json:"trialId"`
	PatientID   string             `json:"patientId"`
	FactID      UUID               `json:"factId"`
	Leaf        string             `json:"leaf"`    // hexadecimal leaf hash of the envelope that stays
	Version     int                `json:"version"` // of the listed report; 0 for one that was counted as a duplicate
	Instrument  string             `json:"instrument,omitempty"`
	Disposition Disposition        `json:"disposition"`
	Reasons     []QuarantineReason `json:"reasons,omitempty"`
	Reason      string             `json:"reason"`
}
