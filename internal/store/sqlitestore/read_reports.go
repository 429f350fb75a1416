package sqlitestore

import (
	"context"
	"slices"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// streamPage is how many rows EachReport reads in one transaction.
const streamPage = 250

// reportsAfter reads up to n reports of a trial after a row.
func (s *Store) reportsAfter(ctx context.Context, trial string, f store.ReportFilter, after int64, n int, into []store.Report) ([]store.Report, error) {
	where := " WHERE k.trial=? AND r.row>?"
	args := []any{trial, after}
	if f.PatientID != "" {
		where += " AND s.patient=?"
		args = append(args, f.PatientID)
	}
	if f.Disposition != "" {
		code, err := store.DispositionCode(f.Disposition)
		if err != nil {
			return into, nil // duplicates are counted, not listed
		}
		where += " AND r.disposition=?"
		args = append(args, code)
		if code != store.CodeRecorded {
			where += " AND r.disposition<>1" // says to SQLite that the small index will do
		}
	}
	if f.Unresolved {
		where += " AND r.disposition<>1 AND r.resolution=0"
	}
	sites, args := inSites("r.site", f.Sites, args)
	err := each(ctx, s.reads, "SELECT "+reportColumns+reportFrom+where+sites+" ORDER BY r.row LIMIT ?", append(args, n), func(scan func(...any) error) error {
		into = append(into, store.Report{})
		return scanReport(&into[len(into)-1], nil, scan)
	})
	return into, err
}

// Reports implements [store.Reader].
func (s *Store) Reports(ctx context.Context, trial string, f store.ReportFilter, p store.Page) ([]store.Report, string, error) {
	after, err := store.ListReports.Row(p.After, 0)
	if err != nil {
		return nil, "", err
	}
	list, err := s.reportsAfter(ctx, trial, f, after, p.Rows()+1, nil)
	list, next := store.Cut(p, list, func(r *store.Report) string { return store.ListReports.AfterRow(r.Ref) })
	return list, next, err
}

// EachReport implements [store.Reader]. Of the reports that are projected
// meanwhile it may show the first ones, at the end.
func (s *Store) EachReport(ctx context.Context, trial string, f store.ReportFilter, fn func(*store.Report) error) error {
	page := make([]store.Report, 0, streamPage)
	for after := int64(0); ; {
		var err error
		if page, err = s.reportsAfter(ctx, trial, f, after, streamPage, page[:0]); err != nil {
			return err
		}
		for i := range page {
			if err := fn(&page[i]); err != nil {
				return err
			}
		}
		if len(page) < streamPage {
			return nil
		}
		after = store.RowKey(page[len(page)-1].Ref)
	}
}

// OwnReports implements [store.Reader].
func (s *Store) OwnReports(ctx context.Context, trial, patient string, p store.Page) ([]store.Report, string, error) {
	before, err := store.ListOwn.Row(p.After, 1<<63-1)
	if err != nil {
		return nil, "", err
	}
	var list []store.Report
	// The inner query sorts keys alone, out of the index: a participant has few.
	err = each(ctx, s.reads, "SELECT "+reportColumns+reportFrom+` WHERE r.row IN (SELECT row FROM report WHERE sk=(SELECT sk FROM subject WHERE tk=
		(SELECT tk FROM trial_key WHERE trial=?) AND patient=?) AND row<? ORDER BY row DESC LIMIT ?) ORDER BY r.row DESC`,
		[]any{trial, patient, before, p.Rows() + 1}, func(scan func(...any) error) error {
			list = append(list, store.Report{})
			return scanReport(&list[len(list)-1], nil, scan)
		})
	list, next := store.Cut(p, list, func(r *store.Report) string { return store.ListOwn.AfterRow(r.Ref) })
	return list, next, err
}

// ReportVersions implements [store.Reader].
func (s *Store) ReportVersions(ctx context.Context, trial, patient string, id epro.UUID) ([]store.Report, error) {
	var list []store.Report
	err := each(ctx, s.reads, "SELECT "+reportColumns+reportFrom+` WHERE r.sk=(SELECT sk FROM subject WHERE tk=
		(SELECT tk FROM trial_key WHERE trial=?) AND patient=?) AND r.id=? ORDER BY r.version`, []any{trial, patient, id[:]}, func(scan func(...any) error) error {
		list = append(list, store.Report{})
		return scanReport(&list[len(list)-1], nil, scan)
	})
	if err == nil && len(list) == 0 {
		return nil, store.ErrNotFound
	}
	return list, err
}

// Audit implements [store.Reader]: a merge of the three tables that hold
// facts, so that a report has no second row. Trial "" lists the facts about no
// single trial.
func (s *Store) Audit(ctx context.Context, trial string, p store.Page) ([]store.AuditEntry, string, error) {
	after, err := store.ListAudit.Row(p.After, 0)
	if err != nil {
		return nil, "", err
	}
	n := p.Rows() + 1
	var list []store.AuditEntry
	err = s.snapshot(ctx, func(q querier) error {
		if err := each(ctx, q, "SELECT "+factColumns+" FROM fact WHERE trial=? AND row>? ORDER BY row LIMIT ?", []any{trial, after, n}, func(scan func(...any) error) error {
			var f store.FactRow
			err := scanFact(&f, scan)
			list = append(list, f.Audit())
			return err
		}); err != nil {
			return err
		}
		if err := each(ctx, q, "SELECT "+reportColumns+reportFrom+" WHERE k.trial=? AND r.row>? ORDER BY r.row LIMIT ?", []any{trial, after, n}, func(scan func(...any) error) error {
			var r store.Report
			err := scanReport(&r, nil, scan)
			list = append(list, r.Audit())
			return err
		}); err != nil {
			return err
		}
		return each(ctx, q, "SELECT "+duplicateColumns+duplicateFrom+" WHERE k.trial=? AND d.row>? ORDER BY d.row LIMIT ?", []any{trial, after, n}, func(scan func(...any) error) error {
			var d store.Duplicate
			err := scanDuplicate(&d, scan)
			list = append(list, d.Audit())
			return err
		})
	})
	slices.SortFunc(list, func(a, b store.AuditEntry) int { return int(store.RowKey(a.Ref) - store.RowKey(b.Ref)) })
	list, next := store.Cut(p, list, func(a *store.AuditEntry) string { return store.ListAudit.AfterRow(a.Ref) })
	return list, next, err
}
