package projector

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// chain checks that frames follow their runs, and extends the checkpoint tree.
type chain struct {
	runs map[journal.Run]store.RunHead
	// edge is the last stored hash of each level of the tree: all that adding a
	// record ever reads.
	edge [64]struct {
		index int64
		hash  tlog.Hash
	}
}

func newChain() *chain { return &chain{runs: map[journal.Run]store.RunHead{}} }

// follow says what is wrong with a frame's place in its run, "" if nothing.
func (c *chain) follow(tx store.Tx, f *frame) (string, error) {
	h := &f.header
	head, known := c.runs[h.Run]
	if !known {
		var err error
		head, err = tx.Run(h.Run)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return "", err
		}
		known = err == nil
	}
	switch {
	case !known && h.N != 0:
		return fmt.Sprintf("frame %d of run %s comes first: its earlier frames are missing", h.N, h.Run), nil
	case !known && !h.Prev.IsZero():
		// Zeros say that the shard was empty when the run's process looked. Frames may
		// lie before it all the same: of processes that looked at the same time.
		found, err := tx.HasHeader(h.Prev)
		if err != nil {
			return "", err
		}
		if !found {
			return fmt.Sprintf("run %s cites a header that is not in this shard", h.Run), nil
		}
	case known && h.N != head.N+1:
		return fmt.Sprintf("frame %d of run %s comes after frame %d", h.N, h.Run, head.N), nil
	case known && h.Prev != head.Hash:
		return fmt.Sprintf("frame %d of run %s does not cite the frame before it", h.N, h.Run), nil
	case known && h.Time < head.Time:
		return fmt.Sprintf("frame %d of run %s is older than the frame before it", h.N, h.Run), nil
	}
	return "", nil
}

// extend adds a frame that follows to the tables and the tree.
func (c *chain) extend(tx store.Tx, f *frame, frames uint64) error {
	if len(c.runs) > 1024 {
		clear(c.runs) // of a shard with very many runs only the recent ones matter
	}
	h := &f.header
	c.runs[h.Run] = store.RunHead{N: h.N, Hash: f.hash, Time: h.Time}
	if err := tx.AddFrame(store.FrameRow{Position: f.position, Hash: f.hash, Run: h.Run, N: h.N, Time: h.Time}); err != nil {
		return err
	}
	hashes, err := tlog.StoredHashes(int64(frames), f.hash[:], tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, _ := tlog.SplitStoredHashIndex(index)
			if e := &c.edge[level]; e.index == index && e.hash != (tlog.Hash{}) {
				out[i] = e.hash
				continue
			}
			d, err := tx.TreeHash(index)
			if err != nil {
				return nil, fmt.Errorf("read the checkpoint tree: %w", err)
			}
			out[i] = tlog.Hash(d)
		}
		return out, nil
	}))
	if err != nil {
		return fmt.Errorf("extend the checkpoint tree: %w", err)
	}
	first := tlog.StoredHashIndex(0, int64(frames))
	digests := make([]epro.Digest, len(hashes))
	for i, hash := range hashes {
		// The hashes of a record lie one behind the other, a level higher each.
		c.edge[i].index, c.edge[i].hash = first+int64(i), hash
		digests[i] = epro.Digest(hash)
	}
	return tx.AddTreeHashes(first, digests)
}
