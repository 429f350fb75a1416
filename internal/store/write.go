package store

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// ErrLayout says that the tables have another layout than this binary writes.
// They are not changed: they are built anew beside and swapped (design: no
// migrations).
var ErrLayout = errors.New("the tables have another layout than this version of tidegate: run `tidegate rebuild`, which makes them again from the journal")

// Store is the tables with their write side, which only the projector uses.
type Store interface {
	Reader

	// Apply runs fn in one transaction on the tables of a shard, and moves the
	// shard's cursor from the one given to the one fn returns: all of it, or,
	// with an error, nothing. When the stored cursor is not from, another
	// projector was here: fn is not called and the error is ErrFenced. That
	// compare-and-set is the whole fence between projectors. After an Apply that
	// was not nil the caller must forget whatever it remembered of the tables
	// and read the cursor again.
	//
	// An engine that several processes reach knows two more cases, in which it
	// returns another error and has called no fn: tables that were built anew or
	// set back since, where nobody else need be at work, and a transaction of
	// another projector that is open (it is ended when it does not go on). After
	// an error of the connection it is unknown whether the transaction holds: the
	// cursor tells.
	//
	// The Tx is valid inside fn only, and for one goroutine. It may keep writes in
	// memory until fn has returned: an error of theirs may come as late as that.
	//
	// A crash of the machine (of the database server) may take back the last
	// Applies, always a suffix of them and always whole: the projector then
	// projects those frames again.
	Apply(ctx context.Context, shard uint32, from Cursor, fn func(Tx) (Cursor, error)) error

	// LastFrame is the last applied frame of a shard; ErrNotFound before the first.
	LastFrame(ctx context.Context, shard uint32) (FrameRow, error)
	// TreeHashes are hashes of a shard's checkpoint tree, by the index of their
	// place in storage (see golang.org/x/mod/sumdb/tlog); ErrNotFound when one is
	// beyond the applied frames.
	TreeHashes(ctx context.Context, shard uint32, indexes []int64) ([]epro.Digest, error)
	// TrialBooks are the books of every trial that has any, by trial id.
	TrialBooks(ctx context.Context) ([]Books, error)

	// Dump writes the canonical dump, see [DumpFormat]. It shows health data: it
	// is for an operator who looks for a difference.
	Dump(ctx context.Context, w io.Writer) error
	// Hash is the SHA-256 of the canonical dump. Tables of the same journal have
	// the same hash on every engine.
	Hash(ctx context.Context) (epro.Digest, error)
	// HashAt is the same with the cursor of a shard at that very state, for
	// whoever compares with a rebuild up to there while frames are applied.
	HashAt(ctx context.Context, shard uint32) (epro.Digest, Cursor, error)

	Close() error
}

// FrameRow is an applied frame.
type FrameRow struct {
	Position journal.Position
	Hash     epro.Digest // of its header
	Run      journal.Run
	N        uint64
	Time     int64 // committedAt, ns since 1970
}

// RunHead is the last applied frame of a run.
type RunHead struct {
	N    uint64
	Hash epro.Digest
	Time int64
}

// SubjectKey is a store's own handle of a participant in a trial, enrolled or
// not. It holds for as long as the tables do and is never part of a dump.
type SubjectKey int64

// Subject is a participant in a trial as a decision about a report sees them.
type Subject struct {
	Key        SubjectKey
	Known      bool // there is (or was) an enrolment
	Enrollment Enrollment
}

// NewReport is a report to list.
type NewReport struct {
	Report
	Subject SubjectKey
	Meaning epro.Digest
}

// Content is one of the contents under a report id.
type Content struct {
	Ref     Ref
	Version int
	Meaning epro.Digest
}

// Duplicate is a report fact that repeats an earlier one.
type Duplicate struct {
	Ref         Ref
	Of          Ref // the listed report that it repeats
	TrialID     string
	PatientID   string
	ReportID    epro.UUID
	Actor       epro.Actor
	OccurredAt  time.Time
	ReceivedAt  time.Time
	CommittedAt time.Time
}

// FactRow is a fact that is no report, with what became of it.
type FactRow struct {
	AuditEntry             // Outcome "" : it is made of the fields below
	Meaning    epro.Digest // of the body, to tell a repeated command
	Applied    bool
	Code       string // of a rejection
	Rejection  string // the sentence
	Version    uint64 // of the changed entity
	// Repeats is set when the command was asked before under the same id: the
	// first outcome stands.
	Repeats *Ref
}

// Resolve is what staff decided about a report.
type Resolve struct {
	Report Ref
	Count  uint64 // of resolutions, with this one
	Is     epro.Resolution
	Reason string
	By     string
	At     time.Time
}

// Erase is what is left of a report whose words were destroyed.
type Erase struct {
	Report      Ref
	Instrument  string
	Disposition epro.Disposition
	Reasons     []epro.QuarantineReason
}

// Tx is what the projector does inside [Store.Apply]. It sees its own changes.
// Every error but ErrNotFound ends the transaction. Some are a [Prefetcher] too.
type Tx interface {
	// Run is the head of a run in this shard; ErrNotFound for a new one.
	Run(run journal.Run) (RunHead, error)
	// HasHeader says whether a header with this hash was applied in this shard.
	HasHeader(hash epro.Digest) (bool, error)
	// AddFrame adds a frame and moves the head of its run.
	AddFrame(f FrameRow) error
	// TreeHash reads one hash of the checkpoint tree; AddTreeHashes appends some
	// at the indexes from first on.
	TreeHash(index int64) (epro.Digest, error)
	AddTreeHashes(first int64, hashes []epro.Digest) error

	Trial(id string) (Trial, error)
	PutTrial(t Trial) error
	Site(trial, id string) (Site, error)
	PutSite(s Site) error
	// Subject gives the handle of a participant, making one if needed.
	Subject(trial, patient string) (Subject, error)
	PutEnrollment(key SubjectKey, e Enrollment) error
	Staff(id string) (Staff, error)
	PutStaff(s Staff) error

	// AddReport lists a report. It returns false, and adds nothing, when the
	// report's version is taken under its subject and id.
	AddReport(r *NewReport) (bool, error)
	// Contents are the listed contents under an id, by version.
	Contents(s SubjectKey, id epro.UUID) ([]Content, error)
	// Report is one listed content; ErrNotFound.
	Report(s SubjectKey, id epro.UUID, version int) (Report, error)
	AddDuplicate(s SubjectKey, d *Duplicate) error
	Resolve(r Resolve) error
	Erase(e Erase) error
	// AddBooks adds to the books of a trial.
	AddBooks(add Books) error

	// Command is the first fact with this id, for repeated commands; ErrNotFound.
	Command(id epro.UUID) (FactRow, error)
	AddFact(f *FactRow) error
	AddKey(k KeyFact) error
}
