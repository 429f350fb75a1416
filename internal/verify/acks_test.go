package verify_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
	"github.com/tidegate/tidegate/internal/verify"
)

// with runs an audit of the world's journal with other tables or acks.
func (w *world) with(t *testing.T, path string, tables verify.Tables, acks []byte) *verify.Result {
	t.Helper()
	j, err := sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{ReadOnly: true, Audit: true})
	w.must(err)
	defer j.Close()
	in := verify.Input{Journal: j, Keys: w.keys, Tables: tables}
	if acks != nil {
		in.Acks, in.AcksBytes = bytes.NewReader(acks), uint64(len(acks))
	}
	res, err := verify.Run(t.Context(), in)
	w.must(err)
	return res
}

// counts wants lost, altered, doubled and unproven to be as given.
func counts(t *testing.T, res *verify.Result, lost, altered, doubled, unproven uint64) {
	t.Helper()
	var u uint64
	if res.Acks != nil {
		u = res.Acks.Unproven
	}
	if res.Lost != lost || res.Altered != altered || res.Doubled != doubled || u != unproven {
		t.Errorf("lost %d altered %d doubled %d unproven %d, want %d %d %d %d:%s", res.Lost, res.Altered, res.Doubled, u, lost, altered, doubled, unproven, list(res))
	}
	if lost+altered+doubled+unproven > 0 && res.OK() {
		t.Error("counted, but no finding")
	}
}

func TestAckLost(t *testing.T) {
	w := newWorld(t)
	w.fill()
	path := w.tampered(t, func(db *sql.DB) { exec(t, db, "DELETE FROM frames WHERE position=12") })
	counts(t, w.with(t, path, nil, w.ackFile()), 1, 0, 0, 0)
}

func TestAckAltered(t *testing.T) {
	w := newWorld(t)
	w.fill()
	// In place, so that only the body's digest and the acks see it.
	path := w.tampered(t, func(db *sql.DB) {
		b := slices.Clone(w.frames[11].Bytes)
		i := bytes.Index(b, []byte(`"qolScore":9`))
		b[i+len(`"qolScore":`)] = '0'
		update(t, db, 12, b)
	})
	res := w.with(t, path, nil, w.ackFile())
	counts(t, res, 0, 1, 0, 0)
	if !named(res, 12) {
		t.Errorf("not named:%s", list(res))
	}
	// One of three acknowledged facts in a frame: only that one is altered.
	path = w.tampered(t, func(db *sql.DB) {
		b := slices.Clone(w.frames[3].Bytes)
		b[atEnvelopes+2+40] ^= 1
		update(t, db, 4, b)
	})
	counts(t, w.with(t, path, nil, w.ackFile()), 0, 1, 0, 0)
	// A frame that does not decode any more: all of them are.
	path = w.tampered(t, func(db *sql.DB) {
		b := slices.Clone(w.frames[3].Bytes)
		update(t, db, 4, b[:len(b)-1])
	})
	counts(t, w.with(t, path, nil, w.ackFile()), 0, 3, 0, 0)
}

func TestAckOfOtherBytes(t *testing.T) {
	w := newWorld(t)
	w.fill()
	sum := sha256.Sum256([]byte("what the phone says it sent"))
	w.acks[5].SHA256 = hex.EncodeToString(sum[:])
	counts(t, w.with(t, w.journalPath(), nil, w.ackFile()), 0, 1, 0, 0)
}

// listing are tables that list one report too many, or one too few.
type listing struct {
	*sqlitestore.Store
	add, hide store.Ref
}

func (l listing) EachReport(ctx context.Context, trial string, f store.ReportFilter, fn func(*store.Report) error) error {
	return l.Store.EachReport(ctx, trial, f, func(r *store.Report) error {
		if l.add != (store.Ref{}) && r.Ref.Position > l.add.Position {
			again := *r
			again.Ref, l.add = l.add, store.Ref{}
			if err := fn(&again); err != nil {
				return err
			}
		}
		if r.Ref == l.hide {
			return nil
		}
		return fn(r)
	})
}

