package verify_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/verify"
)

// sketch writes frames with right hashes and whatever else a test wants: an
// insider's journal.
type sketch struct {
	*world
	j    fixed
	last journal.Header
}

// frame adds a frame behind the last; change may bend its header.
func (s *sketch) frame(change func(h *journal.Header), facts ...epro.Fact) {
	s.t.Helper()
	h := journal.Header{Run: s.last.Run, N: s.last.N + 1, Prev: s.last.Hash(), Time: s.last.Time + 1}
	if len(s.j.frames) == 0 {
		h = journal.Header{Run: journal.Run{1}, Time: 1}
	}
	if change != nil {
		change(&h)
	}
	if len(facts) == 0 {
		facts = []epro.Fact{s.report("P-1", epro.NewUUID(), 5)}
	}
	entries := make([]journal.Entry, len(facts))
	leaves := make([]epro.Digest, len(facts))
	for i := range facts {
		env, err := facts[i].Envelope.AppendBinary(nil)
		s.must(err)
		entries[i] = journal.Entry{Envelope: env, Salt: facts[i].Salt, Body: facts[i].Body, Erased: facts[i].Erased}
		leaves[i] = epro.Leaf(env)
	}
	f, err := journal.Seal(h, entries, leaves)
	s.must(err)
	s.j.frames, s.last = append(s.j.frames, f.Bytes), f.Header
}

// found is what an audit found, as check@position.
func found(res *verify.Result) []string {
	out := []string{}
	for _, f := range res.Findings {
		out = append(out, fmt.Sprintf("%s@%d", f.Check, f.Position))
	}
	slices.Sort(out)
	return out
}

// TestEachCheck wants exactly the findings that a fault deserves: none besides.
func TestEachCheck(t *testing.T) {
	w := newWorld(t)
	w.close()
	newRun := func(prev epro.Digest) func(h *journal.Header) {
		return func(h *journal.Header) { h.Run, h.N, h.Prev = journal.Run{2}, 0, prev }
	}
	era := func(number, frames uint64) epro.Fact {
		return w.command(epro.KindEraOpened, epro.EraOpened{Reason: "x", Era: number, AnchorDigest: strings.Repeat("0", 64), AnchorFrames: 9, Frames: frames})
	}
	odd := w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: "T001", SiteID: "S01", Name: "Site"})
	unknown, unmeant := odd, odd
	unknown.Kind = epro.Kind{Name: "site.created", Version: 99}
	unmeant.Meaning[0] ^= 1
	meant := w.report("P-1", epro.NewUUID(), 5)
	meant.Meaning[0] ^= 1
	gone := w.report("P-1", epro.NewUUID(), 5)
	gone.Erased = true
	env, err := gone.AppendBinary(nil)
	w.must(err)
	erased := func(leaf string) epro.Fact {
		return w.command(epro.KindErased, epro.Erased{
			TrialID: "T001", PatientID: "P-1", FactID: gone.ID, Leaf: leaf, Version: 1, Instrument: "qol@1", Disposition: epro.Recorded, Reason: "x",
		})
	}
	leaf := epro.Leaf(env).String()
	for name, c := range map[string]struct {
		build func(s *sketch)
		want  []string
	}{
		"nothing":             {func(s *sketch) { s.frame(nil); s.frame(nil) }, nil},
		"a second run":        {func(s *sketch) { s.frame(nil); s.frame(newRun(s.last.Hash())); s.frame(nil) }, nil},
		"run behind nothing":  {func(s *sketch) { s.frame(nil); s.frame(newRun(epro.Digest{9})) }, []string{"chain@2"}},
		"run on empty":        {func(s *sketch) { s.frame(nil); s.frame(newRun(epro.Digest{})); s.frame(nil) }, nil},
		"run without a start": {func(s *sketch) { s.frame(nil); s.frame(func(h *journal.Header) { h.Run, h.N = journal.Run{2}, 3 }) }, []string{"chain@2"}},
		"number left out":     {func(s *sketch) { s.frame(nil); s.frame(func(h *journal.Header) { h.N++ }); s.frame(nil) }, []string{"chain@2"}},
		"number again":        {func(s *sketch) { s.frame(nil); s.frame(nil); s.j.frames = append(s.j.frames, s.j.frames[0]) }, []string{"chain@3"}},
		"number again, and on": {func(s *sketch) {
			s.frame(nil)
			s.frame(nil)
			s.j.frames = append(s.j.frames, s.j.frames[0])
			s.frame(nil)
		}, []string{"chain@3"}},
		"frame moved on":    {func(s *sketch) { s.frame(nil); s.frame(nil); s.frame(nil); f := s.j.frames; f[1], f[2] = f[2], f[1] }, []string{"chain@2", "chain@3"}},
		"other predecessor": {func(s *sketch) { s.frame(nil); s.frame(func(h *journal.Header) { h.Prev[0] ^= 1 }) }, []string{"chain@2"}},
		"time goes back":    {func(s *sketch) { s.frame(nil); s.frame(func(h *journal.Header) { h.Time -= 2 }) }, []string{"chain@2"}},
		"other shard":       {func(s *sketch) { s.frame(nil); s.frame(func(h *journal.Header) { h.Shard = 4 }) }, []string{"frame@2"}},
		"unknown kind":      {func(s *sketch) { s.frame(nil, unknown) }, []string{"kind@1"}},
		"fact's meaning":    {func(s *sketch) { s.frame(nil, unmeant) }, []string{"meaning@1"}},
		"report's meaning":  {func(s *sketch) { s.frame(nil); s.frame(nil, meant) }, []string{"meaning@2"}},
		"era":               {func(s *sketch) { s.frame(nil); s.frame(nil, era(2, 1)); s.frame(nil, era(3, 2)) }, nil},
		"era asked twice":   {func(s *sketch) { e := era(2, 1); s.frame(nil); s.frame(nil, e); s.frame(nil, e) }, nil},
		"era left out":      {func(s *sketch) { s.frame(nil); s.frame(nil, era(3, 1)) }, []string{"era@2"}},
		"era's frames":      {func(s *sketch) { s.frame(nil); s.frame(nil, era(2, 2)) }, []string{"era@2"}},
		"erasure":           {func(s *sketch) { s.frame(nil, gone); s.frame(nil, erased(leaf)) }, nil},
		"erased, untold":    {func(s *sketch) { s.frame(nil, gone); s.frame(nil) }, []string{"erased@1"}},
		"told, not erased":  {func(s *sketch) { s.frame(nil); s.frame(nil, erased(strings.Repeat("ab", 32))) }, []string{"erased@2"}},
		"header left only":  {func(s *sketch) { s.frame(nil); s.frame(nil); s.frame(nil); s.j.frames[1] = s.j.frames[1][:atEnvelopes] }, []string{"frame@2"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sketch{world: w}
			c.build(s)
			res, err := verify.Run(t.Context(), verify.Input{Journal: s.j, MeaningKey: func(string) epro.MeaningKey { return w.meaning }})
			w.must(err)
			if got := found(res); !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
				t.Errorf("found %v, want %v:%s", got, c.want, list(res))
			}
		})
	}
}

