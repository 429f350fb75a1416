package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// many is how many rows the lists are tried with: more than two full pages.
const many = 2500

// few is how many rows small pages are tried with.
const few = 23

// limits are page sizes at every edge, for lists of many rows: half, the bound
// and around it, out of bounds.
var limits = []int{500, 999, 1000, 1001, many + 1}

// smallLimits are page sizes at every edge, for lists of few rows: out of
// bounds, one, odd, all but one, all, more than all.
var smallLimits = []int{-1, 0, 1, 2, 7, few - 1, few, few + 1}

// walk reads a whole list page by page and checks each page's form.
func walk[T any](t *testing.T, limit int, page func(store.Page) ([]T, string, error)) []T {
	t.Helper()
	var all []T
	size := min(max(limit, 1), 1000)
	for after := ""; ; {
		list, next, err := page(store.Page{Limit: limit, After: after})
		if err != nil {
			t.Fatalf("limit %d after %d rows: %v", limit, len(all), err)
		}
		all = append(all, list...)
		if next == "" {
			return all
		}
		if len(list) != size {
			t.Fatalf("limit %d: a page of %d rows, but another one follows", limit, len(list))
		}
		after = next
	}
}

func name(prefix string, n int) string { return fmt.Sprintf("%s-%06d", prefix, n) }

func testNameLists(t *testing.T, s store.Store) {
	nameLists(t, s, few, smallLimits)
	nameLists(t, s, many, limits)
}

// nameLists adds names up to n and walks every list of names.
func nameLists(t *testing.T, s store.Store, many int, limits []int) {
	t.Helper()
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		for i := range many {
			n := (i*7919 + 13) % many // not in the order of the key
			if err := errors.Join(
				tx.PutTrial(store.Trial{ID: name("T", n), Name: "x", Status: epro.TrialActive, CreatedAt: epoch}),
				tx.PutSite(store.Site{TrialID: "T", ID: name("S", n), Name: "x", CreatedAt: epoch}),
				tx.PutStaff(store.Staff{ID: name("F", n), Name: "x", Grants: []store.Grant{{Role: "admin"}}}),
				second(enroll(tx, "T", name("P", n), name("S", n%3)))); err != nil {
				return err
			}
		}
		// Neighbours that do not belong to the lists.
		return errors.Join(tx.PutSite(store.Site{TrialID: "U", ID: "S", Name: "x", CreatedAt: epoch}), second(enroll(tx, "U", "P", "S")), second(tx.Subject("T", "P-stranger")))
	})
	ctx := t.Context()
	for _, limit := range limits {
		check := func(prefix string, got []string, want int) {
			t.Helper()
			if len(got) != want || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != want {
				t.Errorf("limit %d: %d of %s in %d rows", limit, want, prefix, len(got))
			}
		}
		var got []string
		for _, v := range walk(t, limit, func(p store.Page) ([]store.Trial, string, error) { return s.Trials(ctx, p) }) {
			got = append(got, v.ID)
		}
		check("trials", got, many)
		got = nil
		for _, v := range walk(t, limit, func(p store.Page) ([]store.Site, string, error) { return s.Sites(ctx, "T", p) }) {
			got = append(got, v.ID)
		}
		check("sites", got, many)
		got = nil
		for _, v := range walk(t, limit, func(p store.Page) ([]store.Staff, string, error) { return s.StaffList(ctx, p) }) {
			got = append(got, v.ID)
			if len(v.Grants) != 1 {
				t.Fatalf("grants %v", v.Grants)
			}
		}
		check("staff", got, many)
		got = nil
		for _, v := range walk(t, limit, func(p store.Page) ([]store.Enrollment, string, error) { return s.Participants(ctx, "T", nil, p) }) {
			got = append(got, v.PatientID)
		}
		check("participants", got, many)
		got = nil
		for _, v := range walk(t, limit, func(p store.Page) ([]store.Enrollment, string, error) {
			return s.Participants(ctx, "T", []string{name("S", 0), name("S", 2)}, p)
		}) {
			got = append(got, v.PatientID)
		}
		check("participants of two sites", got, many-(many+1)/3)
	}
	if list, next, err := s.Participants(ctx, "T", []string{}, store.Page{Limit: 10}); err != nil || len(list) != 0 || next != "" {
		t.Errorf("participants of no site: %v, %q, %v", list, next, err)
	}
}

