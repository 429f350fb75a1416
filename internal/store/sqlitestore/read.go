package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// querier is the pool, or one read transaction where several queries must see the same state.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// each calls fn for every row.
func each(ctx context.Context, q querier, query string, args []any, fn func(scan func(...any) error) error) (err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read the tables: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the tables: %w", err)
	}
	return nil
}

// one reads at most one row; ErrNotFound for none.
func one(ctx context.Context, q querier, query string, args []any, fn func(scan func(...any) error) error) error {
	found := false
	err := each(ctx, q, query, args, func(scan func(...any) error) error {
		found = true
		return fn(scan)
	})
	if err == nil && !found {
		return store.ErrNotFound
	}
	return err
}

// snapshot runs fn on one state of the tables.
func (s *Store) snapshot(ctx context.Context, fn func(q querier) error) (err error) {
	t, err := s.reads.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("read the tables: %w", err)
	}
	defer func() { _ = t.Rollback() }() // nothing was written
	return fn(t)
}

// Cursor implements [store.Reader].
func (s *Store) Cursor(ctx context.Context, shard uint32) (store.Cursor, error) {
	return readCursor(ctx, s.reads, shard)
}

func readCursor(ctx context.Context, q querier, shard uint32) (store.Cursor, error) {
	c := store.Cursor{Era: 1}
	err := one(ctx, q, "SELECT position, frames, rule_set, tz, era FROM cursor WHERE shard=?", []any{int64(shard)}, func(scan func(...any) error) error {
		var position, frames, era int64
		if err := scan(&position, &frames, &c.RuleSet, &c.TZ, &era); err != nil {
			return err
		}
		c.Position, c.Frames, c.Era = journal.Position(position), uint64(frames), uint64(era)
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return c, err
}

// LastFrame implements [store.Store].
func (s *Store) LastFrame(ctx context.Context, _ uint32) (f store.FrameRow, err error) {
	err = one(ctx, s.reads, "SELECT position, hash, run, n, time FROM frame ORDER BY position DESC LIMIT 1", nil, func(scan func(...any) error) error {
		return scanFrame(&f, scan)
	})
	return f, err
}

// TreeHashes implements [store.Store].
func (s *Store) TreeHashes(ctx context.Context, _ uint32, indexes []int64) ([]epro.Digest, error) {
	hashes := make([]epro.Digest, len(indexes))
	err := s.snapshot(ctx, func(q querier) error {
		for i, index := range indexes {
			if err := one(ctx, q, "SELECT hash FROM tree WHERE idx=?", []any{index}, func(scan func(...any) error) error {
				var b []byte
				err := scan(&b)
				copy(hashes[i][:], b)
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return hashes, err
}

const trialColumns = "trial, name, status, shard, version, created, instruments FROM trial"

func scanTrial(t *store.Trial, scan func(...any) error) error {
	var status, instruments string
	var shard, version, created int64
	if err := scan(&t.ID, &t.Name, &status, &shard, &version, &created, &instruments); err != nil {
		return err
	}
	t.Status, t.Shard, t.Version = epro.TrialStatus(status), uint32(shard), uint64(version)
	t.CreatedAt, t.Instruments = store.JournalTime(created), splitInstruments(instruments)
	return nil
}

// Trials implements [store.Reader].
func (s *Store) Trials(ctx context.Context, p store.Page) ([]store.Trial, string, error) {
	after, err := store.ListTrials.Text(p.After)
	if err != nil {
		return nil, "", err
	}
	var list []store.Trial
	err = each(ctx, s.reads, "SELECT "+trialColumns+" WHERE trial>? ORDER BY trial LIMIT ?", []any{after, p.Rows() + 1}, func(scan func(...any) error) error {
		list = append(list, store.Trial{})
		return scanTrial(&list[len(list)-1], scan)
	})
	list, next := store.Cut(p, list, func(t *store.Trial) string { return store.ListTrials.AfterText(t.ID) })
	return list, next, err
}

// Trial implements [store.Reader].
func (s *Store) Trial(ctx context.Context, trial string) (t store.Trial, err error) {
	err = one(ctx, s.reads, "SELECT "+trialColumns+" WHERE trial=?", []any{trial}, func(scan func(...any) error) error { return scanTrial(&t, scan) })
	return t, err
}

// Sites implements [store.Reader].
func (s *Store) Sites(ctx context.Context, trial string, p store.Page) ([]store.Site, string, error) {
	after, err := store.ListSites.Text(p.After)
	if err != nil {
		return nil, "", err
	}
	var list []store.Site
	err = each(ctx, s.reads, "SELECT site, name, created FROM site WHERE trial=? AND site>? ORDER BY site LIMIT ?", []any{trial, after, p.Rows() + 1}, func(scan func(...any) error) error {
		site := store.Site{TrialID: trial}
		var created int64
		err := scan(&site.ID, &site.Name, &created)
		site.CreatedAt = store.JournalTime(created)
		list = append(list, site)
		return err
	})
	list, next := store.Cut(p, list, func(s *store.Site) string { return store.ListSites.AfterText(s.ID) })
	return list, next, err
}

const enrollmentColumns = "s.patient, s.site, s.status, s.min_epoch, s.version, s.enrolled, s.withdrawn FROM subject s JOIN trial_key k ON k.tk=s.tk"

func scanEnrollment(e *store.Enrollment, scan func(...any) error) error {
	var status string
	var minEpoch, version, enrolled int64
	var withdrawn sql.NullInt64
	if err := scan(&e.PatientID, &e.SiteID, &status, &minEpoch, &version, &enrolled, &withdrawn); err != nil {
		return err
	}
	e.Status, e.MinEpoch, e.Version = epro.EnrollmentStatus(status), uint32(minEpoch), uint64(version)
	e.EnrolledAt, e.WithdrawnAt = store.JournalTime(enrolled), nullTime(withdrawn)
	return nil
}

// inSites is a condition on sites with its arguments; nil allows all.
func inSites(column string, sites []string, args []any) (string, []any) {
	if sites == nil {
		return "", args
	}
	if len(sites) == 0 {
		return " AND 0", args
	}
	for _, site := range sites {
		args = append(args, site)
	}
	return " AND " + column + " IN (?" + strings.Repeat(",?", len(sites)-1) + ")", args
}

// Participants implements [store.Reader].
func (s *Store) Participants(ctx context.Context, trial string, sites []string, p store.Page) ([]store.Enrollment, string, error) {
	after, err := store.ListPeople.Text(p.After)
	if err != nil {
		return nil, "", err
	}
	where, args := inSites("s.site", sites, []any{trial, after})
	var list []store.Enrollment
	err = each(ctx, s.reads, "SELECT "+enrollmentColumns+" WHERE k.trial=? AND s.patient>? AND s.status IS NOT NULL"+where+" ORDER BY s.patient LIMIT ?",
		append(args, p.Rows()+1), func(scan func(...any) error) error {
			list = append(list, store.Enrollment{TrialID: trial})
			return scanEnrollment(&list[len(list)-1], scan)
		})
	list, next := store.Cut(p, list, func(e *store.Enrollment) string { return store.ListPeople.AfterText(e.PatientID) })
	return list, next, err
}

// Participant implements [store.Reader].
func (s *Store) Participant(ctx context.Context, trial, patient string) (store.Enrollment, error) {
	e := store.Enrollment{TrialID: trial}
	err := one(ctx, s.reads, "SELECT "+enrollmentColumns+" WHERE k.trial=? AND s.patient=? AND s.status IS NOT NULL", []any{trial, patient},
		func(scan func(...any) error) error { return scanEnrollment(&e, scan) })
	return e, err
}

func readStaff(ctx context.Context, q querier, where string, args ...any) ([]store.Staff, error) {
	var list []store.Staff
	if err := each(ctx, q, "SELECT staff, name, removed, version FROM staff WHERE "+where, args, func(scan func(...any) error) error {
		var m store.Staff
		var removed, version int64
		err := scan(&m.ID, &m.Name, &removed, &version)
		m.Removed, m.Version = removed != 0, uint64(version)
		list = append(list, m)
		return err
	}); err != nil {
		return nil, err
	}
	for i := range list {
		if err := each(ctx, q, "SELECT role, trial, site FROM staff_grant WHERE staff=? ORDER BY role, trial, site", []any{list[i].ID}, func(scan func(...any) error) error {
			var g store.Grant
			err := scan(&g.Role, &g.TrialID, &g.SiteID)
			list[i].Grants = append(list[i].Grants, g)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Staff implements [store.Reader].
func (s *Store) Staff(ctx context.Context, id string) (m store.Staff, err error) {
	err = s.snapshot(ctx, func(q querier) error {
		list, err := readStaff(ctx, q, "staff=?", id)
		if err == nil && len(list) == 0 {
			return store.ErrNotFound
		}
		if err == nil {
			m = list[0]
		}
		return err
	})
	return m, err
}

// StaffList implements [store.Reader].
func (s *Store) StaffList(ctx context.Context, p store.Page) (list []store.Staff, next string, err error) {
	after, err := store.ListStaff.Text(p.After)
	if err != nil {
		return nil, "", err
	}
	err = s.snapshot(ctx, func(q querier) error {
		list, err = readStaff(ctx, q, "staff>? ORDER BY staff LIMIT ?", after, p.Rows()+1)
		return err
	})
	list, next = store.Cut(p, list, func(m *store.Staff) string { return store.ListStaff.AfterText(m.ID) })
	return list, next, err
}

const booksColumns = "SELECT trial, recorded, duplicates, conflicts, quarantined FROM books"

func scanBooks(b *store.Books, scan func(...any) error) error {
	var recorded, duplicates, conflicts, quarantined int64
	if err := scan(&b.TrialID, &recorded, &duplicates, &conflicts, &quarantined); err != nil {
		return err
	}
	b.Recorded, b.Duplicates, b.Conflicts, b.Quarantined = uint64(recorded), uint64(duplicates), uint64(conflicts), uint64(quarantined)
	return nil
}

// Books implements [store.Reader]. A trial without reports has empty books.
func (s *Store) Books(ctx context.Context, trial string) (store.Books, error) {
	b := store.Books{TrialID: trial}
	err := one(ctx, s.reads, booksColumns+" WHERE trial=?", []any{trial}, func(scan func(...any) error) error { return scanBooks(&b, scan) })
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return b, err
}

// TrialBooks implements [store.Store].
func (s *Store) TrialBooks(ctx context.Context) (list []store.Books, err error) {
	err = each(ctx, s.reads, booksColumns+" ORDER BY trial", nil, func(scan func(...any) error) error {
		list = append(list, store.Books{})
		return scanBooks(&list[len(list)-1], scan)
	})
	return list, err
}

// Outcome implements [store.Reader].
func (s *Store) Outcome(ctx context.Context, command epro.UUID) (store.Outcome, error) {
	var f store.FactRow
	err := one(ctx, s.reads, "SELECT "+factColumns+" FROM fact WHERE id=? ORDER BY row LIMIT 1", []any{command[:]},
		func(scan func(...any) error) error { return scanFact(&f, scan) })
	if err != nil {
		return store.Outcome{}, err
	}
	return f.CommandOutcome(), nil
}

// Keys implements [store.Reader].
func (s *Store) Keys(ctx context.Context) (list []store.KeyFact, err error) {
	err = each(ctx, s.reads, "SELECT row, kind, kind_version, body FROM key ORDER BY row", nil, func(scan func(...any) error) error {
		var k store.KeyFact
		var row, version int64
		err := scan(&row, &k.Kind.Name, &version, &k.Body)
		k.Ref, k.Kind.Version = store.RefOfRow(row), uint16(version)
		list = append(list, k)
		return err
	})
	return list, err
}
