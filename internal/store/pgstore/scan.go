package pgstore

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// Columns and their scanners, shared by both sides.
const (
	trialColumns = "trial, name, status, shard, version, created, instruments FROM tidegate_store.trial"
	siteColumns  = "site, name, created FROM tidegate_store.site"
	// s is a subject.
	enrollmentColumns = "s.patient, s.site, s.status, s.min_epoch, s.version, s.enrolled, s.withdrawn"
	staffSQL          = `SELECT s.staff, s.name, s.removed, s.version, g.role, g.trial, g.site FROM tidegate_store.staff s
		LEFT JOIN tidegate_store.staff_grant g ON g.staff=s.staff WHERE s.staff=$1 ORDER BY g.role, g.trial, g.site`
	booksColumns = "trial, recorded, duplicates, conflicts, quarantined FROM tidegate_store.books"
	frameColumns = "position, hash, run, n, time FROM tidegate_store.frame"

	reportColumns = `r.row, k.trial, s.patient, r.id, r.version, r.disposition, r.reasons, r.resolution, r.clock_apart, r.erased, r.erasure_told,
	r.site, r.instrument, r.score, r.comments, r.completed, r.completed_ns, r.completed_off, r.received, r.received_ns, r.committed,
	r.actor_type, r.actor, r.device, r.meaning, r.resolutions, r.resolution_reason, r.resolved_by, r.resolved`
	reportFrom = " FROM tidegate_store.report r JOIN tidegate_store.subject s ON s.sk=r.sk JOIN tidegate_store.trial_key k ON k.tk=r.tk"

	duplicateColumns = `d.row, d.of, k.trial, s.patient, d.id, d.actor_type, d.actor, d.device,
	d.occurred, d.occurred_ns, d.occurred_off, d.received, d.received_ns, d.committed`
	duplicateFrom = " FROM tidegate_store.duplicate d JOIN tidegate_store.subject s ON s.sk=d.sk JOIN tidegate_store.trial_key k ON k.tk=d.tk"

	// f is a fact.
	factColumns = `f.row, f.kind, f.kind_version, f.id, f.trial, f.subject, f.actor_type, f.actor, f.device,
	f.occurred, f.occurred_ns, f.occurred_off, f.received, f.received_ns, f.committed, f.meaning, f.summary, f.reason, f.applied, f.code, f.rejection, f.version, f.repeats`
	keyColumns = "row, kind, kind_version, body FROM tidegate_store.key ORDER BY row"
)

func scanTrial(t *store.Trial, scan func(...any) error) error {
	var instruments string
	var shard, version, created int64
	if err := scan(into(&t.ID), into(&t.Name), (*octets)(&t.Status), &shard, &version, &created, into(&instruments)); err != nil {
		return err
	}
	t.Shard, t.Version = uint32(shard), uint64(version)
	t.CreatedAt, t.Instruments = store.JournalTime(created), splitInstruments(instruments)
	return nil
}

func scanSite(s *store.Site, scan func(...any) error) error {
	var created int64
	err := scan(into(&s.ID), into(&s.Name), &created)
	s.CreatedAt = store.JournalTime(created)
	return err
}

// scanEnrollment reads enrollmentColumns; known is false for a participant who
// was never enrolled.
func scanEnrollment(e *store.Enrollment, scan func(...any) error) (known bool, err error) {
	var status []byte
	var minEpoch, version, enrolled, withdrawn pgtype.Int8
	if err := scan(into(&e.PatientID), into(&e.SiteID), &status, &minEpoch, &version, &enrolled, &withdrawn); err != nil || status == nil {
		return false, err
	}
	e.Status, e.MinEpoch, e.Version = epro.EnrollmentStatus(status), uint32(minEpoch.Int64), uint64(version.Int64)
	e.EnrolledAt = store.JournalTime(enrolled.Int64)
	if withdrawn.Valid {
		e.WithdrawnAt = store.JournalTime(withdrawn.Int64)
	}
	return true, nil
}

// scanStaff reads a staff member with one of their grants, or none, and adds it
// to the list, in which the same member may be last.
func scanStaff(list []store.Staff, scan func(...any) error) ([]store.Staff, error) {
	var m store.Staff
	var version int64
	var role, trial, site []byte
	if err := scan(into(&m.ID), into(&m.Name), &m.Removed, &version, &role, &trial, &site); err != nil {
		return list, err
	}
	m.Version = uint64(version)
	if len(list) == 0 || list[len(list)-1].ID != m.ID {
		list = append(list, m)
	}
	if role != nil {
		last := &list[len(list)-1]
		last.Grants = append(last.Grants, store.Grant{Role: string(role), TrialID: string(trial), SiteID: string(site)})
	}
	return list, nil
}

func compareGrants(a, b store.Grant) int {
	return cmp.Or(strings.Compare(a.Role, b.Role), strings.Compare(a.TrialID, b.TrialID), strings.Compare(a.SiteID, b.SiteID))
}

