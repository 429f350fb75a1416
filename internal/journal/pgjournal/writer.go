package pgjournal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/internal/postgres"
)

const (
	// lockPatience is how long the server waits for the head's lock before it
	// gives an append up with nothing kept: as long as some hundred frames of
	// other writers take.
	lockPatience = 5 * time.Second
	// answerPatience bounds the wait for the answer to an append whose caller
	// sets no limit: a connection to a host that is gone must not hang for the
	// quarter of an hour that TCP takes to notice.
	answerPatience = 30 * time.Second
	// idlePatience is how long a connection may lie idle before it is asked
	// whether it still works. An append over a dead one has an unknown outcome.
	idlePatience = time.Second
	// maxLifetime replaces connections, so that one whose server was moved away
	// behind a name or a proxy is not kept for ever.
	maxLifetime = time.Hour
)

// errGiven is what a connection says that was closed under an append because
// its time was up.
var errGiven = errors.New("no answer in time; the connection was closed and the statement was not cancelled")

// errNoStandby: the server warned behind the commit ("canceling wait for
// synchronous replication due to user request"). The commit is on its disk and
// may be on no other. Success is all that the answer itself says.
var errNoStandby = errors.New("the server gave up waiting for its standby: what was written is on its own disk, and may not be on the standby's")

// writers lends connections for appending. They are not pgxpool's, because that
// asks the server to cancel a statement whose context ends, and a cancelled
// wait for a standby makes a commit visible that no standby has.
type writers struct {
	config  *pgx.ConnConfig
	before  func(context.Context, *pgx.ConnConfig) error // reads the password
	dial    pgconn.DialFunc
	connect time.Duration
	trust   time.Duration // idlePatience
	slots   chan struct{} // one for each connection that may exist

	mu   sync.Mutex
	idle []*writer
	all  map[*writer]struct{}
}

func newWriters(pool *pgxpool.Config, conns int) *writers {
	ws := &writers{
		config: pool.ConnConfig.Copy(), before: pool.BeforeConnect, dial: pool.ConnConfig.DialFunc, connect: pool.ConnConfig.ConnectTimeout,
		trust: idlePatience, slots: make(chan struct{}, conns), all: map[*writer]struct{}{},
	}
	return ws
}

// writer is one connection. It is used by one goroutine at a time.
type writer struct {
	conn    *pgx.Conn
	raw     net.Conn
	born    time.Time
	used    time.Time
	warned  atomic.Bool // the server sent a warning since the last statement began
	broken  bool
	dialing atomic.Bool
}

// acquire lends a connection that answered lately, or makes one. Nothing of an
// append has been sent when it fails.
func (ws *writers) acquire(ctx context.Context) (*writer, error) {
	select {
	case ws.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w, err := ws.ready(ctx)
	if err != nil {
		<-ws.slots
		return nil, err
	}
	return w, nil
}

func (ws *writers) ready(ctx context.Context) (*writer, error) {
	for {
		w := ws.pop()
		if w == nil {
			return ws.open(ctx)
		}
		now := time.Now()
		if now.Sub(w.born) > maxLifetime {
			ws.drop(w)
			continue
		}
		if now.Sub(w.used) < ws.trust || w.ping(ctx) == nil {
			return w, nil
		}
		ws.drop(w)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

func (ws *writers) pop() *writer {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	n := len(ws.idle)
	if n == 0 {
		return nil
	}
	w := ws.idle[n-1]
	ws.idle = ws.idle[:n-1]
	return w
}

// release takes a connection back.
func (ws *writers) release(w *writer) {
	if w.broken || w.conn.IsClosed() {
		ws.drop(w)
	} else {
		w.used = time.Now()
		ws.mu.Lock()
		ws.idle = append(ws.idle, w)
		ws.mu.Unlock()
	}
	<-ws.slots
}

// drop closes a connection without a word to the server.
func (ws *writers) drop(w *writer) {
	ws.mu.Lock()
	delete(ws.all, w)
	ws.mu.Unlock()
	_ = w.raw.Close()
	// Marks the connection closed and frees what belongs to it; there is nothing
	// left to send over.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.conn.Close(ctx)
}

// dropIdle closes what is not in use: the next append connects anew.
func (ws *writers) dropIdle() {
	ws.mu.Lock()
	idle := ws.idle
	ws.idle = nil
	ws.mu.Unlock()
	for _, w := range idle {
		ws.drop(w)
	}
}

// cut closes every connection under whoever uses it: the outcome of an append
// under way becomes unknown.
func (ws *writers) cut() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.all {
		_ = w.raw.Close()
	}
}

// The session's settings. Time limits that a role or a database sets by default
// would cancel an append; a version of the server may not know all of them. A
// commit waits at least for the disk, whatever the default is, and a warning
// must reach this client.
const (
	setLimits = `SELECT set_config(name, '0', false) FROM pg_settings
		WHERE name IN ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout')`
	setCommit = `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')`
)

// open makes a connection and prepares its statements.
func (ws *writers) open(ctx context.Context) (*writer, error) {
	w := &writer{born: time.Now(), used: time.Now()}
	cfg := ws.config.Copy()
	if ws.before != nil {
		if err := ws.before(ctx, cfg); err != nil {
			return nil, err
		}
	}
	w.dialing.Store(true)
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !w.dialing.Load() {
			return nil, errors.New("no second connection: a statement is not cancelled here")
		}
		c, err := ws.dial(ctx, network, addr)
		if err == nil {
			w.raw = c
		}
		return c, err
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" || n.SeverityUnlocalized == "" {
			w.warned.Store(true)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, ws.connect)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	w.dialing.Store(false)
	if err != nil {
		return nil, err
	}
	w.conn = conn
	ws.mu.Lock()
	ws.all[w] = struct{}{}
	ws.mu.Unlock()
	if err := w.prepare(ctx); err != nil {
		ws.drop(w)
		return nil, fmt.Errorf("prepare a connection for appending: %w", err)
	}
	return w, nil
}

func (w *writer) prepare(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = w.raw.Close() })()
	background := context.Background()
	pg := w.conn.PgConn()
	for _, sql := range []string{
		"SET client_min_messages = warning", "SET default_transaction_isolation = 'read committed'",
		"SET lock_timeout = " + strconv.FormatInt(lockPatience.Milliseconds(), 10),
		// A plan that was made while the table was small must not stay one that
		// reads all of it.
		"SET enable_seqscan = off", "SET jit = off", setLimits, setCommit,
	} {
		if err := pg.Exec(background, sql).Close(); err != nil {
			return err
		}
	}
	for name, sql := range map[string]string{appendName: appendSQL, confirmName: confirmSQL, settingsName: "SELECT" + settingsSQL} {
		if _, err := pg.Prepare(background, name, sql, nil); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = w.raw.Close() })()
	return w.conn.PgConn().Ping(context.Background())
}

