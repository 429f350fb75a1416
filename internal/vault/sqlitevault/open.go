// Package sqlitevault keeps the vault in one SQLite file.
//
// One connection writes; a few others read, so that checking a credential
// never waits for a backup. A commit is durable when it returns: WAL with
// synchronous=FULL, read back on every connection, because a setting that was
// silently ignored would only show after a power cut.
package sqlitevault

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tidegate/tidegate/internal/vault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID stands in the file's header, "TGVT", so that another database
// in the vault's place is noticed before a table is made in it.
const applicationID = 0x54475654

// minSQLite is the first version without a race that could damage a database
// in WAL mode when two connections checkpoint and write.
const minSQLite = 3_051_003

// readers bounds the connections that read.
const readers = 4

// Options of opening a vault.
type Options struct {
	// Create makes a new vault if the file is missing. Without it a missing
	// file is refused: in a folder that was in use it was lost.
	Create bool
}

// Vault is a [vault.Vault] in a SQLite file.
type Vault struct {
	path      string
	connector driver.Connector // without query_only
	write     *sql.DB          // one connection
	read      *sql.DB
	goose     *goose.Provider
}

var _ vault.Vault = (*Vault)(nil)

// Open opens the vault in a file, and brings its tables up to what this
// program knows. The file and what SQLite lays beside it have mode 0600.
// Refusals are [vault.OpenError]. The caller holds the data folder's LOCK.
func Open(ctx context.Context, path string, opts Options) (*Vault, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	if err := prepareFile(path, opts.Create); err != nil {
		return nil, err
	}
	v := &Vault{path: path}
	if v.connector, err = connect(path, false); err != nil {
		return nil, err
	}
	readOnly, err := connect(path, true)
	if err != nil {
		return nil, err
	}
	v.write, v.read = sql.OpenDB(v.connector), sql.OpenDB(readOnly)
	v.write.SetMaxOpenConns(1)
	v.read.SetMaxOpenConns(readers)
	v.read.SetMaxIdleConns(readers)
	if err := v.prepare(ctx); err != nil {
		return nil, errors.Join(sentence(path, err), v.Close())
	}
	return v, nil
}

// prepareFile sees to it that there is a file, and that it is private.
func prepareFile(path string, create bool) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			err = errors.Join(f.Chmod(0o600), f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
		}
		if err != nil {
			return fmt.Errorf("create vault %s: %w", path, err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return &vault.OpenError{Path: path, Problem: "is missing", Remedy: "restore it from the backup", Err: err}
	case err != nil:
		return fmt.Errorf("open vault: %w", err)
	case !info.Mode().IsRegular():
		return &vault.OpenError{Path: path, Problem: "is not a regular file", Remedy: "restore it from the backup"}
	case info.Size() == 0 && !create:
		return &vault.OpenError{Path: path, Problem: "is empty", Remedy: "restore it from the backup"}
	case info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows":
		return &vault.OpenError{
			Path: path, Problem: fmt.Sprintf("is open to other users (mode %04o)", info.Mode().Perm()),
			Remedy: "run chmod 600 on it and on the files whose names begin with its name",
		}
	}
	return nil
}

// checked is a connector whose connections have proved their settings.
type checked struct {
	driver.Connector
	path string
}

// settings are set on every connection, then read back.
var settings = []struct{ pragma, set, want string }{
	{"journal_mode", "WAL", "wal"},
	{"synchronous", "FULL", "2"},
	{"fullfsync", "1", "1"},
	{"checkpoint_fullfsync", "1", "1"},
	{"foreign_keys", "1", "1"},
	{"trusted_schema", "0", "0"},
	{"cell_size_check", "1", "1"},
	{"busy_timeout", "5000", "5000"},
}

func connect(path string, readOnly bool) (driver.Connector, error) {
	q := url.Values{"_txlock": {"immediate"}}
	for _, s := range settings {
		q.Add("_pragma", s.pragma+"("+s.set+")")
	}
	if readOnly {
		q.Add("_pragma", "query_only(1)")
	}
	dsn := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q.Encode()}
	c, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", path, err)
	}
	return checked{c, path}, nil
}

