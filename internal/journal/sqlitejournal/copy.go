package sqlitejournal

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tidegate/tidegate/internal/journal"
)

// CopyTo writes a consistent copy of the journal to a new file at path, while
// appends go on. The copy ends with the last frame at the moment it began, is
// synced, and needs no -wal.
//
// It is made by VACUUM INTO and not page by page with the backup interface: one
// reading transaction instead of a copy that begins again whenever a frame is
// appended between two steps, and a file that is written from its rows, so that
// damage to its structure ends the copy with an error rather than being copied.
// Meanwhile the -wal cannot be begun anew and grows by what is appended.
func (j *Journal) CopyTo(ctx context.Context, path string) error {
	if err := j.copyTo(ctx, path); err != nil {
		return fmt.Errorf("copy journal to %s: %w", path, err)
	}
	return nil
}

func (j *Journal) copyTo(ctx context.Context, path string) error {
	if j.isClosed() {
		return journal.ErrClosed
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = errors.New("there is a file already: name another path, or remove it")
		}
		return err
	}
	building := path + ".new"
	if err := newFile(building); err != nil {
		return err
	}
	defer os.Remove(building)
	c, err := connect(j.path, copying, j.opts)
	if err != nil {
		return explain(err)
	}
	// VACUUM INTO fills the empty file that is there, so only the owner can read it.
	err = c.query(ctx, "VACUUM INTO ?", []driver.Value{building}, func([]driver.Value) error { return nil })
	if e := c.close(); err == nil {
		err = e
	}
	if err != nil {
		return explain(err)
	}
	if err := seal(ctx, building, j.opts); err != nil {
		return err
	}
	return publish(building, path)
}

// seal gives the copy the WAL mode that a journal begins with, and checks it.
func seal(ctx context.Context, path string, opts Options) error {
	c, err := connect(path, creating, opts)
	if err != nil {
		return explain(err)
	}
	_, err = c.exec("PRAGMA journal_mode=WAL")
	if err == nil {
		_, err = c.verify(ctx, false)
	}
	if e := c.close(); err == nil {
		err = e
	}
	if err != nil {
		return explain(err)
	}
	return checkHeader(path)
}
