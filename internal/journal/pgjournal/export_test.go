package pgjournal

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/internal/journal"
)

// OpenDialed is Open with connections for appending that come from dial.
func OpenDialed(ctx context.Context, opts Options, dial pgconn.DialFunc) (*Journal, error) {
	opts.dial = dial
	return Open(ctx, opts)
}

// OpenTrusting is Open with connections that are never asked whether they still
// work, so that a test can break one under an append.
func OpenTrusting(ctx context.Context, opts Options) (*Journal, error) {
	opts.trust = time.Hour
	return Open(ctx, opts)
}

// ClassOf is the class of a commit between two rows of the settings.
func ClassOf(before, after []string) journal.Class {
	b, a := parseSettings(before), parseSettings(after)
	return classOf(&b, &a)
}