// fill adds many reports of trial T by five participants, with others between.
func fill(t *testing.T, s store.Store) {
	t.Helper()
	fillTo(t, s, many)
}

func fillTo(t *testing.T, s store.Store, many int) {
	t.Helper()
	var own, others [5]store.Subject
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		var errs [10]error
		for i := range own {
			own[i], errs[i] = enroll(tx, "T", name("P", i), name("S", i))
			others[i], errs[5+i] = enroll(tx, "U", name("P", i), "S")
		}
		return errors.Join(errs[:]...)
	})
	for n := 0; n < many; {
		apply(t, s, func(tx store.Tx, at journal.Position) error {
			for i := uint32(0); i < 400 && n < many; i++ {
				p := own[n%5]
				r := newReport(p, store.Ref{Position: at, Index: 2 * i}, n)
				switch n % 50 {
				case 7:
					r.Disposition = epro.Conflict
				case 8, 9:
					r.Disposition, r.Reasons = epro.Quarantined, []epro.QuarantineReason{epro.ReasonClockAhead}
				}
				if err := errors.Join(second(tx.AddReport(r)), second(tx.AddReport(newReport(others[n%5], store.Ref{Position: at, Index: 2*i + 1}, n)))); err != nil {
					return err
				}
				if n%50 == 9 {
					if err := tx.Resolve(store.Resolve{Report: r.Ref, Count: 1, Is: epro.ResolutionAccept, Reason: "x", By: "anna", At: epoch}); err != nil {
						return err
					}
				}
				n++
			}
			return nil
		})
	}
}

func testReportLists(t *testing.T, s store.Store) {
	fillTo(t, s, 5*few)
	reportLists(t, s, 5*few, []int{-1, 0, 1, 7, few, 5*few - 1, 5 * few, 5*few + 1})
}

func testLongReportLists(t *testing.T, s store.Store) {
	fill(t, s)
	reportLists(t, s, many, limits)
}

func reportLists(t *testing.T, s store.Store, many int, limits []int) {
	t.Helper()
	ctx := t.Context()
	ascending := func(a, b store.Report) int { return compareRefs(a.Ref, b.Ref) }
	for _, limit := range limits {
		list := walk(t, limit, func(p store.Page) ([]store.Report, string, error) {
			return s.Reports(ctx, "T", store.ReportFilter{}, p)
		})
		if len(list) != many || !slices.IsSortedFunc(list, ascending) {
			t.Errorf("limit %d: %d reports", limit, len(list))
		}
		for i := range list {
			if list[i].ReportID != id(i) || list[i].TrialID != "T" {
				t.Fatalf("limit %d: row %d is %+v", limit, i, list[i])
			}
		}
		own := walk(t, limit, func(p store.Page) ([]store.Report, string, error) { return s.OwnReports(ctx, "T", name("P", 3), p) })
		slices.Reverse(own)
		if len(own) != many/5 || !slices.IsSortedFunc(own, ascending) {
			t.Errorf("limit %d: %d own reports, newest first", limit, len(own))
		}
		for _, r := range own {
			if r.PatientID != name("P", 3) || r.TrialID != "T" {
				t.Fatalf("a foreign report among own ones: %+v", r)
			}
		}
	}
}

func compareRefs(a, b store.Ref) int {
	if a.Position != b.Position {
		return int(int64(a.Position) - int64(b.Position))
	}
	return int(a.Index) - int(b.Index)
}