func TestDoubled(t *testing.T) {
	w := newWorld(t)
	w.fill()
	s := w.frozenTables()
	counts(t, w.with(t, w.journalPath(), s, w.ackFile()), 0, 0, 0, 0)
	// Frame 6 holds the duplicate: tables that list it, too, count twice.
	res := w.with(t, w.journalPath(), listing{Store: s, add: store.Ref{Position: 6}}, w.ackFile())
	counts(t, res, 0, 0, 1, 0)
	if res := w.with(t, w.journalPath(), listing{Store: s, add: store.Ref{Position: 6}}, nil); res.Doubled != 1 {
		t.Error("doubled is not seen without acks")
	}
	// A report that is acknowledged and in the journal, but in no table.
	res = w.with(t, w.journalPath(), listing{Store: s, hide: store.Ref{Position: 3}}, w.ackFile())
	counts(t, res, 1, 0, 0, 0)
	if !named(res, 3) {
		t.Errorf("not named:%s", list(res))
	}
	// One that is listed without a fact.
	if res := w.with(t, w.journalPath(), listing{Store: s, add: store.Ref{Position: 1, Index: 2}}, nil); !named(res, 1) {
		t.Errorf("a listed report without a fact is not named:%s", list(res))
	}
}

func TestBooksThatDoNotBalance(t *testing.T) {
	w := newWorld(t)
	w.fill()
	db, err := sql.Open("sqlite", "file:"+w.storePath())
	w.must(err)
	exec(t, db, "UPDATE books SET recorded=recorded+1")
	w.must(db.Close())
	res := w.audit(w.journalPath(), what{tables: true, rebuild: true})
	if res.FindingCount != 3 || *res.RebuildSame { // the count, the balance, the rebuild
		t.Errorf("findings:%s", list(res))
	}
}

func TestPendingIsCounted(t *testing.T) {
	w := newWorld(t)
	w.newRun()
	w.registry()
	w.commit(w.report("P-1", epro.NewUUID(), 1))
	w.project()
	w.commit(w.report("P-1", epro.NewUUID(), 2), w.report("P-9", epro.NewUUID(), 2))
	w.close()
	res := w.audit(w.journalPath(), everything)
	if !res.OK() || res.Accepted != 3 || res.Recorded != 1 || res.Pending != 2 {
		t.Errorf("%+v%s", res.Books, list(res))
	}
}

func TestAckLines(t *testing.T) {
	w := newWorld(t)
	w.fill()
	file := w.ackFile()
	lines := bytes.SplitAfter(file, []byte("\n"))
	lines = lines[:len(lines)-1]
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	change := func(fn func(a *verify.Ack)) []byte {
		var a verify.Ack
		w.must(json.Unmarshal(lines[2], &a))
		fn(&a)
		b, _ := json.Marshal(a)
		return append(b, '\n')
	}
	other := newWorld(t)
	other.fill()
	cut := lines[2][:len(lines[2])/2]
	for name, c := range map[string]struct {
		file     []byte
		unproven uint64
		cut      bool
	}{
		"whole":                          {file, 0, false},
		"without the last line end":      {file[:len(file)-1], 0, false},
		"cut at the end":                 {join(lines[0], lines[1], cut), 0, true},
		"cut in the middle":              {join(lines[0], cut, []byte("\n"), lines[1]), 1, false},
		"cut, and written on behind":     {join(lines[0], cut, lines[1]), 1, false},
		"cut with a line end at the end": {join(lines[0], cut, []byte("\n")), 1, false},
		"empty line":                     {join(lines[0], []byte("\n"), lines[1]), 1, false},
		"very long line":                 {join(lines[0], bytes.Repeat([]byte("x"), 200<<10), []byte("\n"), lines[1]), 1, false},
		"the same line twice":            {join(lines[2], lines[2]), 0, false},
		"another report id":              {join(change(func(a *verify.Ack) { a.ReportID = epro.NewUUID().String() })), 1, false},
		"another participant":            {join(change(func(a *verify.Ack) { a.PatientID = "P-3" })), 1, false},
		"another trial":                  {join(change(func(a *verify.Ack) { a.TrialID = "T002" })), 1, false},
		"derived without id":             {join(change(func(a *verify.Ack) { a.ReportID, a.Derived = "", true })), 0, false},
		"no id":                          {join(change(func(a *verify.Ack) { a.ReportID = "" })), 1, false},
		"no sha":                         {join(change(func(a *verify.Ack) { a.SHA256 = "" })), 1, false},
		"receipt changed":                {join(change(func(a *verify.Ack) { a.Receipt = flipText(a.Receipt, 40) })), 1, false},
		"receipt of other keys":          {join(lines[0], other.ackFile()), 16, false},
		"empty file":                     {nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			acks := c.file
			if acks == nil {
				acks = []byte{}
			}
			res := w.with(t, w.journalPath(), nil, acks)
			counts(t, res, 0, 0, 0, c.unproven)
			if res.Acks.CutLine != c.cut {
				t.Errorf("cut %v", res.Acks.CutLine)
			}
		})
	}
}

