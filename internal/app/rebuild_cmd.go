package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
)

type rebuildCmd struct {
	Data string `help:"Data folder; no server may run on it." default:"data" type:"path" env:"TIDEGATE_DATA"`
	JSON bool   `help:"Print JSON."`
	configFlag
}

// Help shows an example.
func (rebuildCmd) Help() string {
	return help("Makes the tables again from the journal, beside the old ones, and swaps them in at the end.\nPrints the hash of the new tables: the same journal gives the same hash.", "tidegate rebuild --data data")
}

// Run makes the tables again.
func (c rebuildCmd) Run(ctx context.Context, con *console) error {
	cfg, err := c.load(con, c.Data)
	if err != nil {
		return err
	}
	out, err := c.rebuild(ctx, con, cfg)
	if err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(out)
	}
	con.printf("%s\n", out)
	return nil
}

// rebuilt is what rebuilding came to.
type rebuilt struct {
	Hash    string  `json:"hash"`
	Seconds float64 `json:"seconds"`
}

// String is the result for people.
func (r rebuilt) String() string {
	took := time.Duration(r.Seconds * float64(time.Second)).Round(10 * time.Millisecond)
	return fmt.Sprintf("tables made again in %s, hash %s", took, r.Hash)
}

func (c rebuildCmd) rebuild(ctx context.Context, con *console, cfg Config) (out rebuilt, err error) {
	log := newLog(con.err, LogConfig{Format: "text", Level: "warn"})
	if cfg.inPostgres() {
		return rebuildOnPostgres(ctx, con, cfg.Postgres, log)
	}
	f, err := prepareFolder(cfg.Data, "rebuild", false, log)
	if err != nil {
		return out, err
	}
	if err = errors.Join(f.notTransferred(), f.mayBegin(false)); err == nil {
		out, err = rebuildTables(ctx, con, f)
	}
	return out, errors.Join(err, f.close())
}

// rebuildTables makes the tables of a data folder again.
func rebuildTables(ctx context.Context, con *console, f *folder) (out rebuilt, err error) {
	if !exists(f.path(fileJournal)) {
		return out, fmt.Errorf("%s is missing: there is nothing to make tables from", f.path(fileJournal))
	}
	if err := f.keepWAL(); err != nil {
		return out, err
	}
	j, err := sqlitejournal.Open(ctx, f.path(fileJournal), sqlitejournal.Options{Logger: f.log})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	return rebuildInto(ctx, con, j, f.log, func(fill func(store.Store) error) error {
		return sqlitestore.Build(ctx, f.path(fileStore), fill)
	})
}

// rebuildOnPostgres makes the tables of a database again. A projector that runs
// meanwhile goes on in the old ones, and then in the new.
func rebuildOnPostgres(ctx context.Context, con *console, pg PostgresConfig, log *slog.Logger) (out rebuilt, err error) {
	j, err := pgjournal.Open(ctx, pgjournal.Options{Postgres: pg.options(pg.journalURL(), "rebuild"), ReadOnly: true, Logger: log})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	return rebuildInto(ctx, con, j, log, func(fill func(store.Store) error) error {
		return pgstore.Build(ctx, pgstore.Options{Postgres: pg.options(pg.storeURL(), "rebuild"), Logger: log}, fill)
	})
}

// rebuildInto projects the journal into what build hands it, and hashes that.
func rebuildInto(ctx context.Context, con *console, j journal.Journal, log *slog.Logger, build func(func(store.Store) error) error) (out rebuilt, err error) {
	start := time.Now()
	err = build(func(s store.Store) error {
		if err := projector.Rebuild(ctx, j, s, shard, projector.Options{Logger: log}, func(done, total journal.Position) {
			con.progress("projecting: frame %d of %d, %s", done, total, time.Since(start).Round(time.Second))
		}); err != nil {
			return err
		}
		con.progress("hashing the tables")
		hash, err := s.Hash(ctx)
		out.Hash = hash.String()
		return err
	})
	con.progressDone()
	if err != nil {
		return out, fmt.Errorf("the old tables are as they were: %w", err)
	}
	out.Seconds = time.Since(start).Seconds()
	return out, nil
}
