package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/store"
)

// buildLock is the advisory lock that a session holds for as long as it builds
// tables: whoever can take it knows that what lies there was left by a crash.
const buildLock = 0x746964676275696c // "tidgbuil"

// errBuilding says that another process is at it.
var errBuilding = errors.New("another process is building the tables of this database anew: wait until it is through, or end it")

// swapPause lies between two attempts to swap: readers that wait behind one go on.
const swapPause = time.Second

// Build makes the tables anew: fill projects into an empty store beside the old
// one, which is swapped for it when fill is through. Others may have the old
// ones open, and may write them meanwhile: readers see the new ones from the
// swap on, and a projector's next Apply fails once, so that it forgets what it
// remembered and reads the cursor again.
//
// The swap waits for transactions on the old tables (an Apply, a dump) and
// holds new ones up for a few seconds at a time while it does. A process that is
// killed at any moment leaves either the old tables or the new ones, whole;
// what else it leaves is cleared away by the next [Open] or Build.
func Build(ctx context.Context, o Options, fill func(store.Store) error) error {
	if err := build(ctx, o, fill); err != nil {
		return fmt.Errorf("build the tables at %s: %w", postgres.Redact(o.Postgres.URL), err)
	}
	return nil
}

func build(ctx context.Context, o Options, fill func(store.Store) error) (err error) {
	o.ReadOnly = false
	return alone(ctx, o, func(conn *pgxpool.Conn) error {
		if err := dropSchemas(ctx, conn, schemaBuilding, schemaOld); err != nil {
			return err
		}
		if err := checkForeign(ctx, conn); err != nil {
			return err
		}
		s, err := open(ctx, o, schemaBuilding)
		if err != nil {
			return err
		}
		made, err := generationOf(ctx, conn, schemaBuilding)
		if err == nil {
			err = fill(s)
		}
		if err == nil {
			// Plans of the first readers would otherwise be made for empty tables.
			err = analyze(ctx, conn, schemaBuilding)
		}
		if err = errors.Join(err, s.Close()); err == nil {
			err = swap(ctx, conn, made)
		}
		if err != nil {
			// Whatever ended it: a clean-up that cannot be done now is done by the next Open.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
			defer cancel()
			return errors.Join(err, dropSchemas(ctx, conn, schemaBuilding))
		}
		if err := dropSchemas(ctx, conn, schemaOld); err != nil {
			s.log.WarnContext(ctx, "the old tables are still there, they go with the next start of a projector", slog.Any("error", err))
		}
		return nil
	})
}

// analyze makes the statistics that plans are made from.
func analyze(ctx context.Context, conn *pgxpool.Conn, schema string) error {
	tables, err := tablesOf(ctx, conn, schema)
	for _, table := range tables {
		if err == nil {
			_, err = conn.Exec(ctx, "ANALYZE "+pgx.Identifier{schema, table}.Sanitize())
		}
	}
	return err
}

// tablesOf are the tables of a schema; layout comes first.
func tablesOf(ctx context.Context, q querier, schema string) (list []string, err error) {
	err = each(ctx, q, "SELECT relname::text FROM pg_class WHERE relnamespace=to_regnamespace($1) AND relkind='r' ORDER BY relname<>'layout', relname", []any{schema}, func(scan func(...any) error) error {
		list = append(list, "")
		return scan(&list[len(list)-1])
	})
	return list, err
}