// flipText changes one character of a text.
func flipText(s string, i int) string {
	b := []byte(s)
	b[i] = 'A' + (b[i]-'A'+1)%26
	return string(b)
}

// TestForgedReceiptBehindAGenuineOne: the signature of a frame is checked once,
// the path of each fact every time.
func TestForgedReceiptBehindAGenuineOne(t *testing.T) {
	w := newWorld(t)
	w.fill()
	genuine := w.acks[3]
	r, err := receipt.Parse(genuine.Receipt)
	w.must(err)
	env, err := r.Fact()
	w.must(err)
	env.ID = epro.NewUUID()
	r.Envelope, err = env.AppendBinary(nil)
	w.must(err)
	forged := genuine
	forged.ReportID, forged.Receipt = env.ID.String(), r.String()
	w.acks = []verify.Ack{genuine, forged, genuine}
	res := w.with(t, w.journalPath(), nil, w.ackFile())
	counts(t, res, 0, 0, 0, 1)
	if res.Acks.Found != 2 || res.Findings[0].Line != 2 {
		t.Errorf("%+v:%s", res.Acks, list(res))
	}
}

// TestNoWordsInFindings: what patients wrote never gets into a result.
func TestNoWordsInFindings(t *testing.T) {
	w := newWorld(t)
	w.fill()
	path := w.tampered(t, func(db *sql.DB) {
		for p, f := range w.frames {
			b := slices.Clone(f.Bytes)
			b[len(b)-2] ^= 1
			b[atTime+7] ^= 1
			update(t, db, p+1, b)
		}
	})
	res := w.audit(path, everything)
	var out bytes.Buffer
	w.must(errors.Join(res.WriteJSON(&out), res.WriteText(&out)))
	if res.OK() || strings.Contains(out.String(), "secret") || strings.Contains(out.String(), "qolScore") {
		t.Errorf("result: %s", &out)
	}
}