func testFilters(t *testing.T, s store.Store) {
	fill(t, s)
	tests := []struct {
		name   string
		filter store.ReportFilter
		want   int
	}{
		{"none", store.ReportFilter{}, many},
		{"one site", store.ReportFilter{Sites: []string{name("S", 1)}}, many / 5},
		{"two sites", store.ReportFilter{Sites: []string{name("S", 1), name("S", 4)}}, 2 * many / 5},
		{"no site", store.ReportFilter{Sites: []string{}}, 0},
		{"patient", store.ReportFilter{PatientID: name("P", 2)}, many / 5},
		{"patient of another site", store.ReportFilter{PatientID: name("P", 2), Sites: []string{name("S", 1)}}, 0},
		{"recorded", store.ReportFilter{Disposition: epro.Recorded}, many / 50 * 47},
		{"conflicts", store.ReportFilter{Disposition: epro.Conflict}, many / 50},
		{"quarantined", store.ReportFilter{Disposition: epro.Quarantined}, many / 50 * 2},
		{"duplicates are not listed", store.ReportFilter{Disposition: epro.Duplicate}, 0},
		{"unresolved", store.ReportFilter{Unresolved: true}, many / 50 * 2},
		{"unresolved quarantined", store.ReportFilter{Unresolved: true, Disposition: epro.Quarantined}, many / 50},
		{"unresolved recorded", store.ReportFilter{Unresolved: true, Disposition: epro.Recorded}, 0},
	}
	for _, test := range tests {
		paged := walk(t, 300, func(p store.Page) ([]store.Report, string, error) { return s.Reports(t.Context(), "T", test.filter, p) })
		n := 0
		err := s.EachReport(t.Context(), "T", test.filter, func(r *store.Report) error {
			if n < len(paged) && !sameReport(*r, paged[n]) {
				t.Errorf("%s: streamed row %d is another than the listed one", test.name, n)
			}
			n++
			return nil
		})
		if err != nil || len(paged) != test.want || n != test.want {
			t.Errorf("%s: %d listed, %d streamed, want %d (%v)", test.name, len(paged), n, test.want, err)
		}
	}
	enough := errors.New("enough")
	if err := s.EachReport(t.Context(), "T", store.ReportFilter{}, func(*store.Report) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the callback's error became %v", err)
	}
}

func testAudit(t *testing.T, s store.Store) {
	fill(t, s)
	for n := range 30 {
		apply(t, s, func(tx store.Tx, at journal.Position) error {
			p, err := tx.Subject("T", name("P", 1))
			return errors.Join(err, tx.AddFact(newFact(at, 0, "T", n)), tx.AddFact(newFact(at, 1, "", n)), tx.AddDuplicate(p.Key, &store.Duplicate{
				Ref: store.Ref{Position: at, Index: 2}, Of: store.Ref{Position: 2}, TrialID: "T", PatientID: name("P", 1), ReportID: id(1),
				OccurredAt: epoch, ReceivedAt: epoch, CommittedAt: epoch, Actor: epro.Actor{Type: epro.ActorParticipant, ID: name("P", 1)},
			}))
		})
	}
	for _, limit := range limits {
		list := walk(t, limit, func(p store.Page) ([]store.AuditEntry, string, error) { return s.Audit(t.Context(), "T", p) })
		outcomes := map[string]int{}
		for _, a := range list {
			outcomes[a.Outcome]++
		}
		if len(list) != many+60 || outcomes["duplicate"] != 30 || outcomes["applied"] != 30 || outcomes["recorded"] != many/50*47 ||
			!slices.IsSortedFunc(list, func(a, b store.AuditEntry) int { return compareRefs(a.Ref, b.Ref) }) {
			t.Errorf("limit %d: %d entries, %v", limit, len(list), outcomes)
		}
	}
	if list, _, err := s.Audit(t.Context(), "", store.Page{Limit: 1000}); err != nil || len(list) != 30 {
		t.Errorf("facts about no trial: %d, %v", len(list), err)
	}
}

// testStream applies frames while a stream is read: the writer must not wait
// for it, and the stream shows all that was there when it began, in order and
// each once; of what came since it may show the beginning.
func testStream(t *testing.T, s store.Store) {
	fill(t, s)
	n, added := 0, 0
	err := s.EachReport(t.Context(), "T", store.ReportFilter{}, func(r *store.Report) error {
		if r.ReportID != id(n) {
			t.Fatalf("row %d is %v", n, r.ReportID)
		}
		n++
		if n%100 == 0 && added < 50 {
			added++
			apply(t, s, func(tx store.Tx, at journal.Position) error {
				p, err := tx.Subject("T", name("P", 1))
				return errors.Join(err, second(tx.AddReport(newReport(p, store.Ref{Position: at}, many+added-1))))
			})
		}
		return nil
	})
	if err != nil || added == 0 || n < many || n > many+added {
		t.Errorf("%d rows of %d and %d, %v", n, many, added, err)
	}
}

