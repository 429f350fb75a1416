package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/fault"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
	"github.com/tidegate/tidegate/internal/vault"
	"github.com/tidegate/tidegate/internal/vault/sqlitevault"
)

// Files of a data folder.
const (
	fileJournal  = "journal.db"
	fileStore    = "store.db"
	fileVault    = "vault.db"
	folderKeys   = "keys"
	folderBefore = "recovery" // copies of a -wal that an unclean stop left
)

// shard is the only one of a data folder.
const shard = 0

// folder is a data folder that this process holds the lock of.
type folder struct {
	dir     string
	log     *slog.Logger
	lock    *lock
	keys    *auth.Keys
	journal *sqlitejournal.Journal
	store   *sqlitestore.Store
	vault   vault.Vault
	fresh   bool // made by this process
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

// open opens journal, tables and vault. The lock is held. check looks at journal
// and tables, and may refuse them before the vault is touched.
func (f *folder) open(ctx context.Context, check func(context.Context) error) error {
	err := f.openAll(ctx, check)
	if err != nil && f.full() {
		// SQLite says no more than "I/O error" when it finds no room for its -shm.
		return fmt.Errorf("the disk of %s is full: make room and start again (%w)", f.dir, err)
	}
	return err
}

// full says whether the folder's disk has no room for even one frame.
func (f *folder) full() bool {
	free, err := diskFree(f.dir)
	return err == nil && free < 1<<20
}

func (f *folder) openAll(ctx context.Context, check func(context.Context) error) error {
	if err := f.journalThere(); err != nil {
		return err
	}
	if err := f.keepWAL(); err != nil {
		return err
	}
	fault.Point(fault.StartRecovery)
	var err error
	if f.journal, err = sqlitejournal.Open(ctx, f.path(fileJournal), sqlitejournal.Options{Logger: f.log}); err != nil {
		return err
	}
	if err := f.openStore(ctx); err != nil {
		return err
	}
	if err := check(ctx); err != nil {
		return err
	}
	// A vault that is missing beside a journal with facts was lost, not never made.
	end, err := f.journal.End(ctx, shard)
	if err != nil {
		return err
	}
	v, err := sqlitevault.Open(ctx, f.path(fileVault), sqlitevault.Options{Create: end.Position == 0})
	if err != nil {
		return err // f.vault stays nil: a nil *Vault in it would not be
	}
	f.vault = v
	return nil
}

// openStore opens the tables. Those of another layout, or damaged ones, are made
// again from the journal: they hold nothing of their own.
func (f *folder) openStore(ctx context.Context) error {
	path := f.path(fileStore)
	s, err := f.tryStore(ctx)
	switch {
	case errors.Is(err, store.ErrLayout):
		f.log.Warn("the tables have another layout: they are made again from the journal", "path", path)
		if err := sqlitestore.Remove(path); err != nil {
			return fmt.Errorf("remove tables of another layout: %w", err)
		}
		s, err = f.tryStore(ctx)
	case sqlitestore.Damaged(err):
		f.log.Warn("the tables are damaged: they are put aside and made again from the journal; look at the disk", "path", path, "aside", path+suffixDamaged, "error", err)
		if err := f.putTablesAside(); err != nil {
			return fmt.Errorf("put damaged tables aside: %w", err)
		}
		s, err = f.tryStore(ctx)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, sqlitestore.ErrForeign) {
		return err
	}
	if err != nil && f.full() {
		return err // told by open
	}
	if err != nil {
		return fmt.Errorf("%w. The tables hold nothing of their own and can be made again: tidegate rebuild --data %s", err, f.dir)
	}
	f.store = s
	return nil
}

// tryStore opens the tables and reads how far they are, which is where most
// damage shows.
func (f *folder) tryStore(ctx context.Context) (*sqlitestore.Store, error) {
	s, err := sqlitestore.Open(ctx, f.path(fileStore))
	if err != nil {
		return nil, err
	}
	if _, err := s.LastFrame(ctx, shard); err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// close closes all, even if one fails, and gives the lock back last.
func (f *folder) close() error {
	var errs []error
	if f.vault != nil {
		errs = append(errs, f.vault.Close())
	}
	if f.store != nil {
		errs = append(errs, f.store.Close())
	}
	if f.journal != nil {
		errs = append(errs, f.journal.Close())
	}
	return errors.Join(append(errs, f.lock.release())...)
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
