package pgstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/test/services"
)

const schemas = "SELECT coalesce(string_agg(nspname, ' ' ORDER BY nspname), '') FROM pg_namespace WHERE nspname LIKE 'tidegate%'"

func wantSchemas(t *testing.T, pg *services.PG, url, want string) {
	t.Helper()
	if got := pg.Query(database(t, url), schemas); got != want {
		t.Errorf("the schemas are %q, want %q", got, want)
	}
}

// TestBuildUnderReadersAndAProjector swaps again and again below readers and a
// projector that have the tables open.
func TestBuildUnderReadersAndAProjector(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := pg.NewDatabase(t)
	old := open(t, url)
	mark(t, old, 1)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	r := openReader(t, url)
	for range 3 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				// A single statement, a snapshot, a page.
				_, err := r.Trial(t.Context(), "T")
				if err == nil && n%3 == 0 {
					var c store.Cursor
					_, c, err = r.HashAt(t.Context(), 0)
					if err == nil && c.Frames == 0 {
						err = errors.New("a snapshot of empty tables")
					}
				}
				if err == nil {
					_, _, err = r.Audit(t.Context(), "T", store.Page{Limit: 10})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	elsewhere := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			from, err := old.Cursor(t.Context(), 0)
			if err != nil {
				t.Error(err)
				return
			}
			to := from
			to.Position++
			err = old.Apply(t.Context(), 0, from, func(tx store.Tx) (store.Cursor, error) {
				return to, tx.AddFrame(store.FrameRow{Position: to.Position})
			})
			switch {
			case errors.Is(err, pgstore.ErrElsewhere):
				elsewhere++
			case err != nil:
				t.Error(err)
				return
			}
		}
	})
	const builds = 5
	for n := range builds {
		if err := pgstore.Build(t.Context(), options(url), func(s store.Store) error { return marked(t.Context(), s, uint64(n+2)) }); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
	if trial, err := r.Trial(t.Context(), "T"); err != nil || trial.Version != builds+1 {
		t.Errorf("the reader sees version %d, %v", trial.Version, err)
	}
	if elsewhere == 0 {
		t.Error("the projector never learnt that the tables are others")
	}
	wantSchemas(t, pg, url, "tidegate_store")
}

