package directory_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/memjournal"
)

// TestABrokenJournalDoesNotBreakTheDirectory: whatever cannot be read in the
// journal is told from the tables. An erased body is nothing of that kind.
func TestABrokenJournalDoesNotBreakTheDirectory(t *testing.T) {
	for _, how := range []string{"damaged", "gap", "erased"} {
		t.Run(how, func(t *testing.T) {
			mem := memjournal.New(memjournal.Options{Stride: 3})
			j := &broken{Journal: mem}
			w := newWorld(t, t.TempDir(), newKeys(t), mem, nil)
			defer w.close()
			w.seed(2)
			r := &tables{Reader: w.tables}
			feed := directory.NewFeed(j, r, nil)
			feed.Hurry()
			d := run(directory.New(directory.Options{}), feed)
			defer d.stop()
			w.settle(d.Directory)
			from := d.State().Version
			c, err := w.tables.Cursor(t.Context(), 0)
			must(t, err)
			r.frozen.Store(&c) // the feed sees nothing of it while it is still whole
			w.enrol("T001", "P-8")
			at := w.end()
			w.report("T001", "P-1")
			w.enrol("T001", "P-9")
			w.projected()
			records, err := mem.Read(t.Context(), 0, at-1, 1)
			must(t, err)
			switch how {
			case "damaged":
				mem.Replace(0, at, []byte("TGF1 and then nothing that is a frame"))
			case "gap":
				j.gap.Store(uint64(at))
			case "erased":
				mem.Replace(0, at, erased(t, records[0].Bytes))
			}
			r.frozen.Store(nil)
			w.settle(d.Directory)
			w.same(d.Directory)
			got := follow(t, feed, from, upTo(w.end()))
			if got.snapshot != (how != "erased") || !slices.Contains(got.things, "T001/P-8 v1") || !slices.Contains(got.things, "T001/P-9 v1") {
				t.Errorf("from %v: %+v", from, got)
			}
		})
	}
}

// broken is a journal that can lack a frame.
type broken struct {
	*memjournal.Journal
	gap atomic.Uint64 // a position that is not there any more
}

func (b *broken) Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error) {
	list, err := b.Journal.Read(ctx, shard, after, limit)
	gap := journal.Position(b.gap.Load())
	for i := range list {
		if gap == 0 || list[i].Position != gap {
			continue
		}
		if i > 0 {
			return list[:i], nil
		}
		return nil, &journal.GapError{After: after, Next: gap + 1}
	}
	return list, err
}

// erased is a frame without the words of its facts.
func erased(t *testing.T, b []byte) []byte {
	t.Helper()
	f, err := journal.DecodeFrame(b)
	must(t, err)
	leaves := make([]epro.Digest, len(f.Entries))
	for i := range f.Entries {
		f.Entries[i] = journal.Entry{Envelope: f.Entries[i].Envelope, Erased: true}
		leaves[i] = epro.Leaf(f.Entries[i].Envelope)
	}
	sealed, err := journal.Seal(f.Header, f.Entries, leaves)
	must(t, err)
	return sealed.Bytes
}
