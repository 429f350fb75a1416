// Package store is the contract of the tables: what the projector wrote from
// the journal, for screens, lists and exports to read.
//
// A store holds nothing of its own. Deleting it loses nothing: `tidegate
// rebuild` makes the same tables again, with the same [Store.Hash].
package store

import (
	"context"
	"errors"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// ErrNotFound says that there is no such row.
var ErrNotFound = errors.New("not found")

// ErrFenced says that another projector moved the cursor: stop and reread.
var ErrFenced = errors.New("another projector has moved the cursor")

// ErrCursor says that a page's cursor is not one this store gave out.
var ErrCursor = errors.New("cursor is not one that this server gave out: begin again without it")

// Cursor is how far a shard was projected.
type Cursor struct {
	Position journal.Position // last applied frame; 0 for none
	Frames   uint64           // frames applied: the size of the checkpoint tree
	RuleSet  string           // rule set in force, "" before the first
	TZ       string           // time zone database version in force
	Era      uint64           // 1 until an era is opened
}

// Page asks for part of a list.
type Page struct {
	Limit int    // 1 to 1000; values outside are brought into these bounds
	After string // opaque, from the page before; "" for the first
}

// Ref is the place of a fact: its frame and its index there.
type Ref struct {
	Position journal.Position
	Index    uint32
}

// Trial is a trial as the facts have made it.
type Trial struct {
	ID          string
	Name        string
	Status      epro.TrialStatus
	Shard       uint32
	Version     uint64   // applied changes of the trial, for Expect
	Instruments []string // "id@version", sorted
	CreatedAt   time.Time
}

// Site is a place of a trial.
type Site struct {
	TrialID, ID, Name string
	CreatedAt         time.Time
}

// Enrollment is a participant in a trial.
type Enrollment struct {
	TrialID, PatientID, SiteID string
	Status                     epro.EnrollmentStatus
	MinEpoch                   uint32 // tokens of lower epochs are revoked
	Version                    uint64
	EnrolledAt                 time.Time // committedAt of the (latest) enrolment
	WithdrawnAt                time.Time // zero while enrolled
}

// Report is one accepted report that is listed: recorded, in conflict or
// quarantined.
type Report struct {
	Ref              Ref
	TrialID          string
	PatientID        string
	SiteID           string // the site at that time, also of one withdrawn; "" if never enrolled
	ReportID         epro.UUID
	Version          int // 1 for the first content under the id
	Disposition      epro.Disposition
	Reasons          []epro.QuarantineReason // of a quarantined report
	Instrument       string                  // id@version
	Score            *int
	Comments         *string
	CompletedAt      time.Time // device clock, with its offset
	ReceivedAt       time.Time
	CommittedAt      time.Time
	Actor            epro.Actor
	ClockApart       bool
	Erased           bool
	ErasureTold      bool            // an `erased` fact said so; false only while a rebuild has not come to it
	Resolution       epro.Resolution // "" while none
	ResolutionCount  uint64
	ResolutionReason string
	ResolvedBy       string
	ResolvedAt       time.Time
}

// ReportFilter narrows a list of reports. Zero values do not narrow.
type ReportFilter struct {
	Sites       []string // nil for all; empty non-nil for none
	PatientID   string
	Disposition epro.Disposition
	Unresolved  bool // only conflicts and quarantined ones without a resolution
}

// Books are the counts of one trial at the cursor.
type Books struct {
	TrialID                                      string
	Recorded, Duplicates, Conflicts, Quarantined uint64
}

// Outcome is what became of a command.
type Outcome struct {
	CommandID epro.UUID
	Kind      epro.Kind
	TrialID   string
	Applied   bool
	Reason    string // why it was rejected: a sentence
	Code      string // of a rejection: "conflict", "not-found", "exists", "forbidden-transition", "invalid"
	Version   uint64 // of the changed entity, after it
	Ref       Ref
	// Meaning is of the command's body. A caller whose own command has another
	// one used an id that was taken: its command was rejected.
	Meaning epro.Digest
}

// AuditEntry is one fact as an auditor reads it: who, what, when, why, and
// what became of it. It holds no body of a report.
type AuditEntry struct {
	Ref         Ref
	Kind        epro.Kind
	FactID      epro.UUID
	TrialID     string
	Subject     string
	Actor       epro.Actor
	OccurredAt  time.Time
	ReceivedAt  time.Time
	CommittedAt time.Time
	Summary     string // e.g. "status: Recruiting → Active"
	Reason      string // the reason given by the actor
	Outcome     string // "applied", "rejected: …", or a report's disposition
}

// Grant is a role of a staff member.
type Grant struct{ Role, TrialID, SiteID string }

// Staff is a staff member.
type Staff struct {
	ID, Name string
	Removed  bool
	Grants   []Grant // sorted
	Version  uint64
}

// Reader is what screens, lists and exports read. All methods are safe for
// concurrent use and see committed frames only. A list is ordered by its key
// and returns the cursor of the next page, "" on the last.
type Reader interface {
	Cursor(ctx context.Context, shard uint32) (Cursor, error)

	Trials(ctx context.Context, p Page) ([]Trial, string, error)
	Trial(ctx context.Context, trial string) (Trial, error)
	Sites(ctx context.Context, trial string, p Page) ([]Site, string, error)
	Participants(ctx context.Context, trial string, sites []string, p Page) ([]Enrollment, string, error)
	Participant(ctx context.Context, trial, patient string) (Enrollment, error)
	Staff(ctx context.Context, id string) (Staff, error)
	StaffList(ctx context.Context, p Page) ([]Staff, string, error)

	// Reports lists in the order of the journal.
	Reports(ctx context.Context, trial string, f ReportFilter, p Page) ([]Report, string, error)
	// EachReport streams the same list without paging; fn's error ends it. It
	// reads in short transactions, so that it never holds the log back.
	EachReport(ctx context.Context, trial string, f ReportFilter, fn func(*Report) error) error
	// OwnReports lists a participant's reports, newest first.
	OwnReports(ctx context.Context, trial, patient string, p Page) ([]Report, string, error)
	// ReportVersions are the contents listed under an id, in order;
	// ErrNotFound when there is none (yet).
	ReportVersions(ctx context.Context, trial, patient string, id epro.UUID) ([]Report, error)

	Books(ctx context.Context, trial string) (Books, error)
	Outcome(ctx context.Context, command epro.UUID) (Outcome, error) // ErrNotFound until the projector passed it
	// Audit lists every fact of a trial, reports and their repeats among them,
	// in the order of the journal; with trial "" those about no single trial.
	Audit(ctx context.Context, trial string, p Page) ([]AuditEntry, string, error)
	// Keys are the bodies of key.added and key.retired facts, in order.
	Keys(ctx context.Context) ([]KeyFact, error)
}

// KeyFact is a key.added or key.retired fact.
type KeyFact struct {
	Kind epro.Kind
	Body []byte
	Ref  Ref
}