// sureError is a failure that surely kept nothing.
type sureError struct{ err error }

func (e *sureError) Error() string { return e.err.Error() }
func (e *sureError) Unwrap() error { return e.err }

// commit runs a prepared statement as a transaction of its own, and behind its
// commit, in the same round trip, a reading of the settings. It returns the
// statement's only row. A *sureError means that the transaction was rolled
// back; after any other error the outcome is unknown.
func (w *writer) commit(ctx context.Context, statement string, params [][]byte, formats []int16) (row []string, after settings, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = w.raw.Close() })
	defer func() {
		if !stop() {
			w.broken = true
			if err != nil {
				err = unsure(err, fmt.Errorf("%w (%w)", errGiven, ctx.Err()))
			}
		}
	}()
	w.warned.Store(false)
	// The context is not pgx's to watch: it would have the server cancel.
	p := w.conn.PgConn().StartPipeline(context.Background())
	p.SendQueryPrepared(statement, params, formats, nil)
	p.SendPipelineSync()
	p.SendQueryPrepared(settingsName, nil, nil, nil)
	err = p.Sync()
	if err == nil {
		row, after, err = w.results(p)
	}
	if e := p.Close(); err == nil && e != nil {
		err = e
	}
	if err == nil && w.warned.Load() {
		err = errNoStandby
	}
	if err != nil && !harmless(err) {
		w.broken = true
	}
	return row, after, err
}

// harmless says whether a connection is as good as before after this error. Any
// other may be of the session (its statements are gone, its server has become a
// standby): the next try connects anew.
func harmless(err error) bool {
	var sure *sureError
	code := postgres.Code(err)
	return errors.As(err, &sure) && (code == postgres.CodeUniqueViolation || code == codeLockNotAvailable)
}

// unsure takes the certainty from an error, unless the server itself said that
// it rolled back before the time was up.
func unsure(err, why error) error {
	var sure *sureError
	if errors.As(err, &sure) {
		return err
	}
	return fmt.Errorf("%w: %w", why, err)
}

func (w *writer) results(p *pgconn.Pipeline) (row []string, after settings, err error) {
	row, err = oneRow(p)
	if err != nil {
		var e *pgconn.PgError
		if errors.As(err, &e) && e.SeverityUnlocalized == "ERROR" {
			// Before the statement was complete, and so before its commit began. (A
			// session that is ended says FATAL, and may do so when all is committed.)
			return nil, after, &sureError{err}
		}
		return nil, after, err
	}
	if _, err := p.GetResults(); err != nil { // the commit
		return nil, after, err
	}
	text, err := oneRow(p)
	if err != nil {
		return nil, after, fmt.Errorf("read the settings behind the commit: %w", err)
	}
	if _, err := p.GetResults(); err != nil {
		return nil, after, err
	}
	return row, parseSettings(text), nil
}

// oneRow reads a statement's only row, as text; "" stands for NULL too.
func oneRow(p *pgconn.Pipeline) ([]string, error) {
	r, err := p.GetResults()
	if err != nil {
		return nil, err
	}
	rr, ok := r.(*pgconn.ResultReader)
	if !ok {
		return nil, fmt.Errorf("the server answered with %T", r)
	}
	var row []string
	for rr.NextRow() {
		row = row[:0]
		for _, v := range rr.Values() {
			row = append(row, string(v))
		}
	}
	if _, err := rr.Close(); err != nil {
		return nil, err
	}
	if row == nil {
		return nil, errors.New("the server answered without a row")
	}
	return row, nil
}

const codeLockNotAvailable = "55P03"

// explain adds to the server's words what to do about them.
func explain(err error) error {
	advice := ""
	switch postgres.Code(err) {
	case "53100":
		advice = "the database's disk is full: make room"
	case "53200":
		advice = "the database server is out of memory"
	case "53300":
		advice = "the database server takes no more connections: raise max_connections or lower postgres.connections"
	case codeLockNotAvailable:
		advice = "other writers, or a commit that waits for its standby, hold the shard's head"
	case postgres.CodeReadOnly, "55000":
		advice = "this database server is a standby or read only: connect to the primary"
	case postgres.CodeUndefinedTable, postgres.CodeUndefinedSchema:
		advice = "the journal is not set up in this database: run `tidegate migrate`"
	case postgres.CodeInsufficientPriv:
		advice = "this user lacks a right on the journal: docs/operations.md says which it needs"
	default:
		return err
	}
	return fmt.Errorf("%s (%w)", advice, err)
}