// swap puts the built tables in the place of the old ones, in one transaction
// that locks the old ones first: transactions begin with the table layout (it
// comes first), so each is on one side of the swap; and a single statement that
// has found one of the old tables holds the swap up until it is through.
func swap(ctx context.Context, conn *pgxpool.Conn, made mark) error {
	for {
		err := transaction(ctx, conn, func(t pgx.Tx) error {
			// Not off: when Build returns the new tables stay. Not on: it need not wait for a standby.
			if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock($1), set_config('synchronous_commit', 'local', true), set_config('lock_timeout', '2s', true)", int64(makeLock)); err != nil {
				return err
			}
			built, err := generationOf(ctx, t, schemaBuilding)
			if err != nil {
				return err
			}
			if built != made {
				return errors.New("the tables that were built are not there any more: another process has cleared them away")
			}
			old, err := tablesOf(ctx, t, schemaName)
			if err != nil {
				return err
			}
			for _, table := range old {
				if _, err := t.Exec(ctx, "LOCK TABLE "+pgx.Identifier{schemaName, table}.Sanitize()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
					return err
				}
			}
			rename := "ALTER SCHEMA " + schemaBuilding + " RENAME TO " + schemaName
			var there bool
			if err := t.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", schemaName).Scan(&there); err != nil {
				return err
			}
			if there {
				rename = "ALTER SCHEMA " + schemaName + " RENAME TO " + schemaOld + "; " + rename
			}
			_, err = t.Exec(ctx, rename)
			return err
		})
		if code := postgres.Code(err); code != lockNotAvailable && code != postgres.CodeDeadlock {
			return err
		}
		timer := time.NewTimer(swapPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		}
	}
}

func generationOf(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, schema string,
) (generation mark, err error) {
	err = q.QueryRow(ctx, "SELECT generation FROM "+pgx.Identifier{schema, "layout"}.Sanitize()).Scan((*[16]byte)(&generation))
	return generation, err
}

// Remove deletes the tables of a database, if any. It loses nothing: they are
// made again from the journal. Whoever has them open gets errors until then.
func Remove(ctx context.Context, o Options) error {
	err := alone(ctx, o, func(conn *pgxpool.Conn) error {
		if err := checkForeign(ctx, conn); err != nil {
			return err
		}
		return dropSchemas(ctx, conn, schemaBuilding, schemaOld, schemaName)
	})
	if err != nil {
		return fmt.Errorf("remove the tables at %s: %w", postgres.Redact(o.Postgres.URL), err)
	}
	return nil
}

// alone runs fn on a connection that holds the build lock.
func alone(ctx context.Context, o Options, fn func(*pgxpool.Conn) error) error {
	p := o.Postgres
	p.MaxConns, p.StatementTimeout = 1, 0 // analysing and dropping take their time; the session idles during a build
	pool, err := postgres.Open(ctx, p)
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	// The session says nothing for as long as a build fills, and must stay.
	if _, err := conn.Exec(ctx, "SELECT set_config(name, '0', false) FROM pg_settings WHERE name='idle_session_timeout'"); err != nil {
		return err
	}
	var got bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(buildLock)).Scan(&got); err != nil {
		return err
	}
	if !got {
		return errBuilding
	}
	defer func() {
		// The lock would go with the session, but a little later.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
		defer cancel()
		_, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", int64(buildLock))
	}()
	return fn(conn)
}

// clearAway drops what an interrupted build left, unless one is under way. It
// does not wait for long for those who still read it.
func clearAway(ctx context.Context, pool *pgxpool.Pool) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var left, got bool
	if err := conn.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL OR to_regnamespace($2) IS NOT NULL", schemaBuilding, schemaOld).Scan(&left); err != nil || !left {
		return err
	}
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(buildLock)).Scan(&got); err != nil || !got {
		return err
	}
	defer func() {
		_, _ = conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(buildLock))
	}()
	return transaction(ctx, conn, func(t pgx.Tx) error { return dropSchemas(ctx, t, schemaBuilding, schemaOld) })
}

// dropSchemas drops schemas of this package. It waits for whoever still reads
// their tables.
func dropSchemas(ctx context.Context, q interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, names ...string,
) error {
	for _, name := range names {
		if _, err := q.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{name}.Sanitize()+" CASCADE"); err != nil {
			return err
		}
	}
	return nil
}

// checkForeign is an error when the schema is there and holds other tables than
// Tidegate's.
func checkForeign(ctx context.Context, conn *pgxpool.Conn) error {
	var foreign bool
	err := conn.QueryRow(ctx, `SELECT to_regclass($1||'.layout') IS NULL AND EXISTS (SELECT FROM pg_class WHERE relnamespace=to_regnamespace($1))`, schemaName).Scan(&foreign)
	if err == nil && foreign {
		err = errForeign
	}
	return err
}
