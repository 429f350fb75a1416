package registry

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// Codes of a rejection, for programs; the sentence beside it is for people.
const (
	CodeConflict   = "conflict"             // the entity is not at the expected version, or the command's id was used for another
	CodeNotFound   = "not-found"            // what the command is about does not exist
	CodeExists     = "exists"               // what the command makes is there already
	CodeTransition = "forbidden-transition" // the entity's state does not allow it
	CodeInvalid    = "invalid"              // the command's content
)

// Rejection says why a command was not applied.
type Rejection struct {
	Code   string
	Reason string // a sentence; it may name ids, never health data
}

// Lookup is the state that decisions read: the projector's transaction, or the
// tables where an edge wants an early answer. Each method returns
// [store.ErrNotFound] for what is not there.
type Lookup interface {
	Trial(id string) (store.Trial, error)
	Site(trial, id string) (store.Site, error)
	Enrollment(trial, patient string) (store.Enrollment, error)
	Staff(id string) (store.Staff, error)
	ReportVersion(trial, patient string, id epro.UUID, version int) (store.Report, error)
}

// Moment is where in the journal a command is decided.
type Moment struct {
	Shard uint32
	Era   uint64
	At    time.Time // committedAt of its frame
	Actor epro.Actor
}

// Change is what an applied command does: the new state of what is not nil.
type Change struct {
	Trial      *store.Trial
	Site       *store.Site
	Enrollment *store.Enrollment
	Staff      *store.Staff
	Resolve    *store.Resolve
	Erase      *store.Erase
	WasErased  store.Report // the report before Erase
	Era        uint64       // not 0: the era from here on
	Rules      *epro.RulesActivated

	Version uint64 // of the changed entity
	Summary string // for the audit
	Reason  string // the actor's
}

// decision is a command under decision. Its steps stop at the first rejection or error.
type decision struct {
	look Lookup
	m    Moment
	no   *Rejection
	err  error
}

func (d *decision) reject(code, format string, args ...any) {
	if d.no == nil && d.err == nil {
		d.no = &Rejection{code, fmt.Sprintf(format, args...)}
	}
}

func (d *decision) stopped() bool { return d.no != nil || d.err != nil }

// fail keeps an error of the lookup; it says whether the thing was not found.
func (d *decision) fail(err error) (missing bool) {
	if errors.Is(err, store.ErrNotFound) {
		return true
	}
	if err != nil && d.err == nil {
		d.err = err
	}
	return false
}

// Decide is what becomes of a command whose body [Decode] has accepted. It is
// a pure function of the state it looks up. The error is the lookup's.
func Decide(look Lookup, kind epro.Kind, body any, m Moment) (Change, *Rejection, error) {
	d := &decision{look: look, m: m}
	c := d.decide(kind, body)
	if d.stopped() {
		// The audit tells what was asked for although nothing came of it.
		return Change{Summary: c.Summary, Reason: c.Reason}, d.no, d.err
	}
	return c, nil, nil
}

func (d *decision) decide(kind epro.Kind, body any) Change {
	switch b := body.(type) {
	case epro.TrialCreated:
		return d.trialCreated(b)
	case epro.TrialStatusChanged:
		return d.statusChanged(b)
	case epro.SiteCreated:
		return d.siteCreated(b)
	case epro.ParticipantEnrolled:
		return d.enrolled(b)
	case epro.ParticipantWithdrawn:
		return d.withdrawn(b)
	case epro.TokensRevoked:
		return d.tokensRevoked(b)
	case epro.InstrumentPublished:
		return d.published(b)
	case epro.ReportResolved:
		return d.resolved(b)
	case epro.StaffAdded:
		return d.staffAdded(b)
	case epro.StaffRole:
		return d.staffRole(kind, b)
	case epro.StaffRemoved:
		return d.staffRemoved(b)
	case epro.RulesActivated:
		return Change{Rules: &b, Summary: "rules: " + b.RuleSet + ", time zones " + b.TZ}
	case epro.EraOpened:
		if b.Era != d.m.Era+1 {
			d.reject(CodeConflict, "The journal is in era %d, so the next one is %d, not %d.", d.m.Era, d.m.Era+1, b.Era)
		}
		return Change{Era: b.Era, Version: b.Era, Summary: fmt.Sprintf("era %d opened", b.Era), Reason: b.Reason}
	case epro.Erased:
		return d.erased(b)
	}
	if kind == epro.KindKeyAdded || kind == epro.KindKeyRetired {
		return Change{Summary: strings.Replace(kind.Name, ".", " ", 1)}
	}
	d.err = fmt.Errorf("no rule for a command of kind %s", kind)
	return Change{}
}

