package projector

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// Checkpoint is what a checkpoint of a shard commits to: the tree over the
// header hashes of all applied frames, in order.
type Checkpoint struct {
	Shard    uint32
	Size     uint64      // frames
	Root     epro.Digest // RFC 6962; the hash of nothing for an empty tree
	Position journal.Position
	Header   epro.Digest // hash of the last frame's header, zero for none
	Era      uint64
}

// Checkpoint reads the checkpoint of the applied frames.
func (p *Projector) Checkpoint(ctx context.Context) (Checkpoint, error) {
	return ReadCheckpoint(ctx, p.store, p.shard)
}

// ReadCheckpoint reads the checkpoint of a shard from the tables.
func ReadCheckpoint(ctx context.Context, s store.Store, shard uint32) (Checkpoint, error) {
	for {
		cursor, err := s.Cursor(ctx, shard)
		if err != nil {
			return Checkpoint{}, err
		}
		c := Checkpoint{Shard: shard, Size: cursor.Frames, Position: cursor.Position, Era: cursor.Era}
		last, err := s.LastFrame(ctx, shard)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return Checkpoint{}, err
		}
		if last.Position != cursor.Position {
			if ctx.Err() != nil {
				return Checkpoint{}, ctx.Err()
			}
			continue // a transaction came between the two
		}
		c.Header = last.Hash
		root, err := tlog.TreeHash(int64(c.Size), TreeReader(ctx, s, shard))
		if err != nil {
			return Checkpoint{}, fmt.Errorf("hash the checkpoint tree: %w", err)
		}
		c.Root = epro.Digest(root)
		return c, nil
	}
}

// TreeReader reads the stored hashes of a shard's checkpoint tree, for proofs.
func TreeReader(ctx context.Context, s store.Store, shard uint32) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		digests, err := s.TreeHashes(ctx, shard, indexes)
		if err != nil {
			return nil, err
		}
		out := make([]tlog.Hash, len(digests))
		for i, d := range digests {
			out[i] = tlog.Hash(d)
		}
		return out, nil
	})
}
