package projector

import (
	"context"
	"fmt"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/fault"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// Rebuild projects a shard, up to the end that its journal has now, into
// tables that are empty (or that an earlier Rebuild has begun). progress, which
// may be nil, is told the positions reached and aimed at after each
// transaction. The caller swaps the tables in; see sqlitestore.Build.
func Rebuild(ctx context.Context, j journal.Journal, s store.Store, shard uint32, opts Options, progress func(done, total journal.Position)) error {
	end, err := j.End(ctx, shard)
	if err != nil {
		return fmt.Errorf("rebuild: read the journal's end: %w", err)
	}
	return RebuildTo(ctx, j, s, shard, end.Position, opts, progress)
}

// RebuildTo is Rebuild up to a position that has a frame, or 0, for whoever
// compares with tables that stand there.
func RebuildTo(ctx context.Context, j journal.Journal, s store.Store, shard uint32, until journal.Position, opts Options, progress func(done, total journal.Position)) error {
	if until == 0 {
		return nil
	}
	p := New(j, s, shard, opts)
	err := p.follow(ctx, until, func(c store.Cursor) {
		fault.Point(fault.MidRebuild)
		if progress != nil {
			progress(c.Position, until)
		}
	})
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	return nil
}

// PendingReports counts the reports above the cursor, by trial: those in the
// journal that have no disposition yet. They are counted, not subtracted, so
// that the books can be checked.
func PendingReports(ctx context.Context, j journal.Journal, shard uint32, after journal.Position) (map[string]uint64, error) {
	pending := map[string]uint64{}
	for {
		records, err := j.Read(ctx, shard, after, 64)
		if err != nil {
			return nil, fmt.Errorf("count pending reports: %w", err)
		}
		if len(records) == 0 {
			return pending, nil
		}
		for _, rec := range records {
			f, err := journal.DecodeFrame(rec.Bytes)
			if err != nil {
				return nil, fmt.Errorf("count pending reports: position %d: %w", rec.Position, err)
			}
			for i := range f.Entries {
				e, err := epro.DecodeEnvelope(f.Entries[i].Envelope)
				if err != nil {
					return nil, fmt.Errorf("count pending reports: position %d, fact %d: %w", rec.Position, i, err)
				}
				if e.Kind.Name == epro.KindReport.Name {
					pending[e.Trial]++
				}
			}
			after = rec.Position
		}
	}
}
