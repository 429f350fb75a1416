package app

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/tidegate/tidegate/internal/auth"
)

// Files of a data folder.
const (
	fileJournal  = "journal.db"
	fileStore    = "store.db"
	fileVault    = "vault.db"
	folderKeys   = "keys"
	folderBefore = "recovery"    // copies of a -wal that an unclean stop left
	fileRootOnly = "root-folder" // lies in what keys init made: its journal is elsewhere
)

// shard is the only one of a data folder.
const shard = 0

// folder is what every process has of its own: a data folder that it holds the
// lock of, with the keys. On one machine journal, tables and vault lie in it too.
type folder struct {
	dir   string
	log   *slog.Logger
	lock  *lock
	keys  *auth.Keys
	fresh bool // made by this process

	foreign sync.Map // certificates of other roots that the log was told of
}

// ErrNoFolder says that there is no data folder yet.
var errNoFolder = errors.New("is no data folder")

// prepareFolder makes the folder if it may, checks who can enter it, takes the
// lock, and loads or makes the keys: what must be durable before a listener
// opens. Nothing else is touched.
func prepareFolder(dir, what string, create bool, log *slog.Logger) (*folder, error) {
	dir = filepath.Clean(dir)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the data folder: %w", err)
		}
	case errors.Is(err, fs.ErrNotExist):
		return nil, noFolder(dir)
	case err != nil:
		return nil, fmt.Errorf("data folder: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("data folder %s is a file", dir)
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("data folder %s can be changed by other users (mode %04o): chmod 700 %s", dir, info.Mode().Perm(), dir)
	}
	if err := writable(dir); err != nil {
		return nil, err
	}
	f := &folder{dir: dir, log: log}
	if f.lock, err = takeLock(dir, what); err != nil {
		return nil, err
	}
	if err := f.loadKeys(create); err != nil {
		return nil, errors.Join(err, f.lock.release())
	}
	return f, nil
}

// keysOf loads the keys of a data folder, for a command that only reads.
func keysOf(dir string) (*auth.Keys, error) {
	if !exists(dir) || !exists(filepath.Join(dir, folderKeys)) && !exists(filepath.Join(dir, fileJournal)) {
		return nil, noFolder(dir)
	}
	return auth.LoadKeys(filepath.Join(dir, folderKeys))
}

func noFolder(dir string) error {
	return fmt.Errorf("%s %w: `tidegate demo --data %s` makes one with a demo trial, `tidegate serve --data %s` an empty one", dir, errNoFolder, dir, dir)
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

// ofManyProcesses says whether the folder holds keys of an installation whose
// journal is in PostgreSQL: keys init made it, keys were issued from it, or to
// it. A folder whose first start was cut short after its keys is none.
func (f *folder) ofManyProcesses() (bool, error) {
	if exists(f.path(fileRootOnly)) || f.keys.Name() != "" {
		return true, nil
	}
	issued, err := f.keys.Issued()
	return len(issued) > 0, err
}

// mayBegin refuses to begin a journal beside keys whose journal is elsewhere.
// What was recorded in the new one, such as that a key was stolen, would be
// heard by nobody. create says that a folder whose first start was cut short
// may begin its own.
func (f *folder) mayBegin(create bool) error {
	if f.fresh || exists(f.path(fileJournal)) {
		return nil
	}
	if err := f.journalThere(); err != nil {
		return err // it had one, and that was lost
	}
	many, err := f.ofManyProcesses()
	switch {
	case err != nil:
		return err
	case many && f.keys.Name() != "":
		return fmt.Errorf("%s has no journal, only the keys that were issued to %s: name the database with --config FILE or TIDEGATE_POSTGRES_URL, and the root folder with --data to change keys", f.dir, f.keys.Name())
	case many:
		return fmt.Errorf("this root folder has no journal: name the database with --config FILE or TIDEGATE_POSTGRES_URL (%s)", f.dir)
	case !create:
		return fmt.Errorf("%s has keys and no journal: name the database with --config FILE or TIDEGATE_POSTGRES_URL, or begin a journal on this machine with `tidegate serve --data %s`", f.dir, f.dir)
	}
	return nil
}

// journalElsewhere says whether a folder's journal is a database that a command
// has to be told.
func journalElsewhere(dir string) (bool, error) {
	t, err := readTransferred(dir)
	return t != nil || !exists(filepath.Join(dir, fileJournal)), err
}

// writable refuses a folder of which this user can change only a part: SQLite
// would open such files for reading, and fail at the first report.
func writable(dir string) error {
	const readWrite = 6
	for _, name := range []string{"", fileJournal, fileJournal + "-wal", fileStore, fileStore + "-wal", fileVault, fileVault + "-wal"} {
		path := filepath.Join(dir, name)
		if err := syscall.Access(path, readWrite); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s cannot be read and written by this user (%w): check its owner, its mode and how the disk is mounted", path, err)
		}
	}
	return nil
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// loadKeys loads the keys, or makes them in a folder that holds nothing yet.
func (f *folder) loadKeys(create bool) (err error) {
	if !exists(f.path(folderKeys)) && !exists(f.path(fileJournal)) {
		if !create {
			return noFolder(f.dir)
		}
		f.fresh = true
		f.keys, err = auth.InitKeys(f.path(folderKeys))
		return err
	}
	f.keys, err = auth.LoadKeys(f.path(folderKeys))
	return err
}

// close gives the lock back, if one was taken.
func (f *folder) close() error {
	if f.lock == nil {
		return nil
	}
	return f.lock.release()
}

// full says whether the folder's disk has no room for even one frame.
func (f *folder) full() bool {
	free, err := diskFree(f.dir)
	return err == nil && free < 1<<20
}

// copyFile copies a file durably; a copy that exists is an error.
func copyFile(from, to string) (err error) {
	src, err := os.Open(filepath.Clean(from))
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // only read
	dst, err := os.OpenFile(filepath.Clean(to), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(to)) // half a copy would be taken for a whole one
		}
	}()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return dst.Sync()
}