func TestCannotBeDone(t *testing.T) {
	w := newWorld(t)
	w.fill()
	j := fixed{frames: [][]byte{w.frames[0].Bytes}}
	if _, err := verify.Run(t.Context(), verify.Input{Journal: j, Acks: strings.NewReader("")}); err == nil {
		t.Error("acks without keys are taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verify.Run(ctx, verify.Input{Journal: j}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	broken := io.MultiReader(strings.NewReader("{"), failing{})
	if _, err := verify.Run(t.Context(), verify.Input{Journal: j, Keys: w.keys, Acks: broken}); err == nil {
		t.Error("acks that cannot be read are taken")
	}
	res := w.audit(w.journalPath(), what{})
	res2, err := verify.Run(t.Context(), verify.Input{Journal: j, Keys: w.keys, Anchors: []verify.Anchor{{Name: "x", Signed: []byte("nonsense\n")}}})
	if err != nil || res2.OK() || !res.OK() {
		t.Errorf("an anchor that is none: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("disk") }

// TestBesideALiveServer audits while frames are appended and projected.
func TestBesideALiveServer(t *testing.T) {
	w := newWorld(t)
	w.newRun()
	w.registry()
	s := w.frozenTables()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { _ = projector.New(w.j, s, 0, projector.Options{}).Run(ctx) })
	var mu sync.Mutex
	work.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			mu.Lock()
			w.commit(w.report("P-1", epro.NewUUID(), i%11), w.report("P-2", epro.NewUUID(), i%11))
			mu.Unlock()
			time.Sleep(time.Millisecond)
		}
	})
	defer work.Wait()
	defer cancel()
	var accepted uint64
	for range 5 {
		time.Sleep(50 * time.Millisecond)
		mu.Lock()
		acks := w.ackFile()
		mu.Unlock()
		j, err := sqlitejournal.Open(ctx, w.journalPath(), sqlitejournal.Options{ReadOnly: true, Audit: true})
		w.must(err)
		res, err := verify.Run(ctx, verify.Input{
			Journal: j, Tables: s, Rebuild: rebuildOf(t, j), Keys: w.keys, Acks: bytes.NewReader(acks),
			MeaningKey: func(string) epro.MeaningKey { return w.meaning },
		})
		w.must(errors.Join(err, j.Close()))
		if !res.OK() || res.Lost != 0 || !*res.RebuildSame {
			t.Fatalf("findings beside a live server:%s", list(res))
		}
		if res.Accepted <= accepted || res.Recorded+res.Pending != res.Accepted {
			t.Errorf("books %+v", res.Books)
		}
		accepted = res.Accepted
	}
}

// TestMany audits TIDEGATE_VERIFY_ACKS acknowledgements (20,000 when it is not
// set) in frames of 100, and holds memory to the stated bound.
func TestMany(t *testing.T) {
	count := 20_000
	if s := os.Getenv("TIDEGATE_VERIFY_ACKS"); s != "" {
		count, _ = strconv.Atoi(s)
	}
	w := newWorld(t)
	w.close()
	file, err := os.CreateTemp(t.TempDir(), "acks")
	w.must(err)
	defer file.Close()
	j := &fixed{}
	var run journal.Run
	_, _ = rand.Read(run[:])
	var prev epro.Digest
	enc := json.NewEncoder(file)
	for n := range count / 100 {
		var entries []journal.Entry
		var leaves []epro.Digest
		var ids []epro.Fact
		for i := range 100 {
			f := w.report(fmt.Sprintf("P-%06d", n*100+i), epro.NewUUID(), i%11)
			env, _ := f.Envelope.AppendBinary(nil)
			entries = append(entries, journal.Entry{Envelope: env, Salt: f.Salt, Body: f.Body})
			leaves, ids = append(leaves, epro.Leaf(env)), append(ids, f)
		}
		tree := journal.NewTree(leaves)
		sealed, err := journal.SealTree(journal.Header{Run: run, N: uint64(n), Prev: prev, Time: int64(n)}, entries, tree)
		w.must(err)
		prev = sealed.Hash
		j.frames = append(j.frames, sealed.Bytes)
		signed := receipt.Signed{Header: sealed.Header, Class: 1, KeyID: w.signer.KeyID(), Signature: w.signer.Sign(sealed.Hash, 1), Tree: tree}
		for i, f := range ids {
			sha := sha256.Sum256(f.Body)
			w.must(enc.Encode(verify.Ack{
				ReportID: f.ID.String(), PatientID: f.Subject, TrialID: f.Trial, SHA256: hex.EncodeToString(sha[:]),
				Receipt: signed.Receipt(i, entries[i].Envelope, f.Salt).String(),
			}))
		}
	}
	_, err = file.Seek(0, io.SeekStart)
	w.must(err)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	var peak uint64
	res, err := verify.Run(t.Context(), verify.Input{
		Journal: j, Keys: w.keys, Acks: file, MeaningKey: func(string) epro.MeaningKey { return w.meaning },
		Progress: func(p verify.Progress) {
			if p.Stage == "acks" && p.Done == p.Total && p.Total > 0 {
				runtime.GC()
				runtime.ReadMemStats(&after)
				peak = after.HeapAlloc - min(after.HeapAlloc, before.HeapAlloc)
			}
		},
	})
	w.must(err)
	counts(t, res, 0, 0, 0, 0)
	if !res.OK() || res.Acks.Found != uint64(count) {
		t.Errorf("found %d of %d:%s", res.Acks.Found, count, list(res))
	}
	if each := float64(peak) / float64(count); each > 150+2e6/float64(count) {
		t.Errorf("%.0f bytes an acknowledgement", each)
	} else {
		t.Logf("%d acknowledgements audited in %v, %.0f bytes each kept", count, time.Since(start).Round(time.Millisecond), each)
	}
}
