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

	"github.com/tidegate/tidegate/internal/postgres"
)

// behindHead says that a server is on a lower timeline than one that wrote the
// head of a shard in it.
func behindHead(server, head int64) error {
	return &postgres.TimelineError{Server: server, Seen: head, Where: "the journal in it"}
}

// timelines keeps the highest timeline seen in a file, when it has one. Safe for
// concurrent use.
type timelines struct {
	seen *postgres.Timeline
	path string
	log  *slog.Logger

	mu    sync.Mutex
	acted int64 // the primary that the journal has noticed
	saved int64
}

// loadTimelines adds what the file knows to what was seen.
func loadTimelines(seen *postgres.Timeline, path string, log *slog.Logger) (*timelines, error) {
	t := &timelines{seen: seen, path: path, log: log}
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
	t.saved, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || t.saved < 0 {
		return nil, fmt.Errorf("%s does not hold the number of a timeline: if it was damaged, find the primary's with `select pg_walfile_name(pg_current_wal_lsn())` (first 8 digits, hexadecimal) and write it there in decimal", path)
	}
	// A process that shares what it has seen may know of a higher one already.
	if seen.Highest() < t.saved {
		_ = seen.Meet(t.saved)
	}
	t.acted = seen.Highest()
	return t, nil
}

// check takes note of a server's timeline, or says why the server is not to be
// used. raised says that it is higher than that of any server the journal used
// before: whoever saw it first, a new connection or another pool, does not
// matter.
func (t *timelines) check(server int64) (raised bool, err error) {
	if err := t.seen.Meet(server); err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	raised = t.acted > 0 && server > t.acted
	t.acted = max(t.acted, server)
	if t.path != "" && t.saved < server {
		// What cannot be written is tried again at the next append. Nothing is
		// refused meanwhile: memory and the head's row know the timeline.
		if err := writeFile(t.path, strconv.FormatInt(server, 10)+"\n"); err != nil {
			t.log.Error("the highest timeline seen could not be kept for the next start", slog.Any("error", err))
		} else {
			t.saved = server
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
