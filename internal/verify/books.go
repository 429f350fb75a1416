package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// ledger compares the tables with the journal, side by side: both are in the
// order of the journal, so neither is held in memory.
type ledger struct {
	*audit
	tables  Tables
	cursors map[uint32]store.Cursor
	shown   map[string]store.Books // what the tables say, at the cursors; nil when they never held still
	lists   map[string]*listing
	seen    []seenReport
	leaves  []treeLeaf // not yet compared
}

// seenReport is a report fact, to find those counted twice or not at all. place
// is position<<19 | index<<3 | flags.
type seenReport struct {
	key   [16]byte // of trial, participant, id and meaning
	place uint64
}

const (
	flagListed  = 1 << 0 // the tables list it: it is no duplicate
	flagPending = 1 << 1
	flagAcked   = 1 << 2
	indexShift  = 3
	placeShift  = indexShift + 16 // journal.MaxFacts is 2^16
)

type treeLeaf struct {
	ordinal int64
	hash    tlog.Hash
	at      place
}

// leafBatch is how many leaves are compared at once.
const leafBatch = 256

// openBooks reads cursors and books of one moment: between two equal looks at
// the cursors nothing was applied.
func (a *audit) openBooks(ctx context.Context, shards uint32) error {
	const tries = 50
	l := &ledger{audit: a, tables: a.in.Tables, lists: map[string]*listing{}}
	cursors := func() (map[uint32]store.Cursor, error) {
		m := map[uint32]store.Cursor{}
		for shard := range shards {
			c, err := l.tables.Cursor(ctx, shard)
			if err != nil {
				return nil, tablesError(err)
			}
			m[shard] = c
		}
		return m, nil
	}
	before, err := cursors()
	if err != nil {
		return err
	}
	for range tries {
		books, err := l.tables.TrialBooks(ctx)
		if err != nil {
			return tablesError(err)
		}
		after, err := cursors()
		if err != nil {
			return err
		}
		if maps.Equal(before, after) {
			l.shown = map[string]store.Books{}
			for _, b := range books {
				l.shown[b.TrialID] = b
			}
			break
		}
		before = after
	}
	l.cursors = before
	if l.shown == nil {
		a.res.note("the tables moved on in each of %d looks at them, so their books were counted anew but not compared: run again at a quieter time", tries)
	}
	a.books, a.res.TablesChecked = l, true
	return nil
}

func tablesError(err error) error {
	return fmt.Errorf("verify: %w: the tables lose nothing if they are made again with `tidegate rebuild`", err)
}

func (l *ledger) close() {
	for _, list := range l.lists {
		list.stop()
	}
}

// frame compares a frame with the checkpoint tree that the projector kept.
func (l *ledger) frame(ctx context.Context, w *shardWalk, at place, leaf tlog.Hash) error {
	c := l.cursors[w.shard]
	if w.frames >= c.Frames {
		return nil
	}
	l.leaves = append(l.leaves, treeLeaf{int64(w.frames), leaf, at})
	if len(l.leaves) >= leafBatch {
		if err := l.compareLeaves(ctx, w.shard); err != nil {
			return err
		}
	}
	if w.frames+1 != c.Frames {
		return nil
	}
	if at.position != c.Position {
		l.find(at, "tables", "the tables were made from %d frames up to position %d: here is their last, at another position", c.Frames, c.Position)
	}
	if w.holes {
		return nil // what is missing is named already
	}
	root, err := tlog.TreeHash(int64(c.Frames), tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		return l.treeHashes(ctx, w.shard, indexes)
	}))
	switch {
	case errors.Is(err, store.ErrNotFound):
		l.find(at, "tree", "the checkpoint tree in the tables lacks hashes of its %d frames", c.Frames)
	case err != nil:
		return tablesError(err)
	case root != w.tree.root():
		l.find(at, "tree", "the checkpoint tree in the tables is not the tree of the %d headers up to here", c.Frames)
	}
	return nil
}

func (l *ledger) treeHashes(ctx context.Context, shard uint32, indexes []int64) ([]tlog.Hash, error) {
	digests, err := l.tables.TreeHashes(ctx, shard, indexes)
	if err != nil {
		return nil, err
	}
	hashes := make([]tlog.Hash, len(digests))
	for i := range digests {
		hashes[i] = tlog.Hash(digests[i])
	}
	return hashes, nil
}

// compareLeaves names each frame that the projector saw with another header.
func (l *ledger) compareLeaves(ctx context.Context, shard uint32) error {
	if len(l.leaves) == 0 {
		return nil
	}
	indexes := make([]int64, len(l.leaves))
	for i := range l.leaves {
		indexes[i] = tlog.StoredHashIndex(0, l.leaves[i].ordinal)
	}
	hashes, err := l.treeHashes(ctx, shard, indexes)
	if errors.Is(err, store.ErrNotFound) {
		l.find(l.leaves[0].at, "tree", "the checkpoint tree in the tables lacks a hash here or shortly behind")
		l.leaves = l.leaves[:0]
		return nil
	}
	if err != nil {
		return tablesError(err)
	}
	for i := range l.leaves {
		if hashes[i] != l.leaves[i].hash {
			l.find(l.leaves[i].at, "tree", "it is not the frame that the tables were made from: its header was changed, or frames were moved, put in or taken away")
		}
	}
	l.leaves = l.leaves[:0]
	return nil
}

