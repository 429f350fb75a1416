package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/tidegate/tidegate/internal/fault"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
	"github.com/tidegate/tidegate/internal/vault/sqlitevault"
)

// The storage of one machine: three SQLite files in the data folder.

// openSQLite opens journal, tables and vault of the folder. The lock is held.
// check looks at journal and tables, and may refuse them before the vault is
// touched. After an error what was opened is closed.
func (n *node) openSQLite(ctx context.Context, check func(context.Context) error) error {
	err := n.openFiles(ctx, check)
	if err == nil {
		return nil
	}
	err = errors.Join(err, n.storage.close())
	if n.full() {
		// SQLite says no more than "I/O error" when it finds no room for its -shm.
		return fmt.Errorf("the disk of %s is full: make room and start again (%w)", n.dir, err)
	}
	return err
}

func (n *node) openFiles(ctx context.Context, check func(context.Context) error) error {
	if err := errors.Join(n.notTransferred(), n.mayBegin(true)); err != nil {
		return err
	}
	if err := n.keepWAL(); err != nil {
		return err
	}
	fault.Point(fault.StartRecovery)
	j, err := sqlitejournal.Open(ctx, n.path(fileJournal), sqlitejournal.Options{Logger: n.log})
	if err != nil {
		return err // n.journal stays nil: a nil *Journal in it would not be
	}
	n.journal = j
	if n.store, err = n.openTables(ctx); err != nil {
		return err
	}
	if err := check(ctx); err != nil {
		return err
	}
	// A vault that is missing beside a journal with facts was lost, not never made.
	end, err := n.journal.End(ctx, shard)
	if err != nil {
		return err
	}
	v, err := sqlitevault.Open(ctx, n.path(fileVault), sqlitevault.Options{Create: end.Position == 0})
	if err != nil {
		return err
	}
	n.vault = v
	return nil
}

// openTables opens the tables. Those of another layout, or damaged ones, are made
// again from the journal: they hold nothing of their own.
func (f *folder) openTables(ctx context.Context) (store.Store, error) {
	path := f.path(fileStore)
	s, err := f.tryTables(ctx)
	switch {
	case errors.Is(err, store.ErrLayout):
		f.log.Warn("the tables have another layout: they are made again from the journal", "path", path)
		if err := sqlitestore.Remove(path); err != nil {
			return nil, fmt.Errorf("remove tables of another layout: %w", err)
		}
		s, err = f.tryTables(ctx)
	case sqlitestore.Damaged(err):
		f.log.Warn("the tables are damaged: they are put aside and made again from the journal; look at the disk", "path", path, "aside", path+suffixDamaged, "error", err)
		if err := f.putTablesAside(); err != nil {
			return nil, fmt.Errorf("put damaged tables aside: %w", err)
		}
		s, err = f.tryTables(ctx)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, sqlitestore.ErrForeign) {
		return nil, err
	}
	if err != nil && f.full() {
		return nil, err // told by openSQLite
	}
	if err != nil {
		return nil, fmt.Errorf("%w. The tables hold nothing of their own and can be made again: tidegate rebuild --data %s", err, f.dir)
	}
	return s, nil
}

// tryTables opens the tables and reads how far they are, which is where most
// damage shows.
func (f *folder) tryTables(ctx context.Context) (*sqlitestore.Store, error) {
	s, err := sqlitestore.Open(ctx, f.path(fileStore))
	if err != nil {
		return nil, err
	}
	if _, err := s.LastFrame(ctx, shard); err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}
