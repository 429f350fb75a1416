package verify

import (
	"context"
	"errors"

	"github.com/tidegate/tidegate/internal/journal"
)

// Bounded is a journal as it was when its shards ended at the given positions:
// for a rebuild up to the cursors of tables that go on meanwhile. A shard that
// is not named is empty. It takes no appends.
func Bounded(j journal.Journal, upTo map[uint32]journal.Position) journal.Journal {
	return bounded{j, upTo}
}

type bounded struct {
	journal.Journal
	upTo map[uint32]journal.Position
}

var errBounded = errors.New("the journal is open for reading only")

func (b bounded) Append(context.Context, journal.Sealed) (journal.Class, error) {
	return 0, errors.Join(journal.ErrNotAppended, errBounded)
}

func (b bounded) Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error) {
	if after >= b.upTo[shard] {
		return nil, ctx.Err()
	}
	records, err := b.Journal.Read(ctx, shard, after, limit)
	for i := range records {
		if records[i].Position > b.upTo[shard] {
			return records[:i], err
		}
	}
	return records, err
}

// Wait ends with ctx where the shard has ended.
func (b bounded) Wait(ctx context.Context, shard uint32, after journal.Position) error {
	if after >= b.upTo[shard] {
		<-ctx.Done()
		return ctx.Err()
	}
	return b.Journal.Wait(ctx, shard, after)
}

// End is the record at the bound, or the last one in front of it.
func (b bounded) End(ctx context.Context, shard uint32) (journal.Record, error) {
	last := b.upTo[shard]
	if last == 0 {
		return journal.Record{}, nil
	}
	records, err := b.Journal.Read(ctx, shard, last-1, 1)
	if err == nil && len(records) == 1 && records[0].Position == last {
		return records[0], nil
	}
	if err != nil {
		return journal.Record{}, err
	}
	return b.Journal.End(ctx, shard)
}

// Close leaves the journal open: it is its owner's.
func (b bounded) Close() error { return nil }