// Connect opens a connection and reads its settings back.
func (c checked) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range settings {
		got, err := pragma(ctx, conn, s.pragma)
		if err == nil && got != s.want {
			err = &vault.OpenError{
				Path: c.path, Problem: fmt.Sprintf("has %s=%s instead of %s, so a change might not survive a power cut", s.pragma, got, s.want),
				Remedy: "move the data folder to a local file system that SQLite's WAL mode supports",
			}
		}
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

func pragma(ctx context.Context, conn driver.Conn, name string) (string, error) {
	q, ok := conn.(driver.QueryerContext)
	if !ok {
		return "", errors.New("the SQLite driver cannot be asked for its settings")
	}
	rows, err := q.QueryContext(ctx, "PRAGMA "+name, nil)
	if err != nil {
		return "", fmt.Errorf("read back %s: %w", name, err)
	}
	row := make([]driver.Value, 1)
	if err = rows.Next(row); errors.Is(err, io.EOF) {
		err = errors.New("unknown to this SQLite")
	}
	if err = errors.Join(err, rows.Close()); err != nil {
		return "", fmt.Errorf("read back %s: %w", name, err)
	}
	return fmt.Sprint(row[0]), nil
}

// prepare checks the file and brings the tables up to date.
func (v *Vault) prepare(ctx context.Context) error {
	var version string
	if err := v.write.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return err
	}
	var major, minor, patch int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); err != nil || major*1_000_000+minor*1_000+patch < minSQLite {
		return fmt.Errorf("this program was built with SQLite %s, which may damage data: build it with 3.51.3 or newer", version)
	}
	if err := v.identify(ctx); err != nil {
		return err
	}
	var state string
	if err := v.write.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&state); err != nil {
		return err
	}
	if state != "ok" {
		return &vault.OpenError{Path: v.path, Problem: "is damaged", Remedy: "restore it from the backup"}
	}
	return v.migrate(ctx)
}

// identify refuses a database that is not a vault, before it is changed.
func (v *Vault) identify(ctx context.Context) error {
	var id, tables int64
	err := v.write.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id)
	if err == nil {
		err = v.write.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables)
	}
	switch {
	case err != nil:
		return err
	case id == applicationID:
		return nil
	case id != 0 || tables > 0:
		return &vault.OpenError{Path: v.path, Problem: "is a database, but not a vault", Remedy: "put the vault's own file back, from the backup if need be"}
	}
	_, err = v.write.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	return err
}

func (v *Vault) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	// The process-wide registry of goose is left out: nothing but these files may change the vault.
	v.goose, err = goose.NewProvider(goose.DialectSQLite3, v.write, files, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("read the vault's migrations: %w", err)
	}
	current, known, err := v.goose.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the vault's version: %w", err)
	}
	if current > known {
		return &vault.OpenError{
			Path: v.path, Problem: fmt.Sprintf("has schema version %d, this program knows versions up to %d", current, known),
			Remedy: "start the newer tidegate that wrote it, or restore the backup made before the update",
		}
	}
	if _, err := v.goose.Up(ctx); err != nil {
		return fmt.Errorf("bring the vault %s from schema version %d to %d: %w", v.path, current, known, err)
	}
	return nil
}

// sentence turns what SQLite says of a file into what to do about it.
func sentence(path string, err error) error {
	var known *vault.OpenError
	var e *sqlite.Error
	switch {
	case errors.As(err, &known):
		return known
	case !errors.As(err, &e):
		return fmt.Errorf("open vault %s: %w", path, err)
	}
	refusal := &vault.OpenError{Path: path, Err: err, Remedy: "restore it from the backup"}
	switch e.Code() & 0xff { // the primary code
	case sqlite3.SQLITE_NOTADB:
		refusal.Problem = "is not a database"
	case sqlite3.SQLITE_CORRUPT:
		refusal.Problem = "is damaged"
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		refusal.Problem, refusal.Remedy = "is in use by another process", "stop that process, it does not respect the data folder's LOCK"
	case sqlite3.SQLITE_FULL:
		refusal.Problem, refusal.Remedy = "cannot be written because the disk is full", "free some space and start again"
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY:
		refusal.Problem, refusal.Remedy = "cannot be opened for writing", "check the owner and the mode of the file and its folder"
	case sqlite3.SQLITE_IOERR:
		refusal.Problem, refusal.Remedy = "cannot be read or written", "check the disk; "+refusal.Remedy+" if it is broken"
	default:
		return fmt.Errorf("open vault %s: %w", path, err)
	}
	return refusal
}

// syncDir makes the names in a folder durable where a folder can be synced.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close closes the connections; the last one moves the -wal into the file.
func (v *Vault) Close() error {
	return errors.Join(v.read.Close(), v.write.Close())
}
