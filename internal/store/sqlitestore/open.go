// Package sqlitestore keeps the tables in one SQLite file.
package sqlitestore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tidegate/tidegate/internal/store"
)

// Suffixes beside the file: a build under way, and one that is complete but
// not yet in its place.
const (
	suffixBuilding = ".building"
	suffixReady    = ".ready"
)

// readers bounds the connections for reading.
const readers = 4

// Store is the tables in a SQLite file. All methods are safe for concurrent
// use; writers wait for one another.
type Store struct {
	path  string
	reads *sql.DB

	mu     sync.Mutex // guards w and closed
	w      *writer
	closed bool
}

var _ store.Store = (*Store)(nil)

// Open opens the tables at path, making empty ones if there are none, and
// first finishes or clears away what an interrupted [Build] left. It returns
// [store.ErrLayout] for tables of another layout, and changes nothing then.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := settle(path); err != nil {
		return nil, fmt.Errorf("open the tables: %w", err)
	}
	s, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open the tables in %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string) (*Store, error) {
	// The file is made here so that it is readable by its owner only.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	s := &Store{path: path}
	if err := s.openWriter(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.openReads(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// OpenReader opens existing tables for reading only, beside the process that
// writes them: it makes, finishes and clears away nothing. Apply fails. It
// returns [store.ErrLayout] for tables of another layout, and an error that is
// [fs.ErrNotExist] where there are none.
func OpenReader(ctx context.Context, path string) (*Store, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open the tables: %w", err)
	}
	s := &Store{path: path}
	err := s.openReads(ctx)
	if err == nil {
		err = one(ctx, s.reads, "SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id)", nil, func(scan func(...any) error) error {
			var found, id int64
			if err := scan(&found, &id); err != nil {
				return err
			}
			if id != applicationID {
				return ErrForeign
			}
			if found != layout {
				return store.ErrLayout
			}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("open the tables in %s: %w", path, errors.Join(err, s.Close()))
	}
	return s, nil
}

func (s *Store) openReads(ctx context.Context) (err error) {
	s.reads, err = sql.Open("sqlite", dsn(s.path, "query_only(1)", "cache_size(-8192)"))
	if err != nil {
		return err
	}
	s.reads.SetMaxOpenConns(readers)
	s.reads.SetMaxIdleConns(readers)
	return s.reads.PingContext(ctx)
}

// ErrForeign says that a file is a SQLite database, but somebody else's.
var ErrForeign = errors.New("this is a SQLite file, but not one with Tidegate's tables: name another file or move it away")

// Damaged says whether an error means that the file is no database any more, or
// one whose pages do not fit together. False for nil and for a database of
// somebody else.
func Damaged(err error) bool {
	var s *sqlite.Error
	if !errors.As(err, &s) {
		return false
	}
	code := s.Code() & 0xff // without what extends it
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

// dsn is the driver's name of a file with pragmas.
func dsn(path string, pragmas ...string) string {
	q := url.Values{"_pragma": append([]string{"busy_timeout(10000)"}, pragmas...)}
	// An escaped path: "?" and "#" in a folder's name would end it.
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?mode=rw&" + q.Encode() // the file is there: never make one
}

// openWriter opens the connection that writes, and makes the tables when the
// file is empty.
//
// synchronous=NORMAL: a commit writes the log without waiting for the disk, so
// a power cut may take back the last commits; but each is taken back whole,
// with its cursor, and the log is synced before pages go into the file, so what
// is left is a state that was true. The journal still has the frames, and the
// projector applies them again. OFF would be little faster and could leave a
// broken file.
//
// secure_delete=FAST: words that an erasure takes out of a row are overwritten
// in its page, which is written anyway. The log keeps them until it is reused.
func (s *Store) openWriter() error {
	drv := &sqlite.Driver{}
	conn, err := drv.Open(dsn(s.path, "journal_mode(WAL)", "synchronous(NORMAL)", "cache_size(-65536)", "temp_store(MEMORY)",
		"wal_autocheckpoint(8192)", "journal_size_limit(67108864)", "secure_delete(FAST)"))
	if err != nil {
		return err
	}
	s.w = &writer{conn: conn, stmts: map[string]*stmt{}}
	var mode string
	if err := s.w.one("PRAGMA journal_mode", nil, func(c []driver.Value) error { mode = colText(c[0]); return nil }); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the file system does not allow SQLite's write-ahead log (journal_mode is %q): put the data folder on a local disk", mode)
	}
	found, err := s.pragma("user_version")
	if err != nil {
		return err
	}
	id, err := s.pragma("application_id")
	if err != nil {
		return err
	}
	switch {
	case found == layout && id == applicationID:
		return nil
	case found == 0 && id == 0:
		return s.create()
	case id != applicationID:
		return ErrForeign
	}
	return store.ErrLayout
}

func (s *Store) pragma(name string) (n int64, err error) {
	err = s.w.one("PRAGMA "+name, nil, func(c []driver.Value) error { n = colInt(c[0]); return nil })
	return n, err
}

// create makes the tables, in one transaction with the marks that say they are there.
func (s *Store) create() error {
	return s.transaction(func() error {
		tables := int64(0)
		if err := s.w.one("SELECT count(*) FROM sqlite_schema", nil, func(c []driver.Value) error { tables = colInt(c[0]); return nil }); err != nil {
			return err
		}
		if tables != 0 {
			return ErrForeign
		}
		// Prepared statements hold one statement each; the driver runs scripts.
		e, ok := s.w.conn.(driver.ExecerContext)
		if !ok {
			return errors.New("the SQLite driver cannot run scripts")
		}
		script := schema + fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d;", applicationID, layout)
		_, err := e.ExecContext(context.Background(), script, nil)
		return err
	})
}

// transaction runs fn between BEGIN IMMEDIATE and COMMIT, or rolls back.
func (s *Store) transaction(fn func() error) (err error) {
	if _, err := s.w.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	done := false
	defer func() {
		if done {
			return
		}
		// Also on a panic, which goes on upwards. SQLite may have rolled back
		// by itself (disk full): then there is nothing to do and this fails.
		_, _ = s.w.exec("ROLLBACK")
	}()
	if err := fn(); err != nil {
		return err
	}
	if _, err := s.w.exec("COMMIT"); err != nil {
		return err
	}
	done = true
	return nil
}

// Close ends the transaction under way first. It is safe to call twice.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	if s.reads != nil {
		errs = append(errs, s.reads.Close())
	}
	if s.w != nil {
		errs = append(errs, s.w.close()) // last: it checkpoints and removes the log
	}
	return errors.Join(errs...)
}

// Build makes the tables at path anew: fill projects into an empty store
// beside the old one, which is swapped for it when fill is through. After a
// crash at any moment the next [Open] finds either the old tables or the new
// ones, whole. Nobody may have the old ones open.
func Build(ctx context.Context, path string, fill func(store.Store) error) error {
	if err := settle(path); err != nil {
		return fmt.Errorf("build the tables: %w", err)
	}
	building := path + suffixBuilding
	s, err := open(ctx, building)
	if err != nil {
		return fmt.Errorf("build the tables in %s: %w", building, err)
	}
	if err := errors.Join(fill(s), s.Close()); err != nil {
		return errors.Join(err, removeDatabase(building))
	}
	if _, err := os.Stat(building + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("build the tables: the log of %s is still there: another process has the file open", building)
	}
	if err := syncPath(building); err != nil {
		return fmt.Errorf("build the tables: %w", err)
	}
	// From this rename on the new tables win.
	if err := os.Rename(building, path+suffixReady); err != nil {
		return fmt.Errorf("build the tables: %w", err)
	}
	if err := syncPath(filepath.Dir(path)); err != nil {
		return fmt.Errorf("build the tables: %w", err)
	}
	return settle(path)
}

// Remove deletes the tables at path, if any. It loses nothing: they are made
// again from the journal.
func Remove(path string) error {
	return errors.Join(removeDatabase(path+suffixReady), removeDatabase(path+suffixBuilding), removeDatabase(path))
}

// settle finishes a swap that was begun, and clears away a build that was not
// finished. It can be interrupted and repeated.
func settle(path string) error {
	if err := removeDatabase(path + suffixBuilding); err != nil {
		return err
	}
	if _, err := os.Stat(path + suffixReady); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	// The old file goes first, its log after it, the new one comes last: a log
	// beside a file that is not its own would be replayed into it.
	if err := removeDatabase(path); err != nil {
		return err
	}
	if err := syncPath(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Rename(path+suffixReady, path); err != nil {
		return err
	}
	return syncPath(filepath.Dir(path))
}

// removeDatabase removes a file and then its log: a log without a file is
// discarded by SQLite, a file without its log may be torn.
func removeDatabase(path string) error {
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
