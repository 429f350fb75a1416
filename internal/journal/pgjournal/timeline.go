package pgjournal

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// timelineSQL is the server's timeline: 1 after initdb, one more at each
// promotion. A server that was a primary before another was promoted stays on
// a lower one for ever.
const timelineSQL = `('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint`

// timelineError says that the server is not the newest primary.
type timelineError struct {
	server, seen int64
	where        string // who has seen the higher one
}

func (e *timelineError) Error() string {
	return fmt.Sprintf("this database server is on timeline %d, and %s has seen timeline %d: it is a primary from before a standby was promoted, and what it takes would be lost. "+
		"Stop it and connect to the promoted server. (A server that was upgraded or restored on purpose begins again with a lower timeline: see docs/operations.md)", e.server, e.where, e.seen)
}

// timelines remembers the highest timeline seen, in a file when it has one.
// Safe for concurrent use.
type timelines struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex
	seen  int64
	saved int64
}

func loadTimelines(path string, log *slog.Logger) (*timelines, error) {
	t := &timelines{path: path, log: log}
	if path == "" {
		return t, nil
	}
	b, err := os.ReadFile(filepath.Clean(path))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the highest timeline seen: %w", err)
	}
	t.seen, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || t.seen < 0 {
		return nil, fmt.Errorf("%s does not hold the number of a timeline: if it was damaged, find the primary's with `select pg_walfile_name(pg_current_wal_lsn())` (first 8 digits, hexadecimal) and write it there in decimal", path)
	}
	t.saved = t.seen
	return t, nil
}

func (t *timelines) highest() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen
}

// check takes note of a server's timeline, or says why the server is not to be
// used. raised says that it is higher than any before.
func (t *timelines) check(server int64) (raised bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case server < t.seen:
		return false, &timelineError{server: server, seen: t.seen, where: "this process, or one before it,"}
	case server > t.seen:
		raised = t.seen > 0
		t.seen = server
	}
	if t.path != "" && t.saved != t.seen {
		// What cannot be written is tried again at the next append. Nothing is
		// refused meanwhile: memory and the head's row know the timeline.
		if err := writeFile(t.path, strconv.FormatInt(t.seen, 10)+"\n"); err != nil {
			t.log.Error("the highest timeline seen could not be kept for the next start", slog.Any("error", err))
		} else {
			t.saved = t.seen
		}
	}
	return raised, nil
}

// writeFile replaces a file durably.
func writeFile(path, text string) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
