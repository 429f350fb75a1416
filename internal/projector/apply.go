package projector

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
)

// applier applies frames in one transaction, with memory that lasts over
// transactions for as long as none fails.
type applier struct {
	shard  uint32
	cache  *cache
	chain  *chain
	cursor store.Cursor // where the frames applied so far have led

	tx    store.Tx
	f     *frame
	tally tally
}

// tally counts what a transaction did; it is added to the counters only once the transaction holds.
type tally struct {
	frames, facts, recorded, duplicates, conflicts, quarantined, applied, rejected uint64
}

func newApplier(shard uint32, cursor store.Cursor) *applier {
	return &applier{shard: shard, cursor: cursor, cache: newCache(), chain: newChain()}
}

func (a *applier) stop(index int, kind, reason string, err error) error {
	return &StopError{Shard: a.shard, Position: a.f.position, Index: index, Kind: kind, Reason: reason, Err: err}
}

// apply applies one frame. After an error the applier must be thrown away.
func (a *applier) apply(tx store.Tx, f *frame) error {
	a.tx, a.f = tx, f
	if f.position <= a.cursor.Position {
		return a.stop(-1, "", fmt.Sprintf("the journal returned it after position %d", a.cursor.Position), ErrDamaged)
	}
	wrong, err := a.chain.follow(tx, f)
	if err != nil {
		return err
	}
	if wrong != "" {
		return a.stop(-1, "", wrong, ErrDamaged)
	}
	if err := a.chain.extend(tx, f, a.cursor.Frames); err != nil {
		return err
	}
	for i := range f.facts {
		if f.facts[i].Kind == epro.KindReport {
			err = a.report(i, &f.facts[i])
		} else {
			err = a.command(i, &f.facts[i])
		}
		if err != nil {
			return err
		}
	}
	a.cursor.Position = f.position
	a.cursor.Frames++
	a.tally.frames++
	a.tally.facts += uint64(len(f.facts))
	return nil
}

func (a *applier) ref(i int) store.Ref { return store.Ref{Position: a.f.position, Index: uint32(i)} }

// trial is the trial's state, nil for none.
func (a *applier) trial(id string) (*store.Trial, error) {
	if t, ok := a.cache.trials[id]; ok {
		return t, nil
	}
	t, err := a.tx.Trial(id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		// Not remembered: reports can name any number of trials that do not exist.
		return nil, nil
	case err != nil:
		return nil, err
	}
	a.cache.trials[id] = &t
	return &t, nil
}

func (a *applier) subject(trial, patient string) (store.Subject, error) {
	id := subjectID{trial, patient}
	if s, ok := a.cache.subject(id); ok {
		return s, nil
	}
	s, err := a.tx.Subject(trial, patient)
	if err == nil {
		a.cache.put(id, s)
	}
	return s, err
}

// report gives a report its disposition. The order: a repeat of anything that
// lies under its id; set aside for a reason; other content under a used id;
// recorded.
func (a *applier) report(i int, f *fact) error {
	if a.cursor.RuleSet == "" {
		return a.stop(i, f.Kind.String(), "the journal names no rule set before its first report", ErrRules)
	}
	trial, err := a.trial(f.Trial)
	if err != nil {
		return err
	}
	s, err := a.subject(f.Trial, f.Subject)
	if err != nil {
		return err
	}
	r := store.NewReport{Subject: s.Key, Meaning: f.Meaning, Report: store.Report{
		Ref: a.ref(i), TrialID: f.Trial, PatientID: f.Subject, SiteID: s.Enrollment.SiteID, ReportID: f.ID, Version: 1,
		Disposition: epro.Recorded, CompletedAt: f.OccurredAt, ReceivedAt: f.ReceivedAt, CommittedAt: a.f.header.CommittedAt(),
		Actor: f.Actor, ClockApart: f.Flags&epro.FlagClockApart != 0, Erased: f.Erased,
	}}
	if f.readable {
		r.Instrument = instrumentOf(&f.report)
		if f.report.HasScore {
			r.Score = &f.report.QoLScore
		}
		if f.report.HasComments {
			r.Comments = &f.report.Comments
		}
	}
	r.Reasons = quarantineReasons(f, r.Instrument, trial, &s)
	if len(r.Reasons) > 0 {
		r.Disposition = epro.Quarantined
	}
	// Nearly every report is the first under its id, so it is added as such; the
	// index that refuses a second one is the search for earlier ones.
	added, err := a.tx.AddReport(&r)
	if err != nil {
		return err
	}
	if !added {
		duplicate, err := a.again(&r, f)
		if err != nil {
			return err
		}
		if duplicate {
			a.tally.duplicates++
			return a.tx.AddBooks(store.Books{TrialID: f.Trial, Duplicates: 1})
		}
	}
	b := booksOf(r.Disposition)
	b.TrialID = f.Trial
	a.tally.recorded += b.Recorded
	a.tally.conflicts += b.Conflicts
	a.tally.quarantined += b.Quarantined
	return a.tx.AddBooks(b)
}

