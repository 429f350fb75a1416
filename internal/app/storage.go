package app

import (
	"errors"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/vault"
)

// storage is the three kinds of state, whichever adapters keep them: SQLite in
// the data folder, or PostgreSQL.
type storage struct {
	journal journal.Journal
	store   store.Store
	vault   vault.Vault
}

// close closes all that is open, even if one fails.
func (s *storage) close() error {
	var errs []error
	if s.vault != nil {
		errs = append(errs, s.vault.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.journal != nil {
		errs = append(errs, s.journal.Close())
	}
	*s = storage{}
	return errors.Join(errs...)
}
