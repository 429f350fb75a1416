package sqlitestore

import (
	"database/sql/driver"
	"fmt"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

const insertReport = `INSERT INTO report(row, tk, sk, id, version, disposition, reasons, resolution, flags, site, instrument, score, comments,
	completed, completed_ns, completed_off, received, received_ns, committed, actor_type, actor, device, meaning)
	VALUES(?,?,?,?,?,?,?,0,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(sk, id, version) DO NOTHING`

func (t *tx) AddReport(r *store.NewReport) (bool, error) {
	if err := store.CheckRef(r.Ref); err != nil {
		return false, err
	}
	tk, err := t.trialKey(r.TrialID)
	if err != nil {
		return false, err
	}
	disposition, err := store.DispositionCode(r.Disposition)
	if err != nil {
		return false, err
	}
	reasons, err := store.ReasonBits(r.Reasons)
	if err != nil {
		return false, err
	}
	var score, comments driver.Value
	if r.Score != nil {
		score = int64(*r.Score)
	}
	if r.Comments != nil {
		comments = *r.Comments
	}
	n, err := t.w.exec(insertReport,
		store.RowKey(r.Ref), tk, int64(r.Subject), r.ReportID[:], int64(r.Version), disposition, reasons, reportFlags(&r.Report),
		text(r.SiteID), text(r.Instrument), score, comments,
		r.CompletedAt.Unix(), int64(r.CompletedAt.Nanosecond()), store.OffsetMinutes(r.CompletedAt),
		r.ReceivedAt.Unix(), int64(r.ReceivedAt.Nanosecond()), r.CommittedAt.UnixNano(),
		int64(r.Actor.Type), actorColumn(r.Actor, r.PatientID), text(r.Actor.Device), r.Meaning[:])
	return n == 1, err
}

func reportFlags(r *store.Report) int64 {
	return flag(r.ClockApart)*flagClockApart | flag(r.Erased)*flagErased
}

// actorColumn is NULL for the usual actor: the participant themselves.
func actorColumn(a epro.Actor, patient string) driver.Value {
	if a.Type == epro.ActorParticipant && a.ID == patient {
		return nil
	}
	return a.ID
}

func (t *tx) Contents(s store.SubjectKey, id epro.UUID) (list []store.Content, err error) {
	err = t.w.each("SELECT row, version, meaning FROM report WHERE sk=? AND id=? ORDER BY version", []driver.Value{int64(s), id[:]}, func(c []driver.Value) error {
		list = append(list, store.Content{Ref: store.RefOfRow(colInt(c[0])), Version: int(colInt(c[1])), Meaning: colDigest(c[2])})
		return nil
	})
	return list, err
}

func (t *tx) Report(s store.SubjectKey, id epro.UUID, version int) (r store.Report, err error) {
	err = t.w.one("SELECT "+reportColumns+reportFrom+" WHERE r.sk=? AND r.id=? AND r.version=?", []driver.Value{int64(s), id[:], int64(version)}, func(c []driver.Value) error {
		return scanReport(&r, nil, func(dest ...any) error { return assign(dest, c) })
	})
	return r, err
}

func (t *tx) AddDuplicate(s store.SubjectKey, d *store.Duplicate) error {
	if err := store.CheckRef(d.Ref); err != nil {
		return err
	}
	tk, err := t.trialKey(d.TrialID)
	if err != nil {
		return err
	}
	_, err = t.w.exec(`INSERT INTO duplicate(row, of, tk, sk, id, actor_type, actor, device, occurred, occurred_ns, occurred_off, received, received_ns, committed)
		VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		store.RowKey(d.Ref), store.RowKey(d.Of), tk, int64(s), d.ReportID[:], int64(d.Actor.Type), actorColumn(d.Actor, d.PatientID), text(d.Actor.Device),
		d.OccurredAt.Unix(), int64(d.OccurredAt.Nanosecond()), store.OffsetMinutes(d.OccurredAt),
		d.ReceivedAt.Unix(), int64(d.ReceivedAt.Nanosecond()), d.CommittedAt.UnixNano())
	return err
}

func (t *tx) Resolve(r store.Resolve) error {
	code, err := store.ResolutionCode(r.Is)
	if err != nil {
		return err
	}
	n, err := t.w.exec("UPDATE report SET resolution=?, resolutions=?, resolution_reason=?, resolved_by=?, resolved=? WHERE row=?",
		code, int64(r.Count), r.Reason, r.By, r.At.UnixNano(), store.RowKey(r.Report))
	return changedOne(n, err, "report")
}

func (t *tx) Erase(e store.Erase) error {
	disposition, err := store.DispositionCode(e.Disposition)
	if err != nil {
		return err
	}
	reasons, err := store.ReasonBits(e.Reasons)
	if err != nil {
		return err
	}
	n, err := t.w.exec(fmt.Sprintf("UPDATE report SET score=NULL, comments=NULL, instrument=?, disposition=?, reasons=?, flags=flags|%d WHERE row=?", flagErased|flagTold),
		text(e.Instrument), disposition, reasons, store.RowKey(e.Report))
	return changedOne(n, err, "report")
}
