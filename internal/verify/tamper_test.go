package verify_test

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/verify"
)

// Offsets in a frame's bytes (docs/format.md).
const (
	atMagic       = 0
	atHeaderMagic = 4
	atShard       = 8
	atRun         = 12
	atN           = 28
	atPrev        = 36
	atRoot        = 68
	atCount       = 100
	atTime        = 104
	atEnvelopes   = 112
)

// frameParts are offsets of the parts of a frame that follow its header.
func frameParts(t testing.TB, b []byte) map[string]int {
	t.Helper()
	f, err := journal.DecodeFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	envelopes := 0
	for _, e := range f.Entries {
		envelopes += 2 + len(e.Envelope)
	}
	state := atEnvelopes + envelopes
	return map[string]int{
		"envelope length": atEnvelopes + 1, "envelope version": atEnvelopes + 2, "envelope flags": atEnvelopes + 4,
		"envelope meaning": atEnvelopes + 2 + len(f.Entries[0].Envelope) - 1,
		"state":            state, "salt": state + 1, "body length": state + 1 + epro.SaltBytes + 3,
		"body": state + 1 + epro.SaltBytes + 4, "body end": len(b) - 1,
	}
}

func update(t testing.TB, db *sql.DB, position int, frame []byte) {
	t.Helper()
	exec(t, db, "UPDATE frames SET frame=? WHERE position=?", frame, position)
}

// TestTamperedRows changes the journal in every way that its hashes, its runs
// or its tables show, and wants the place named each time, also where the
// journal alone has to show it.
func TestTamperedRows(t *testing.T) {
	w := newWorld(t)
	w.fill()
	frame := func(p int) []byte { return slices.Clone(w.frames[p-1].Bytes) }

	type tamper struct {
		name  string
		place journal.Position // that a finding must name
		alone bool             // shown by the journal alone
		edit  func(t *testing.T, db *sql.DB)
	}
	var cases []tamper
	flip := func(name string, p, offset int, alone bool) {
		cases = append(cases, tamper{name, journal.Position(p), alone, func(t *testing.T, db *sql.DB) {
			b := frame(p)
			b[offset] ^= 0x80 // so that a number is not that of another frame, which the index refuses
			update(t, db, p, b)
		}})
	}
	header := map[string]int{
		"magic": atMagic, "header magic": atHeaderMagic, "shard": atShard + 3, "run": atRun, "n": atN + 7, "prev": atPrev,
		"root": atRoot, "count": atCount + 3, "time": atTime + 7,
	}
	for name, offset := range header {
		for _, p := range []int{1, 4, 6, 12} {
			// The last frame of all has none behind it that cites its header.
			last := p == 12 && (name == "time" || name == "prev")
			flip(fmt.Sprintf("%s of frame %d", name, p), p, offset, !last)
		}
	}
	for name, offset := range frameParts(t, w.frames[3].Bytes) {
		flip(name, 4, offset, true)
	}
	remove := func(name string, p int, alone bool) {
		cases = append(cases, tamper{name, journal.Position(p), alone, func(t *testing.T, db *sql.DB) {
			exec(t, db, "DELETE FROM frames WHERE position=?", p)
		}})
	}
	remove("first row deleted", 1, true)
	remove("middle row deleted", 5, true)
	cases = append(cases,
		tamper{"row deleted, the rest moved up", 5, true, func(t *testing.T, db *sql.DB) {
			exec(t, db, "DELETE FROM frames WHERE position=5")
			exec(t, db, "UPDATE frames SET position=-(position-1) WHERE position>5")
			exec(t, db, "UPDATE frames SET position=-position WHERE position<0")
		}},
		tamper{"two rows of a run swapped", 8, true, func(t *testing.T, db *sql.DB) { swap(t, db, 8, 9) }},
		tamper{"rows of two runs swapped", 3, true, func(t *testing.T, db *sql.DB) { swap(t, db, 3, 11) }},
		tamper{"a row there twice", 13, true, func(t *testing.T, db *sql.DB) {
			exec(t, db, "DROP INDEX frames_run")
			exec(t, db, "INSERT INTO frames SELECT 13, frame FROM frames WHERE position=4")
		}},
		tamper{"a row there twice, the schema restored", 13, true, func(t *testing.T, db *sql.DB) {
			var schema string
			if err := db.QueryRow("SELECT sql FROM sqlite_schema WHERE name='frames_run'").Scan(&schema); err != nil {
				t.Fatal(err)
			}
			exec(t, db, "DROP INDEX frames_run")
			exec(t, db, "INSERT INTO frames SELECT 13, frame FROM frames WHERE position=4")
			exec(t, db, "CREATE INDEX frames_run ON frames (substr(frame, 13, 24))")
			exec(t, db, "PRAGMA writable_schema=ON")
			exec(t, db, "UPDATE sqlite_schema SET sql=? WHERE name='frames_run'", schema)
		}},
		tamper{"blob cut short", 7, true, func(t *testing.T, db *sql.DB) { b := frame(7); update(t, db, 7, b[:len(b)-5]) }},
		tamper{"blob cut to a header", 7, true, func(t *testing.T, db *sql.DB) { update(t, db, 7, frame(7)[:atEnvelopes]) }},
		tamper{"blob lengthened", 7, true, func(t *testing.T, db *sql.DB) { update(t, db, 7, append(frame(7), 0)) }},
		tamper{"blob emptied", 7, true, func(t *testing.T, db *sql.DB) { update(t, db, 7, []byte{}) }},
		tamper{"content marked as erased", 3, true, func(t *testing.T, db *sql.DB) {
			f, _ := journal.DecodeFrame(frame(3))
			f.Entries[0].Erased = true
			update(t, db, 3, reseal(t, f, f.Header.Prev).Bytes)
		}},
		tamper{"middle run deleted, the rest moved up", 6, true, func(t *testing.T, db *sql.DB) {
			exec(t, db, "DELETE FROM frames WHERE position BETWEEN 6 AND 9")
			exec(t, db, "UPDATE frames SET position=position-4 WHERE position>9")
		}},
		tamper{"first run moved to the end", 1, true, func(t *testing.T, db *sql.DB) {
			exec(t, db, "UPDATE frames SET position=-(position+7) WHERE position<=5")
			exec(t, db, "UPDATE frames SET position=position-5 WHERE position>5")
			exec(t, db, "UPDATE frames SET position=-position WHERE position<0")
		}},
	)
	detected := 0
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := w.tampered(t, func(db *sql.DB) { c.edit(t, db) })
			res := w.audit(path, everything)
			if !named(res, c.place) {
				t.Errorf("position %d is not named:%s", c.place, list(res))
			}
			res = w.audit(path, what{meaning: true})
			if c.alone && !named(res, c.place) && !named(res, c.place+1) {
				t.Errorf("without tables, anchor and acks neither position %d nor the one behind it is named:%s", c.place, list(res))
			}
			if !t.Failed() {
				detected++
			}
		})
	}
	t.Logf("tamper matrix: detected %d of %d injected", detected, len(cases))
}