func booksOf(d epro.Disposition) (b store.Books) {
	switch d {
	case epro.Recorded:
		b.Recorded = 1
	case epro.Duplicate:
		b.Duplicates = 1
	case epro.Conflict:
		b.Conflicts = 1
	case epro.Quarantined:
		b.Quarantined = 1
	}
	return b
}

// again decides a report under an id that was used before.
func (a *applier) again(r *store.NewReport, f *fact) (duplicate bool, err error) {
	contents, err := a.tx.Contents(r.Subject, r.ReportID)
	if err != nil {
		return false, err
	}
	for _, c := range contents {
		if c.Meaning == r.Meaning {
			return true, a.tx.AddDuplicate(r.Subject, &store.Duplicate{
				Ref: r.Ref, Of: c.Ref, TrialID: r.TrialID, PatientID: r.PatientID, ReportID: r.ReportID, Actor: r.Actor,
				OccurredAt: f.OccurredAt, ReceivedAt: f.ReceivedAt, CommittedAt: r.CommittedAt,
			})
		}
		r.Version = max(r.Version, c.Version+1)
	}
	if r.Disposition == epro.Recorded {
		r.Disposition = epro.Conflict
	}
	added, err := a.tx.AddReport(r)
	if err == nil && !added {
		err = fmt.Errorf("version %d of report %s is in the tables, but is not listed: run `tidegate rebuild`", r.Version, r.ReportID)
	}
	return false, err
}

