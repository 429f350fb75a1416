package pgjournal_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/test/services"
)

// write appends frames of a run of its own, over connections of its own as
// another process has, until stop says that it is enough.
func write(t *testing.T, url string, stop func(n int) bool) (frames []journal.Sealed) {
	var j *pgjournal.Journal
	for end := time.Now().Add(patience); j == nil; {
		var err error
		if j, err = pgjournal.OpenTrusting(context.Background(), options(url)); err != nil && time.Now().After(end) {
			t.Error(err)
			return nil
		}
	}
	defer j.Close()
	run := journaltest.NewRun()
	for n := 0; !stop(n) && !t.Failed(); n++ {
		var prev *journal.Sealed
		if n > 0 {
			prev = &frames[n-1]
		}
		f := journaltest.Frame(run, uint64(n), prev, 3) //nolint:gosec // small
		insist(t, j, f)
		frames = append(frames, f)
	}
	return frames
}

// writeWhile runs three writers at once while breaking goes on, and a little
// longer, and returns what each had acknowledged.
func writeWhile(t *testing.T, url string, breaking func()) [][]journal.Sealed {
	t.Helper()
	const writers, more = 3, 10
	over := make(chan struct{})
	runs := make([][]journal.Sealed, writers)
	var wg sync.WaitGroup
	for i := range runs {
		wg.Go(func() {
			last := -1
			runs[i] = write(t, url, func(n int) bool {
				select {
				case <-over:
					if last < 0 {
						last = n + more
					}
				default:
				}
				return last >= 0 && n >= last
			})
		})
	}
	breaking()
	close(over)
	wg.Wait()
	return runs
}

func TestServerKilled(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{})
	url := fresh(t, pg)
	runs := writeWhile(t, url, func() {
		for range 3 {
			time.Sleep(400 * time.Millisecond) // frames come in
			pg.Kill()
			pg.Start()
		}
	})
	holds(t, open(t, options(url)), runs...)
}

func TestNetworkCut(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := fresh(t, pg)
	proxy := services.Proxy(t, pg.Addr())
	runs := writeWhile(t, through(url, proxy.Addr()), func() {
		for range 15 {
			time.Sleep(100 * time.Millisecond) // frames come in
			proxy.Cut()
			proxy.Heal()
		}
	})
	holds(t, open(t, options(url)), runs...)
}

func TestServerFrozen(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{})
	url := fresh(t, pg)
	j := trusting(t, options(url))
	frames := journaltest.Chain(3, 2)
	journaltest.MustAppend(t, j, frames[0])
	pg.Freeze()
	_, err := try(t, j, frames[1], 300*time.Millisecond)
	unknown(t, err)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want DeadlineExceeded", err)
	}
	// The next try cannot even connect. It kept nothing, and knows no more.
	_, err = try(t, j, frames[1], 300*time.Millisecond)
	unknown(t, err)
	pg.Thaw()
	insist(t, j, frames[1])
	insist(t, j, frames[1])
	insist(t, j, frames[2])
	holds(t, j, frames)
}

// A connection whose server does not answer is noticed before a frame is sent
// over it: then it surely was not appended.
func TestIdleConnectionIsAsked(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{})
	j := open(t, options(fresh(t, pg)))
	frames := journaltest.Chain(2, 2)
	journaltest.MustAppend(t, j, frames[0])
	pg.Freeze()
	time.Sleep(1100 * time.Millisecond) // idle for longer than it is trusted
	if _, err := try(t, j, frames[1], 300*time.Millisecond); !errors.Is(err, journal.ErrNotAppended) {
		t.Errorf("%v, want ErrNotAppended", err)
	}
	pg.Thaw()
	insist(t, j, frames[1])
	holds(t, j, frames)
}

// A server that never answers holds neither an append beyond its context nor
// the end of the journal.
func TestCloseOnAFrozenServer(t *testing.T) {
	pg := services.Postgres(t, services.PGOptions{})
	url := fresh(t, pg)
	goroutines := goleak.IgnoreCurrent()
	j := trusting(t, options(url))
	frames := journaltest.Chain(2, 2)
	journaltest.MustAppend(t, j, frames[0])
	pg.Freeze()
	done := make(chan error, 1)
	go func() {
		_, err := j.Append(context.Background(), frames[1])
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := j.Read(ctx, 0, 0, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	select {
	case err := <-done:
		unknown(t, err)
	case <-time.After(patience):
		t.Error("the append outlives the close")
	}
	pg.Thaw()
	goleak.VerifyNone(t, goroutines)
}

func TestCableOut(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := fresh(t, pg)
	proxy := services.Proxy(t, pg.Addr())
	j := trusting(t, options(through(url, proxy.Addr())))
	frames := journaltest.Chain(3, 2)
	journaltest.MustAppend(t, j, frames[0])
	proxy.Blackhole()
	_, err := try(t, j, frames[1], 300*time.Millisecond)
	unknown(t, err)
	proxy.Heal()
	insist(t, j, frames[1])
	insist(t, j, frames[2])
	holds(t, j, frames)
}

func TestServerAway(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{})
	j := open(t, options(fresh(t, pg)))
	frames := journaltest.Chain(2, 2)
	journaltest.MustAppend(t, j, frames[0])
	pg.Stop()
	// The first may go over a connection whose end is not noticed yet.
	_, _ = try(t, j, journaltest.Chain(1, 1)[0], time.Second)
	if _, err := try(t, j, frames[1], time.Second); !errors.Is(err, journal.ErrNotAppended) {
		t.Errorf("%v, want ErrNotAppended: nothing listens", err)
	}
	if _, err := j.End(t.Context(), 0); err == nil {
		t.Error("the end of a journal that is away: no error")
	}
	pg.Start()
	insist(t, j, frames[1])
	holds(t, j, frames)
}

// What the server rolls back was surely not appended, and leaves no gap.
func TestServerSaysNo(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := fresh(t, pg)
	db := database(url)
	j := open(t, options(url))
	frames := journaltest.Chain(3, 2)
	journaltest.MustAppend(t, j, frames[0])
	pg.Exec(db, `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$`,
		"CREATE TRIGGER full_disk BEFORE INSERT ON tidegate_journal.frame FOR EACH ROW EXECUTE FUNCTION full_disk()")
	_, err := j.Append(t.Context(), frames[1])
	if !errors.Is(err, journal.ErrNotAppended) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("disk full: %v, want ErrNotAppended and what to do", err)
	}
	pg.Exec(db, "DROP TRIGGER full_disk ON tidegate_journal.frame", "ALTER DATABASE "+db+" SET default_transaction_read_only = on")
	other := open(t, options(url))
	if _, err := other.Append(t.Context(), frames[1]); !errors.Is(err, journal.ErrNotAppended) || postgres.Code(err) != postgres.CodeReadOnly {
		t.Errorf("read only: %v, want ErrNotAppended", err)
	}
	pg.Exec("postgres", "ALTER DATABASE "+db+" RESET default_transaction_read_only")
	journaltest.MustAppend(t, j, frames[1:]...)
	holds(t, j, frames)
}