func swap(t testing.TB, db *sql.DB, a, b int) {
	t.Helper()
	exec(t, db, "UPDATE frames SET position=-1 WHERE position=?", a)
	exec(t, db, "UPDATE frames SET position=? WHERE position=?", a, b)
	exec(t, db, "UPDATE frames SET position=? WHERE position=-1", b)
}

// reseal encodes a frame anew, with right hashes, behind prev.
func reseal(t testing.TB, f journal.Frame, prev epro.Digest) journal.Sealed {
	t.Helper()
	leaves := make([]epro.Digest, len(f.Entries))
	for i := range f.Entries {
		leaves[i] = epro.Leaf(f.Entries[i].Envelope)
	}
	f.Header.Prev = prev
	s, err := journal.Seal(f.Header, f.Entries, leaves)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEveryByte flips every byte of every frame, each alone.
func TestEveryByte(t *testing.T) {
	w := newWorld(t)
	w.newRun()
	w.registry()
	w.commit(w.report("P-1", epro.NewUUID(), 7), w.report("P-2", epro.NewUUID(), 0))
	w.newRun()
	w.commit(w.report("P-2", epro.NewUUID(), 1))
	w.project()
	w.close()
	var frames [][]byte
	for _, f := range w.frames {
		frames = append(frames, f.Bytes)
	}
	tables := remembered{listing{Store: w.frozenTables()}, map[int64]epro.Digest{}}
	flipped := 0
	for p := range frames {
		for i := range frames[p] {
			if testing.Short() && i%7 != 0 { // make test with -short takes a part
				continue
			}
			changed := slices.Clone(frames)
			changed[p] = slices.Clone(frames[p])
			changed[p][i] ^= byte(1 << (i % 8))
			res, err := verify.Run(t.Context(), verify.Input{
				Journal: fixed{frames: changed}, Tables: tables, Keys: w.keys,
				MeaningKey: func(string) epro.MeaningKey { return w.meaning },
			})
			if err != nil {
				t.Fatal(err)
			}
			flipped++
			if !named(res, journal.Position(p+1)) {
				t.Fatalf("byte %d of frame %d: its position is not named:%s", i, p+1, list(res))
			}
		}
	}
	t.Logf("%d bytes flipped, each found and its frame named", flipped)
}

// remembered are tables whose tree is asked for thousands of times.
type remembered struct {
	listing
	tree map[int64]epro.Digest
}

func (r remembered) TreeHashes(ctx context.Context, shard uint32, indexes []int64) ([]epro.Digest, error) {
	out := make([]epro.Digest, len(indexes))
	for i, x := range indexes {
		d, ok := r.tree[x]
		if !ok {
			got, err := r.listing.TreeHashes(ctx, shard, []int64{x})
			if err != nil {
				return nil, err
			}
			d, r.tree[x] = got[0], got[0]
		}
		out[i] = d
	}
	return out, nil
}

// fixed is a journal over frames in memory, each at its place.
type fixed struct {
	journal.Journal
	frames [][]byte
}

func (f fixed) Properties() journal.Properties {
	return journal.Properties{Class: journal.ClassLocalFsync, Shards: 1, MaxFrameBytes: journal.MaxFrameBytes}
}

func (f fixed) End(context.Context, uint32) (journal.Record, error) {
	n := len(f.frames)
	return journal.Record{Position: journal.Position(n), Bytes: f.frames[n-1]}, nil
}

func (f fixed) Read(_ context.Context, _ uint32, after journal.Position, limit int) ([]journal.Record, error) {
	var out []journal.Record
	for p := int(after); p < len(f.frames) && len(out) < limit; p++ {
		out = append(out, journal.Record{Position: journal.Position(p + 1), Bytes: f.frames[p]})
	}
	return out, nil
}

// forge changes a score in frame 4, and recomputes everything that anybody can
// recompute without a signing key.
func (w *world) forge(t *testing.T) string {
	return w.tampered(t, func(db *sql.DB) {
		hashes := map[epro.Digest]epro.Digest{}
		for i, s := range w.frames {
			f, err := journal.DecodeFrame(slices.Clone(s.Bytes))
			w.must(err)
			if i == 3 {
				e := &f.Entries[2]
				env, err := epro.DecodeEnvelope(e.Envelope)
				w.must(err)
				r := w.report(env.Subject, env.ID, 9)
				env.BodyDigest, env.Meaning = epro.BodyDigest(e.Salt, r.Body), r.Meaning
				e.Body = r.Body
				e.Envelope, err = env.AppendBinary(nil)
				w.must(err)
			}
			prev := f.Header.Prev
			if changed, ok := hashes[prev]; ok {
				prev = changed
			}
			forged := reseal(t, f, prev)
			hashes[s.Hash] = forged.Hash
			update(t, db, i+1, forged.Bytes)
		}
	})
}

// TestForger: whoever recomputes every later hash is found by what lies
// elsewhere, and by nothing else. That is why there are anchors and receipts.
func TestForger(t *testing.T) {
	w := newWorld(t)
	w.fill()
	path := w.forge(t)
	if res := w.audit(path, what{meaning: true}); !res.OK() {
		t.Errorf("the forger made a mistake, so this test shows nothing:%s", list(res))
	}
	for name, with := range map[string]what{"anchor": {anchor: true}, "tables": {tables: true}} {
		if res := w.audit(path, with); res.OK() {
			t.Errorf("not found with the %s", name)
		}
	}
	res := w.audit(path, what{acks: true})
	if res.Altered != 13 { // all from frame 4 on: each later header changed, too
		t.Errorf("altered %d with the acks:%s", res.Altered, list(res))
	}
	// The tables can be made to fit the forged journal, too.
	w.withTablesOf(t, path, func(forged *world) {
		if res := forged.audit(path, what{tables: true, rebuild: true, meaning: true}); !res.OK() {
			t.Errorf("tables of the forged journal do not fit it:%s", list(res))
		}
		if res := forged.audit(path, what{tables: true, rebuild: true, anchor: true}); !named(res, 12) {
			t.Errorf("not found with the anchor")
		}
	})
}

// TestCutTail: a tail that is gone leaves a journal that is whole.
func TestCutTail(t *testing.T) {
	w := newWorld(t)
	w.fill()
	for name, edit := range map[string]string{
		"last row": "DELETE FROM frames WHERE position=12",
		"last run": "DELETE FROM frames WHERE position>=10",
	} {
		t.Run(name, func(t *testing.T) {
			path := w.tampered(t, func(db *sql.DB) { exec(t, db, edit) })
			w.onlyFromOutside(t, path)
		})
	}
}

// onlyFromOutside wants a journal at path that is whole in itself, and less than
// the anchor and the acks say.
func (w *world) onlyFromOutside(t *testing.T, path string) {
	t.Helper()
	if res := w.audit(path, what{meaning: true}); !res.OK() {
		t.Errorf("a cut tail shows in the journal itself:%s", list(res))
	}
	if res := w.audit(path, what{anchor: true}); res.OK() {
		t.Error("not found with the anchor")
	}
	if res := w.audit(path, what{acks: true}); res.Lost == 0 {
		t.Errorf("not found with the acks:%s", list(res))
	}
	if res := w.audit(path, what{tables: true}); res.OK() {
		t.Error("not found with the tables")
	}
	w.withTablesOf(t, path, func(cut *world) {
		if res := cut.audit(path, what{tables: true, rebuild: true}); !res.OK() {
			t.Errorf("tables of the cut journal do not fit it:%s", list(res))
		}
		res := cut.audit(path, what{tables: true, anchor: true})
		if res.OK() || res.AnchorsHeld != 0 {
			t.Error("not found with the anchor when the tables were cut too")
		}
	})
}

// TestRunsOfManyWriters: where several runs begin behind the same frame, one of
// them can be taken out or moved whole; only anchor and acks show it.
func TestRunsOfManyWriters(t *testing.T) {
	w := newWorld(t)
	w.newRun()
	w.registry()
	first := w.prev
	for range 2 { // two writers that had both read frame 1 when they began
		w.newRun()
		w.prev = first
		w.commit(w.report("P-1", epro.NewUUID(), 3))
		w.commit(w.report("P-2", epro.NewUUID(), 4))
	}
	w.project()
	w.close()
	if res := w.audit(w.journalPath(), everything); !res.OK() {
		t.Fatalf("findings in a sound journal:%s", list(res))
	}
	t.Run("deleted", func(t *testing.T) {
		path := w.tampered(t, func(db *sql.DB) {
			exec(t, db, "DELETE FROM frames WHERE position IN (2,3)")
			exec(t, db, "UPDATE frames SET position=position-2 WHERE position>3")
		})
		w.onlyFromOutside(t, path)
	})
	t.Run("moved", func(t *testing.T) {
		path := w.tampered(t, func(db *sql.DB) { swap(t, db, 2, 4); swap(t, db, 3, 5) })
		if res := w.audit(path, what{meaning: true, acks: true}); !res.OK() {
			t.Errorf("shows in the journal itself:%s", list(res))
		}
		if res := w.audit(path, what{anchor: true}); !named(res, 5) {
			t.Errorf("not found with the anchor:%s", list(res))
		}
		if res := w.audit(path, what{tables: true}); !named(res, 2) {
			t.Errorf("not found with the tables:%s", list(res))
		}
	})
}

// TestDamagedWAL: what SQLite drops from a damaged -wal is a cut tail.
func TestDamagedWAL(t *testing.T) {
	w := newWorld(t)
	w.newRun()
	w.registry()
	for i := range 8 {
		w.commit(w.report("P-1", epro.NewUUID(), i), w.report("P-2", epro.NewUUID(), i))
	}
	w.project()
	// As a kill would leave the files: a copy taken while the journal is open.
	dir := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(w.journalPath() + suffix)
		w.must(err)
		if suffix == "-wal" {
			if len(b) < 3*4096 {
				t.Fatalf("the -wal has %d bytes: nothing to damage", len(b))
			}
			b[len(b)-4096+100] ^= 1
		}
		w.must(os.WriteFile(filepath.Join(dir, "journal.db"+suffix), b, 0o600))
	}
	w.close()
	path := filepath.Join(dir, "journal.db")
	w.onlyFromOutside(t, path)
}

