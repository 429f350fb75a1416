package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

func sameReport(a, b store.Report) bool {
	deref := func(r *store.Report) string {
		s := fmt.Sprintf("%v %v %v", r.CompletedAt.Format(time.RFC3339Nano), r.ReceivedAt.UTC(), r.CommittedAt.UTC())
		if r.Score != nil {
			s += fmt.Sprint(" score ", *r.Score)
		}
		if r.Comments != nil {
			s += fmt.Sprintf(" comments %q", *r.Comments)
		}
		r.Score, r.Comments, r.CompletedAt, r.ReceivedAt, r.CommittedAt = nil, nil, time.Time{}, time.Time{}, time.Time{}
		return s + fmt.Sprintf("%+v", *r)
	}
	return deref(&a) == deref(&b)
}

func testReportRoundTrip(t *testing.T, s store.Store) {
	zero, empty := 0, ""
	var want []store.Report
	apply(t, s, func(tx store.Tx, at journal.Position) error {
		p, err := enroll(tx, "T", "P", "S")
		if err != nil {
			return err
		}
		edits := []func(*store.NewReport){
			func(*store.NewReport) {},
			func(r *store.NewReport) { r.Score, r.Comments = &zero, &empty },
			func(r *store.NewReport) { r.Score, r.Comments, r.Instrument, r.SiteID = nil, nil, "", "" },
			func(r *store.NewReport) {
				r.Disposition = epro.Quarantined
				r.Reasons = []epro.QuarantineReason{epro.ReasonMalformed, epro.ReasonTrialNotOpen, epro.ReasonNotEnrolled, epro.ReasonWithdrawn, epro.ReasonEpochRevoked, epro.ReasonForeignSite, epro.ReasonUnknownInstrument, epro.ReasonClockAhead}
			},
			func(r *store.NewReport) { r.Disposition, r.ClockApart, r.Erased = epro.Conflict, true, true },
			func(r *store.NewReport) {
				r.Actor = epro.Actor{Type: epro.ActorRelay, ID: "relay"}
				r.CompletedAt = time.Date(0, 1, 1, 0, 0, 0, 1, time.FixedZone("", -(23*60+59)*60))
				r.ReceivedAt = time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
			},
			func(r *store.NewReport) { r.Actor = epro.Actor{Type: epro.ActorParticipant, ID: "another"} },
			func(r *store.NewReport) {
				c := "line\nbreak \u0001 \U0001F30A \\ \" end"
				r.Comments = &c
			},
			func(r *store.NewReport) { // what JSON can write and a database's text perhaps not
				c := "before \u0000 after \\000 \\x00 \u00e9 e\u0301 \ufffd \uffff"
				r.Comments, r.Actor.Device = &c, "\u0000"
			},
		}
		for i, edit := range edits {
			r := newReport(p, store.Ref{Position: at, Index: uint32(i * 8000)}, i)
			edit(r)
			want = append(want, r.Report)
			if added, err := tx.AddReport(r); err != nil || !added {
				return fmt.Errorf("%d: %v, %w", i, added, err)
			}
			if got, err := tx.Report(p.Key, r.ReportID, 1); err != nil || !sameReport(got, r.Report) {
				t.Errorf("%d, in the transaction: %+v, %v", i, got, err)
			}
		}
		return nil
	})
	got, next, err := s.Reports(t.Context(), "T", store.ReportFilter{}, store.Page{Limit: 100})
	if err != nil || next != "" || len(got) != len(want) {
		t.Fatalf("%d reports, %q, %v", len(got), next, err)
	}
	for i := range got {
		if !sameReport(got[i], want[i]) {
			t.Errorf("%d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
}

func testVersions(t *testing.T, s store.Store) {
	apply(t, s, func(tx store.Tx, at journal.Position) error {
		p, err := enroll(tx, "T", "P", "S")
		if err != nil {
			return err
		}
		q, err := tx.Subject("T", "Q")
		if err != nil {
			return err
		}
		add := func(p store.Subject, index uint32, version int, want bool) {
			t.Helper()
			r := newReport(p, store.Ref{Position: at, Index: index}, 1)
			r.Version, r.Meaning = version, epro.Digest{byte(index)}
			if added, err := tx.AddReport(r); err != nil || added != want {
				t.Errorf("version %d: %v, %v", version, added, err)
			}
		}
		add(p, 0, 1, true)
		add(p, 1, 1, false)
		add(p, 2, 2, true)
		add(q, 3, 1, true)
		list, err := tx.Contents(p.Key, id(1))
		if err != nil || len(list) != 2 || list[0] != (store.Content{Ref: store.Ref{Position: at}, Version: 1, Meaning: epro.Digest{0}}) ||
			list[1] != (store.Content{Ref: store.Ref{Position: at, Index: 2}, Version: 2, Meaning: epro.Digest{2}}) {
			t.Errorf("contents %+v, %v", list, err)
		}
		if list, err := tx.Contents(p.Key, id(2)); err != nil || len(list) != 0 {
			t.Errorf("contents of another id %+v, %v", list, err)
		}
		return tx.AddDuplicate(p.Key, &store.Duplicate{
			Ref: store.Ref{Position: at, Index: 4}, Of: store.Ref{Position: at}, TrialID: "T", PatientID: "P", ReportID: id(1),
			OccurredAt: epoch, ReceivedAt: epoch, CommittedAt: epoch, Actor: epro.Actor{Type: epro.ActorParticipant, ID: "P"},
		})
	})
	list, err := s.ReportVersions(t.Context(), "T", "P", id(1))
	if err != nil || len(list) != 2 || list[0].Version != 1 || list[1].Version != 2 {
		t.Errorf("versions %+v, %v", list, err)
	}
	if _, err := s.ReportVersions(t.Context(), "T", "R", id(1)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("versions of a stranger: %v", err)
	}
}

func testResolveErase(t *testing.T, s store.Store) {
	ref := store.Ref{}
	apply(t, s, func(tx store.Tx, at journal.Position) error {
		p, err := enroll(tx, "T", "P", "S")
		ref = store.Ref{Position: at, Index: 7}
		r := newReport(p, ref, 1)
		r.Disposition = epro.Conflict
		return errors.Join(err, second(tx.AddReport(r)))
	})
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		return errors.Join(
			tx.Resolve(store.Resolve{Report: ref, Count: 1, Is: epro.ResolutionVoid, Reason: "why", By: "anna", At: epoch}),
			tx.Resolve(store.Resolve{Report: ref, Count: 2, Is: epro.ResolutionAccept, Reason: "why not", By: "ben", At: epoch.Add(1)}))
	})
	one := func() store.Report {
		t.Helper()
		list, err := s.ReportVersions(t.Context(), "T", "P", id(1))
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0]
	}
	r := one()
	if r.Resolution != epro.ResolutionAccept || r.ResolutionCount != 2 || r.ResolutionReason != "why not" || r.ResolvedBy != "ben" || !r.ResolvedAt.Equal(epoch.Add(1)) || r.Disposition != epro.Conflict {
		t.Errorf("resolved report %+v", r)
	}
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		return tx.Erase(store.Erase{Report: ref, Instrument: "x@2", Disposition: epro.Quarantined, Reasons: []epro.QuarantineReason{epro.ReasonWithdrawn}})
	})
	r = one()
	if !r.Erased || !r.ErasureTold || r.Score != nil || r.Comments != nil || r.Instrument != "x@2" || r.Disposition != epro.Quarantined || len(r.Reasons) != 1 || r.Resolution != epro.ResolutionAccept {
		t.Errorf("erased report %+v", r)
	}
	from, _ := s.Cursor(t.Context(), 0)
	if err := s.Apply(t.Context(), 0, from, func(tx store.Tx) (store.Cursor, error) {
		return from, tx.Resolve(store.Resolve{Report: store.Ref{Position: 999}, Is: epro.ResolutionVoid})
	}); err == nil {
		t.Error("a report that is not there was resolved")
	}
}

