package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidegate/tidegate/internal/store/sqlitestore"
)

// What is put aside before something is made anew in its place.

// suffixDamaged is the ending of tables that were put aside. One is kept.
const suffixDamaged = ".damaged"

// putTablesAside keeps damaged tables for whoever wants to know what happened to
// the disk, and makes room for new ones.
func (f *folder) putTablesAside() error {
	path := f.path(fileStore)
	if err := os.Rename(path, path+suffixDamaged); err != nil {
		return err
	}
	// And their log, which SQLite would take for that of the new file.
	if err := sqlitestore.Remove(path); err != nil {
		return err
	}
	return syncFolder(f.dir)
}

// keptWALs bounds how many copies of a -wal are kept.
const keptWALs = 5

// keepWAL copies a -wal that an unclean stop left, before SQLite opens it:
// recovery drops whatever follows the first bad page in silence, and the copy
// is then all that is left to look at. When there are too many, the first stays
// and those after it go: of a series of failed starts it is the one that nothing
// had touched yet.
func (f *folder) keepWAL() error {
	from := f.path(fileJournal + "-wal")
	info, err := os.Stat(from)
	if err != nil || info.Size() == 0 {
		return nil
	}
	dir := f.path(folderBefore)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep the journal's -wal before recovery: %w", err)
	}
	kept, err := keptCopies(dir)
	if err != nil {
		return err
	}
	if len(kept) > 0 {
		same, err := sameContent(from, kept[len(kept)-1])
		if err != nil {
			return fmt.Errorf("compare the journal's -wal with its last copy: %w", err)
		}
		if same {
			return nil // a start that failed before SQLite opened it
		}
	}
	to := filepath.Join(dir, fileJournal+"-wal."+time.Now().UTC().Format("20060102T150405.000000000Z"))
	if err := copyFile(from, to); err != nil {
		return fmt.Errorf("keep the journal's -wal before recovery (is the disk full?): %w", err)
	}
	if err := errors.Join(syncFolder(dir), syncFolder(f.dir)); err != nil {
		return fmt.Errorf("keep the journal's -wal before recovery: %w", err)
	}
	f.log.Info("the last stop was not clean: the journal's -wal was copied aside before recovery", "copy", to, "bytes", info.Size())
	for kept = append(kept, to); len(kept) > keptWALs; kept = slices.Delete(kept, 1, 2) {
		if err := os.Remove(kept[1]); err != nil {
			return fmt.Errorf("remove an old copy of a -wal: %w", err)
		}
	}
	return nil
}

// keptCopies are the copies of a -wal, oldest first.
func keptCopies(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries { // in the order of their names, which are times
		if ok, _ := filepath.Match(fileJournal+"-wal.*", e.Name()); ok {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

// sameContent says whether two files hold the same bytes.
func sameContent(a, b string) (same bool, err error) {
	fa, err := os.Open(filepath.Clean(a))
	if err != nil {
		return false, err
	}
	defer fa.Close() //nolint:errcheck // only read
	fb, err := os.Open(filepath.Clean(b))
	if err != nil {
		return false, err
	}
	defer fb.Close() //nolint:errcheck // only read
	ba, bb := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		na, errA := io.ReadFull(fa, ba)
		nb, errB := io.ReadFull(fb, bb)
		if !bytes.Equal(ba[:na], bb[:nb]) {
			return false, nil
		}
		endA, endB := errA == io.EOF || errA == io.ErrUnexpectedEOF, errB == io.EOF || errB == io.ErrUnexpectedEOF //nolint:errorlint // as ReadFull says
		switch {
		case endA && endB:
			return true, nil
		case errA != nil && !endA, errB != nil && !endB:
			return false, errors.Join(errA, errB)
		}
	}
}
