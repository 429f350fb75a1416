package sqlitestore_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
	"github.com/tidegate/tidegate/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), path)
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

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, filepath.Join(t.TempDir(), "a folder? #1", "..", "store.db"))
	})
}

// mark moves the cursor, so that a store can be told from another.
func mark(t *testing.T, s store.Store, position uint64) {
	t.Helper()
	from, err := s.Cursor(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	to := from
	to.Position, to.Frames = 7, position
	if err := s.Apply(t.Context(), 0, from, func(tx store.Tx) (store.Cursor, error) {
		return to, tx.PutTrial(store.Trial{ID: "T", Status: epro.TrialActive})
	}); err != nil {
		t.Fatal(err)
	}
}

func frames(t *testing.T, path string) uint64 {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := s.Cursor(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return c.Frames
}

func TestOtherLayoutIsRefusedAndRebuilt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	mark(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version=99"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := sqlitestore.Open(t.Context(), path); !errors.Is(err, store.ErrLayout) {
		t.Fatalf("Open returned %v", err)
	}
	if err := sqlitestore.Build(t.Context(), path, func(s store.Store) error { mark(t, s, 2); return nil }); err != nil {
		t.Fatal(err)
	}
	if n := frames(t, path); n != 2 {
		t.Errorf("after the rebuild: %d", n)
	}
}

func TestForeignFileIsNotTouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE mine(x)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := sqlitestore.Open(t.Context(), path); err == nil || errors.Is(err, store.ErrLayout) {
		t.Errorf("Open returned %v", err)
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	mark(t, s, 1)
	for _, name := range []string{path, path + "-wal"} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestOtherShardsAreRefused(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	if err := s.Apply(t.Context(), 1, store.Cursor{Era: 1}, func(store.Tx) (store.Cursor, error) { return store.Cursor{Position: 1}, nil }); err == nil {
		t.Error("shard 1 was taken")
	}
}

func TestClosedStore(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
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

func TestBuildFailsCleanly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	mark(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := sqlitestore.Build(t.Context(), path, func(s store.Store) error { mark(t, s, 2); return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if n := frames(t, path); n != 1 {
		t.Errorf("the old tables are gone: %d", n)
	}
	wantFiles(t, path)
}

func wantFiles(t *testing.T, path string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(list) != 1 || list[0].Name() != filepath.Base(path) {
		t.Errorf("files are %v, %v", list, err)
	}
}

// TestSwapAfterCrash puts the files as a crash leaves them at each step of a swap.
func TestSwapAfterCrash(t *testing.T) {
	make := func(t *testing.T, path string, n uint64) {
		s := open(t, path)
		mark(t, s, n)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	copied := func(t *testing.T, from, to string) {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		crash func(t *testing.T, path, fresh string)
		want  uint64
	}{
		{"while building", func(t *testing.T, path, fresh string) {
			copied(t, fresh, path+".building")
			copied(t, fresh, path+".building-wal")
		}, 1},
		{"complete, old ones still there", func(t *testing.T, path, fresh string) { copied(t, fresh, path+".ready") }, 2},
		{"old file removed, its log not", func(t *testing.T, path, fresh string) {
			// The log of a store with uncheckpointed commits, which must never be
			// replayed into the new file.
			s := open(t, path)
			mark(t, s, 5)
			copied(t, path+"-wal", path+".keep")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Remove(path), os.Rename(path+".keep", path+"-wal")); err != nil {
				t.Fatal(err)
			}
			copied(t, fresh, path+".ready")
		}, 2},
		{"old ones removed", func(t *testing.T, path, fresh string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			copied(t, fresh, path+".ready")
		}, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path, fresh := filepath.Join(t.TempDir(), "store.db"), filepath.Join(t.TempDir(), "fresh.db")
			make(t, path, 1)
			make(t, fresh, 2)
			test.crash(t, path, fresh)
			if n := frames(t, path); n != test.want {
				t.Errorf("tables %d, want %d", n, test.want)
			}
			wantFiles(t, path)
			if err := sqlitestore.Remove(path); err != nil {
				t.Error(err)
			}
			if n := frames(t, path); n != 0 {
				t.Errorf("removed tables have %d frames", n)
			}
		})
	}
}

// TestCrashKeepsWholeTransactions copies the files of an open store, as a
// killed process leaves them, and opens the copy.
func TestCrashKeepsWholeTransactions(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store.db"))
	for n := uint64(1); n <= 20; n++ {
		mark(t, s, n)
		at := t.TempDir()
		for _, name := range []string{"store.db", "store.db-wal"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil {
				err = os.WriteFile(filepath.Join(at, name), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := frames(t, filepath.Join(at, "store.db")); got != n {
			t.Fatalf("after %d transactions the copy has %d", n, got)
		}
	}
}

func TestOpenReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	if _, err := sqlitestore.OpenReader(t.Context(), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without tables: %v", err)
	}
	s := open(t, path)
	mark(t, s, 1)
	if err := os.WriteFile(path+".building", []byte("another process is at it"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := sqlitestore.OpenReader(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	mark(t, s, 2)
	if c, err := r.Cursor(t.Context(), 0); err != nil || c.Frames != 2 {
		t.Errorf("cursor %+v, %v", c, err)
	}
	if err := r.Apply(t.Context(), 0, store.Cursor{}, func(store.Tx) (store.Cursor, error) { return store.Cursor{}, nil }); err == nil {
		t.Error("a reader applied something")
	}
	if _, err := os.Stat(path + ".building"); err != nil {
		t.Errorf("a reader cleared a build away: %v", err)
	}
}

func TestReadsEndWithTheirContext(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Cursor(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Cursor returned %v", err)
	}
}
