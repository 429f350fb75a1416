package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
)

// What is settled before anything is taken: the journal is there, and it holds
// all that its anchors and its tables have seen of it.

// errOtherTables says that the tables know frames that the journal does not have.
var errOtherTables = errors.New("the tables were made from another journal, or from more of this one")

// journalThere refuses a folder whose journal was lost: what lies beside it was
// made after it, so opening would begin a new journal in the old one's place.
func (f *folder) journalThere() error {
	if exists(f.path(fileJournal)) {
		return nil
	}
	for _, name := range []string{fileStore, fileVault} {
		if exists(f.path(name)) {
			return fmt.Errorf("the journal %s is missing, but %s is there: put the journal back, or restore a backup into an empty folder with `tidegate restore`",
				f.path(fileJournal), name)
		}
	}
	return nil
}

// checkTables compares the last frame of the tables with the journal. Tables
// that are behind are fine; tables that saw another or a longer journal would
// be projected on as if nothing was wrong, and reports would go unseen.
func (n *node) checkTables(ctx context.Context) error {
	last, err := n.store.LastFrame(ctx, shard)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("compare the tables with the journal: %w", err)
	}
	records, err := n.journal.Read(ctx, shard, last.Position-1, 1)
	var gap *journal.GapError
	if err != nil && !errors.As(err, &gap) {
		return fmt.Errorf("compare the tables with the journal: %w", err)
	}
	if len(records) == 1 && records[0].Position == last.Position {
		if frame, err := journal.DecodeFrame(records[0].Bytes); err != nil || frame.Header.Hash() == last.Hash {
			return nil // a frame that is damaged is not another one: verify names it
		}
	}
	end, err := n.journal.End(ctx, shard)
	if err != nil {
		return fmt.Errorf("compare the tables with the journal: %w", err)
	}
	return fmt.Errorf("%w: they saw a frame at position %d that it does not have (it ends at %d), so acknowledged reports may be missing: "+
		"put the newer journal back; if this one is right, run: %s", errOtherTables, last.Position, end.Position, n.rebuildCommand())
}

// remakeOtherTables throws tables away that do not belong to the journal; the
// projector then makes them anew. Only for an operator who accepts the gap.
func (n *node) remakeOtherTables(ctx context.Context) error {
	err := n.checkTables(ctx)
	if !errors.Is(err, errOtherTables) {
		return err
	}
	if n.cfg.inPostgres() {
		return fmt.Errorf("%w. Then run this again", err)
	}
	if err := n.store.Close(); err != nil {
		return err
	}
	n.store = nil
	if err := sqlitestore.Remove(n.path(fileStore)); err != nil {
		return fmt.Errorf("remove tables that are not of this journal: %w", err)
	}
	if n.store, err = n.openTables(ctx); err != nil {
		return err
	}
	return projector.Rebuild(ctx, n.journal, n.store, shard, projector.Options{Logger: n.log}, nil)
}

// rebuildCommand is what to type to make the tables again.
func (n *node) rebuildCommand() string {
	if n.cfg.inPostgres() {
		return "tidegate rebuild --config FILE"
	}
	return "tidegate rebuild --data " + n.dir
}