// trial looks up a trial that must exist.
func (d *decision) trial(id string) store.Trial {
	t, err := d.look.Trial(id)
	if d.fail(err) {
		d.reject(CodeNotFound, "There is no trial %s.", id)
	}
	return t
}

// runningTrial looks up a trial that must not have ended.
func (d *decision) runningTrial(id string) store.Trial {
	t := d.trial(id)
	if t.Status == epro.TrialCompleted || t.Status == epro.TrialTerminated {
		d.reject(CodeTransition, "Trial %s is %s: nothing can be added to it.", id, t.Status)
	}
	return t
}

// expect rejects a command that was made from another version than the one there is.
func (d *decision) expect(what string, expected, is uint64) {
	if expected != is {
		d.reject(CodeConflict, "%s is at version %d, not %d: someone else changed it; look at it again.", what, is, expected)
	}
}

func (d *decision) trialCreated(b epro.TrialCreated) Change {
	t := store.Trial{ID: b.TrialID, Name: b.Name, Status: b.Status, Shard: b.Shard, Version: 1, CreatedAt: d.m.At}
	c := Change{Trial: &t, Version: 1, Summary: "trial created: " + string(b.Status)}
	if _, err := d.look.Trial(b.TrialID); !d.fail(err) {
		d.reject(CodeExists, "Trial %s exists already.", b.TrialID)
	}
	if b.Shard != d.m.Shard {
		d.reject(CodeInvalid, "The trial is for shard %d, but its fact lies in shard %d.", b.Shard, d.m.Shard)
	}
	return c
}

func (d *decision) statusChanged(b epro.TrialStatusChanged) Change {
	t := d.trial(b.TrialID)
	c := Change{Trial: &t, Version: t.Version + 1, Summary: "status: " + string(t.Status) + " → " + string(b.Status), Reason: b.Reason}
	if d.stopped() {
		c.Summary = "status: → " + string(b.Status)
		return c
	}
	d.expect("Trial "+b.TrialID, b.Expect, t.Version)
	if !t.Status.MayBecome(b.Status) {
		d.reject(CodeTransition, "A trial that is %s cannot become %s.", t.Status, b.Status)
	}
	t.Status, t.Version = b.Status, c.Version
	return c
}

func (d *decision) siteCreated(b epro.SiteCreated) Change {
	c := Change{
		Site:    &store.Site{TrialID: b.TrialID, ID: b.SiteID, Name: b.Name, CreatedAt: d.m.At},
		Version: 1, Summary: "site created: " + b.SiteID,
	}
	d.runningTrial(b.TrialID)
	if _, err := d.look.Site(b.TrialID, b.SiteID); !d.fail(err) {
		d.reject(CodeExists, "Site %s exists already in trial %s.", b.SiteID, b.TrialID)
	}
	return c
}

func (d *decision) published(b epro.InstrumentPublished) Change {
	name := InstrumentName(b.Instrument, b.Version)
	t := d.runningTrial(b.TrialID)
	c := Change{Trial: &t, Version: t.Version + 1, Summary: "instrument published: " + name}
	if !KnownInstrument(b.Instrument, b.Version) {
		d.reject(CodeNotFound, "There is no instrument %s in this version of Tidegate.", name)
	}
	if slices.Contains(t.Instruments, name) {
		d.reject(CodeExists, "Instrument %s is published in trial %s already.", name, b.TrialID)
	}
	t.Instruments = append(slices.Clone(t.Instruments), name)
	slices.Sort(t.Instruments)
	t.Version = c.Version
	return c
}

func (d *decision) enrolled(b epro.ParticipantEnrolled) Change {
	c := Change{Summary: "enrolled at site " + b.SiteID}
	t := d.trial(b.TrialID)
	if !d.stopped() && t.Status != epro.TrialPlanned && !t.Status.Open() {
		d.reject(CodeTransition, "Trial %s is %s: nobody can be enrolled.", b.TrialID, t.Status)
	}
	if _, err := d.look.Site(b.TrialID, b.SiteID); d.fail(err) {
		d.reject(CodeNotFound, "There is no site %s in trial %s.", b.SiteID, b.TrialID)
	}
	e, err := d.look.Enrollment(b.TrialID, b.PatientID)
	missing := d.fail(err)
	if !missing && b.Expect == 0 {
		d.reject(CodeExists, "Participant %s is in trial %s already (%s).", b.PatientID, b.TrialID, e.Status)
	}
	if missing && b.Expect != 0 {
		d.reject(CodeNotFound, "There is no participant %s in trial %s to take up again.", b.PatientID, b.TrialID)
	}
	d.expect("Participant "+b.PatientID, b.Expect, e.Version)
	if e.Status == epro.Enrolled {
		d.reject(CodeTransition, "Participant %s is enrolled already.", b.PatientID)
	}
	if !missing {
		c.Summary = "enrolled again at site " + b.SiteID
	}
	// The epoch stays: what was revoked once is never valid again.
	e.TrialID, e.PatientID, e.SiteID, e.Status = b.TrialID, b.PatientID, b.SiteID, epro.Enrolled
	e.EnrolledAt, e.WithdrawnAt = d.m.At, time.Time{}
	e.Version++
	c.Enrollment, c.Version = &e, e.Version
	return c
}

