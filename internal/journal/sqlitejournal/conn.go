package sqlitejournal

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"modernc.org/sqlite"

	"github.com/tidegate/tidegate/internal/fault"
)

// minVersion is the first SQLite without the race of a checkpoint and a commit
// that could lose committed pages (3.7.0 to 3.51.2).
var minVersion = [3]int{3, 51, 3}

// busyMillis is how long SQLite waits for another process's lock.
const busyMillis = 5000

// conn is one connection with the statements it has prepared. It speaks to the
// driver itself: database/sql would add a pool, a goroutine per cancellable
// call and a second copy of every frame. Not safe for concurrent use.
type conn struct {
	driver.Conn
	stmts map[string]driver.Stmt
}

// access is what a connection is for.
type access int

const (
	writing  access = iota
	reading         // mode=ro and query_only: it can change nothing, not even at its close
	creating        // builds a new file, in the rollback mode a file begins with
	copying         // mode=ro, but free to write the copy
)

func connect(path string, a access, opts Options) (*conn, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	q := url.Values{"_defensive": {"1"}, "mode": {"rw"}}
	if a == reading || a == copying {
		q.Set("mode", "ro")
	}
	if opts.vfs != "" {
		q.Set("vfs", opts.vfs)
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(abs), RawQuery: q.Encode()}
	connector, err := sqlite.NewConnector(u.String())
	if err != nil {
		return nil, err
	}
	dc, err := connector.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	if opts.wrap != nil {
		dc = opts.wrap(dc)
	}
	c := &conn{Conn: dc, stmts: map[string]driver.Stmt{}}
	if err := c.configure(a); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// setting is a pragma that a journal depends on, and the value it must read
// back as.
type setting struct{ name, want string }

func settings(a access) []setting {
	s := []setting{
		{"busy_timeout", strconv.Itoa(busyMillis)},
		{"synchronous", "2"}, // FULL: a commit returns when the WAL is synced
		{"fullfsync", "1"},   // macOS: through the drive's cache too
		{"checkpoint_fullfsync", "1"},
		{"mmap_size", "0"}, // an I/O error must be an error, not a signal
		{"trusted_schema", "0"},
		{"cell_size_check", "1"},
	}
	if fault.Enabled && fault.On(fault.SyncOff) && a == writing {
		s[1].want = "0" // the control of the power loss tests: must lose frames
	}
	switch a {
	case writing:
		// The only connection that checkpoints does so between frames.
		s = append(s, setting{"journal_mode", "wal"}, setting{"wal_autocheckpoint", "0"})
	case reading:
		s = append(s, setting{"wal_autocheckpoint", "0"}, setting{"query_only", "1"})
	case creating, copying:
	}
	return s
}

// configure sets every setting, reads each one back, and refuses on the first
// that did not take.
func (c *conn) configure(a access) error {
	v, err := c.text("SELECT sqlite_version()")
	if err != nil {
		return err
	}
	if err := checkVersion(v); err != nil {
		return err
	}
	for _, s := range settings(a) {
		// Some pragmas answer with their value as they are set and some do not, so
		// the answer of the setting says nothing: only the reading back does.
		if _, err := c.text("PRAGMA " + s.name + "=" + s.want); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("SQLite does not take PRAGMA %s=%s, which durability needs: %w", s.name, s.want, err)
		}
		got, err := c.text("PRAGMA " + s.name)
		if errors.Is(err, io.EOF) && s.name == "mmap_size" {
			got, err = "0", nil // an engine built without memory mapping has no such setting
		}
		if err != nil {
			return fmt.Errorf("SQLite does not tell its %s, which durability needs: %w", s.name, err)
		}
		if got != s.want {
			return fmt.Errorf("SQLite runs with %s=%s instead of %s, so an acknowledged frame would not be safe: does another program hold the file, or does the file system lack locks?", s.name, got, s.want)
		}
	}
	return nil
}

func checkVersion(v string) error {
	var got [3]int
	for i, part := range strings.SplitN(v, ".", 4) {
		n, err := strconv.Atoi(part)
		if i > 2 || err != nil {
			break
		}
		got[i] = n
	}
	if slices.Compare(got[:], minVersion[:]) < 0 {
		return fmt.Errorf("SQLite %s can lose committed frames: build with %d.%d.%d or later", v, minVersion[0], minVersion[1], minVersion[2])
	}
	return nil
}

func (c *conn) prepare(sql string) (driver.Stmt, error) {
	if s, ok := c.stmts[sql]; ok {
		return s, nil
	}
	s, err := c.Prepare(sql)
	if err != nil {
		return nil, err
	}
	c.stmts[sql] = s
	return s, nil
}

// named numbers the arguments, as the driver wants them.
func named(args []driver.Value) []driver.NamedValue {
	nv := make([]driver.NamedValue, len(args))
	for i, a := range args {
		nv[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	return nv
}

// exec runs one statement, prepared once per connection. It cannot be
// cancelled: what it does to a disk is not to be left half done.
func (c *conn) exec(sql string, args ...driver.Value) (driver.Result, error) {
	s, err := c.prepare(sql)
	if err != nil {
		return nil, err
	}
	return s.(driver.StmtExecContext).ExecContext(context.Background(), named(args))
}

// query calls row for each row, whose values are valid for ever. A ctx that can
// be cancelled interrupts the statement.
func (c *conn) query(ctx context.Context, sql string, args []driver.Value, row func([]driver.Value) error) error {
	s, err := c.prepare(sql)
	if err != nil {
		return err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(ctx, named(args))
	if err != nil {
		return err
	}
	dest := make([]driver.Value, len(rows.Columns()))
	for err == nil {
		if err = rows.Next(dest); err == nil {
			err = row(dest)
		}
	}
	closed := rows.Close() // says the same again after a failed step
	if errors.Is(err, io.EOF) {
		return closed
	}
	return err
}

// one returns the first row, or io.EOF when there is none.
func (c *conn) one(sql string, args ...driver.Value) ([]driver.Value, error) {
	var first []driver.Value
	err := c.query(context.Background(), sql, args, func(v []driver.Value) error {
		if first == nil {
			first = slices.Clone(v)
		}
		return nil
	})
	if err == nil && first == nil {
		err = io.EOF
	}
	return first, err
}

// text is one row's first column as text, or io.EOF.
func (c *conn) text(sql string) (string, error) {
	v, err := c.one(sql)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(v[0]), nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.Close())...)
}