// TestDamagedFile: bytes of the file itself, under SQLite.
func TestDamagedFile(t *testing.T) {
	w := newWorld(t)
	w.fill()
	b, err := os.ReadFile(w.journalPath())
	w.must(err)
	missed := 0
	for offset := 4096; offset < len(b); offset += 409 {
		changed := slices.Clone(b)
		changed[offset] ^= 0x55
		path := filepath.Join(t.TempDir(), "journal.db")
		w.must(os.WriteFile(path, changed, 0o600))
		res, err := w.tryAudit(path, what{tables: true, anchor: true, acks: true, meaning: true})
		if err == nil && res.OK() && !w.sameFrames(t, path) {
			missed++
			t.Errorf("offset %d: frames changed and nothing was found", offset)
		}
	}
	if missed > 0 {
		t.Errorf("%d missed", missed)
	}
}

func TestEraAcceptsTheGap(t *testing.T) {
	w := newWorld(t)
	w.fill()
	path := w.tampered(t, func(db *sql.DB) { exec(t, db, "DELETE FROM frames WHERE position>=11") })
	w.withTablesOf(t, path, func(cut *world) {
		c, err := receipt.PeekCheckpoint(w.anchor)
		w.must(err)
		cut.open()
		defer func() { cut.close() }()
		var below *receipt.BelowAnchorError
		if err := receipt.CheckAnchor(t.Context(), cut.j, 0, w.anchor, w.keys); !errors.As(err, &below) || below.End != 10 {
			t.Fatalf("the start check says %v", err)
		}
		cut.newRun()
		cut.prev = w.frames[9]
		cut.commit(cut.command(epro.KindEraOpened, epro.EraOpened{
			Reason: "an older backup was put back", Era: 2, AnchorDigest: below.Digest, AnchorFrames: c.Frames, Frames: 10,
		}))
		cut.commit(cut.report("P-1", epro.NewUUID(), 4), cut.report("P-1", epro.NewUUID(), 5))
		if err := receipt.CheckAnchor(t.Context(), cut.j, 0, w.anchor, w.keys); err != nil {
			t.Errorf("the era does not clear the anchor: %v", err)
		}
		old := w.anchor
		cut.project()
		cut.anchor = old
		res := cut.audit(cut.journalPath(), what{tables: true, rebuild: true, anchor: true, meaning: true})
		if !res.OK() || res.Eras != 2 || res.AnchorsHeld != 0 || len(res.Notes) != 2 {
			t.Errorf("eras %d, notes %q, findings:%s", res.Eras, res.Notes, list(res))
		}
		if res := cut.audit(cut.journalPath(), what{acks: true}); res.Lost != 3 {
			t.Errorf("lost %d: an era must not hide what phones can show:%s", res.Lost, list(res))
		}
	})
}

