package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/store"
)

// Bounds of a transaction. They exist for a projector that was paused in the
// middle of one (a stopped process, a frozen machine, a cut network): it holds
// the cursor's row, and its system answers for it, so that only time tells.
var (
	// lockTimeout is how long a projector waits for another one's transaction
	// before it fails and tries again.
	lockTimeout = 5 * time.Second
	// idleTimeout is after what time without a word the server ends a session
	// that is in a transaction. Between two statements of a transaction lies
	// nothing but computing.
	idleTimeout = 10 * time.Second
	// longestApply bounds a statement. A transaction that is older is ended by
	// whoever waits for it: the server's idle time-out does not run while it has
	// half of a batch of statements and waits for the rest.
	longestApply = time.Minute
)

const lockNotAvailable = "55P03"

// settings bind a transaction. lock_timeout and the idle time-out: see above.
// Plans: questions go through indexes, whatever the statistics of tables say
// that grew a hundredfold since they were made.
const (
	boundsSQL = `SELECT set_config('lock_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $2, true),
	set_config('statement_timeout', $3, true)`
	// synchronous_commit=off: a commit does not wait for the disk or a standby.
	// Losing the server may take back the last commits, always a suffix of them
	// and each with its cursor: the contract allows it, the journal still has the
	// frames. It does not weaken the fence: other sessions see a commit, and with
	// it the moved cursor, at once.
	applySQL = `SELECT set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', 'off', true),
	set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)`
)

func bounds() []any {
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return []any{ms(lockTimeout), ms(idleTimeout), ms(longestApply)}
}

// errElsewhere is for tables that are not those the projector remembers: built
// anew, or set back with a server that lost its last commits (and perhaps since
// projected to the same place by another). Unlike
// [store.ErrFenced] it says nothing of another projector: to go on, forget and
// read the cursor again.
var errElsewhere = errors.New("the tables were built anew or set back since the cursor was read")

// Apply implements [store.Store]. Only shard 0 exists yet: row keys hold no shard.
//
// It waits a few seconds for another projector's transaction and fails then; a
// transaction that has lasted longer than any should is ended.
func (s *Store) Apply(ctx context.Context, shard uint32, from store.Cursor, fn func(store.Tx) (store.Cursor, error)) error {
	if shard != 0 {
		return fmt.Errorf("apply to shard %d: there is only shard 0 yet", shard)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.writes == nil:
		return errReadOnly
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	bounded, done := s.inHand(ctx)
	defer done()
	if err := s.apply(bounded, shard, from, fn); err != nil {
		if cause := context.Cause(bounded); cause != nil && bounded.Err() != nil {
			err = errors.Join(cause, err)
		}
		return fmt.Errorf("apply frames to the tables: %w", err)
	}
	return nil
}

// inHand is the context of a transaction: after ctx or the store has ended it
// has a few seconds left, and in all it has a bound that only a server that
// does not answer reaches.
func (s *Store) inHand(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), longestApply+lockTimeout+10*time.Second, errors.New("the database did not answer in time"))
	out, end := context.WithCancelCause(out)
	// The timer is made whenever one of the two ends; afterwards it ends nothing.
	late := func(cause error) func() {
		return func() { time.AfterFunc(closeGrace, func() { end(cause) }) }
	}
	stopCtx := context.AfterFunc(ctx, late(context.Canceled))
	stopClose := context.AfterFunc(s.closing, late(errClosed))
	return out, func() {
		stopCtx()
		stopClose()
		end(nil)
		cancel()
	}
}

func (s *Store) apply(ctx context.Context, shard uint32, from store.Cursor, fn func(store.Tx) (store.Cursor, error)) error {
	conn, err := s.writes.Acquire(ctx)
	if err != nil {
		return err
	}
	// Until this holds: after an error the caller forgets too.
	seen, remembers := s.seen[shard]
	delete(s.seen, shard)
	committed := false
	defer func() {
		if !committed { // also on a panic, which goes on upwards
			rollback(ctx, conn)
		}
		conn.Release()
	}()
	t := newTx(ctx, s, conn.Conn(), shard)
	defer func() { t.conn = nil }() // a Tx kept beyond fn fails at once
	stored, err := t.begin()
	if err != nil {
		if postgres.Code(err) == lockNotAvailable {
			rollback(ctx, conn)
			return errors.Join(errors.New("another projector is in the middle of a transaction"), err, s.endHolder(ctx, conn, shard))
		}
		return err
	}
	switch {
	case remembers && t.state.generation != seen.generation:
		return errElsewhere
	case stored.Position < from.Position:
		return errElsewhere // no projector moves a cursor back
	case stored != from:
		return store.ErrFenced
	case remembers && t.state.applied != seen.applied:
		return errElsewhere
	}
	to, err := fn(t)
	if err != nil {
		return err
	}
	if t.err != nil { // whatever fn made of it
		return t.err
	}
	if to.Position > store.MaxPosition {
		return fmt.Errorf("position %d does not fit the tables' key", to.Position)
	}
	if err := t.commit(to); err != nil {
		return err
	}
	committed = true
	s.seen[shard] = t.state
	return nil
}

