// Package pgvault keeps the vault in a PostgreSQL schema, tidegate_vault, which
// several processes share.
//
// A change is durable when it returns, also on a server whose default is
// synchronous_commit=off, and on a standby too where the server has a
// synchronous one: a wait for it that was cancelled is told as an unknown
// outcome, not as success.
package pgvault

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/vault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// schema is the vault's in the database.
func schema() postgres.Schema {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		files = migrations // the name is a constant: no error can come
	}
	return postgres.Schema{Name: "tidegate_vault", What: "the vault", Files: files}
}

// Options of opening a vault.
type Options struct {
	Postgres postgres.Options
}

// Vault is a [vault.Vault] in a PostgreSQL schema.
type Vault struct {
	pool  *pgxpool.Pool
	where string // the URL without its password

	writing sync.Map // *pgconn.PgConn → *atomic.Bool: set when its commit did not wait for the standby
}

var _ vault.Vault = (*Vault)(nil)

// Open opens the vault of a database. It changes nothing there: a vault that is
// not set up, older or newer than this program is a [*postgres.SchemaError].
// Other errors say that the database could not be asked; [postgres.Final] tells
// those that do not go away by themselves.
func Open(ctx context.Context, o Options) (*Vault, error) {
	v := &Vault{where: postgres.Redact(o.Postgres.URL)}
	next := o.Postgres.OnNotice
	o.Postgres.OnNotice = func(c *pgconn.PgConn, n *pgconn.Notice) {
		v.notice(c, n)
		if next != nil {
			next(c, n)
		}
	}
	pool, err := postgres.Open(ctx, o.Postgres)
	if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	v.pool = pool
	if err := schema().Check(ctx, pool); err != nil {
		pool.Close()
		return nil, fmt.Errorf("open vault at %s: %w", v.where, err)
	}
	return v, nil
}

// Migrate brings the vault of a database up to what this program knows, and
// makes it there if there is none. It returns the versions before and after.
// Safe to run at once from several processes.
func Migrate(ctx context.Context, o postgres.Options) (from, to int64, err error) {
	return schema().Migrate(ctx, o)
}

// Versions says which migrations a database has and which this program knows.
func Versions(ctx context.Context, o postgres.Options) (v postgres.Versions, err error) {
	pool, err := postgres.Open(ctx, o)
	if err != nil {
		return v, err
	}
	defer pool.Close()
	return schema().Versions(ctx, pool)
}

// Schema says which migrations the database has and which this program knows.
func (v *Vault) Schema(ctx context.Context) (vault.Schema, error) {
	s, err := schema().Versions(ctx, v.pool)
	return vault.Schema{Version: s.Version, Known: s.Known}, wrap("read the schema version", err)
}

// Close closes the connections, after the calls in progress.
func (v *Vault) Close() error {
	v.pool.Close()
	return nil
}