func TestErased(t *testing.T) {
	w := newWorld(t)
	w.newRun()
	w.registry()
	words := w.report("P-1", epro.NewUUID(), 7)
	env, err := words.AppendBinary(nil)
	w.must(err)
	leaf := epro.Leaf(env)
	w.commit(words)
	w.commit(w.command(epro.KindErased, epro.Erased{
		TrialID: "T001", PatientID: "P-1", FactID: words.ID, Leaf: hex.EncodeToString(leaf[:]), Version: 1, Instrument: "qol@1",
		Disposition: epro.Recorded, Reason: "consent to storage withdrawn",
	}))
	w.project()
	w.close()
	// The words are still there although the fact says that they are gone.
	if res := w.audit(w.journalPath(), everything); !named(res, 3) {
		t.Errorf("an erasure that was not carried out is not named:%s", list(res))
	}
	erase := func(db *sql.DB) {
		f, err := journal.DecodeFrame(slices.Clone(w.frames[1].Bytes))
		w.must(err)
		f.Entries[0].Erased = true
		update(t, db, 2, reseal(t, f, f.Header.Prev).Bytes)
	}
	res := w.audit(w.tampered(t, erase), what{tables: true, anchor: true, acks: true, meaning: true})
	if !res.OK() || res.Erased != 1 || res.Acks.Erased != 1 || res.Altered != 0 {
		t.Errorf("erased %d, acks %+v, altered %d:%s", res.Erased, res.Acks, res.Altered, list(res))
	}
}

// TestUnknownKind: an old binary behind a new one says so.
func TestUnknownKind(t *testing.T) {
	w := newWorld(t)
	w.newRun()
	f := w.report("P-1", epro.NewUUID(), 7)
	f.Kind = epro.Kind{Name: "report", Version: 99}
	w.commit(f)
	w.close()
	if res := w.audit(w.journalPath(), what{}); !named(res, 1) {
		t.Errorf("not named:%s", list(res))
	}
}
