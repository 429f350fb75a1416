package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/internal/vault/pgvault"
)

// Operators' commands on PostgreSQL. They need no server to write for them: a
// command appends under a run of its own, beside the gateways, and waits for
// the projector as they do.

// configFlag is for commands that work in both shapes.
type configFlag struct {
	Config string `help:"Configuration file. If it names PostgreSQL, so does TIDEGATE_POSTGRES_URL, the command works on that; --data then is a folder with keys: the root folder, or any that was issued." type:"path"`
}

// load reads the configuration for a command on a data folder.
func (f configFlag) load(con *console, data string) (Config, error) {
	cfg, err := LoadConfig(f.Config, con.environ)
	if err != nil {
		return cfg, err
	}
	cfg.Data = data
	if f.Config == "" && !cfg.inPostgres() {
		return cfg, nil
	}
	return cfg, cfg.Validate()
}

// openCommand opens what a command works on, in either shape, checks it, and
// starts the parts given.
func openCommand(ctx context.Context, cfg Config, what string, create bool, roles []role, check func(*node, context.Context) error, log *slog.Logger) (*node, error) {
	if cfg.inPostgres() {
		return openOnPostgres(ctx, cfg, what, roles, check, log)
	}
	f, err := prepareFolder(cfg.Data, what, create, log)
	if err != nil {
		return nil, err
	}
	if err := f.mayBegin(create); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return openNode(ctx, f, cfg, roles, check, log)
}

// openOnPostgres is openCommand in the second shape. Nothing is locked: keys are
// only read, and the journal takes any number of writers.
func openOnPostgres(ctx context.Context, cfg Config, what string, roles []role, check func(*node, context.Context) error, log *slog.Logger) (_ *node, err error) {
	keys, err := keysIn(cfg.Data)
	if err != nil {
		return nil, err
	}
	n := &node{folder: &folder{dir: filepath.Clean(cfg.Data), log: log, keys: keys}, cfg: cfg, failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.storage.close())
		}
	}()
	pg := cfg.Postgres
	j, err := pgjournal.Open(ctx, pgjournal.Options{Postgres: pg.options(pg.journalURL(), what), Logger: log})
	if err != nil {
		return nil, err
	}
	n.journal = boundedJournal{Journal: j, limit: pg.callLimit()}
	if err := n.ownJournal(ctx); err != nil {
		return nil, err
	}
	s, err := pgstore.Open(ctx, pgstore.Options{Postgres: pg.options(pg.storeURL(), what), Logger: log})
	if err != nil {
		return nil, err
	}
	n.store = s
	v, err := pgvault.Open(ctx, pgvault.Options{Postgres: pg.options(pg.vaultURL(), what)})
	if err != nil {
		return nil, err
	}
	n.vault = v
	if len(cfg.Anchors) > 0 { // there is no default: it would lie beside the keys
		if n.anchors, _, err = anchorsOf(cfg, n.dir, keys.Fingerprint()); err != nil {
			return nil, err
		}
	}
	n.projector = projector.New(n.journal, n.store, shard, projector.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := check(n, ctx); err != nil {
		return nil, err
	}
	return n, n.start(ctx, roles)
}

// keysIn loads the keys of a folder that may hold nothing else.
func keysIn(dir string) (*auth.Keys, error) {
	path := filepath.Join(dir, folderKeys)
	if !exists(path) {
		return nil, fmt.Errorf("%s holds no keys: name the root folder, or one that keys were issued to, with --data (tidegate keys init, tidegate keys issue)", dir)
	}
	return auth.LoadKeys(path)
}

// projectorPatience is how long a command waits for somebody else's projector
// before it does that work itself.
const projectorPatience = 5 * time.Second

// passed waits until a command is decided. On one machine this process's own
// projector does it. On PostgreSQL it is another process's; when none is at
// work, this one does what is to be done, and leaves as soon as it is: the
// tables' cursor keeps two from writing at once.
func (n *node) passed(ctx context.Context, id epro.UUID) (store.Outcome, error) {
	if !n.cfg.inPostgres() {
		return n.projector.Passed(ctx, id)
	}
	wait, cancel := context.WithTimeout(ctx, projectorPatience)
	defer cancel()
	out, err := n.projector.Passed(wait, id)
	if err == nil || wait.Err() == nil || ctx.Err() != nil {
		return out, err
	}
	stop := n.inBackground(func(ctx context.Context) error {
		err := projector.New(n.journal, n.store, shard, projector.Options{Logger: n.log}).Run(ctx)
		if errors.Is(err, store.ErrFenced) {
			return nil // somebody is at work after all
		}
		return err
	})
	out, err = n.projector.Passed(ctx, id)
	return out, errors.Join(err, stop(context.WithoutCancel(ctx)))
}

// commandPath are the parts of a command that writes: on PostgreSQL others
// project and anchor.
func commandPath(cfg Config) []role {
	if cfg.inPostgres() {
		return []role{{"intake", startIntake}}
	}
	return recordPath
}
