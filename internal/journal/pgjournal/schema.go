package pgjournal

import (
	"context"
	"embed"
	"io/fs"

	"github.com/tidegate/tidegate/internal/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// schema is the journal's part of a database.
var schema = postgres.Schema{Name: "tidegate_journal", What: "the journal", Files: files()}

func files() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the name is a constant
	}
	return sub
}

// Migrate sets the journal up in a database, or brings an older one up to what
// this program knows, and returns the versions before and after. It is safe to
// run beside another and beside processes that append.
func Migrate(ctx context.Context, o postgres.Options) (from, to int64, err error) {
	return schema.Migrate(ctx, o)
}

// Versions says which migrations a database has and which this program knows.
func Versions(ctx context.Context, o postgres.Options) (v postgres.Versions, err error) {
	pool, err := postgres.Open(ctx, o)
	if err != nil {
		return v, err
	}
	defer pool.Close()
	return schema.Versions(ctx, pool)
}
