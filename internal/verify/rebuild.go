package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// compareRebuild compares the tables with those that the journal gives anew. The
// hash and the cursors it stands for are read in one dump, so that a projector
// that goes on meanwhile does not matter.
func (a *audit) compareRebuild(ctx context.Context) error {
	a.in.Progress(Progress{"tables", 0, 0})
	d := &dumpHash{hash: sha256.New(), cursors: map[uint32]journal.Position{}}
	if err := a.in.Tables.Dump(ctx, d); err != nil {
		return tablesError(err)
	}
	if d.err != nil {
		return fmt.Errorf("verify: read the dump of the tables: %w", d.err)
	}
	for shard, c := range a.books.cursors {
		if now := d.cursors[shard]; now != c.Position {
			a.res.note("the tables moved on during the audit, from position %d to %d: they were rebuilt and compared up to there", c.Position, now)
		}
	}
	got, err := a.in.Rebuild(ctx, d.cursors, func(done, total uint64) { a.in.Progress(Progress{"rebuild", done, total}) })
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.general("tables", "the tables cannot be made again from the journal: %v", err)
		return nil
	}
	same := got == epro.Digest(d.hash.Sum(nil))
	a.res.RebuildSame = &same
	if !same {
		a.general("tables", "the tables are not those that the journal gives: somebody changed them, or they were made by another program; `tidegate rebuild` makes them again")
	}
	return nil
}

// dumpHash hashes a canonical dump ([store.DumpFormat]) and reads the cursors
// at its beginning.
type dumpHash struct {
	hash    hash.Hash
	head    []byte
	past    bool // the cursors are behind us
	first   bool
	cursors map[uint32]journal.Position
	err     error
}

// maxHead bounds the unfinished line that is kept: no cursor is near as long.
const maxHead = 4096

func (d *dumpHash) Write(b []byte) (int, error) {
	d.hash.Write(b)
	if d.past {
		return len(b), nil
	}
	d.head = append(d.head, b...)
	for !d.past {
		line, rest, ok := bytes.Cut(d.head, []byte("\n"))
		if !ok {
			d.past = len(d.head) > maxHead
			break
		}
		d.head = rest
		if !d.first {
			d.first = true // the name of the format
			continue
		}
		if !bytes.HasPrefix(line, []byte(`["cursor",`)) {
			d.past = true
			break
		}
		var name string
		var shard uint32
		var position journal.Position
		row := []any{&name, &shard, &position}
		if err := json.Unmarshal(line, &row); err != nil {
			d.err = err
		}
		d.cursors[shard] = position
	}
	if d.past {
		d.head = nil
	}
	return len(b), nil
}
