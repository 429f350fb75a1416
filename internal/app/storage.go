package app

import (
	"errors"
	"sync"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/postgres"
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

// timelines are what this process has seen of its databases' primaries, by URL:
// where journal, tables and vault lie in one database, what the journal knows,
// also from before this process started, keeps all of them from an old primary.
// The zero value has seen nothing. Safe for concurrent use.
type timelines struct {
	mu    sync.Mutex
	byURL map[string]*postgres.Timeline
}

func (t *timelines) of(url string) *postgres.Timeline {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byURL == nil {
		t.byURL = map[string]*postgres.Timeline{}
	}
	if t.byURL[url] == nil {
		t.byURL[url] = new(postgres.Timeline)
	}
	return t.byURL[url]
}
