package sqlitejournal

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/tidegate/tidegate/internal/journal"
)

// What marks a SQLite file as a journal (offsets 68 and 60 of its header).
const (
	applicationID = 0x54474A31 // "TGJ1"
	formatVersion = 1
	// A frame of 256 facts costs less than half the processor time of that with
	// SQLite's usual 4096, and one of a single fact the same (BenchmarkAppend in
	// memory); 16384 gains little more and writes twice as much for a small frame.
	pageBytes = 8192
)

// The schema. Bytes 13 to 36 of a frame are the run and the number in its
// header (substr counts from 1): unique, and big-endian, so in order.
const (
	createTable = `CREATE TABLE frames (position INTEGER PRIMARY KEY, frame BLOB NOT NULL) STRICT`
	createIndex = `CREATE UNIQUE INDEX frames_run ON frames (substr(frame, 13, 24))`
)

// openFiles counts the journals this process has open, by file. POSIX drops
// every lock a process holds on a file as soon as the process closes any
// descriptor of it, so a file that is open must not be looked at by ourselves.
var openFiles = registry{open: map[string]int{}}

type registry struct {
	mu   sync.Mutex
	open map[string]int
}

func (r *registry) key(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path
}

func (r *registry) add(path string) string {
	key := r.key(path)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[key]++
	return key
}

func (r *registry) remove(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[key]--; r.open[key] <= 0 {
		delete(r.open, key)
	}
}

func (r *registry) has(path string) bool {
	key := r.key(path)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[key] > 0
}

// inspect makes the file if there is none, and says whether its last writer
// stopped without closing it. It touches nothing that exists.
func inspect(ctx context.Context, path string, opts Options) (unclean bool, err error) {
	wal, err := os.Stat(path + "-wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	unclean = err == nil && wal.Size() > 0
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && opts.ReadOnly:
		return false, errors.New("there is no such file")
	case errors.Is(err, fs.ErrNotExist) && unclean:
		return false, errors.New("the file is gone but its -wal is still there: put both back from where they were moved, or restore a backup")
	case errors.Is(err, fs.ErrNotExist):
		return false, create(path, opts)
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, errors.New("it is not a regular file")
	case openFiles.has(path):
		return unclean, ctx.Err() // checked when it was opened first
	}
	return unclean, checkHeader(path)
}

// checkHeader reads the first bytes of the file itself, before SQLite may.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var h [100]byte
	if _, err := io.ReadFull(f, h[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("the file is cut short to less than a header: restore a backup (or, if it never held anything, delete it)")
		}
		return err
	}
	if string(h[:16]) != "SQLite format 3\x00" {
		return errors.New("it is not a SQLite file, or its header is damaged: restore a backup, or name another path")
	}
	if id := binary.BigEndian.Uint32(h[68:]); id != applicationID {
		return errors.New("it is a SQLite file of another program, not a journal: name another path")
	}
	if v := binary.BigEndian.Uint32(h[60:]); v != formatVersion {
		return fmt.Errorf("its format version is %d and this binary knows %d: use the version of Tidegate that wrote it, or a later one", v, formatVersion)
	}
	return nil
}

// create builds a new journal beside path and moves it there whole, so that a
// crash leaves either no journal or a complete one.
func create(path string, opts Options) error {
	building := path + ".new"
	if err := newFile(building); err != nil {
		return err
	}
	defer os.Remove(building)
	c, err := connect(building, creating, opts)
	if err != nil {
		return explain(err)
	}
	for _, sql := range []string{
		fmt.Sprintf("PRAGMA page_size=%d", pageBytes),
		"BEGIN IMMEDIATE",
		fmt.Sprintf("PRAGMA application_id=%d", applicationID),
		fmt.Sprintf("PRAGMA user_version=%d", formatVersion),
		createTable, createIndex,
		"COMMIT",
		"PRAGMA journal_mode=WAL",
	} {
		if _, err := c.exec(sql); err != nil {
			c.close()
			return explain(err)
		}
	}
	if err := c.close(); err != nil {
		return explain(err)
	}
	return publish(building, path)
}

// newFile makes an empty file that only the owner can read; SQLite gives the
// -wal and -shm the same mode. What an earlier try left is removed.
func newFile(path string) error {
	for _, stale := range []string{path, path + "-wal", path + "-shm", path + "-journal"} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// publish syncs the finished file and gives it its name, unless that is taken.
func publish(building, path string) error {
	if err := syncPath(building); err != nil {
		return err
	}
	// A link, because a rename would silently replace what another process made.
	err := os.Link(building, path)
	switch {
	case errors.Is(err, fs.ErrExist):
		return errors.New("another process has just made it: start again")
	case errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported):
		err = os.Rename(building, path) // a file system without links
	}
	if err != nil {
		return err
	}
	return syncPath(filepath.Dir(path))
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// verify checks schema, structure (when asked) and the last frame, and returns
// the last position.
func (c *conn) verify(ctx context.Context, structure bool) (journal.Position, error) {
	var schema []string
	if err := c.query(ctx, "SELECT sql FROM sqlite_schema ORDER BY type DESC, name", nil, func(v []driver.Value) error {
		schema = append(schema, fmt.Sprint(v[0]))
		return nil
	}); err != nil {
		return 0, err
	}
	if strings.Join(schema, ";") != createTable+";"+createIndex {
		return 0, errors.New("its tables are not those of a journal: somebody changed the file: restore a backup")
	}
	if structure {
		if err := c.query(ctx, "PRAGMA quick_check(1)", nil, func(v []driver.Value) error {
			if s := fmt.Sprint(v[0]); s != "ok" {
				return damaged("%s", strings.TrimSpace(strings.ReplaceAll(s, "\n", " ")))
			}
			return nil
		}); err != nil {
			return 0, err
		}
	}
	return c.verifyTail()
}

const selectLast = "SELECT position, frame FROM frames ORDER BY position DESC LIMIT 1"

// verifyTail re-hashes the last frame, the one that an interrupted run leaves.
func (c *conn) verifyTail() (journal.Position, error) {
	v, err := c.one(selectLast)
	if errors.Is(err, io.EOF) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	rec := record(v)
	frame, err := journal.DecodeFrame(rec.Bytes)
	if err != nil {
		return 0, damaged("the last frame, %d: %w", rec.Position, err)
	}
	if faults := frame.Check(); len(faults) > 0 {
		return 0, damaged("the last frame, %d: %s", rec.Position, faults[0].Reason)
	}
	return rec.Position, nil
}

// ErrDamaged wraps every refusal of a file whose content is not what was
// written.
var ErrDamaged = errors.New("the journal is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w (%w): keep the file and its -wal as they are, see what `tidegate verify` says, and restore a backup",
		ErrDamaged, fmt.Errorf(format, args...))
}
