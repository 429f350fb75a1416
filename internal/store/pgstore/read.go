package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/store"
)

// querier is the pool, or one read transaction where several queries must see
// the same state.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// each calls fn for every row.
func each(ctx context.Context, q querier, query string, args []any, fn func(scan func(...any) error) error) error {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read the tables: %w", err)
	}
	defer rows.Close()
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

const codeFeatureNotSupported = "0A000" // "cached plan must not change result type"

// each reads from the pool. A statement that met a swap of the tables in the
// middle is sent once more: its plan was of the old ones, or it locked some of
// them while the swap locked others.
func (s *Store) each(ctx context.Context, query string, args []any, fn func(scan func(...any) error) error) error {
	ctx, done := s.during(ctx)
	defer done()
	begun := false
	run := func() error {
		return each(ctx, s.reads, s.sql(query), args, func(scan func(...any) error) error {
			begun = true
			return fn(scan)
		})
	}
	err := run()
	if code := postgres.Code(err); !begun && (code == codeFeatureNotSupported || code == postgres.CodeDeadlock) {
		err = run()
	}
	return s.explain(ctx, err)
}

// explain says what an error means that tables of another layout bring about:
// a reader follows a swap, but only to its own layout.
func (s *Store) explain(ctx context.Context, err error) error {
	const undefinedColumn = "42703"
	switch postgres.Code(err) {
	case postgres.CodeUndefinedTable, postgres.CodeUndefinedSchema, undefinedColumn, codeFeatureNotSupported:
		if why := s.check(ctx); why != nil {
			return fmt.Errorf("read the tables: %w", why)
		}
	}
	if s.closing.Err() != nil && err != nil {
		return errors.Join(errClosed, err)
	}
	return err
}

// one reads at most one row; ErrNotFound for none.
func (s *Store) one(ctx context.Context, query string, args []any, fn func(scan func(...any) error) error) error {
	found := false
	err := s.each(ctx, query, args, func(scan func(...any) error) error {
		found = true
		return fn(scan)
	})
	if err == nil && !found {
		return store.ErrNotFound
	}
	return err
}

// snapshot runs fn on one state of the tables. settings, which may be "", is a
// list of set_config calls.
func (s *Store) snapshot(ctx context.Context, settings string, fn func(q querier) error) error {
	ctx, done := s.during(ctx)
	defer done()
	err := pgx.BeginTxFunc(ctx, s.reads, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(t pgx.Tx) error {
		// First of all tables, see [tx.begin].
		if _, err := t.Exec(ctx, s.sql("SELECT "+settings+"layout FROM tidegate_store.layout")); err != nil {
			return fmt.Errorf("read the tables: %w", err)
		}
		return fn(t)
	})
	return s.explain(ctx, err)
}

// Cursor implements [store.Reader].
func (s *Store) Cursor(ctx context.Context, shard uint32) (store.Cursor, error) {
	c := store.Cursor{Era: 1}
	err := s.one(ctx, cursorSQL, []any{int64(shard)}, func(scan func(...any) error) error { return scanCursor(&c, scan) })
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return c, err
}

// LastFrame implements [store.Store].
func (s *Store) LastFrame(ctx context.Context, shard uint32) (f store.FrameRow, err error) {
	err = s.one(ctx, "SELECT "+frameColumns+" WHERE shard=$1 ORDER BY position DESC LIMIT 1", []any{int64(shard)}, func(scan func(...any) error) error {
		return scanFrame(&f, scan)
	})
	return f, err
}

// TreeHashes implements [store.Store].
func (s *Store) TreeHashes(ctx context.Context, shard uint32, indexes []int64) ([]epro.Digest, error) {
	hashes := make([]epro.Digest, len(indexes))
	found := 0
	err := s.each(ctx, "SELECT q.n, t.hash FROM unnest($2::bigint[]) WITH ORDINALITY AS q(idx, n) JOIN tidegate_store.tree t ON t.shard=$1 AND t.idx=q.idx",
		[]any{int64(shard), indexes}, func(scan func(...any) error) error {
			var n int64
			var d epro.Digest
			err := scan(&n, (*digest)(&d))
			if err == nil {
				hashes[n-1] = d
				found++
			}
			return err
		})
	if err == nil && found != len(indexes) {
		err = store.ErrNotFound
	}
	return hashes, err
}

// Trials implements [store.Reader].
func (s *Store) Trials(ctx context.Context, p store.Page) ([]store.Trial, string, error) {
	after, err := store.ListTrials.Text(p.After)
	if err != nil {
		return nil, "", err
	}
	var list []store.Trial
	err = s.each(ctx, "SELECT "+trialColumns+" WHERE trial>$1 ORDER BY trial LIMIT $2", []any{octets(after), p.Rows() + 1}, func(scan func(...any) error) error {
		list = append(list, store.Trial{})
		return scanTrial(&list[len(list)-1], scan)
	})
	list, next := store.Cut(p, list, func(t *store.Trial) string { return store.ListTrials.AfterText(t.ID) })
	return list, next, err
}

// Trial implements [store.Reader].
func (s *Store) Trial(ctx context.Context, trial string) (t store.Trial, err error) {
	err = s.one(ctx, "SELECT "+trialColumns+" WHERE trial=$1", []any{octets(trial)}, func(scan func(...any) error) error { return scanTrial(&t, scan) })
	return t, err
}