// TestWritersAtOnce: several processes may begin on an empty journal, and each
// run then cites nothing. It is no finding, and a reader is told.
func TestWritersAtOnce(t *testing.T) {
	w := newWorld(t)
	w.close()
	for runs, notes := range map[int]int{1: 0, 2: 1, 3: 1} {
		s := &sketch{world: w}
		for i := range runs {
			s.frame(func(h *journal.Header) { h.Run, h.N, h.Prev = journal.Run{byte(i + 1)}, 0, epro.Digest{} })
			s.frame(nil)
		}
		res, err := verify.Run(t.Context(), verify.Input{Journal: s.j, MeaningKey: func(string) epro.MeaningKey { return w.meaning }})
		w.must(err)
		if !res.OK() || res.Runs != runs || len(res.Notes) != notes || notes == 1 && !strings.Contains(res.Notes[0], fmt.Sprintf("%d runs", runs)) {
			t.Errorf("%d runs, of %d; notes %q, findings:%s", res.Runs, runs, res.Notes, list(res))
		}
	}
}

// TestEachAnchorCheck bends one line of an anchor each, under a right signature.
func TestEachAnchorCheck(t *testing.T) {
	w := newWorld(t)
	w.fill()
	good, err := receipt.PeekCheckpoint(w.anchor)
	w.must(err)
	for name, c := range map[string]struct {
		change func(c *receipt.Checkpoint)
		want   string // part of the sentence
	}{
		"nothing":  {func(*receipt.Checkpoint) {}, ""},
		"tree":     {func(c *receipt.Checkpoint) { c.Tree[0] ^= 1 }, "the tree of their headers is another"},
		"header":   {func(c *receipt.Checkpoint) { c.Header[0] ^= 1 }, "another frame lies in the place"},
		"position": {func(c *receipt.Checkpoint) { c.Position++ }, "other positions"},
		"frames":   {func(c *receipt.Checkpoint) { c.Frames++ }, "the journal's end is missing"},
		"shard":    {func(c *receipt.Checkpoint) { c.Shard = 7 }, "the journal's end is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			other := *w
			bent := good
			c.change(&bent)
			other.anchor, err = w.signer.SignCheckpoint(bent)
			w.must(err)
			res := other.audit(w.journalPath(), what{anchor: true})
			if (c.want == "") != res.OK() || !strings.Contains(list(res), c.want) || res.FindingCount > 1 {
				t.Errorf("want %q, found:%s", c.want, list(res))
			}
		})
	}
	// An older anchor is one the journal has grown beyond.
	for frames := uint64(1); frames <= 12; frames++ {
		older := good
		hashes := make([]epro.Digest, frames)
		for i := range hashes {
			hashes[i] = epro.Digest(receipt.FrameLeaf(w.frames[i].Hash))
		}
		older.Frames, older.Position, older.Header = frames, journal.Position(frames), w.frames[frames-1].Hash
		older.Tree = journal.TreeRoot(hashes)
		other := *w
		other.anchor, err = w.signer.SignCheckpoint(older)
		w.must(err)
		if res := other.audit(w.journalPath(), what{anchor: true}); !res.OK() || res.AnchorsHeld != 1 {
			t.Errorf("an anchor of %d frames:%s", frames, list(res))
		}
	}
}

