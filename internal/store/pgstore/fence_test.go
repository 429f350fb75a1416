package pgstore_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/test/services"
)

// takeOver applies a frame as a projector does that finds the tables held: it
// tries again, with the cursor read anew, until it is not fenced out any more.
func takeOver(t *testing.T, s store.Store, frames uint64) (failed int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := marked(ctx, s, frames)
		if err == nil {
			return failed
		}
		if errors.Is(err, store.ErrFenced) || ctx.Err() != nil {
			t.Fatalf("after %d attempts: %v", failed, err)
		}
		failed++
	}
}

// TestPausedProjectorCannotWrite pauses a projector in the middle of its
// transaction, where it holds the cursor's row: another one takes over, and the
// first can keep nothing when it goes on.
func TestPausedProjectorCannotWrite(t *testing.T) {
	defer pgstore.SetBounds(200*time.Millisecond, time.Second, time.Minute)()
	url := services.SharedPostgres(t).NewDatabase(t)
	paused, standby := open(t, url), open(t, url)
	mark(t, paused, 1)
	from, err := paused.Cursor(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	in, goOn := make(chan struct{}), make(chan struct{})
	resume := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(resume) // before it is closed
	done := make(chan error, 1)
	go func() {
		done <- paused.Apply(context.WithoutCancel(t.Context()), 0, from, func(tx store.Tx) (store.Cursor, error) {
			err := tx.PutTrial(store.Trial{ID: "T", Version: 99, CreatedAt: time.Unix(1, 0)})
			close(in)
			<-goOn
			to := from
			to.Position++
			return to, err
		})
	}()
	<-in
	if failed := takeOver(t, standby, 2); failed == 0 {
		t.Error("the standby did not wait for the transaction")
	}
	resume()
	if err := <-done; err == nil {
		t.Error("the paused projector kept its transaction")
	}
	wantFrames(t, standby, 2)
	// What it remembers is of no use to it, and when it has read the cursor it can go on.
	if err := paused.Apply(t.Context(), 0, from, func(store.Tx) (store.Cursor, error) { return from, nil }); !errors.Is(err, store.ErrFenced) {
		t.Errorf("its next transaction: %v", err)
	}
	mark(t, paused, 3)
	wantFrames(t, standby, 3)
}

// TestHalfSentTransactionIsEnded pauses a projector in the middle of sending: the
// server has half of a batch and waits for the rest, for which it has no
// time-out. Who waits for it ends it.
func TestHalfSentTransactionIsEnded(t *testing.T) {
	defer pgstore.SetBounds(200*time.Millisecond, 300*time.Millisecond, 2*time.Second)()
	url := services.SharedPostgres(t).NewDatabase(t)
	s := open(t, url)
	mark(t, s, 1)
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	p := conn.StartPipeline(t.Context())
	for _, sql := range []string{
		"BEGIN", "SELECT set_config('idle_in_transaction_session_timeout', '300ms', true)",
		"SELECT pg_advisory_xact_lock(1952740212, 0)", "SELECT FROM tidegate_store.cursor FOR UPDATE",
	} {
		p.SendQueryParams(sql, nil, nil, nil, nil)
	}
	p.SendFlushRequest() // no Sync: the server waits for more
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 4 { // it has the lock
		if _, err := p.GetResults(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if failed := takeOver(t, s, 2); failed < 2 {
		t.Errorf("taken over after %d attempts and %v: the lock was not held", failed, time.Since(began))
	}
	wantFrames(t, s, 2)
}

// TestHonestTransactionIsNotEnded has one that takes longer than others wait.
func TestHonestTransactionIsNotEnded(t *testing.T) {
	defer pgstore.SetBounds(100*time.Millisecond, time.Minute, time.Minute)()
	url := services.SharedPostgres(t).NewDatabase(t)
	slow, other := open(t, url), open(t, url)
	from := store.Cursor{Era: 1}
	if err := slow.Apply(t.Context(), 0, from, func(store.Tx) (store.Cursor, error) {
		for range 3 {
			if err := marked(t.Context(), other, 9); err == nil || errors.Is(err, store.ErrFenced) {
				t.Errorf("beside an open transaction: %v", err)
			}
		}
		return store.Cursor{Position: 1, Frames: 1, Era: 1}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := other.Apply(t.Context(), 0, from, func(store.Tx) (store.Cursor, error) { return from, nil }); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the other one: %v", err)
	}
}

// TestReadersDoNotWait reads while a transaction is open, and sees what was
// there before it.
func TestReadersDoNotWait(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	s := open(t, url)
	mark(t, s, 1)
	r := openReader(t, url)
	from, _ := s.Cursor(t.Context(), 0)
	if err := s.Apply(t.Context(), 0, from, func(tx store.Tx) (store.Cursor, error) {
		_, err := tx.Subject("T", "P")
		wantFrames(t, r, 1)
		wantFrames(t, s, 1)
		if _, err := r.Hash(t.Context()); err != nil {
			t.Error(err)
		}
		to := from
		to.Frames = 2
		return to, err
	}); err != nil {
		t.Fatal(err)
	}
	if c, err := r.Cursor(t.Context(), 0); err != nil || c.Frames != 2 {
		t.Errorf("cursor %+v, %v", c, err)
	}
}

// TestReadersAreBounded has a statement that would wait for ever.
func TestReadersAreBounded(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	mark(t, open(t, url), 1)
	o := options(url)
	o.ReadOnly, o.Postgres.StatementTimeout = true, 200*time.Millisecond
	r, err := pgstore.Open(t.Context(), o)
	closing(t, r, err)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE tidegate_store.trial"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Trial(context.WithoutCancel(t.Context()), "T"); postgres.Code(err) != postgres.CodeQueryCanceled {
		t.Errorf("Trial returned %v", err)
	}
}

// TestFrozenServer freezes the server below open stores: reads end with their
// context, closing ends by itself.
func TestFrozenServer(t *testing.T) {
	pg := services.Postgres(t, services.PGOptions{})
	url := pg.NewDatabase(t)
	s, idle := open(t, url), open(t, url)
	mark(t, s, 1)
	wantFrames(t, idle, 1)
	pg.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Cursor(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Cursor returned %v", err)
	}
	done := make(chan error, 3)
	go func() {
		_, err := s.Cursor(context.WithoutCancel(t.Context()), 0)
		if err == nil {
			err = errors.New("a frozen server answered")
		}
		done <- err
	}()
	applied := make(chan error, 1)
	go func() {
		applied <- s.Apply(context.WithoutCancel(t.Context()), 0, store.Cursor{Position: 7, Frames: 1, Era: 1}, func(store.Tx) (store.Cursor, error) {
			return store.Cursor{Position: 8, Frames: 2, Era: 1}, nil
		})
	}()
	time.Sleep(300 * time.Millisecond)
	limit, cancelLimit := context.WithTimeout(t.Context(), time.Minute)
	defer cancelLimit()
	closed := make(chan struct{})
	go func() { defer close(closed); _ = s.Close(); _ = idle.Close() }()
	for name, wait := range map[string]<-chan struct{}{"Close": closed} {
		select {
		case <-wait:
		case <-limit.Done():
			t.Fatalf("%s hangs", name)
		}
	}
	if err := <-done; err == nil {
		t.Error("the read ended well")
	}
	if err := <-applied; err == nil {
		t.Error("the transaction ended well")
	}
	pg.Thaw()
}

// TestThawedServer goes on with the transaction that a pause of the server met.
func TestThawedServer(t *testing.T) {
	pg := services.Postgres(t, services.PGOptions{})
	s := open(t, pg.NewDatabase(t))
	mark(t, s, 1)
	done := make(chan error, 1)
	pg.Freeze()
	go func() { done <- marked(context.WithoutCancel(t.Context()), s, 2) }()
	time.Sleep(500 * time.Millisecond)
	pg.Thaw()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantFrames(t, s, 2)
}

// TestStopLetsTheTransactionEnd ends the context in the middle of an Apply.
func TestStopLetsTheTransactionEnd(t *testing.T) {
	s := open(t, services.SharedPostgres(t).NewDatabase(t))
	ctx, stop := context.WithCancel(t.Context())
	if err := s.Apply(ctx, 0, store.Cursor{Era: 1}, func(tx store.Tx) (store.Cursor, error) {
		stop()
		_, err := tx.Subject("T", "P")
		return store.Cursor{Position: 1, Frames: 1, Era: 1}, err
	}); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Cursor(t.Context(), 0); err != nil || c.Frames != 1 {
		t.Errorf("cursor %+v, %v", c, err)
	}
}