// Sites implements [store.Reader].
func (s *Store) Sites(ctx context.Context, trial string, p store.Page) ([]store.Site, string, error) {
	after, err := store.ListSites.Text(p.After)
	if err != nil {
		return nil, "", err
	}
	var list []store.Site
	err = s.each(ctx, "SELECT "+siteColumns+" WHERE trial=$1 AND site>$2 ORDER BY site LIMIT $3", []any{octets(trial), octets(after), p.Rows() + 1}, func(scan func(...any) error) error {
		list = append(list, store.Site{TrialID: trial})
		return scanSite(&list[len(list)-1], scan)
	})
	list, next := store.Cut(p, list, func(s *store.Site) string { return store.ListSites.AfterText(s.ID) })
	return list, next, err
}

// trialIs is a condition on a trial's key. A join would hide from the planner
// that there is one key, and with it that rows come sorted out of an index.
const trialIs = "tk=(SELECT tk FROM tidegate_store.trial_key WHERE trial=$1)"

// Participants implements [store.Reader].
func (s *Store) Participants(ctx context.Context, trial string, sites []string, p store.Page) ([]store.Enrollment, string, error) {
	after, err := store.ListPeople.Text(p.After)
	if err != nil {
		return nil, "", err
	}
	query, args := "SELECT "+enrollmentColumns+" FROM tidegate_store.subject s WHERE s."+trialIs+" AND s.patient>$2 AND s.status IS NOT NULL", []any{octets(trial), octets(after), p.Rows() + 1}
	if sites != nil {
		query, args = query+" AND s.site=ANY($4)", append(args, raws(sites))
	}
	var list []store.Enrollment
	err = s.each(ctx, query+" ORDER BY s.patient LIMIT $3", args, func(scan func(...any) error) error {
		list = append(list, store.Enrollment{TrialID: trial})
		_, err := scanEnrollment(&list[len(list)-1], scan)
		return err
	})
	list, next := store.Cut(p, list, func(e *store.Enrollment) string { return store.ListPeople.AfterText(e.PatientID) })
	return list, next, err
}

// Participant implements [store.Reader].
func (s *Store) Participant(ctx context.Context, trial, patient string) (store.Enrollment, error) {
	e := store.Enrollment{TrialID: trial}
	err := s.one(ctx, "SELECT "+enrollmentColumns+" FROM tidegate_store.subject s WHERE s."+trialIs+" AND s.patient=$2 AND s.status IS NOT NULL",
		[]any{octets(trial), octets(patient)}, func(scan func(...any) error) error {
			_, err := scanEnrollment(&e, scan)
			return err
		})
	return e, err
}

// Staff implements [store.Reader].
func (s *Store) Staff(ctx context.Context, id string) (store.Staff, error) {
	var list []store.Staff
	err := s.each(ctx, staffSQL, []any{octets(id)}, func(scan func(...any) error) (err error) {
		list, err = scanStaff(list, scan)
		return err
	})
	switch {
	case err != nil:
		return store.Staff{}, err
	case len(list) == 0:
		return store.Staff{}, store.ErrNotFound
	}
	return list[0], nil
}

// StaffList implements [store.Reader].
func (s *Store) StaffList(ctx context.Context, p store.Page) ([]store.Staff, string, error) {
	after, err := store.ListStaff.Text(p.After)
	if err != nil {
		return nil, "", err
	}
	var list []store.Staff
	err = s.each(ctx, `SELECT s.staff, s.name, s.removed, s.version, g.role, g.trial, g.site
		FROM (SELECT staff, name, removed, version FROM tidegate_store.staff WHERE staff>$1 ORDER BY staff LIMIT $2) s
		LEFT JOIN tidegate_store.staff_grant g ON g.staff=s.staff ORDER BY s.staff, g.role, g.trial, g.site`,
		[]any{octets(after), p.Rows() + 1}, func(scan func(...any) error) (err error) {
			list, err = scanStaff(list, scan)
			return err
		})
	list, next := store.Cut(p, list, func(m *store.Staff) string { return store.ListStaff.AfterText(m.ID) })
	return list, next, err
}

// Books implements [store.Reader]. A trial without reports has empty books.
func (s *Store) Books(ctx context.Context, trial string) (store.Books, error) {
	b := store.Books{TrialID: trial}
	err := s.one(ctx, "SELECT "+booksColumns+" WHERE trial=$1", []any{octets(trial)}, func(scan func(...any) error) error { return scanBooks(&b, scan) })
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return b, err
}

// TrialBooks implements [store.Store].
func (s *Store) TrialBooks(ctx context.Context) (list []store.Books, err error) {
	err = s.each(ctx, "SELECT "+booksColumns+" ORDER BY trial", nil, func(scan func(...any) error) error {
		list = append(list, store.Books{})
		return scanBooks(&list[len(list)-1], scan)
	})
	return list, err
}

// Outcome implements [store.Reader].
func (s *Store) Outcome(ctx context.Context, command epro.UUID) (store.Outcome, error) {
	var f store.FactRow
	err := s.one(ctx, "SELECT "+factColumns+" FROM tidegate_store.fact f WHERE f.id=$1 ORDER BY f.row LIMIT 1", []any{uuid(command)},
		func(scan func(...any) error) error { return scanFact(&f, scan) })
	if err != nil {
		return store.Outcome{}, err
	}
	return f.CommandOutcome(), nil
}

// Keys implements [store.Reader].
func (s *Store) Keys(ctx context.Context) (list []store.KeyFact, err error) {
	err = s.each(ctx, "SELECT "+keyColumns, nil, func(scan func(...any) error) error {
		list = append(list, store.KeyFact{})
		return scanKey(&list[len(list)-1], scan)
	})
	return list, err
}
