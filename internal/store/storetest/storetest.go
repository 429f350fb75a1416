// Package storetest is the conformance suite of [store.Store]: each adapter
// runs it against its real engine.
package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// Run runs the suite. open gives a fresh, empty store each time and closes it
// when the test ends.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"empty", testEmpty},
		{"fence", testFence},
		{"all or nothing", testAllOrNothing},
		{"entities", testEntities},
		{"report round trip", testReportRoundTrip},
		{"versions", testVersions},
		{"resolve and erase", testResolveErase},
		{"books", testBooks},
		{"commands", testCommands},
		{"frames and tree", testFrames},
		{"own changes", testOwnChanges},
		{"prefetch", testPrefetch},
		{"lists of names", testNameLists},
		{"list of reports", testReportLists},
		{"long list of reports", testLongReportLists},
		{"filters", testFilters},
		{"audit", testAudit},
		{"stream beside writes", testStream},
		{"foreign cursors", testForeignCursors},
		{"dump", func(t *testing.T, s store.Store) { testDump(t, s, open(t)) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

var epoch = time.Date(2026, 3, 1, 8, 0, 0, 123456789, time.UTC)

// apply moves the cursor one frame on and runs fn in that transaction.
func apply(t *testing.T, s store.Store, fn func(tx store.Tx, at journal.Position) error) {
	t.Helper()
	from, err := s.Cursor(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	to := from
	to.Position += 2
	to.Frames++
	if err := s.Apply(t.Context(), 0, from, func(tx store.Tx) (store.Cursor, error) { return to, fn(tx, to.Position) }); err != nil {
		t.Fatal(err)
	}
}

// id is the n-th id, spread over the index like random ones.
func id(n int) (u epro.UUID) {
	binary.BigEndian.PutUint64(u[:], uint64(n)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint32(u[12:], uint32(n))
	return u
}

// newReport is a report with every column of the usual kind.
func newReport(s store.Subject, ref store.Ref, n int) *store.NewReport {
	score, comments := n%11, fmt.Sprintf("comment %d", n)
	return &store.NewReport{Subject: s.Key, Meaning: epro.Digest{byte(n), byte(n >> 8), 1}, Report: store.Report{
		Ref: ref, TrialID: s.Enrollment.TrialID, PatientID: s.Enrollment.PatientID, SiteID: s.Enrollment.SiteID,
		ReportID: id(n), Version: 1, Disposition: epro.Recorded, Instrument: "qol@1", Score: &score, Comments: &comments,
		CompletedAt: epoch.Add(time.Duration(n) * time.Second).In(time.FixedZone("", 3600)), ReceivedAt: epoch, CommittedAt: epoch,
		Actor: epro.Actor{Type: epro.ActorParticipant, ID: s.Enrollment.PatientID, Device: "phone"},
	}}
}

// enroll makes a participant.
func enroll(tx store.Tx, trial, patient, site string) (store.Subject, error) {
	s, err := tx.Subject(trial, patient)
	if err != nil {
		return s, err
	}
	s.Known = true
	s.Enrollment = store.Enrollment{TrialID: trial, PatientID: patient, SiteID: site, Status: epro.Enrolled, Version: 1, EnrolledAt: epoch}
	return s, tx.PutEnrollment(s.Key, s.Enrollment)
}

func testEmpty(t *testing.T, s store.Store) {
	ctx := t.Context()
	if c, err := s.Cursor(ctx, 0); err != nil || c != (store.Cursor{Era: 1}) {
		t.Errorf("cursor %+v, %v", c, err)
	}
	for name, err := range map[string]error{
		"trial":       second(s.Trial(ctx, "T")),
		"participant": second(s.Participant(ctx, "T", "P")),
		"staff":       second(s.Staff(ctx, "x")),
		"versions":    second(s.ReportVersions(ctx, "T", "P", id(1))),
		"outcome":     second(s.Outcome(ctx, id(1))),
		"last frame":  second(s.LastFrame(ctx, 0)),
		"tree":        second(s.TreeHashes(ctx, 0, []int64{0})),
	} {
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := s.Books(ctx, "T"); err != nil || b != (store.Books{TrialID: "T"}) {
		t.Errorf("books %+v, %v", b, err)
	}
	list, next, err := s.Reports(ctx, "T", store.ReportFilter{}, store.Page{Limit: 10})
	if err != nil || len(list) != 0 || next != "" {
		t.Errorf("reports %v, %q, %v", list, next, err)
	}
}

func second[T any](_ T, err error) error { return err }

func testFence(t *testing.T, s store.Store) {
	from := store.Cursor{Era: 1}
	to := store.Cursor{Position: 3, Frames: 1, RuleSet: "r", TZ: "z", Era: 2}
	step := func(from, to store.Cursor) (called bool, err error) {
		err = s.Apply(t.Context(), 0, from, func(store.Tx) (store.Cursor, error) {
			called = true
			return to, nil
		})
		return called, err
	}
	if _, err := step(from, to); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Cursor(t.Context(), 0); err != nil || c != to {
		t.Errorf("cursor %+v, %v", c, err)
	}
	if called, err := step(from, to); !errors.Is(err, store.ErrFenced) || called {
		t.Errorf("the second from the same cursor: %v, called %v", err, called)
	}
	// Of many at once, one wins.
	won := make(chan error, 8)
	for range cap(won) {
		go func() {
			_, err := step(to, store.Cursor{Position: 4, Frames: 2, Era: 2})
			won <- err
		}()
	}
	wins := 0
	for range cap(won) {
		if err := <-won; err == nil {
			wins++
		} else if !errors.Is(err, store.ErrFenced) {
			t.Error(err)
		}
	}
	if wins != 1 {
		t.Errorf("%d of 8 won", wins)
	}
}

func testAllOrNothing(t *testing.T, s store.Store) {
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		return tx.PutTrial(store.Trial{ID: "T", Name: "x", Status: epro.TrialActive, Version: 1, CreatedAt: epoch})
	})
	before, err := s.Hash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	from, _ := s.Cursor(t.Context(), 0)
	broken := errors.New("broken")
	spoil := func(tx store.Tx) error {
		p, err := enroll(tx, "T", "P", "S")
		return errors.Join(err, tx.PutTrial(store.Trial{ID: "U", CreatedAt: epoch}), second(tx.AddReport(newReport(p, store.Ref{Position: 9}, 1))),
			tx.AddBooks(store.Books{TrialID: "T", Recorded: 1}), tx.AddTreeHashes(0, make([]epro.Digest, 2)))
	}
	if err := s.Apply(t.Context(), 0, from, func(tx store.Tx) (store.Cursor, error) {
		if err := spoil(tx); err != nil {
			return store.Cursor{}, err
		}
		return store.Cursor{Position: 99}, broken
	}); !errors.Is(err, broken) {
		t.Fatalf("Apply returned %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not come through")
			}
		}()
		_ = s.Apply(t.Context(), 0, from, func(tx store.Tx) (store.Cursor, error) {
			if err := spoil(tx); err != nil {
				t.Error(err)
			}
			panic("broken")
		})
	}()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Apply(canceled, 0, from, func(store.Tx) (store.Cursor, error) { return store.Cursor{Position: 99}, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply with an ended context returned %v", err)
	}
	after, err := s.Hash(t.Context())
	if err != nil || after != before {
		t.Errorf("something was kept (%v)", err)
	}
	apply(t, s, func(tx store.Tx, _ journal.Position) error { return spoil(tx) }) // and all of it can still be done
}

func testEntities(t *testing.T, s store.Store) {
	trial := store.Trial{ID: "T", Name: "Ähre \"x\"", Status: epro.TrialRecruiting, Shard: 0, Version: 1, CreatedAt: epoch}
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		if _, err := tx.Trial("T"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("trial before: %v", err)
		}
		if _, err := tx.Site("T", "S"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("site before: %v", err)
		}
		if _, err := tx.Staff("anna"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("staff before: %v", err)
		}
		return errors.Join(tx.PutTrial(trial), tx.PutSite(store.Site{TrialID: "T", ID: "S", Name: "Site", CreatedAt: epoch}),
			tx.PutStaff(store.Staff{ID: "anna", Name: "Anna", Version: 1, Grants: []store.Grant{{Role: "admin"}, {Role: "monitor", TrialID: "T"}}}))
	})
	trial.Status, trial.Version, trial.Instruments = epro.TrialActive, 2, []string{"a@1", "qol@1"}
	var subject store.Subject
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		first, err := tx.Subject("T", "P")
		if err != nil || first.Known {
			t.Errorf("subject before: %+v, %v", first, err)
		}
		if subject, err = enroll(tx, "T", "P", "S"); err != nil || subject.Key != first.Key {
			t.Errorf("subject: %+v, %v", subject, err)
		}
		other, err := tx.Subject("U", "P")
		if err != nil || other.Key == first.Key {
			t.Errorf("subject of another trial: %+v, %v", other, err)
		}
		return errors.Join(tx.PutTrial(trial), tx.PutStaff(store.Staff{ID: "anna", Name: "Anna", Version: 2, Removed: true}))
	})
	subject.Enrollment.Status, subject.Enrollment.Version, subject.Enrollment.MinEpoch = epro.Withdrawn, 2, 1<<32-1
	subject.Enrollment.WithdrawnAt = epoch.Add(time.Hour)
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		got, err := tx.Trial("T")
		if err != nil || fmt.Sprint(got) != fmt.Sprint(trial) {
			t.Errorf("trial %+v, %v", got, err)
		}
		return tx.PutEnrollment(subject.Key, subject.Enrollment)
	})
	apply(t, s, func(tx store.Tx, _ journal.Position) error {
		got, err := tx.Subject("T", "P")
		if err != nil || got != subject {
			t.Errorf("subject %+v, want %+v (%v)", got, subject, err)
		}
		return err
	})
	if got, err := s.Trial(t.Context(), "T"); err != nil || fmt.Sprint(got) != fmt.Sprint(trial) {
		t.Errorf("trial %+v, %v", got, err)
	}
	if got, err := s.Participant(t.Context(), "T", "P"); err != nil || got != subject.Enrollment {
		t.Errorf("participant %+v, %v", got, err)
	}
	if _, err := s.Participant(t.Context(), "U", "P"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a subject without enrolment: %v", err)
	}
	if got, err := s.Staff(t.Context(), "anna"); err != nil || !got.Removed || len(got.Grants) != 0 || got.Version != 2 {
		t.Errorf("staff %+v, %v", got, err)
	}
}
