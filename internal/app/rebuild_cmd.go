package app

import (
	"context"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
)

type rebuildCmd struct {
	Data string `help:"Data folder; no server may run on it." default:"data" type:"path" env:"TIDEGATE_DATA"`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (rebuildCmd) Help() string {
	return help("Makes the tables again from the journal, beside the old ones, and swaps them in at the end.\nPrints the hash of the new tables: the same journal gives the same hash.", "tidegate rebuild --data data")
}

// Run makes the tables again.
func (c rebuildCmd) Run(ctx context.Context, con *console) error {
	log := newLog(con.err, LogConfig{Format: "text", Level: "warn"})
	f, err := prepareFolder(c.Data, "rebuild", false, log)
	if err != nil {
		return err
	}
	return joinClose(c.rebuild(ctx, con, f), f.close())
}

func (c rebuildCmd) rebuild(ctx context.Context, con *console, f *folder) (err error) {
	if !exists(f.path(fileJournal)) {
		return fmt.Errorf("%s is missing: there is nothing to make tables from", f.path(fileJournal))
	}
	if err := f.keepWAL(); err != nil {
		return err
	}
	if f.journal, err = sqlitejournal.Open(ctx, f.path(fileJournal), sqlitejournal.Options{Logger: f.log}); err != nil {
		return err
	}
	start := time.Now()
	var hash epro.Digest
	err = sqlitestore.Build(ctx, f.path(fileStore), func(s store.Store) error {
		if err := projector.Rebuild(ctx, f.journal, s, shard, projector.Options{Logger: f.log}, func(done, total journal.Position) {
			con.progress("projecting: frame %d of %d, %s", done, total, time.Since(start).Round(time.Second))
		}); err != nil {
			return err
		}
		con.progress("hashing the tables")
		hash, err = s.Hash(ctx)
		return err
	})
	con.progressDone()
	if err != nil {
		return fmt.Errorf("the old tables are as they were: %w", err)
	}
	if c.JSON {
		return con.printJSON(map[string]any{"hash": hash.String(), "seconds": time.Since(start).Seconds()})
	}
	con.printf("tables made again in %s, hash %s\n", time.Since(start).Round(10*time.Millisecond), hash)
	return nil
}