// command decides any other fact, and writes its row for the audit.
func (a *applier) command(i int, f *fact) error {
	row := store.FactRow{Meaning: f.Meaning, AuditEntry: store.AuditEntry{
		Ref: a.ref(i), Kind: f.Kind, FactID: f.ID, TrialID: f.Trial, Subject: f.Subject, Actor: f.Actor,
		OccurredAt: f.OccurredAt, ReceivedAt: f.ReceivedAt, CommittedAt: a.f.header.CommittedAt(), Summary: f.Kind.Name,
	}}
	first, err := a.tx.Command(f.ID)
	switch {
	case err == nil:
		row.Repeats = &first.Ref
		if first.Kind != f.Kind || first.Meaning != f.Meaning {
			row.Code, row.Rejection = registry.CodeConflict, "The command's id was used for another command before."
			a.tally.rejected++
		}
		return a.tx.AddFact(&row)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	var no *registry.Rejection
	if f.problems != nil {
		no = &registry.Rejection{Code: registry.CodeInvalid, Reason: problemText(f.problems)}
	} else {
		var change registry.Change
		m := registry.Moment{Shard: a.shard, Era: a.cursor.Era, At: row.CommittedAt, Actor: f.Actor}
		if change, no, err = registry.Decide(lookup{a}, f.Kind, f.body, m); err != nil {
			return err
		}
		row.Summary, row.AuditEntry.Reason = change.Summary, change.Reason
		if no == nil {
			row.Applied, row.Version = true, change.Version
			if err := a.change(i, f, &change); err != nil {
				return err
			}
		}
	}
	if no != nil {
		row.Code, row.Rejection = no.Code, no.Reason
		a.tally.rejected++
	} else {
		a.tally.applied++
	}
	return a.tx.AddFact(&row)
}

// problemText is a sentence about a body's fields; it holds nothing of them.
func problemText(list []epro.FieldProblem) string {
	parts := make([]string, len(list))
	for i, p := range list {
		parts[i] = p.Field + " " + p.Problem
	}
	return "The command is not valid: " + strings.Join(parts, "; ") + "."
}

// change writes what an applied command changes, in the tables and in memory.
func (a *applier) change(i int, f *fact, c *registry.Change) error {
	var errs []error
	if c.Trial != nil {
		errs = append(errs, a.tx.PutTrial(*c.Trial))
		a.cache.trials[c.Trial.ID] = c.Trial
	}
	if c.Site != nil {
		errs = append(errs, a.tx.PutSite(*c.Site))
	}
	if e := c.Enrollment; e != nil {
		s, err := a.subject(e.TrialID, e.PatientID)
		if err != nil {
			return err
		}
		s.Known, s.Enrollment = true, *e
		errs = append(errs, a.tx.PutEnrollment(s.Key, *e))
		a.cache.put(subjectID{e.TrialID, e.PatientID}, s)
	}
	if c.Staff != nil {
		errs = append(errs, a.tx.PutStaff(*c.Staff))
	}
	if c.Resolve != nil {
		errs = append(errs, a.tx.Resolve(*c.Resolve))
	}
	if c.Erase != nil {
		errs = append(errs, a.tx.Erase(*c.Erase), a.correctBooks(f.Trial, c.WasErased.Disposition, c.Erase.Disposition))
	}
	if c.Era != 0 {
		a.cursor.Era = c.Era
	}
	if c.Rules != nil {
		if c.Rules.RuleSet != RuleSet {
			return a.stop(i, f.Kind.String(), fmt.Sprintf("the journal asks for a rule set that this version of tidegate does not have (it has %s): install a newer one", RuleSet), ErrRules)
		}
		a.cursor.RuleSet, a.cursor.TZ = c.Rules.RuleSet, c.Rules.TZ
	}
	if f.Kind == epro.KindKeyAdded || f.Kind == epro.KindKeyRetired {
		errs = append(errs, a.tx.AddKey(store.KeyFact{Kind: f.Kind, Body: f.Body, Ref: a.ref(i)}))
	}
	return errors.Join(errs...)
}

// correctBooks moves a report from one disposition to another: only for a
// rebuild that read it without its words and now learns what they were.
func (a *applier) correctBooks(trial string, from, to epro.Disposition) error {
	if from == to {
		return nil
	}
	was, is := booksOf(from), booksOf(to)
	return a.tx.AddBooks(store.Books{
		TrialID: trial, Recorded: is.Recorded - was.Recorded, Conflicts: is.Conflicts - was.Conflicts, Quarantined: is.Quarantined - was.Quarantined,
	})
}

// lookup is what the registry's rules read in a transaction.
type lookup struct{ a *applier }

func (l lookup) Trial(id string) (store.Trial, error) {
	t, err := l.a.trial(id)
	if err == nil && t == nil {
		return store.Trial{}, store.ErrNotFound
	}
	if err != nil {
		return store.Trial{}, err
	}
	return *t, nil
}

func (l lookup) Site(trial, id string) (store.Site, error) { return l.a.tx.Site(trial, id) }

func (l lookup) Enrollment(trial, patient string) (store.Enrollment, error) {
	s, err := l.a.subject(trial, patient)
	if err == nil && !s.Known {
		return store.Enrollment{}, store.ErrNotFound
	}
	return s.Enrollment, err
}

func (l lookup) Staff(id string) (store.Staff, error) { return l.a.tx.Staff(id) }

func (l lookup) ReportVersion(trial, patient string, id epro.UUID, version int) (store.Report, error) {
	s, err := l.a.subject(trial, patient)
	if err != nil {
		return store.Report{}, err
	}
	return l.a.tx.Report(s.Key, id, version)
}
