package pgstore

import (
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// Prefetch implements [store.Prefetcher]: one question for all that hangs on
// names and ids, a second for the contents of reports.
func (t *tx) Prefetch(keys []store.Key) error {
	var trials []string
	var people []personID
	var commands []epro.UUID
	asked := map[personID]bool{}
	for i := range keys {
		k := &keys[i]
		if !k.Report {
			commands = append(commands, k.ID)
			if k.PatientID == "" {
				continue
			}
		}
		if _, known := t.trialKeys[k.TrialID]; !known && !slices.Contains(trials, k.TrialID) {
			trials = append(trials, k.TrialID)
		}
		p := personID{k.TrialID, k.PatientID}
		if k.Subject == 0 && t.people[p] == nil && !asked[p] {
			asked[p] = true
			people = append(people, p)
		}
	}
	if err := t.ask(trials, people, commands); err != nil {
		return err
	}
	var contents []contentID
	for i := range keys {
		k := &keys[i]
		if !k.Report {
			continue
		}
		c := contentID{k.Subject, k.ID}
		if c.subject == 0 {
			c.subject = t.people[personID{k.TrialID, k.PatientID}].Key
		}
		if _, known := t.contents[c]; !known {
			t.contents[c] = nil
			contents = append(contents, c)
		}
	}
	return t.askContents(contents)
}

// ask makes trials' keys and the first facts under ids known, in one go, and
// then participants. Trials and participants who are missing get keys and handles; the
// trials of the participants must be known, or among those asked for.
func (t *tx) ask(trials []string, people []personID, commands []epro.UUID) error {
	b := &pgx.Batch{}
	if len(trials) > 0 {
		t.query(b, "SELECT tk, trial FROM tidegate_store.trial_key WHERE trial=ANY($1)", []any{raws(trials)}, func(scan func(...any) error) error {
			var k int64
			var trial string
			err := scan(&k, into(&trial))
			t.trialKeys[trial] = k
			return err
		})
	}
	t.queryCommands(b, commands)
	if b.Len() > 0 {
		if err := t.send(b); err != nil {
			return err
		}
	}
	for _, trial := range trials {
		if _, known := t.trialKeys[trial]; !known {
			t.lastTrial++
			t.trialKeys[trial] = t.lastTrial
			t.newKeys = append(t.newKeys, trial)
		}
	}
	return t.askPeople(people)
}

// askPeople asks with the keys of trials, not their names: a join with a third
// table may be planned, for tables without statistics, as a walk through all
// participants of the trial for each.
func (t *tx) askPeople(people []personID) error {
	if len(people) == 0 {
		return nil
	}
	found := make([]*person, len(people))
	if err := t.each(`SELECT q.n, s.sk, `+enrollmentColumns+` FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS q(tk, patient, n)
		JOIN tidegate_store.subject s ON s.tk=q.tk AND s.patient=q.patient`, []any{
		column(people, func(p *personID) int64 { return t.trialKeys[p.trial] }), column(people, func(p *personID) []byte { return raw(p.patient) }),
	}, func(scan func(...any) error) (err error) {
		var n int64
		p := &person{}
		p.Known, err = scanEnrollment(&p.Enrollment, func(dest ...any) error { return scan(append([]any{&n, (*int64)(&p.Key)}, dest...)...) })
		if err == nil {
			found[n-1] = p
		}
		return err
	}); err != nil {
		return err
	}
	for i, id := range people {
		t.meet(id, found[i])
	}
	return nil
}

// meet remembers a participant; nil for one who is not in the tables.
func (t *tx) meet(id personID, p *person) {
	if p == nil {
		t.lastSubject++
		p = &person{isNew: true, Subject: store.Subject{Key: store.SubjectKey(t.lastSubject)}}
		t.newPeople = append(t.newPeople, p)
	} else if e, ok := t.enrollments[p.Key]; ok { // changed under the handle alone
		p.Known, p.Enrollment = true, e
	}
	p.trial, p.Enrollment.TrialID, p.Enrollment.PatientID = t.trialKeys[id.trial], id.trial, id.patient
	t.people[id] = p
}

// query adds a question to a batch.
func (t *tx) query(b *pgx.Batch, query string, args []any, fn func(scan func(...any) error) error) {
	b.Queue(t.s.sql(query), args...).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			if err := fn(rows.Scan); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// trialKey is the short key of a trial's id, made when first met. Reports may
// name a trial that does not exist.
func (t *tx) trialKey(trial string) (int64, error) {
	if k, ok := t.trialKeys[trial]; ok {
		return k, nil
	}
	if err := t.ask([]string{trial}, nil, nil); err != nil {
		return 0, err
	}
	return t.trialKeys[trial], nil
}

func (t *tx) Subject(trial, patient string) (store.Subject, error) {
	id := personID{trial, patient}
	if p := t.people[id]; p != nil {
		return p.Subject, nil
	}
	var trials []string
	if _, known := t.trialKeys[trial]; !known {
		trials = []string{trial}
	}
	if err := t.ask(trials, []personID{id}, nil); err != nil {
		return store.Subject{}, err
	}
	return t.people[id].Subject, nil
}

func (t *tx) PutEnrollment(key store.SubjectKey, e store.Enrollment) error {
	e.EnrolledAt = store.JournalTime(e.EnrolledAt.UnixNano())
	if !e.WithdrawnAt.IsZero() {
		e.WithdrawnAt = store.JournalTime(e.WithdrawnAt.UnixNano())
	}
	p := t.people[personID{e.TrialID, e.PatientID}]
	if p != nil && p.Key == key {
		p.Known, p.Enrollment = true, e
		if p.isNew {
			return nil
		}
	}
	t.enrollments[key] = e
	return nil
}

// queryCommands asks for the first facts under ids.
func (t *tx) queryCommands(b *pgx.Batch, ids []epro.UUID) {
	list := make([]pgtype.UUID, 0, len(ids))
	for _, id := range ids {
		if _, known := t.commands[id]; !known {
			t.commands[id] = nil
			list = append(list, uuid(id))
		}
	}
	if len(list) == 0 {
		return
	}
	t.query(b, "SELECT "+factColumns+" FROM unnest($1::uuid[]) AS q(id) JOIN tidegate_store.fact f ON f.id=q.id", []any{list}, func(scan func(...any) error) error {
		f := &store.FactRow{}
		if err := scanFact(f, scan); err != nil {
			return err
		}
		if first := t.commands[f.FactID]; first == nil || store.RowKey(f.Ref) < store.RowKey(first.Ref) {
			t.commands[f.FactID] = f
		}
		return nil
	})
}

// askContents reads the listed contents under ids, which count as known.
func (t *tx) askContents(list []contentID) error {
	if len(list) == 0 {
		return nil
	}
	return t.each(`SELECT q.n, r.row, r.version, r.meaning FROM unnest($1::bigint[], $2::uuid[]) WITH ORDINALITY AS q(sk, id, n)
		JOIN tidegate_store.report r ON r.sk=q.sk AND r.id=q.id`, []any{
		column(list, func(c *contentID) int64 { return int64(c.subject) }), column(list, func(c *contentID) pgtype.UUID { return uuid(c.id) }),
	}, func(scan func(...any) error) error {
		var n, row int64
		var c store.Content
		if err := scan(&n, &row, &c.Version, (*digest)(&c.Meaning)); err != nil {
			return err
		}
		c.Ref = store.RefOfRow(row)
		t.addContent(list[n-1], c)
		return nil
	})
}

// addContent keeps contents in the order of their versions.
func (t *tx) addContent(id contentID, c store.Content) {
	list := t.contents[id]
	at, _ := slices.BinarySearchFunc(list, c.Version, func(have store.Content, version int) int { return have.Version - version })
	t.contents[id] = slices.Insert(list, at, c)
}

func (t *tx) Contents(s store.SubjectKey, id epro.UUID) ([]store.Content, error) {
	k := contentID{s, id}
	if _, known := t.contents[k]; !known {
		t.contents[k] = nil
		if err := t.askContents([]contentID{k}); err != nil {
			return nil, err
		}
	}
	return slices.Clone(t.contents[k]), nil
}

func (t *tx) AddReport(r *store.NewReport) (bool, error) {
	if err := store.CheckRef(r.Ref); err != nil {
		return false, err
	}
	k := contentID{r.Subject, r.ReportID}
	if _, known := t.contents[k]; !known {
		if _, err := t.Contents(r.Subject, r.ReportID); err != nil {
			return false, err
		}
	}
	for _, c := range t.contents[k] {
		if c.Version == r.Version {
			return false, nil
		}
	}
	row := reportRow{}
	var err error
	if row.trial, err = t.trialKey(r.TrialID); err != nil {
		return false, err
	}
	if row.disposition, err = store.DispositionCode(r.Disposition); err != nil {
		return false, err
	}
	if row.reasons, err = store.ReasonBits(r.Reasons); err != nil {
		return false, err
	}
	mine := *r
	row.NewReport = &mine
	t.reports = append(t.reports, row)
	t.addContent(k, store.Content{Ref: r.Ref, Version: r.Version, Meaning: r.Meaning})
	return true, nil
}

func (t *tx) Report(s store.SubjectKey, id epro.UUID, version int) (r store.Report, err error) {
	if err := t.flush(); err != nil {
		return r, err
	}
	err = t.one("SELECT "+reportColumns+reportFrom+" WHERE r.sk=$1 AND r.id=$2 AND r.version=$3", []any{int64(s), uuid(id), version}, func(scan func(...any) error) error {
		return scanReport(&r, nil, scan)
	})
	return r, err
}

func (t *tx) AddDuplicate(s store.SubjectKey, d *store.Duplicate) error {
	if err := store.CheckRef(d.Ref); err != nil {
		return err
	}
	k, err := t.trialKey(d.TrialID)
	if err != nil {
		return err
	}
	t.duplicates = append(t.duplicates, duplicateRow{*d, k, s})
	return nil
}

func (t *tx) Resolve(r store.Resolve) error {
	code, err := store.ResolutionCode(r.Is)
	if err != nil {
		return err
	}
	return t.update("report", "UPDATE tidegate_store.report SET resolution=$2, resolutions=$3, resolution_reason=$4, resolved_by=$5, resolved=$6 WHERE row=$1",
		store.RowKey(r.Report), code, int64(r.Count), octets(r.Reason), octets(r.By), r.At.UnixNano())
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
	return t.update("report", `UPDATE tidegate_store.report SET score=NULL, comments=NULL, instrument=$2, disposition=$3, reasons=$4, erased=true, erasure_told=true
		WHERE row=$1`, store.RowKey(e.Report), rawOrNull(e.Instrument), disposition, reasons)
}

// update changes one row, after what has gathered: it may be there.
func (t *tx) update(what, query string, args ...any) error {
	b := &pgx.Batch{}
	t.queue(b)
	b.Queue(t.s.sql(query), args...).Exec(changed(1, what))
	return t.send(b)
}