func testBooks(t *testing.T, s store.Store) {
	for range 2 {
		apply(t, s, func(tx store.Tx, _ journal.Position) error {
			return errors.Join(tx.AddBooks(store.Books{TrialID: "T", Recorded: 1, Duplicates: 2}), tx.AddBooks(store.Books{TrialID: "T", Recorded: 1, Conflicts: 3}),
				tx.AddBooks(store.Books{TrialID: "A", Quarantined: 4}))
		})
	}
	// A difference may go both ways.
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		return tx.AddBooks(store.Books{TrialID: "A", Quarantined: ^uint64(0), Recorded: 1})
	})
	list, err := s.TrialBooks(t.Context())
	want := []store.Books{{TrialID: "A", Quarantined: 7, Recorded: 1}, {TrialID: "T", Recorded: 4, Duplicates: 4, Conflicts: 6}}
	if err != nil || len(list) != 2 || list[0] != want[0] || list[1] != want[1] {
		t.Errorf("books %+v, %v", list, err)
	}
	if b, err := s.Books(t.Context(), "T"); err != nil || b != want[1] {
		t.Errorf("books of T %+v, %v", b, err)
	}
}

func newFact(at journal.Position, index uint32, trial string, n int) *store.FactRow {
	return &store.FactRow{Meaning: epro.Digest{byte(n)}, Applied: true, Version: uint64(n), AuditEntry: store.AuditEntry{
		Ref: store.Ref{Position: at, Index: index}, Kind: epro.KindSiteCreated, FactID: id(n), TrialID: trial, Subject: "P",
		Actor: epro.Actor{Type: epro.ActorStaff, ID: "anna"}, OccurredAt: epoch.In(time.FixedZone("", -7200)), ReceivedAt: epoch, CommittedAt: epoch,
		Summary: "site created", Reason: "why",
	}}
}

