package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// testOwnChanges reads in the transaction that wrote, before anything of it is
// in the tables, and again from the tables.
func testOwnChanges(t *testing.T, s store.Store) {
	trial := store.Trial{ID: "T", Name: "a", Status: epro.TrialPlanned, Version: 1, CreatedAt: epoch, Instruments: []string{"a@1"}}
	var person store.Subject
	var ref store.Ref
	apply(t, s, func(tx store.Tx, at journal.Position) error {
		wantTrial(t, tx, trial, tx.PutTrial(trial))
		trial.Name, trial.Status, trial.Version, trial.Instruments = "b", epro.TrialActive, 2, []string{"a@1", "b@1"}
		wantTrial(t, tx, trial, tx.PutTrial(trial))
		site := store.Site{TrialID: "T", ID: "S", Name: "a\x00b", CreatedAt: epoch}
		if got, err := tx.Site("T", "S"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("site before: %+v, %v", got, err)
		}
		if err := tx.PutSite(site); err != nil {
			return err
		}
		if got, err := tx.Site("T", "S"); err != nil || got != site {
			t.Errorf("site %+v, %v", got, err)
		}
		staff := store.Staff{ID: "anna", Name: "Anna", Version: 3, Grants: []store.Grant{{Role: "admin"}, {Role: "monitor", TrialID: "T"}}}
		if err := tx.PutStaff(staff); err != nil {
			return err
		}
		if got, err := tx.Staff("anna"); err != nil || fmt.Sprint(got) != fmt.Sprint(staff) {
			t.Errorf("staff %+v, %v", got, err)
		}
		// Twice changed, once before and once after the tables may have it.
		var err error
		if person, err = enroll(tx, "T", "P", "S"); err != nil {
			return err
		}
		person.Enrollment.MinEpoch, person.Enrollment.Version = 7, 2
		wantSubject(t, tx, person, tx.PutEnrollment(person.Key, person.Enrollment))
		ref = store.Ref{Position: at, Index: 1}
		r := newReport(person, ref, 1)
		r.Disposition = epro.Conflict
		if _, err := tx.AddReport(r); err != nil {
			return err
		}
		if err := tx.Resolve(store.Resolve{Report: ref, Count: 1, Is: epro.ResolutionVoid, Reason: "why", By: "anna", At: epoch}); err != nil {
			return err
		}
		if got, err := tx.Report(person.Key, id(1), 1); err != nil || got.Resolution != epro.ResolutionVoid || got.ResolvedBy != "anna" || got.SiteID != "S" {
			t.Errorf("resolved report %+v, %v", got, err)
		}
		person.Enrollment.Status, person.Enrollment.Version, person.Enrollment.WithdrawnAt = epro.Withdrawn, 3, epoch.Add(time.Hour)
		wantSubject(t, tx, person, tx.PutEnrollment(person.Key, person.Enrollment))
		if err := tx.Erase(store.Erase{Report: ref, Instrument: "qol@1", Disposition: epro.Quarantined, Reasons: []epro.QuarantineReason{epro.ReasonMalformed}}); err != nil {
			return err
		}
		if got, err := tx.Report(person.Key, id(1), 1); err != nil || !got.Erased || got.Comments != nil || got.Disposition != epro.Quarantined {
			t.Errorf("erased report %+v, %v", got, err)
		}
		if list, err := tx.Contents(person.Key, id(1)); err != nil || len(list) != 1 || list[0].Ref != ref {
			t.Errorf("contents %+v, %v", list, err)
		}
		if added, err := tx.AddReport(r); err != nil || added {
			t.Errorf("the same version again: %v, %v", added, err)
		}
		return tx.AddFact(newFact(at, 2, "T", 1))
	})
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		wantTrial(t, tx, trial, nil)
		wantSubject(t, tx, person, nil)
		return nil
	})
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		// Changed under a handle of before, and then asked for.
		person.Enrollment.Version = 4
		wantSubject(t, tx, person, tx.PutEnrollment(person.Key, person.Enrollment))
		return nil
	})
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		wantSubject(t, tx, person, nil)
		return nil
	})
	from, _ := s.Cursor(t.Context(), 0)
	if err := s.Apply(t.Context(), 0, from, func(tx store.Tx) (store.Cursor, error) {
		to := from
		to.Frames++
		return to, tx.PutEnrollment(person.Key+1000, person.Enrollment)
	}); err == nil {
		t.Error("a participant who is not there was changed")
	}
	if c, err := s.Cursor(t.Context(), 0); err != nil || c != from {
		t.Errorf("something was kept: %+v, %v", c, err)
	}
}

