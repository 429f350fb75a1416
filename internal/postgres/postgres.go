// Package postgres is what the PostgreSQL adapters share: bounded pools with
// time-outs, passwords from files, one way to tell errors apart, and forward
// migrations. It holds no table and no statement of theirs.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Options say how to reach a database. The zero value of every field but URL
// is good.
type Options struct {
	URL          string // postgres://user@host:port/database?sslmode=…
	PasswordFile string // file with the password, read anew for each connection; "" for none, or one in the URL
	Name         string // application_name, as pg_stat_activity shows it; "tidegate" when empty
	// MaxConns bounds the pool; 4 when 0. A caller that finds all of them in use
	// waits until its context ends.
	MaxConns int
	// ConnectTimeout bounds the making of a connection; 5 s when 0.
	ConnectTimeout time.Duration
	// StatementTimeout ends a statement in the server; 0 for none. It is not for
	// appends to the journal: a cancelled wait for a standby is no failure, and
	// the caller could not tell.
	StatementTimeout time.Duration
	// OnNotice is called with each notice of the server, on the connection's
	// goroutine; nil for none.
	OnNotice func(*pgconn.PgConn, *pgconn.Notice)
	// Timeline keeps the pool away from a primary that is behind one it has seen;
	// nil for no check.
	Timeline *Timeline
}

// Bounds of a pool that no setting changes.
const (
	defaultMaxConns       = 4
	defaultConnectTimeout = 5 * time.Second
	maxConnIdleTime       = 5 * time.Minute
	maxConnLifetime       = time.Hour // a failed-over address is noticed by then at the latest
)

// ErrURL says that what was given is no URL of a database: no waiting helps.
var ErrURL = errors.New("is no URL of a database")

// Open makes a pool. It does not connect: the first use does, and says what is
// wrong. An error means that the options cannot work.
func Open(ctx context.Context, o Options) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		// The error of the parser may repeat the URL, and a password in it.
		return nil, fmt.Errorf("postgres: %s %w; it looks like postgres://user@host:5432/database?sslmode=verify-full", Redact(o.URL), ErrURL)
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = or(o.Name, "tidegate")
	}
	// Times are kept and compared in UTC whatever the server's configuration says.
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	if o.StatementTimeout > 0 {
		cfg.ConnConfig.RuntimeParams["statement_timeout"] = fmt.Sprint(o.StatementTimeout.Milliseconds())
		cfg.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = fmt.Sprint((2 * o.StatementTimeout).Milliseconds())
	}
	cfg.ConnConfig.ConnectTimeout = or(o.ConnectTimeout, defaultConnectTimeout)
	cfg.ConnConfig.OnNotice = o.OnNotice
	cfg.MaxConns = int32(or(o.MaxConns, defaultMaxConns)) //nolint:gosec // a few dozen
	cfg.MaxConnIdleTime, cfg.MaxConnLifetime = maxConnIdleTime, maxConnLifetime
	cfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { return o.password(c) }
	if o.Timeline != nil {
		o.Timeline.guard(cfg, o.password)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %s: %w", Redact(o.URL), err)
	}
	return pool, nil
}

// password reads the password into the configuration of a connection.
func (o *Options) password(c *pgx.ConnConfig) error {
	if o.PasswordFile == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Clean(o.PasswordFile))
	if err != nil {
		return fmt.Errorf("postgres: the password file: %w", err)
	}
	c.Password = strings.TrimRight(string(b), "\r\n")
	return nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Redact is a URL without its password, for logs and screens.
func Redact(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "the value given" // it may be anything, also a password
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q, secret := u.Query(), false
	for key := range q {
		if strings.Contains(strings.ToLower(key), "password") { // password, sslpassword
			q.Set(key, "***")
			secret = true
		}
	}
	if secret {
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

// IsURL says whether a text names a PostgreSQL database rather than a path.
func IsURL(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

// Code is the SQLSTATE of an error that the server sent, "" for others
// (PostgreSQL documentation, appendix A).
func Code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Codes that callers tell apart.
const (
	CodeUniqueViolation  = "23505"
	CodeReadOnly         = "25006" // a standby
	CodeUndefinedTable   = "42P01"
	CodeUndefinedSchema  = "3F000"
	CodeUndefinedDB      = "3D000"
	CodeQueryCanceled    = "57014"
	CodeSerialization    = "40001"
	CodeDeadlock         = "40P01"
	CodeInsufficientPriv = "42501"
)

// Final says whether an error will not go away by itself: wrong password, no
// such database, no right, a schema that is not there. Everything else (refused
// and broken connections, a server that starts or stops, a full disk, time-outs)
// may be tried again.
func Final(err error) bool {
	code := Code(err)
	switch code {
	case CodeUndefinedTable, CodeUndefinedSchema, CodeUndefinedDB, CodeInsufficientPriv:
		return true
	}
	return strings.HasPrefix(code, "28") // invalid authorization
}