func testForeignCursors(t *testing.T, s store.Store) {
	fill(t, s)
	ctx := t.Context()
	_, reports, err := s.Reports(ctx, "T", store.ReportFilter{}, store.Page{Limit: 1})
	if err != nil || reports == "" {
		t.Fatal(reports, err)
	}
	_, participants, err := s.Participants(ctx, "T", nil, store.Page{Limit: 1})
	if err != nil || participants == "" {
		t.Fatal(participants, err)
	}
	for _, cursor := range []string{participants, reports + "x", reports[1:], "x", "!", "AA", strings.Repeat("A", 500), reports + "\n"} {
		p := store.Page{Limit: 1, After: cursor}
		for list, err := range map[string]error{
			"reports": third(s.Reports(ctx, "T", store.ReportFilter{}, p)), "own": third(s.OwnReports(ctx, "T", "P", p)), "audit": third(s.Audit(ctx, "T", p)),
			"trials": third(s.Trials(ctx, p)), "sites": third(s.Sites(ctx, "T", p)), "staff": third(s.StaffList(ctx, p)),
		} {
			if !errors.Is(err, store.ErrCursor) {
				t.Errorf("%s takes the cursor %q: %v", list, cursor, err)
			}
		}
	}
}

func third[A, B any](_ A, _ B, err error) error { return err }

// testDump fills two stores with the same in another order, so that their
// surrogate ids differ, and compares.
func testDump(t *testing.T, a, b store.Store) {
	for i, s := range []store.Store{a, b} {
		people := []string{"P-1", "P-2", "P-3"}
		if i == 1 {
			slices.Reverse(people)
		}
		apply(t, s, func(tx store.Tx, at journal.Position) error {
			subjects := map[string]store.Subject{}
			for _, p := range people {
				var err error
				if subjects[p], err = enroll(tx, "T", p, "S"); err != nil {
					return err
				}
			}
			for n, p := range []string{"P-2", "P-1", "P-3"} {
				if _, err := tx.AddReport(newReport(subjects[p], store.Ref{Position: at, Index: uint32(n)}, n)); err != nil {
					return err
				}
			}
			if i == 1 { // a subject without enrolment or report is nothing but a handle
				if _, err := tx.Subject("T", "P-9"); err != nil {
					return err
				}
			}
			return errors.Join(tx.PutTrial(store.Trial{ID: "T", Name: "x", Status: epro.TrialActive, Version: 1, CreatedAt: epoch, Instruments: []string{"a@1", "b@2"}}),
				tx.PutStaff(store.Staff{ID: "anna", Name: "Anna", Grants: []store.Grant{{Role: "admin"}}}), tx.AddFact(newFact(at, 9, "T", 1)),
				tx.AddBooks(store.Books{TrialID: "T", Recorded: 3}), tx.AddFrame(store.FrameRow{Position: at, Time: 5}), tx.AddTreeHashes(0, []epro.Digest{{1}}))
		})
	}
	dump := func(s store.Store) string {
		var w bytes.Buffer
		if err := s.Dump(t.Context(), &w); err != nil {
			t.Fatal(err)
		}
		return w.String()
	}
	first, second := dump(a), dump(b)
	if first != second {
		t.Errorf("dumps differ:\n%s\n%s", first, second)
	}
	for _, want := range []string{
		store.DumpFormat + "\n",
		`["cursor",0,2,1,"","",1]`, `["trial","T","x","Active",0,1,"2026-03-01T08:00:00.123456789Z","a@1","b@2"]`,
		`["grant","anna","admin","",""]`, `["books","T",3,0,0,0]`, `["tree",0,0,"01000000`,
		`["report",2,0,"T","P-2","S","00000000-0000-0000-0000-000000000000",1,"recorded",[],"qol@1",0,"comment 0","2026-03-01T09:00:00.123456789+01:00",`,
	} {
		if !strings.Contains(first, want) {
			t.Errorf("the dump lacks %s:\n%s", want, first)
		}
	}
	h1, err1 := a.Hash(t.Context())
	h2, err2 := b.Hash(t.Context())
	if err1 != nil || err2 != nil || h1 != h2 || h1.IsZero() {
		t.Errorf("hashes %v %v, %v %v", h1, h2, err1, err2)
	}
	apply(t, b, func(store.Tx, journal.Position) error { return nil })
	if h3, err := b.Hash(t.Context()); err != nil || h3 == h1 {
		t.Errorf("the hash does not tell a moved cursor (%v)", err)
	}
}
