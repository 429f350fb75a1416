package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// Schema is a PostgreSQL schema with migrations: the journal's or the vault's.
// The tables of the store have none: they are made anew from the journal.
type Schema struct {
	Name  string // of the schema in the database; a plain identifier
	What  string // in sentences: "the journal", "the vault"
	Files fs.FS  // NNNNN_name.sql, forward only, statements qualified with the schema's name
}

// Versions are the state of a schema.
type Versions struct {
	Version int64 // newest migration in the database; 0 for none
	Known   int64 // newest migration in this program
}

// SchemaError says that a schema is not the one this program works with.
type SchemaError struct {
	What string
	Versions
}

// Error is a sentence that says what to do.
func (e *SchemaError) Error() string {
	switch {
	case e.Version == 0:
		return e.What + " is not set up in this database: run `tidegate migrate`"
	case e.Version < e.Known:
		return fmt.Sprintf("%s in this database has schema %d, and this program needs %d: run `tidegate migrate` with this version first", e.What, e.Version, e.Known)
	default:
		return fmt.Sprintf("%s in this database has schema %d, and this program knows %d only: use the newer version of tidegate that migrated it", e.What, e.Version, e.Known)
	}
}

// migrationLock is the advisory lock under which schemas change, so that two
// processes that start at once do not race. Its number spells "tidegate".
const migrationLock = 0x7469646567617465

// Migrate brings the schema up to what this program knows and returns the
// versions before and after. It refuses a newer one. Safe to run at once from
// several processes: one does the work and the others wait for it.
func (s Schema) Migrate(ctx context.Context, o Options) (from, to int64, err error) {
	o.StatementTimeout = 0          // a migration takes as long as it takes
	o.MaxConns = max(2, o.MaxConns) // one holds the lock while another works
	pool, err := Open(ctx, o)
	if err != nil {
		return 0, 0, err
	}
	defer pool.Close()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("migrate %s: %w", s.What, err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(migrationLock)); err != nil {
		return 0, 0, fmt.Errorf("migrate %s: %w", s.What, err)
	}
	defer func() {
		_, unlockErr := conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(migrationLock))
		err = errors.Join(err, unlockErr)
	}()
	// Asked first: IF NOT EXISTS wants the right to make schemas even where there
	// is nothing to make.
	var there bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", s.Name).Scan(&there)
	if err == nil && !there {
		_, err = conn.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{s.Name}.Sanitize())
	}
	if err != nil {
		return 0, 0, fmt.Errorf("migrate %s: %w", s.What, err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := goose.NewProvider(goose.DialectPostgres, db, s.Files, goose.WithTableName(s.table()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return 0, 0, fmt.Errorf("migrate %s: %w", s.What, err)
	}
	from, known, err := p.GetVersions(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("migrate %s: %w", s.What, err)
	}
	if from > known {
		return from, from, &SchemaError{s.What, Versions{from, known}}
	}
	if _, err := p.Up(ctx); err != nil {
		return from, from, fmt.Errorf("migrate %s: %w", s.What, err)
	}
	return from, known, nil
}

// Check returns nil when the database has the schema this program knows, a
// [*SchemaError] when it has another or none, and any other error when it could
// not be asked.
func (s Schema) Check(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
},
) error {
	v, err := s.Versions(ctx, q)
	if err != nil {
		return err
	}
	if v.Version != v.Known {
		return &SchemaError{s.What, v}
	}
	return nil
}

// Versions says which migrations the database has and which this program knows.
func (s Schema) Versions(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
},
) (v Versions, err error) {
	names, err := fs.Glob(s.Files, "*.sql")
	if err != nil {
		return v, err
	}
	for _, name := range names {
		n, err := goose.NumericComponent(name)
		if err != nil {
			return v, fmt.Errorf("%s: migration %s: %w", s.What, name, err)
		}
		v.Known = max(v.Known, n)
	}
	err = q.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+s.table()+" WHERE is_applied").Scan(&v.Version)
	if c := Code(err); c == CodeUndefinedTable || c == CodeUndefinedSchema {
		return v, nil
	}
	if err != nil {
		return v, fmt.Errorf("read the schema of %s: %w", s.What, err)
	}
	return v, nil
}

func (s Schema) table() string { return s.Name + ".migrations" }
