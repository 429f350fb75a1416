package projector_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/test/services"
)

// faultyRun projects a growing journal by two projectors at once, each of which
// begins again when the other has fenced it, while fault is done to their server
// again and again; in the end the tables must be those of a rebuild in SQLite.
func faultyRun(t *testing.T, pg *services.PG, address string, faults int, fault func(r *rand.Rand)) {
	t.Helper()
	w := newWorld(t)
	w.seed(200)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var retries, fenced, frames uint64
	var mu sync.Mutex
	for range 2 {
		opts := pgstore.Options{Postgres: postgres.Options{URL: address, ConnectTimeout: time.Second}}
		s, err := pgstore.Open(ctx, opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		wg.Go(func() {
			for ctx.Err() == nil {
				p := projector.New(w.journal, s, 0, projector.Options{BatchFacts: 50})
				err := p.Run(ctx)
				mu.Lock()
				retries += p.Counters().Retries.Load()
				frames += p.Counters().Frames.Load()
				if errors.Is(err, store.ErrFenced) {
					fenced++
				} else if err != nil {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	report := func() {
		patient := fmt.Sprintf("P-%d", 1+r.IntN(220)) // some are not enrolled
		id := w.newID()
		id[0] = byte(r.IntN(4)) // fresh
		if r.IntN(10) == 0 {    // or used before, perhaps with other content
			id = w.newID()
			id[15], id[14], id[13] = byte(r.IntN(20)), 0, 0
		}
		w.tell(w.report("T001", patient, id, r.IntN(11)))
	}
	for range faults {
		for range 15 {
			for range 20 {
				report()
			}
			w.commit()
			time.Sleep(time.Duration(r.IntN(8)) * time.Millisecond)
		}
		fault(r)
	}
	end, err := w.journal.End(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := openAt(t, pg, address)
	deadline := time.Now().Add(2 * time.Minute)
	for {
		c, err := got.Cursor(ctx, 0)
		if err == nil && c.Position == end.Position {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the tables stand at %d of %d, %v", c.Position, end.Position, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	wg.Wait()
	t.Logf("%d retries, %d times fenced, %d frames applied", retries, fenced, frames)
	if retries == 0 {
		t.Error("no fault was noticed: this test shows nothing")
	}
	wantSameAsRebuild(t, w, got)
}

// openAt opens a reader at the server itself, without what may lie between.
func openAt(t *testing.T, pg *services.PG, address string) store.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), pgstore.Options{ReadOnly: true, Postgres: postgres.Options{URL: pg.URL(databaseOf(t, address))}})
	return closing(t, s, err)
}

func databaseOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// TestSessionsKilled ends the projectors' sessions at any moment, also in the
// middle of a commit: what became of that transaction they learn from the cursor.
func TestSessionsKilled(t *testing.T) {
	pg := services.SharedPostgres(t)
	address := pg.NewDatabase(t)
	faultyRun(t, pg, address, 20, func(*rand.Rand) {
		pg.Exec(databaseOf(t, address), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=current_database() AND pid<>pg_backend_pid() AND backend_type='client backend'")
	})
}

// TestServerKilled kills the server with -9: it may forget the last commits.
func TestServerKilled(t *testing.T) {
	pg := services.Postgres(t, services.PGOptions{Settings: []string{"wal_writer_delay = 10s"}}) // forgets more
	faultyRun(t, pg, pg.NewDatabase(t), 4, func(*rand.Rand) {
		pg.Kill()
		pg.Start()
	})
}

// TestConnectionsCut cuts the network between projectors and server.
func TestConnectionsCut(t *testing.T) {
	pg := services.SharedPostgres(t)
	address := pg.NewDatabase(t)
	proxy := services.Proxy(t, pg.Addr())
	through := strings.Replace(address, pg.Addr(), proxy.Addr(), 1)
	faultyRun(t, pg, through, 25, func(r *rand.Rand) {
		proxy.Cut()
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		proxy.Heal()
	})
}