func testCommands(t *testing.T, s store.Store) {
	apply(t, s, func(tx store.Tx, at journal.Position) error {
		if _, err := tx.Command(id(1)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("command before: %v", err)
		}
		first, repeat, rejected := newFact(at, 0, "T", 1), newFact(at, 1, "T", 1), newFact(at, 2, "", 2)
		repeat.Repeats, repeat.Applied, repeat.Meaning = &first.Ref, false, epro.Digest{9}
		rejected.Applied, rejected.Code, rejected.Rejection = false, "exists", "It exists."
		err := errors.Join(tx.AddFact(first), tx.AddFact(repeat), tx.AddFact(rejected), tx.AddKey(store.KeyFact{Kind: epro.KindKeyAdded, Body: []byte("{}"), Ref: first.Ref}))
		got, e := tx.Command(id(1))
		if e != nil || got.Ref != first.Ref || got.Meaning != first.Meaning || !got.Applied || got.Kind != first.Kind {
			t.Errorf("command %+v, %v", got, e)
		}
		return err
	})
	o, err := s.Outcome(t.Context(), id(1))
	if err != nil || !o.Applied || o.Version != 1 || o.TrialID != "T" || o.Ref.Index != 0 || o.Meaning != (epro.Digest{1}) || o.Kind != epro.KindSiteCreated || o.CommandID != id(1) {
		t.Errorf("outcome %+v, %v", o, err)
	}
	if o, err = s.Outcome(t.Context(), id(2)); err != nil || o.Applied || o.Code != "exists" || o.Reason != "It exists." {
		t.Errorf("outcome %+v, %v", o, err)
	}
	audit, _, err := s.Audit(t.Context(), "T", store.Page{Limit: 10})
	if err != nil || len(audit) != 2 || audit[0].Outcome != "applied" || audit[0].Reason != "why" || audit[1].Outcome == "applied" || !audit[0].OccurredAt.Equal(epoch) {
		t.Errorf("audit %+v, %v", audit, err)
	}
	keys, err := s.Keys(t.Context())
	if err != nil || len(keys) != 1 || string(keys[0].Body) != "{}" || keys[0].Kind != epro.KindKeyAdded {
		t.Errorf("keys %+v, %v", keys, err)
	}
}

func testFrames(t *testing.T, s store.Store) {
	run := journal.Run{1, 2}
	for n := range 3 {
		apply(t, s, func(tx store.Tx, at journal.Position) error {
			head, err := tx.Run(run)
			if n == 0 && !errors.Is(err, store.ErrNotFound) || n > 0 && (err != nil || head != (store.RunHead{N: uint64(n - 1), Hash: epro.Digest{byte(n)}, Time: int64(n - 1)})) {
				t.Errorf("head before frame %d: %+v, %v", n, head, err)
			}
			for want, hash := range map[bool]epro.Digest{n > 0: {1}, false: {99}} {
				if has, err := tx.HasHeader(hash); err != nil || has != want {
					t.Errorf("frame %d: header %v: %v, %v", n, hash, has, err)
				}
			}
			if _, err := tx.TreeHash(int64(2 * n)); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("tree before: %v", err)
			}
			return errors.Join(tx.AddFrame(store.FrameRow{Position: at, Hash: epro.Digest{byte(n + 1)}, Run: run, N: uint64(n), Time: int64(n)}),
				tx.AddTreeHashes(int64(2*n), []epro.Digest{{byte(2 * n)}, {byte(2*n + 1)}}))
		})
	}
	last, err := s.LastFrame(t.Context(), 0)
	if err != nil || last != (store.FrameRow{Position: 6, Hash: epro.Digest{3}, Run: run, N: 2, Time: 2}) {
		t.Errorf("last frame %+v, %v", last, err)
	}
	hashes, err := s.TreeHashes(t.Context(), 0, []int64{5, 0, 3})
	if err != nil || hashes[0] != (epro.Digest{5}) || hashes[1] != (epro.Digest{0}) || hashes[2] != (epro.Digest{3}) {
		t.Errorf("tree %v, %v", hashes, err)
	}
	if _, err := s.TreeHashes(t.Context(), 0, []int64{0, 6}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("beyond the tree: %v", err)
	}
}