// TestOneFaultOneName: what is behind a fault is not blamed for it.
func TestOneFaultOneName(t *testing.T) {
	w := newWorld(t)
	w.fill()
	for name, c := range map[string]struct {
		edit string
		want []string
	}{
		"row deleted": {"DELETE FROM frames WHERE position=3", []string{"chain@4", "read@3"}},
		"run deleted": {"DELETE FROM frames WHERE position BETWEEN 6 AND 9", []string{"chain@10", "read@6"}},
		"row emptied": {"UPDATE frames SET frame=x'' WHERE position=3", []string{"chain@4", "frame@3"}},
		"tail cut":    {"DELETE FROM frames WHERE position>10", []string{"tables@10"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := w.tampered(t, func(db *sql.DB) { exec(t, db, c.edit) })
			got := found(w.audit(path, what{tables: true, meaning: true}))
			// Reports that the tables list and the journal lost are named, too.
			got = slices.DeleteFunc(got, func(s string) bool {
				return strings.HasPrefix(s, "books@0") || strings.HasPrefix(s, "tables@") && s != "tables@10"
			})
			got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "books@") })
			if !slices.Equal(got, c.want) {
				t.Errorf("found %v, want %v", got, c.want)
			}
		})
	}
}

// renamed are tables that list a report under another participant.
type renamed struct{ listing }

func (r renamed) EachReport(ctx context.Context, trial string, f store.ReportFilter, fn func(*store.Report) error) error {
	return r.listing.EachReport(ctx, trial, f, func(s *store.Report) error {
		other := *s
		if other.PatientID == "P-9" {
			other.PatientID = "P-8"
		}
		return fn(&other)
	})
}

// bentTree are tables with one changed hash in their tree.
type bentTree struct {
	listing
	index int64
}

func (b bentTree) TreeHashes(ctx context.Context, shard uint32, indexes []int64) ([]epro.Digest, error) {
	d, err := b.listing.TreeHashes(ctx, shard, indexes)
	for i := range d {
		if indexes[i] == b.index {
			d[i][0] ^= 1
		}
	}
	return d, err
}

func TestTablesThatLie(t *testing.T) {
	w := newWorld(t)
	w.fill()
	s := listing{Store: w.frozenTables()}
	if got := found(w.with(t, w.journalPath(), renamed{s}, nil)); !slices.Equal(got, []string{"tables@8"}) {
		t.Errorf("a report under another name: %v", got)
	}
	// Index 0 is the leaf of the first frame, 14 the root over the first eight.
	if got := found(w.with(t, w.journalPath(), bentTree{s, 0}, nil)); !slices.Equal(got, []string{"tree@1"}) {
		t.Errorf("a changed leaf: %v", got)
	}
	if got := found(w.with(t, w.journalPath(), bentTree{s, 14}, nil)); !slices.Equal(got, []string{"tree@12"}) {
		t.Errorf("a changed inner hash: %v", got)
	}
}