// scanReport reads reportColumns; meaning may be nil.
func scanReport(r *store.Report, meaning *epro.Digest, scan func(...any) error) error {
	var (
		row, version, disposition, reasons, resolution    int64
		completed, completedNS, off, received, receivedNS int64
		committed, actorType                              int64
		id                                                pgtype.UUID
		hash                                              epro.Digest
		comments, actor                                   []byte
		score, count, resolved                            pgtype.Int8
	)
	*r = store.Report{}
	if err := scan(&row, into(&r.TrialID), into(&r.PatientID), &id, &version, &disposition, &reasons, &resolution, &r.ClockApart, &r.Erased, &r.ErasureTold,
		into(&r.SiteID), into(&r.Instrument), &score, &comments, &completed, &completedNS, &off, &received, &receivedNS, &committed,
		&actorType, &actor, into(&r.Actor.Device), (*digest)(&hash), &count, into(&r.ResolutionReason), into(&r.ResolvedBy), &resolved); err != nil {
		return err
	}
	var known, resolvable bool
	if r.Disposition, known = store.DispositionOf(disposition); known {
		r.Resolution, resolvable = store.ResolutionOf(resolution)
	}
	if !known || !resolvable {
		return fmt.Errorf("report row %d holds an unknown code: the tables are damaged, run `tidegate rebuild`", row)
	}
	r.Ref, r.Version, r.ReportID, r.Reasons = store.RefOfRow(row), int(version), id.Bytes, store.ReasonsOf(reasons)
	if score.Valid {
		n := int(score.Int64)
		r.Score = &n
	}
	if comments != nil {
		text := string(comments)
		r.Comments = &text
	}
	r.CompletedAt = store.Instant(completed, completedNS, off)
	r.ReceivedAt, r.CommittedAt = store.Instant(received, receivedNS, 0), store.JournalTime(committed)
	r.Actor.Type, r.Actor.ID = epro.ActorType(actorType), actorID(actor, r.PatientID)
	r.ResolutionCount = uint64(count.Int64)
	if resolved.Valid {
		r.ResolvedAt = store.JournalTime(resolved.Int64)
	}
	if meaning != nil {
		*meaning = hash
	}
	return nil
}

func actorID(column []byte, patient string) string {
	if column == nil {
		return patient
	}
	return string(column)
}

// scanDuplicate reads duplicateColumns.
func scanDuplicate(d *store.Duplicate, scan func(...any) error) error {
	var (
		row, of, actorType                      int64
		occurred, ns, off, received, receivedNS int64
		committed                               int64
		id                                      pgtype.UUID
		actor                                   []byte
	)
	*d = store.Duplicate{}
	if err := scan(&row, &of, into(&d.TrialID), into(&d.PatientID), &id, &actorType, &actor, into(&d.Actor.Device),
		&occurred, &ns, &off, &received, &receivedNS, &committed); err != nil {
		return err
	}
	d.Ref, d.Of, d.ReportID = store.RefOfRow(row), store.RefOfRow(of), id.Bytes
	d.Actor.Type, d.Actor.ID = epro.ActorType(actorType), actorID(actor, d.PatientID)
	d.OccurredAt, d.ReceivedAt, d.CommittedAt = store.Instant(occurred, ns, off), store.Instant(received, receivedNS, 0), store.JournalTime(committed)
	return nil
}

// scanFact reads factColumns.
func scanFact(f *store.FactRow, scan func(...any) error) error {
	var (
		row, kindVersion, actorType, version    int64
		occurred, ns, off, received, receivedNS int64
		committed                               int64
		id                                      pgtype.UUID
		repeats                                 pgtype.Int8
	)
	*f = store.FactRow{}
	if err := scan(&row, into(&f.Kind.Name), &kindVersion, &id, into(&f.TrialID), into(&f.Subject), &actorType, into(&f.Actor.ID), into(&f.Actor.Device),
		&occurred, &ns, &off, &received, &receivedNS, &committed, (*digest)(&f.Meaning), into(&f.Summary), into(&f.AuditEntry.Reason), &f.Applied,
		into(&f.Code), into(&f.Rejection), &version, &repeats); err != nil {
		return err
	}
	f.Ref, f.Kind.Version, f.FactID = store.RefOfRow(row), uint16(kindVersion), id.Bytes
	f.Actor.Type = epro.ActorType(actorType)
	f.OccurredAt, f.ReceivedAt, f.CommittedAt = store.Instant(occurred, ns, off), store.Instant(received, receivedNS, 0), store.JournalTime(committed)
	f.Version = uint64(version)
	if repeats.Valid {
		of := store.RefOfRow(repeats.Int64)
		f.Repeats = &of
	}
	return nil
}

func scanFrame(f *store.FrameRow, scan func(...any) error) error {
	var position, n int64
	var run []byte
	if err := scan(&position, (*digest)(&f.Hash), &run, &n, &f.Time); err != nil {
		return err
	}
	f.Position, f.N = journal.Position(position), uint64(n)
	copy(f.Run[:], run)
	return nil
}

func scanBooks(b *store.Books, scan func(...any) error) error {
	var recorded, duplicates, conflicts, quarantined int64
	if err := scan(into(&b.TrialID), &recorded, &duplicates, &conflicts, &quarantined); err != nil {
		return err
	}
	b.Recorded, b.Duplicates, b.Conflicts, b.Quarantined = uint64(recorded), uint64(duplicates), uint64(conflicts), uint64(quarantined)
	return nil
}

func scanKey(k *store.KeyFact, scan func(...any) error) error {
	var row, version int64
	err := scan(&row, into(&k.Kind.Name), &version, &k.Body)
	k.Ref, k.Kind.Version = store.RefOfRow(row), uint16(version)
	return err
}
