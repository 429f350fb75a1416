// Package pgstore keeps the tables in a schema of a PostgreSQL database,
// tidegate_store.
//
// One projector writes them and any number of processes read them. Which
// projector writes is decided by the cursor alone: its row is locked, compared
// and moved in the transaction that applies the frames.
//
// The role that projects makes the schema, and renames and drops it when the
// tables are built anew; it needs the right to create schemas in the database.
// A reader with a role of its own needs USAGE on the schema and SELECT on its
// tables, given by ALTER DEFAULT PRIVILEGES (without IN SCHEMA) for the
// projector's role, so that tables built anew can be read too. It is tested with
// PostgreSQL 15; 13 is the oldest that has what it uses. A build holds a lock of
// its session: a pooler between must leave it one session.
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/store"
)

// readTimeout ends a reader's statement where the options set no other bound:
// no screen waits so long. It does not hold for a dump, which reads everything.
const readTimeout = 30 * time.Second

// closeGrace is how long Close, and a context that ends, let a transaction
// finish.
const closeGrace = 5 * time.Second

var (
	errClosed   = errors.New("the tables are closed")
	errReadOnly = errors.New("the tables are open for reading only")
	// errForeign says that the schema is somebody else's.
	errForeign = errors.New("the schema " + schemaName + " of this database holds other tables than Tidegate's: name another database")
)

// Options of a store.
type Options struct {
	// Postgres says where the database is. MaxConns bounds the connections that
	// read; a store that is not ReadOnly has one more, which writes.
	Postgres postgres.Options
	// ReadOnly makes and changes nothing: for whoever reads beside the projector.
	ReadOnly bool
	// Logger gets one line per change of state; nil for none.
	Logger *slog.Logger
}

// Store is the tables in a PostgreSQL schema. All methods are safe for
// concurrent use; writers wait for one another.
type Store struct {
	schema string
	reads  *pgxpool.Pool
	log    *slog.Logger

	closing context.Context // ends with Close, whatever the contexts of calls under way
	stop    context.CancelFunc

	mu     sync.Mutex // guards what follows; held during Apply
	writes *pgxpool.Pool
	closed bool
	// seen is what the last Apply of a shard left, if it held: what its projector
	// remembers (handles of participants) is of these tables in this state only.
	seen map[uint32]state
}

// state tells tables from others with the same cursor: built from the same
// journal, or projected anew after a server lost its last commits.
type state struct {
	generation mark // of the tables
	applied    mark // of the last transaction
}

// mark is a random number made by the server.
type mark [16]byte

var _ store.Store = (*Store)(nil)

// Open opens the tables of a database. It connects, and an error may go away by
// itself when [postgres.Final] does not say otherwise.
//
// For a projector it makes empty tables where there are none (of several that
// start at once one makes them), and clears away what an interrupted [Build]
// left. ReadOnly, it returns an error that is [fs.ErrNotExist] where there are
// none. It returns [store.ErrLayout] for tables of another layout, and changes
// nothing then.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := open(ctx, o, schemaName)
	if err != nil {
		return nil, fmt.Errorf("open the tables at %s: %w", postgres.Redact(o.Postgres.URL), err)
	}
	return s, nil
}

func open(ctx context.Context, o Options, schema string) (_ *Store, err error) {
	s := &Store{schema: schema, log: o.Logger, seen: map[uint32]state{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.closing, s.stop = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	reads := o.Postgres
	if reads.StatementTimeout == 0 {
		reads.StatementTimeout = readTimeout
	}
	if s.reads, err = postgres.Open(ctx, reads); err != nil {
		return nil, err
	}
	if o.ReadOnly {
		return s, s.check(ctx)
	}
	writes := o.Postgres
	writes.MaxConns = 1
	writes.StatementTimeout = longestApply
	if s.writes, err = postgres.Open(ctx, writes); err != nil {
		return nil, err
	}
	if schema == schemaName {
		if err := clearAway(ctx, s.writes); err != nil { // somebody still reads it, and it is in nobody's way
			s.log.WarnContext(ctx, "what an interrupted build of the tables left is still there", slog.Any("error", err))
		}
	}
	return s, s.make(ctx)
}

// sql is a statement for this store's schema. Statements are constants written
// for the usual one.
func (s *Store) sql(statement string) string {
	if s.schema == schemaName {
		return statement
	}
	return strings.ReplaceAll(statement, schemaName+".", s.schema+".")
}

const selectLayout = "SELECT layout, generation FROM tidegate_store.layout"

// check returns nil when there are tables of this layout.
func (s *Store) check(ctx context.Context) error {
	var found int
	var generation mark
	err := s.reads.QueryRow(ctx, s.sql(selectLayout)).Scan(&found, (*[16]byte)(&generation))
	switch code := postgres.Code(err); {
	case code == postgres.CodeUndefinedTable || code == postgres.CodeUndefinedSchema:
		return fmt.Errorf("the projector has not made them yet (%w)", fs.ErrNotExist)
	case err != nil:
		return err
	case found != layout:
		return store.ErrLayout
	}
	return nil
}

// makeLock is the advisory lock under which the tables are made and swapped.
const makeLock = 0x7469646773746f72 // "tidgstor"

// make makes the tables, unless they are there.
func (s *Store) make(ctx context.Context) error {
	return transaction(ctx, s.writes, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(makeLock)); err != nil {
			return err
		}
		var exists, ours, empty bool
		if err := t.QueryRow(ctx, `SELECT to_regnamespace($1) IS NOT NULL, to_regclass($1||'.layout') IS NOT NULL,
			NOT EXISTS (SELECT FROM pg_class WHERE relnamespace=to_regnamespace($1))`, s.schema).Scan(&exists, &ours, &empty); err != nil {
			return err
		}
		switch {
		case ours:
			var found int
			var generation mark
			err := t.QueryRow(ctx, s.sql(selectLayout)).Scan(&found, (*[16]byte)(&generation))
			if err == nil && found != layout {
				err = store.ErrLayout
			}
			return err
		case !empty:
			return errForeign
		case !exists: // an administrator may have made it, and given no right to make others
			if _, err := t.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{s.schema}.Sanitize()); err != nil {
				return err
			}
		}
		if _, err := t.Exec(ctx, s.sql(schema)); err != nil {
			return err
		}
		_, err := t.Exec(ctx, s.sql("INSERT INTO tidegate_store.layout(layout, generation) VALUES($1, gen_random_uuid())"), layout)
		return err
	})
}

// transaction runs fn in one on a pool, with the bounds of those that change
// schemas: they neither wait for ever nor hold others up for ever.
func transaction(ctx context.Context, pool interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}, fn func(pgx.Tx) error,
) error {
	return pgx.BeginFunc(ctx, pool, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, boundsSQL, bounds()...); err != nil {
			return err
		}
		return fn(t)
	})
}

// Close ends a transaction under way, or with a server that does not answer
// gives it up after a few seconds. It is safe to call twice.
func (s *Store) Close() error {
	s.stop() // an Apply gets its grace from here
	s.mu.Lock()
	s.closed = true
	writes := s.writes
	s.writes = nil
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, pool := range []*pgxpool.Pool{s.reads, writes} {
		if pool != nil {
			wg.Go(pool.Close)
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C: // a dead server: the driver gives its connections up by itself, a little later
	}
	return nil
}

// during is a context for one call: it ends with ctx or with Close.
func (s *Store) during(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.closing, func() { cancel(errClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}
