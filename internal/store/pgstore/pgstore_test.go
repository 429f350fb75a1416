package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/internal/store/storetest"
	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		buildAsChild(url)
	}
	code := m.Run()
	services.CleanUp()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func options(url string) pgstore.Options {
	return pgstore.Options{Postgres: postgres.Options{URL: url}}
}

func open(t *testing.T, url string) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), options(url))
	return closing(t, s, err)
}

func openReader(t *testing.T, url string) *pgstore.Store {
	t.Helper()
	o := options(url)
	o.ReadOnly = true
	s, err := pgstore.Open(t.Context(), o)
	return closing(t, s, err)
}

func closing(t *testing.T, s *pgstore.Store, err error) *pgstore.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// database is the name in a URL.
func database(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// mark moves the cursor, so that tables can be told from others.
func mark(t *testing.T, s store.Store, frames uint64) {
	t.Helper()
	if err := marked(t.Context(), s, frames); err != nil {
		t.Fatal(err)
	}
}

func marked(ctx context.Context, s store.Store, frames uint64) error {
	from, err := s.Cursor(ctx, 0)
	if err != nil {
		return err
	}
	to := from
	to.Position, to.Frames = 7, frames
	return s.Apply(ctx, 0, from, func(tx store.Tx) (store.Cursor, error) {
		return to, tx.PutTrial(store.Trial{ID: "T", Status: epro.TrialActive, Version: frames, CreatedAt: time.Unix(1, 0)})
	})
}

// wantFrames says how many frames the tables have had applied.
func wantFrames(t *testing.T, s store.Reader, want uint64) {
	t.Helper()
	c, err := s.Cursor(t.Context(), 0)
	if err != nil || c.Frames != want {
		t.Errorf("the tables have %d frames, want %d (%v)", c.Frames, want, err)
	}
	if want == 0 {
		return
	}
	if trial, err := s.Trial(t.Context(), "T"); err != nil || trial.Version != want {
		t.Errorf("the trial has version %d, want %d (%v)", trial.Version, want, err)
	}
}

func TestConformance(t *testing.T) {
	pg := services.SharedPostgres(t)
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, pg.NewDatabase(t)) })
}