// A session that is ended says so with an error, and may have committed.
func TestSessionEnded(t *testing.T) {
	s := &spoiler{}
	j, err := pgjournal.OpenDialed(t.Context(), options(fresh(t, services.SharedPostgres(t))), s.dial)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	frames := journaltest.Chain(2, 1)
	s.FailAfter(errEnded)
	_, err = j.Append(t.Context(), frames[0])
	unknown(t, err)
	if !strings.Contains(err.Error(), "administrator") {
		t.Errorf("%v", err)
	}
	journaltest.MustAppend(t, j, frames...)
	holds(t, j, frames)
}

func TestHeadHeldForTooLong(t *testing.T) {
	t.Parallel()
	pg := services.SharedPostgres(t)
	url := fresh(t, pg)
	j := open(t, options(url))
	frames := journaltest.Chain(2, 2)
	journaltest.MustAppend(t, j, frames[0])
	pool, err := postgres.Open(t.Context(), postgres.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT FROM tidegate_journal.head FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), frames[1]); !errors.Is(err, journal.ErrNotAppended) {
		t.Errorf("%v, want ErrNotAppended: the head was held", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	journaltest.MustAppend(t, j, frames[1])
	holds(t, j, frames)
}

// Time limits and other defaults of a database or role do not reach appends.
func TestDefaultsOfTheDatabase(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := fresh(t, pg)
	db := database(url)
	for _, setting := range []string{
		"statement_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'", "synchronous_commit = off", "client_min_messages = error",
		"default_transaction_isolation = 'serializable'", "lock_timeout = '1ms'",
	} {
		pg.Exec(db, "ALTER DATABASE "+db+" SET "+setting)
	}
	opts := options(url)
	opts.Postgres.StatementTimeout = 10 * time.Second // for reading
	var runs [][]journal.Sealed
	var wg sync.WaitGroup
	for range 3 {
		j := open(t, opts)
		frames := journaltest.Chain(20, 200)
		runs = append(runs, frames)
		wg.Go(func() {
			for _, f := range frames {
				if class, err := j.Append(context.Background(), f); err != nil || class != journal.ClassLocalFsync {
					t.Errorf("%v, %v", class, err)
					return
				}
			}
		})
	}
	wg.Wait()
	holds(t, open(t, opts), runs...)
}

// A table that goes away and comes back, as in a restore, is found again.
func TestTableComesBack(t *testing.T) {
	url := fresh(t, services.SharedPostgres(t))
	j := open(t, options(url))
	frames := journaltest.Chain(3, 1)
	journaltest.MustAppend(t, j, frames[0])
	pool, err := postgres.Open(t.Context(), postgres.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), "ALTER TABLE tidegate_journal.frame RENAME TO hidden"); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), frames[1]); !errors.Is(err, journal.ErrNotAppended) {
		t.Errorf("%v, want ErrNotAppended", err)
	}
	if _, err := pool.Exec(t.Context(), "ALTER TABLE tidegate_journal.hidden RENAME TO frame"); err != nil {
		t.Fatal(err)
	}
	journaltest.MustAppend(t, j, frames[1:]...)
	holds(t, j, frames)
}

func TestWaitSeesOtherProcesses(t *testing.T) {
	url := fresh(t, services.SharedPostgres(t))
	reader, writer := open(t, options(url)), open(t, options(url))
	got := make(chan error, 1)
	go func() {
		for after := journal.Position(0); after < 3; {
			if err := reader.Wait(context.Background(), 0, after); err != nil {
				got <- err
				return
			}
			r, err := reader.Read(context.Background(), 0, after, 10)
			if err != nil {
				got <- err
				return
			}
			after += journal.Position(len(r))
		}
		got <- nil
	}()
	for _, f := range journaltest.Chain(3, 1) {
		time.Sleep(50 * time.Millisecond)
		journaltest.MustAppend(t, writer, f)
	}
	select {
	case err := <-got:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("not seen")
	}
}
