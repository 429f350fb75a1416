package sqlitestore

import (
	"database/sql"
	"database/sql/driver"
	"fmt"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// Columns and their scanners, shared by both sides. scan is sql.Rows.Scan, or
// assign on the writing connection.
const (
	reportColumns = `r.row, k.trial, s.patient, r.id, r.version, r.disposition, r.reasons, r.resolution, r.flags, r.site, r.instrument, r.score, r.comments,
	r.completed, r.completed_ns, r.completed_off, r.received, r.received_ns, r.committed, r.actor_type, r.actor, r.device, r.meaning,
	r.resolutions, r.resolution_reason, r.resolved_by, r.resolved`
	reportFrom = " FROM report r JOIN subject s ON s.sk=r.sk JOIN trial_key k ON k.tk=r.tk"

	duplicateColumns = `d.row, d.of, k.trial, s.patient, d.id, d.actor_type, d.actor, d.device,
	d.occurred, d.occurred_ns, d.occurred_off, d.received, d.received_ns, d.committed`
	duplicateFrom = " FROM duplicate d JOIN subject s ON s.sk=d.sk JOIN trial_key k ON k.tk=d.tk"

	factColumns = `row, kind, kind_version, id, trial, subject, actor_type, actor, device,
	occurred, occurred_ns, occurred_off, received, received_ns, committed, meaning, summary, reason, applied, code, rejection, version, repeats`
)

// assign is Scan for a row of the driver: the few types that the scanners use.
func assign(dest []any, c []driver.Value) error {
	if len(dest) != len(c) {
		return fmt.Errorf("%d columns for %d fields", len(c), len(dest))
	}
	for i, d := range dest {
		switch d := d.(type) {
		case *int64:
			*d = colInt(c[i])
		case *string:
			*d = colText(c[i])
		case *[]byte:
			b, _ := c[i].([]byte)
			*d = append([]byte(nil), b...)
		case *sql.NullInt64:
			*d = sql.NullInt64{Int64: colInt(c[i]), Valid: c[i] != nil}
		case *sql.NullString:
			*d = sql.NullString{String: colText(c[i]), Valid: c[i] != nil}
		default:
			return fmt.Errorf("no way to read a column into %T", d)
		}
	}
	return nil
}

// scanReport reads reportColumns; meaning may be nil.
func scanReport(r *store.Report, meaning *epro.Digest, scan func(...any) error) error {
	var (
		row, version, disposition, reasons, resolution, flags int64
		completed, completedNS, off, received, receivedNS     int64
		committed, actorType                                  int64
		id, digest                                            []byte
		site, instrument, comments, actor, device, why, by    sql.NullString
		score, count, resolved                                sql.NullInt64
	)
	*r = store.Report{}
	if err := scan(&row, &r.TrialID, &r.PatientID, &id, &version, &disposition, &reasons, &resolution, &flags, &site, &instrument, &score, &comments,
		&completed, &completedNS, &off, &received, &receivedNS, &committed, &actorType, &actor, &device, &digest,
		&count, &why, &by, &resolved); err != nil {
		return err
	}
	var known, resolvable bool
	if r.Disposition, known = store.DispositionOf(disposition); known {
		r.Resolution, resolvable = store.ResolutionOf(resolution)
	}
	if !known || !resolvable {
		return fmt.Errorf("report row %d holds an unknown code: the tables are damaged, run `tidegate rebuild`", row)
	}
	r.Ref, r.Version = store.RefOfRow(row), int(version)
	copy(r.ReportID[:], id)
	r.Reasons = store.ReasonsOf(reasons)
	r.ClockApart, r.Erased = flags&flagClockApart != 0, flags&flagErased != 0
	r.ErasureTold = flags&flagTold != 0
	r.SiteID, r.Instrument = site.String, instrument.String
	if score.Valid {
		n := int(score.Int64)
		r.Score = &n
	}
	if comments.Valid {
		r.Comments = &comments.String
	}
	r.CompletedAt = store.Instant(completed, completedNS, off)
	r.ReceivedAt, r.CommittedAt = store.Instant(received, receivedNS, 0), store.JournalTime(committed)
	r.Actor = actorOf(actorType, actor, device.String, r.PatientID)
	r.ResolutionCount, r.ResolutionReason, r.ResolvedBy = uint64(count.Int64), why.String, by.String
	r.ResolvedAt = nullTime(resolved)
	if meaning != nil {
		copy(meaning[:], digest)
	}
	return nil
}

func actorOf(kind int64, id sql.NullString, device, patient string) epro.Actor {
	a := epro.Actor{Type: epro.ActorType(kind), ID: id.String, Device: device}
	if !id.Valid {
		a.ID = patient
	}
	return a
}

// scanDuplicate reads duplicateColumns.
func scanDuplicate(d *store.Duplicate, scan func(...any) error) error {
	var (
		row, of, actorType                      int64
		occurred, ns, off, received, receivedNS int64
		committed                               int64
		id                                      []byte
		actor, device                           sql.NullString
	)
	*d = store.Duplicate{}
	if err := scan(&row, &of, &d.TrialID, &d.PatientID, &id, &actorType, &actor, &device, &occurred, &ns, &off, &received, &receivedNS, &committed); err != nil {
		return err
	}
	d.Ref, d.Of = store.RefOfRow(row), store.RefOfRow(of)
	copy(d.ReportID[:], id)
	d.Actor = actorOf(actorType, actor, device.String, d.PatientID)
	d.OccurredAt, d.ReceivedAt, d.CommittedAt = store.Instant(occurred, ns, off), store.Instant(received, receivedNS, 0), store.JournalTime(committed)
	return nil
}

// scanFact reads factColumns.
func scanFact(f *store.FactRow, scan func(...any) error) error {
	var (
		row, kindVersion, actorType, applied, version int64
		occurred, ns, off, received, receivedNS       int64
		committed                                     int64
		id, meaning                                   []byte
		repeats                                       sql.NullInt64
	)
	*f = store.FactRow{}
	if err := scan(&row, &f.Kind.Name, &kindVersion, &id, &f.TrialID, &f.Subject, &actorType, &f.Actor.ID, &f.Actor.Device,
		&occurred, &ns, &off, &received, &receivedNS, &committed, &meaning, &f.Summary, &f.AuditEntry.Reason, &applied, &f.Code, &f.Rejection, &version, &repeats); err != nil {
		return err
	}
	f.Ref, f.Kind.Version = store.RefOfRow(row), uint16(kindVersion)
	copy(f.FactID[:], id)
	copy(f.Meaning[:], meaning)
	f.Actor.Type = epro.ActorType(actorType)
	f.OccurredAt, f.ReceivedAt, f.CommittedAt = store.Instant(occurred, ns, off), store.Instant(received, receivedNS, 0), store.JournalTime(committed)
	f.Applied, f.Version = applied != 0, uint64(version)
	if repeats.Valid {
		of := store.RefOfRow(repeats.Int64)
		f.Repeats = &of
	}
	return nil
}

func scanFrame(f *store.FrameRow, scan func(...any) error) error {
	var position, n int64
	var hash, run []byte
	if err := scan(&position, &hash, &run, &n, &f.Time); err != nil {
		return err
	}
	f.Position, f.N = journal.Position(position), uint64(n)
	copy(f.Hash[:], hash)
	copy(f.Run[:], run)
	return nil
}
