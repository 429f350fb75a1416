package pgjournal

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
)

// OpenDialed is Open with connections for appending that come from dial.
func OpenDialed(ctx context.Context, opts Options, dial pgconn.DialFunc) (*Journal, error) {
	opts.dial = dial
	return Open(ctx, opts)
}