// TestConformanceOfABuild runs the suite on tables while they are built: their
// statements name another schema.
func TestConformanceOfABuild(t *testing.T) {
	if os.Getenv("TIDEGATE_LONG") != "1" {
		t.Skip("takes half a minute: TIDEGATE_LONG=1 runs it; the projector's tests build too")
	}
	pg := services.SharedPostgres(t)
	storetest.Run(t, func(t *testing.T) store.Store {
		got, end, done := make(chan store.Store, 1), make(chan struct{}), make(chan error, 1)
		o := options(pg.NewDatabase(t))
		go func() {
			defer close(got)
			done <- pgstore.Build(context.WithoutCancel(t.Context()), o, func(s store.Store) error {
				got <- s
				<-end
				return nil
			})
		}()
		t.Cleanup(func() {
			close(end)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		s, ok := <-got
		if !ok {
			t.FailNow() // the clean-up says why
		}
		return s
	})
}

func TestManyStartAtOnce(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := pgstore.Open(t.Context(), options(url))
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			// Of all of them one is first; the others are fenced or wait.
			if err := marked(t.Context(), s, 1); err != nil && !errors.Is(err, store.ErrFenced) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantFrames(t, openReader(t, url), 1)
}

func TestOpenReader(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	o := options(url)
	o.ReadOnly = true
	if _, err := pgstore.Open(t.Context(), o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without tables: %v", err)
	}
	s := open(t, url)
	r := openReader(t, url)
	wantFrames(t, r, 0)
	mark(t, s, 1)
	wantFrames(t, r, 1)
	if err := r.Apply(t.Context(), 0, store.Cursor{}, func(store.Tx) (store.Cursor, error) { return store.Cursor{}, nil }); err == nil {
		t.Error("a reader applied something")
	}
}

func TestOtherLayoutIsRefusedAndRebuilt(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := pg.NewDatabase(t)
	s := open(t, url)
	r := openReader(t, url)
	mark(t, s, 1)
	pg.Exec(database(t, url), "UPDATE tidegate_store.layout SET layout=99", "ALTER TABLE tidegate_store.trial RENAME COLUMN status TO state")
	o := options(url)
	for _, o.ReadOnly = range []bool{false, true} {
		if _, err := pgstore.Open(t.Context(), o); !errors.Is(err, store.ErrLayout) {
			t.Errorf("read only %v: Open returned %v", o.ReadOnly, err)
		}
	}
	// Those who had them open learn it too.
	if err := marked(t.Context(), s, 2); !errors.Is(err, store.ErrLayout) {
		t.Errorf("Apply returned %v", err)
	}
	if _, err := r.Trial(t.Context(), "T"); !errors.Is(err, store.ErrLayout) {
		t.Errorf("Trial returned %v", err)
	}
	if err := pgstore.Build(t.Context(), options(url), func(s store.Store) error { return marked(t.Context(), s, 3) }); err != nil {
		t.Fatal(err)
	}
	wantFrames(t, open(t, url), 3)
	wantFrames(t, r, 3)
}

func TestForeignSchemaIsNotTouched(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := pg.NewDatabase(t)
	pg.Exec(database(t, url), "CREATE SCHEMA tidegate_store", "CREATE TABLE tidegate_store.mine(x int)")
	build := func() error {
		return pgstore.Build(t.Context(), options(url), func(store.Store) error { return nil })
	}
	_, err := pgstore.Open(t.Context(), options(url))
	for name, err := range map[string]error{"Open": err, "Build": build(), "Remove": pgstore.Remove(t.Context(), options(url))} {
		if err == nil || errors.Is(err, store.ErrLayout) {
			t.Errorf("%s returned %v", name, err)
		}
	}
	if n := pg.Query(database(t, url), "SELECT count(*)::text FROM tidegate_store.mine"); n != "0" {
		t.Errorf("the foreign table is %q", n)
	}
	// An empty one was made by an administrator for us.
	pg.Exec(database(t, url), "DROP TABLE tidegate_store.mine")
	mark(t, open(t, url), 1)
}

func TestOtherShardsAreRefused(t *testing.T) {
	s := open(t, services.SharedPostgres(t).NewDatabase(t))
	if err := s.Apply(t.Context(), 1, store.Cursor{Era: 1}, func(store.Tx) (store.Cursor, error) { return store.Cursor{Position: 1}, nil }); err == nil {
		t.Error("shard 1 was taken")
	}
}

func TestClosedStore(t *testing.T) {
	s := open(t, services.SharedPostgres(t).NewDatabase(t))
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), 0, store.Cursor{Era: 1}, func(store.Tx) (store.Cursor, error) { return store.Cursor{}, nil }); err == nil {
		t.Error("Apply after Close")
	}
	if _, err := s.Cursor(t.Context(), 0); err == nil {
		t.Error("Cursor after Close")
	}
}

// TestTxEndsWithItsApply uses a Tx beyond its function.
func TestTxEndsWithItsApply(t *testing.T) {
	s := open(t, services.SharedPostgres(t).NewDatabase(t))
	var kept store.Tx
	if err := s.Apply(t.Context(), 0, store.Cursor{Era: 1}, func(tx store.Tx) (store.Cursor, error) {
		kept = tx
		return store.Cursor{Position: 1, Frames: 1, Era: 1}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Trial("T"); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("Trial returned %v", err)
	}
}

// TestErrorsOfTheServerEndTheTransaction has a caller that goes on after one.
func TestErrorsOfTheServerEndTheTransaction(t *testing.T) {
	s := open(t, services.SharedPostgres(t).NewDatabase(t))
	mark(t, s, 1)
	from, _ := s.Cursor(t.Context(), 0)
	to := from
	to.Frames++
	r := &store.NewReport{Subject: 1, Report: store.Report{Ref: store.Ref{Position: 9}, TrialID: "T", PatientID: "a secret", Version: 1, Disposition: epro.Recorded}}
	err := s.Apply(t.Context(), 0, from, func(tx store.Tx) (store.Cursor, error) {
		for i := range byte(2) { // two rows of one place
			r.ReportID[0] = i
			if _, err := tx.AddReport(r); err != nil {
				return to, err
			}
		}
		_, _ = tx.Report(1, r.ReportID, 1)
		return to, nil
	})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("Apply returned %v", err)
	}
	wantFrames(t, s, 1)
	mark(t, s, 2)
}