// endShard is called at the end of a shard's walk.
func (l *ledger) endShard(ctx context.Context, w *shardWalk) error {
	if err := l.compareLeaves(ctx, w.shard); err != nil {
		return err
	}
	if c := l.cursors[w.shard]; c.Frames > w.frames || c.Position > w.end {
		l.find(place{w.shard, w.end, -1, nil}, "tables", "the journal ends here with %d frames, but the tables were made from %d, up to position %d: the journal's tail is missing",
			w.frames, c.Frames, c.Position)
	}
	return nil
}

// report judges a report fact by what the tables say of it.
func (l *ledger) report(ctx context.Context, w *shardWalk, at place, env *epro.Envelope, flags uint64) error {
	b := l.trial(env.Trial)
	switch {
	case at.position > l.cursors[w.shard].Position:
		b.Pending++
		flags |= flagPending
	default:
		r, listed, err := l.list(ctx, env.Trial).take(l, store.Ref{Position: at.position, Index: uint32(at.index)})
		if err != nil {
			return tablesError(err)
		}
		if !listed {
			b.Duplicates++
			break
		}
		flags |= flagListed
		if r.PatientID != env.Subject || r.ReportID != env.ID {
			l.find(at, "tables", "the tables list this report under another participant or id")
		}
		b.count(r.Disposition)
	}
	l.seen = append(l.seen, seenReport{sameness(env), uint64(at.position)<<placeShift | uint64(at.index)<<indexShift | flags})
	return nil
}

func (b *Books) count(d epro.Disposition) {
	switch d {
	case epro.Recorded:
		b.Recorded++
	case epro.Conflict:
		b.Conflicts++
	case epro.Quarantined:
		b.Quarantined++
	case epro.Duplicate: // never listed
		b.Duplicates++
	}
}

// sameness is what makes two report facts the same report.
func sameness(env *epro.Envelope) [16]byte {
	b := make([]byte, 0, 2*(1+epro.MaxIDLength)+16+32)
	b = append(append(b, byte(len(env.Trial))), env.Trial...)
	b = append(append(b, byte(len(env.Subject))), env.Subject...)
	b = append(append(b, env.ID[:]...), env.Meaning[:]...)
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

// closeBooks compares the counts, and looks for reports counted twice or never.
func (a *audit) closeBooks(ctx context.Context) error {
	l := a.books
	var last journal.Position
	for _, c := range l.cursors {
		last = max(last, c.Position)
	}
	for trial := range l.shown {
		a.trial(trial) // also those of which the journal has no report
	}
	for trial, b := range a.trials {
		// What is listed up to the cursors and was not taken yet has no fact.
		if _, _, err := l.list(ctx, trial).take(l, store.Ref{Position: last + 1}); err != nil {
			return tablesError(err)
		}
		if l.shown == nil {
			continue
		}
		s := l.shown[trial]
		for _, count := range []struct {
			what           string
			shown, counted uint64
		}{
			{"recorded", s.Recorded, b.Recorded},
			{"duplicates", s.Duplicates, b.Duplicates},
			{"conflicts", s.Conflicts, b.Conflicts},
			{"quarantined", s.Quarantined, b.Quarantined},
		} {
			if count.shown != count.counted {
				a.res.find(Finding{Check: "books", Trial: trial, Text: fmt.Sprintf("the books say %s %d, the journal and the lists give %d", count.what, count.shown, count.counted)})
			}
		}
		if sum := s.Recorded + s.Duplicates + s.Conflicts + s.Quarantined + b.Pending; sum != b.Accepted {
			a.res.find(Finding{Check: "books", Trial: trial, Text: fmt.Sprintf("the books do not balance: accepted %d, but recorded, duplicates, conflicts, quarantined and pending are %d", b.Accepted, sum)})
		}
		b.Recorded, b.Duplicates, b.Conflicts, b.Quarantined = s.Recorded, s.Duplicates, s.Conflicts, s.Quarantined
	}
	l.countOnce()
	return nil
}

// countOnce checks that of the facts of one report exactly one is no duplicate.
func (l *ledger) countOnce() {
	slices.SortFunc(l.seen, func(a, b seenReport) int {
		if c := slices.Compare(a.key[:], b.key[:]); c != 0 {
			return c
		}
		return int(int64(a.place>>indexShift) - int64(b.place>>indexShift))
	})
	for len(l.seen) > 0 {
		n := 1
		for n < len(l.seen) && l.seen[n].key == l.seen[0].key {
			n++
		}
		same := l.seen[:n]
		l.seen = l.seen[n:]
		lists, judged, acked := 0, false, false
		for _, s := range same {
			if s.place&flagListed != 0 {
				lists++
			}
			judged = judged || s.place&flagPending == 0
			acked = acked || s.place&flagAcked != 0
		}
		first := same[0].place
		at := place{0, journal.Position(first >> placeShift), int(first >> indexShift & (journal.MaxFacts - 1)), nil}
		switch {
		case lists > 1:
			l.res.Doubled++
			l.find(at, "books", "this report is counted %d times: %d of its facts are not duplicates", lists, lists)
		case judged && lists == 0:
			l.find(at, "books", "this report is counted nowhere: all of its %d facts are held for duplicates", n)
			if acked {
				l.res.Lost++
			}
		}
	}
}