// rollback ends the transaction of a connection, or leaves the connection to be
// closed, with which the server does the same.
func rollback(ctx context.Context, conn *pgxpool.Conn) {
	if c := conn.Conn(); c.IsClosed() || c.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, closeGrace)
	defer cancel()
	_, _ = conn.Exec(ctx, "ROLLBACK") // a connection that is still in a transaction is not used again
}

// lock is the advisory lock that the transactions of a shard take besides
// the cursor's row: the server can tell who holds it.
func (s *Store) lock() int32 {
	if s.schema == schemaName {
		return 0x74647374 // "tdst"
	}
	return 0x74646264 // "tdbd"
}

// endHolder ends the session that holds a shard's transaction, when it has
// lasted longer than any honest one.
func (s *Store) endHolder(ctx context.Context, conn *pgxpool.Conn, shard uint32) error {
	var ended int64
	err := conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN pg_stat_activity a ON a.pid=l.pid
		WHERE l.locktype='advisory' AND l.granted AND l.database=(SELECT oid FROM pg_database WHERE datname=current_database())
		AND l.classid=$1::bigint::oid AND l.objid=$2::bigint::oid AND l.objsubid=2 AND a.xact_start < clock_timestamp()-make_interval(secs=>$3)`,
		int64(s.lock()), int64(shard), longestApply.Seconds()).Scan(&ended)
	if err == nil && ended > 0 {
		s.log.WarnContext(ctx, "ended the transaction of another projector that did not go on", slog.Uint64("shard", uint64(shard)))
	}
	return err
}

// begin begins the transaction, waits for the cursor's row and reads it: one
// way to the server and back.
func (t *tx) begin() (c store.Cursor, err error) {
	b := &pgx.Batch{}
	b.Queue("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
	b.Queue(boundsSQL, bounds()...)
	b.Queue(applySQL)
	// First of all tables: whoever swaps them locks this one, so a transaction is
	// on one side of a swap as a whole.
	b.Queue(t.s.sql(selectLayout)).QueryRow(func(row pgx.Row) error {
		var found int
		err := row.Scan(&found, (*[16]byte)(&t.state.generation))
		if err == nil && found != layout {
			return store.ErrLayout
		}
		return err
	})
	b.Queue("SELECT pg_advisory_xact_lock($1, $2)", t.s.lock(), int32(t.shard))
	// The row is read by a statement of its own: one that waited for a lock reads
	// what was there before it waited.
	b.Queue(t.s.sql("SELECT FROM tidegate_store.cursor WHERE shard=$1 FOR UPDATE"), int64(t.shard))
	b.Queue(t.s.sql("SELECT mark FROM tidegate_store.cursor WHERE shard=$1"), int64(t.shard)).QueryRow(func(row pgx.Row) error { return row.Scan((*[16]byte)(&t.state.applied)) })
	b.Queue(t.s.sql(cursorSQL), int64(t.shard)).QueryRow(func(row pgx.Row) error { return scanCursor(&c, row.Scan) })
	b.Queue(t.s.sql("SELECT (SELECT coalesce(max(sk), 0) FROM tidegate_store.subject), (SELECT coalesce(max(tk), 0) FROM tidegate_store.trial_key)")).
		QueryRow(func(row pgx.Row) error { return row.Scan(&t.lastSubject, &t.lastTrial) })
	return c, t.send(b)
}

// send sends statements in one go.
func (t *tx) send(b *pgx.Batch) error {
	if t.conn == nil {
		return errors.New("the transaction is over")
	}
	return t.failed(t.conn.SendBatch(t.ctx, b).Close())
}

// failed remembers the first error, with which the transaction is over.
func (t *tx) failed(err error) error {
	if err != nil && t.err == nil {
		t.err = err
	}
	return err
}

const cursorSQL = "SELECT position, frames, rule_set, tz, era FROM tidegate_store.cursor WHERE shard=$1"

// scanCursor reads cursorSQL. A NULL position is a shard without frames.
func scanCursor(c *store.Cursor, scan func(...any) error) error {
	var position *int64
	var frames, era int64
	if err := scan(&position, &frames, into(&c.RuleSet), into(&c.TZ), &era); err != nil {
		return err
	}
	if position != nil {
		c.Position = journal.Position(*position)
	}
	c.Frames, c.Era = uint64(frames), uint64(era)
	return nil
}

// commit writes what is left together with the cursor, and commits.
func (t *tx) commit(to store.Cursor) error {
	if len(t.enrollments) > 0 {
		// Whether each found its row is seen here, and must be before COMMIT is sent.
		if err := t.flush(); err != nil {
			return err
		}
	}
	b := &pgx.Batch{}
	t.queue(b)
	b.Queue(t.s.sql("UPDATE tidegate_store.cursor SET position=$2, frames=$3, rule_set=$4, tz=$5, era=$6, mark=gen_random_uuid() WHERE shard=$1 RETURNING mark"),
		int64(t.shard), int64(to.Position), int64(to.Frames), octets(to.RuleSet), octets(to.TZ), int64(to.Era)).
		QueryRow(func(row pgx.Row) error { return row.Scan((*[16]byte)(&t.state.applied)) }) // the row is there and locked
	b.Queue("COMMIT")
	return t.send(b)
}

func (t *tx) Run(run journal.Run) (h store.RunHead, err error) {
	if h, ok := t.runs[run]; ok {
		return h, nil
	}
	err = t.one("SELECT n, hash, time FROM tidegate_store.run WHERE shard=$1 AND run=$2", []any{int64(t.shard), run[:]}, func(scan func(...any) error) error {
		var n int64
		err := scan(&n, (*digest)(&h.Hash), &h.Time)
		h.N = uint64(n)
		return err
	})
	return h, err
}

func (t *tx) HasHeader(hash epro.Digest) (bool, error) {
	for i := range t.frames {
		if t.frames[i].Hash == hash {
			return true, nil
		}
	}
	// No index: a run cites the last header its process read, so walking back
	// from the end finds it within a few rows. A whole walk is a damaged journal.
	err := t.one("SELECT FROM tidegate_store.frame WHERE shard=$1 AND hash=$2 ORDER BY position DESC LIMIT 1", []any{int64(t.shard), hash[:]},
		func(func(...any) error) error { return nil })
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (t *tx) AddFrame(f store.FrameRow) error {
	t.frames = append(t.frames, f)
	t.runs[f.Run] = store.RunHead{N: f.N, Hash: f.Hash, Time: f.Time}
	return nil
}

func (t *tx) TreeHash(index int64) (d epro.Digest, err error) {
	if i := index - t.treeFirst; i >= 0 && i < int64(len(t.tree)) {
		return t.tree[i], nil
	}
	err = t.one("SELECT hash FROM tidegate_store.tree WHERE shard=$1 AND idx=$2", []any{int64(t.shard), index}, func(scan func(...any) error) error {
		return scan((*digest)(&d))
	})
	return d, err
}

func (t *tx) AddTreeHashes(first int64, hashes []epro.Digest) error {
	if len(t.tree) > 0 && first != t.treeFirst+int64(len(t.tree)) {
		if err := t.flush(); err != nil { // a gap: nobody makes one, but it is told by the tables, not here
			return err
		}
	}
	if len(t.tree) == 0 {
		t.treeFirst = first
	}
	t.tree = append(t.tree, hashes...)
	return nil
}

func (t *tx) AddBooks(add store.Books) error {
	b, ok := t.books[add.TrialID]
	if !ok {
		b = &store.Books{TrialID: add.TrialID}
		t.books[add.TrialID] = b
	}
	// Unsigned sums wrap around, so that a difference may be taken away too.
	b.Recorded += add.Recorded
	b.Duplicates += add.Duplicates
	b.Conflicts += add.Conflicts
	b.Quarantined += add.Quarantined
	return nil
}