// participant looks up an enrolment that must exist at a version.
func (d *decision) participant(trial, patient string, expected uint64) store.Enrollment {
	e, err := d.look.Enrollment(trial, patient)
	if d.fail(err) {
		d.reject(CodeNotFound, "There is no participant %s in trial %s.", patient, trial)
	}
	d.expect("Participant "+patient, expected, e.Version)
	return e
}

func (d *decision) withdrawn(b epro.ParticipantWithdrawn) Change {
	c := Change{Summary: "withdrawn", Reason: b.Reason}
	e := d.participant(b.TrialID, b.PatientID, b.Expect)
	if e.Status == epro.Withdrawn {
		d.reject(CodeTransition, "Participant %s is withdrawn already.", b.PatientID)
	}
	e.Status, e.WithdrawnAt = epro.Withdrawn, d.m.At
	e.Version++
	c.Enrollment, c.Version = &e, e.Version
	return c
}

func (d *decision) tokensRevoked(b epro.TokensRevoked) Change {
	c := Change{Summary: fmt.Sprintf("tokens below epoch %d revoked", b.MinEpoch), Reason: b.Reason}
	e := d.participant(b.TrialID, b.PatientID, b.Expect)
	if b.MinEpoch <= e.MinEpoch {
		d.reject(CodeTransition, "Tokens below epoch %d are revoked already; an epoch only rises.", e.MinEpoch)
	}
	e.MinEpoch = b.MinEpoch
	e.Version++
	c.Enrollment, c.Version = &e, e.Version
	return c
}

func (d *decision) reportVersion(trial, patient string, id epro.UUID, version int) store.Report {
	r, err := d.look.ReportVersion(trial, patient, id, version)
	if d.fail(err) {
		d.reject(CodeNotFound, "There is no version %d of report %s.", version, id)
	}
	return r
}

func (d *decision) resolved(b epro.ReportResolved) Change {
	c := Change{Summary: fmt.Sprintf("report %s version %d: %s", b.ReportID, b.Version, b.Resolution), Reason: b.Reason}
	r := d.reportVersion(b.TrialID, b.PatientID, b.ReportID, b.Version)
	if r.Disposition == epro.Recorded {
		d.reject(CodeTransition, "The report is recorded: only a conflict or a quarantined report is resolved.")
	}
	d.expect("The report's resolution", b.Expect, r.ResolutionCount)
	c.Version = r.ResolutionCount + 1
	c.Resolve = &store.Resolve{Report: r.Ref, Count: c.Version, Is: b.Resolution, Reason: b.Reason, By: d.m.Actor.ID, At: d.m.At}
	return c
}

// erased marks a report whose words were destroyed. A projector that still has
// the words checks what the fact says of them; one that reads the journal after
// the destruction takes its word. Both come to the same as long as words are
// destroyed only when the first `erased` fact about them was applied: whoever
// destroys must look at its outcome first, and stop when it was rejected.
func (d *decision) erased(b epro.Erased) Change {
	c := Change{Summary: "words of report " + b.FactID.String() + " destroyed", Reason: b.Reason}
	if b.Disposition == epro.Duplicate {
		return c // a duplicate has no words in the tables
	}
	r := d.reportVersion(b.TrialID, b.PatientID, b.FactID, b.Version)
	if r.ErasureTold {
		d.reject(CodeExists, "The report's words were destroyed before.")
	}
	if !r.Erased && (r.Disposition != b.Disposition || r.Instrument != b.Instrument || !slices.Equal(r.Reasons, b.Reasons)) {
		d.reject(CodeInvalid, "The report's disposition, reasons or instrument are not the ones in the command.")
	}
	c.WasErased = r
	c.Erase = &store.Erase{Report: r.Ref, Instrument: b.Instrument, Disposition: b.Disposition, Reasons: b.Reasons}
	return c
}