func wantTrial(t *testing.T, tx store.Tx, want store.Trial, err error) {
	t.Helper()
	got, e := tx.Trial(want.ID)
	if err = errors.Join(err, e); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("trial %+v, want %+v (%v)", got, want, err)
	}
}

func wantSubject(t *testing.T, tx store.Tx, want store.Subject, err error) {
	t.Helper()
	got, e := tx.Subject(want.Enrollment.TrialID, want.Enrollment.PatientID)
	if err = errors.Join(err, e); err != nil || got != want {
		t.Errorf("subject %+v, want %+v (%v)", got, want, err)
	}
}

// testPrefetch asks for much at once, where a Tx can: no answer may change.
func testPrefetch(t *testing.T, s store.Store) {
	var known store.Subject
	apply(t, s, func(tx store.Tx, at journal.Position) error {
		var err error
		if known, err = enroll(tx, "T", "P-1", "S"); err != nil {
			return err
		}
		again := newReport(known, store.Ref{Position: at, Index: 1}, 1)
		again.Version, again.Meaning = 2, epro.Digest{9}
		repeat := newFact(at, 4, "T", 5)
		repeat.Applied, repeat.Repeats = false, &store.Ref{Position: at, Index: 3}
		return errors.Join(second(tx.AddReport(newReport(known, store.Ref{Position: at}, 1))), second(tx.AddReport(again)),
			second(enroll(tx, "T", "P-2", "S")), tx.AddFact(newFact(at, 3, "T", 5)), tx.AddFact(repeat))
	})
	keys := []store.Key{
		{TrialID: "T", PatientID: "P-1", ID: id(1), Report: true},
		{TrialID: "T", PatientID: "P-1", Subject: known.Key, ID: id(1), Report: true},
		{TrialID: "T", PatientID: "P-1", Subject: known.Key, ID: id(2), Report: true},
		{TrialID: "T", PatientID: "P-2", ID: id(1), Report: true},
		{TrialID: "U", PatientID: "P-1", ID: id(1), Report: true},
		{TrialID: "T", PatientID: "P-3", ID: id(5)},
		{TrialID: "T", PatientID: "P-3", ID: id(5)},
		{ID: id(6)},
		{TrialID: "V", ID: id(7)},
		{Report: true},
	}
	slices.Reverse(keys)
	apply(t, s, func(tx store.Tx, at journal.Position) error {
		if p, ok := tx.(store.Prefetcher); ok {
			if err := errors.Join(p.Prefetch(keys), p.Prefetch(keys), p.Prefetch(nil)); err != nil {
				return err
			}
		}
		wantSubject(t, tx, known, nil)
		list, err := tx.Contents(known.Key, id(1))
		if err != nil || len(list) != 2 || list[0].Version != 1 || list[1].Version != 2 || list[1].Meaning != (epro.Digest{9}) {
			t.Errorf("contents %+v, %v", list, err)
		}
		if added, err := tx.AddReport(newReport(known, store.Ref{Position: at}, 1)); err != nil || added {
			t.Errorf("a version that is taken: %v, %v", added, err)
		}
		if added, err := tx.AddReport(newReport(known, store.Ref{Position: at}, 2)); err != nil || !added {
			t.Errorf("a new report: %v, %v", added, err)
		}
		stranger, err := tx.Subject("U", "P-1")
		if err != nil || stranger.Known || stranger.Key == known.Key || stranger.Enrollment.TrialID != "U" {
			t.Errorf("a stranger is %+v, %v", stranger, err)
		}
		if added, err := tx.AddReport(newReport(stranger, store.Ref{Position: at, Index: 1}, 1)); err != nil || !added {
			t.Errorf("a stranger's report: %v, %v", added, err)
		}
		if f, err := tx.Command(id(5)); err != nil || f.Ref.Index != 3 || !f.Applied {
			t.Errorf("command %+v, %v", f, err)
		}
		if _, err := tx.Command(id(6)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a new command: %v", err)
		}
		return nil
	})
	if list, err := s.ReportVersions(t.Context(), "U", "P-1", id(1)); err != nil || len(list) != 1 {
		t.Errorf("a stranger's reports: %+v, %v", list, err)
	}
}