// TestSwapFencesWhoRemembers has new tables at the very cursor of the old ones:
// a projector's memory of handles is worth nothing all the same.
func TestSwapFencesWhoRemembers(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	s := open(t, url)
	mark(t, s, 1)
	from, err := s.Cursor(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := pgstore.Build(t.Context(), options(url), func(s store.Store) error { return marked(t.Context(), s, 1) }); err != nil {
		t.Fatal(err)
	}
	called := false
	step := func() error {
		return s.Apply(t.Context(), 0, from, func(store.Tx) (store.Cursor, error) {
			called = true
			return store.Cursor{Position: 8, Frames: 2, Era: 1}, nil
		})
	}
	if err := step(); !errors.Is(err, pgstore.ErrElsewhere) || called {
		t.Errorf("Apply returned %v, called %v", err, called)
	}
	if err := step(); err != nil { // having read the cursor again, which is the same
		t.Error(err)
	}
}

// TestSamePlaceByAnother has a server lose a commit, and another projector come
// to the same place again: the memory of the first is of the lost commit.
func TestSamePlaceByAnother(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := pg.NewDatabase(t)
	s, other := open(t, url), open(t, url)
	mark(t, s, 1)
	from, err := s.Cursor(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	pg.Exec(database(t, url), "UPDATE tidegate_store.cursor SET position=NULL, frames=0")
	mark(t, other, 1)
	called := false
	err = s.Apply(t.Context(), 0, from, func(store.Tx) (store.Cursor, error) { called = true; return from, nil })
	if !errors.Is(err, pgstore.ErrElsewhere) || called {
		t.Errorf("Apply returned %v, called %v", err, called)
	}
	mark(t, s, 2)
}

// TestTablesSetBackAreNoFence has tables behind the projector, as a server has
// that lost its last commits.
func TestTablesSetBackAreNoFence(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := pg.NewDatabase(t)
	s := open(t, url)
	mark(t, s, 1)
	from, err := s.Cursor(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	pg.Exec(database(t, url), "UPDATE tidegate_store.cursor SET position=3")
	err = s.Apply(t.Context(), 0, from, func(store.Tx) (store.Cursor, error) { return from, nil })
	if !errors.Is(err, pgstore.ErrElsewhere) || errors.Is(err, store.ErrFenced) {
		t.Errorf("Apply returned %v", err)
	}
}

func TestBuildFailsCleanly(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := pg.NewDatabase(t)
	s := open(t, url)
	mark(t, s, 1)
	broken := errors.New("broken")
	if err := pgstore.Build(t.Context(), options(url), func(s store.Store) error { mark(t, s, 2); return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	wantFrames(t, s, 1)
	wantSchemas(t, pg, url, "tidegate_store")
	if err := pgstore.Build(t.Context(), options(url), func(store.Store) error {
		return pgstore.Build(t.Context(), options(url), func(store.Store) error { return nil })
	}); !errors.Is(err, pgstore.ErrBuilding) {
		t.Errorf("two at once: %v", err)
	}
	wantFrames(t, s, 1)
	if err := pgstore.Remove(t.Context(), options(url)); err != nil {
		t.Fatal(err)
	}
	wantSchemas(t, pg, url, "")
}

// TestSwapWaitsForADump holds a snapshot open over the end of a build.
func TestSwapWaitsForADump(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	s := open(t, url)
	mark(t, s, 1)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), "BEGIN; SELECT FROM tidegate_store.layout"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	filled := make(chan struct{})
	go func() {
		done <- pgstore.Build(t.Context(), options(url), func(s store.Store) error { defer close(filled); return marked(t.Context(), s, 2) })
	}()
	<-filled
	time.Sleep(3 * time.Second) // more than one attempt
	select {
	case err := <-done:
		t.Fatalf("Build returned %v beside an open snapshot", err)
	default:
	}
	wantFrames(t, s, 1) // who only reads goes on between the attempts
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantFrames(t, s, 2)
}

const childURL = "PGSTORE_TEST_BUILD"

// buildAsChild builds tables in a process of its own, which is killed.
func buildAsChild(url string) {
	err := pgstore.Build(context.Background(), options(url), func(s store.Store) error {
		if err := marked(context.Background(), s, 2); err != nil {
			return err
		}
		fmt.Println("filled")
		_, err := bufio.NewReader(os.Stdin).ReadString('\n')
		return err
	})
	fmt.Println("built", err)
	os.Exit(0)
}

// TestKilledBuilds kills a building process at each of its steps. The step is
// held by a trigger of the server that waits for a lock.
func TestKilledBuilds(t *testing.T) {
	tests := []struct {
		name, hold string
		left       string // schemas
		want       uint64
	}{
		{"while it fills", "", "tidegate_store tidegate_store_building", 1},
		{"before the swap", "ALTER SCHEMA", "tidegate_store tidegate_store_building", 1},
		{"before it drops the old tables", "DROP SCHEMA", "tidegate_store tidegate_store_old", 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pg := services.SharedPostgres(t)
			url := pg.NewDatabase(t)
			s := open(t, url)
			mark(t, s, 1)
			lock, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close(context.WithoutCancel(t.Context()))
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
			child.Env = append(os.Environ(), childURL+"="+url)
			in, _ := child.StdinPipe()
			out, _ := child.StdoutPipe()
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			if !lines.Scan() || lines.Text() != "filled" {
				t.Fatalf("the child said %q", lines.Text())
			}
			if test.hold != "" {
				for _, sql := range []string{
					"CREATE FUNCTION hold() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); END'",
					"CREATE EVENT TRIGGER hold ON ddl_command_start WHEN TAG IN ('" + test.hold + "') EXECUTE FUNCTION hold()",
					"SELECT pg_advisory_lock(1)",
				} {
					if _, err := lock.Exec(t.Context(), sql); err != nil {
						t.Fatal(err)
					}
				}
				fmt.Fprintln(in, "on")
				waiting := "SELECT count(*)::text FROM pg_locks WHERE locktype='advisory' AND NOT granted AND objid=1 AND database=(SELECT oid FROM pg_database WHERE datname=current_database())"
				for pg.Query(database(t, url), waiting) != "1" {
					time.Sleep(10 * time.Millisecond)
				}
			}
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = child.Wait()
			// The server notices when the statement in hand ends; a crash of the machine would be noticed by its keep-alives.
			if test.hold != "" {
				for _, sql := range []string{"DROP EVENT TRIGGER hold", "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype='advisory' AND NOT granted AND objid=1", "SELECT pg_advisory_unlock(1)"} {
					if _, err := lock.Exec(t.Context(), sql); err != nil {
						t.Fatal(err)
					}
				}
			}
			for pg.Query(database(t, url), "SELECT count(*)::text FROM pg_locks WHERE locktype='advisory' AND database=(SELECT oid FROM pg_database WHERE datname=current_database())") != "0" {
				time.Sleep(10 * time.Millisecond)
			}
			wantSchemas(t, pg, url, test.left)
			wantFrames(t, s, test.want)
			wantFrames(t, openReader(t, url), test.want)
			wantSchemas(t, pg, url, test.left) // a reader clears nothing away
			wantFrames(t, open(t, url), test.want)
			wantSchemas(t, pg, url, "tidegate_store")
			if err := pgstore.Build(t.Context(), options(url), func(s store.Store) error { return marked(t.Context(), s, 3) }); err != nil {
				t.Fatal(err)
			}
			wantFrames(t, s, 3)
		})
	}
}

// TestLeftoversHoldNobodyUp has old tables that somebody still reads when a
// projector starts.
func TestLeftoversHoldNobodyUp(t *testing.T) {
	defer pgstore.SetBounds(200*time.Millisecond, time.Minute, time.Minute)()
	pg := services.SharedPostgres(t)
	url := pg.NewDatabase(t)
	pg.Exec(database(t, url), "CREATE SCHEMA tidegate_store_old", "CREATE TABLE tidegate_store_old.layout()")
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), "BEGIN; SELECT FROM tidegate_store_old.layout"); err != nil {
		t.Fatal(err)
	}
	mark(t, open(t, url), 1)
	wantSchemas(t, pg, url, "tidegate_store tidegate_store_old")
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	wantFrames(t, open(t, url), 1)
	wantSchemas(t, pg, url, "tidegate_store")
}
