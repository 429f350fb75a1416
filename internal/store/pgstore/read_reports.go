package pgstore

import (
	"context"
	"slices"
	"strconv"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// streamPage is how many rows EachReport reads at a time.
const streamPage = 1000

// reportsAfter reads up to n reports of a trial after a row.
func (s *Store) reportsAfter(ctx context.Context, trial string, f store.ReportFilter, after int64, n int, into []store.Report) ([]store.Report, error) {
	where := " WHERE r." + trialIs + " AND r.row+0>$2"
	args := []any{octets(trial), after, n}
	add := func(condition string, v any) {
		args = append(args, v)
		where += condition + strconv.Itoa(len(args)) + ")"
	}
	if f.PatientID != "" {
		add(" AND r.sk=(SELECT sk FROM tidegate_store.subject WHERE "+trialIs+" AND patient=$", octets(f.PatientID))
	}
	if f.Disposition != "" {
		code, err := store.DispositionCode(f.Disposition)
		if err != nil {
			return into, nil // duplicates are counted, not listed
		}
		// As a number in the text the planner sees that the small index will do.
		where += " AND r.disposition=" + strconv.FormatInt(code, 10)
	}
	if f.Unresolved {
		where += " AND r.disposition<>1 AND r.resolution=0"
	}
	if f.Sites != nil {
		add(" AND r.site=ANY($", raws(f.Sites))
	}
	err := s.each(ctx, "SELECT "+reportColumns+reportFrom+where+" ORDER BY r.row+0 LIMIT $3", args, func(scan func(...any) error) error {
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

const subjectIs = "r.sk=(SELECT sk FROM tidegate_store.subject WHERE " + trialIs + " AND patient=$2)"

// OwnReports implements [store.Reader].
func (s *Store) OwnReports(ctx context.Context, trial, patient string, p store.Page) ([]store.Report, string, error) {
	before, err := store.ListOwn.Row(p.After, 1<<63-1)
	if err != nil {
		return nil, "", err
	}
	var list []store.Report
	err = s.each(ctx, "SELECT "+reportColumns+reportFrom+" WHERE "+subjectIs+" AND r.row+0<$3 ORDER BY r.row+0 DESC LIMIT $4",
		[]any{octets(trial), octets(patient), before, p.Rows() + 1}, func(scan func(...any) error) error {
			list = append(list, store.Report{})
			return scanReport(&list[len(list)-1], nil, scan)
		})
	list, next := store.Cut(p, list, func(r *store.Report) string { return store.ListOwn.AfterRow(r.Ref) })
	return list, next, err
}

// ReportVersions implements [store.Reader].
func (s *Store) ReportVersions(ctx context.Context, trial, patient string, id epro.UUID) ([]store.Report, error) {
	var list []store.Report
	err := s.each(ctx, "SELECT "+reportColumns+reportFrom+" WHERE "+subjectIs+" AND r.id=$3 ORDER BY r.version", []any{octets(trial), octets(patient), uuid(id)},
		func(scan func(...any) error) error {
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
	args := []any{octets(trial), after, p.Rows() + 1}
	var list []store.AuditEntry
	err = s.snapshot(ctx, "", func(q querier) error {
		if err := each(ctx, q, s.sql("SELECT "+factColumns+" FROM tidegate_store.fact f WHERE f.trial=$1 AND f.row+0>$2 ORDER BY f.row+0 LIMIT $3"), args, func(scan func(...any) error) error {
			var f store.FactRow
			err := scanFact(&f, scan)
			list = append(list, f.Audit())
			return err
		}); err != nil {
			return err
		}
		if err := each(ctx, q, s.sql("SELECT "+reportColumns+reportFrom+" WHERE r."+trialIs+" AND r.row+0>$2 ORDER BY r.row+0 LIMIT $3"), args, func(scan func(...any) error) error {
			var r store.Report
			err := scanReport(&r, nil, scan)
			list = append(list, r.Audit())
			return err
		}); err != nil {
			return err
		}
		return each(ctx, q, s.sql("SELECT "+duplicateColumns+duplicateFrom+" WHERE d."+trialIs+" AND d.row+0>$2 ORDER BY d.row+0 LIMIT $3"), args, func(scan func(...any) error) error {
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
