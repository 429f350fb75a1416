package agree_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
)

func TestJournalClosedOpenAndKilled(t *testing.T) {
	f := newFolder(t)
	f.mustPass(t, "frames 0 facts 0", "acknowledged 0")
	// Nothing is folded while it is open: all is in the -wal.
	j := f.open(t, sqlitejournal.Options{CheckpointBytes: 1 << 40})
	f.add(t, j, 40, 1, 10)
	f.add(t, j, 5, 33, 100)
	f.mustPass(t, "frames 45 facts 205", "acknowledged 205 reports 205")
	killed := f.copy(t)
	if info, err := os.Stat(killed.journal() + "-wal"); err != nil || info.Size() == 0 {
		t.Fatalf("no -wal was left behind: this would prove nothing: %v", err)
	}
	killed.mustPass(t, "frames 45 facts 205")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	f.mustPass(t, "frames 45 facts 205", "trial T001 accepted 103 first 103 repeated 0 other 0 erased 0")

	// A second run continues after the first.
	f.writer.head = journal.Header{Run: journal.Run{1}, Prev: f.writer.head.Prev}
	j = f.open(t, sqlitejournal.Options{})
	f.add(t, j, 3, 2, 0)
	j.Close()
	f.mustPass(t, "frames 48 facts 211 runs 2")

	// Without the -wal that a kill left, what was acknowledged is lost, and said to be.
	if err := os.Remove(killed.journal() + "-wal"); err != nil {
		t.Fatal(err)
	}
	killed.mustFail(t, "lost 211 altered 0")
}

func TestThousandsOfRowsOfEverySize(t *testing.T) {
	for page, rows := range map[int]int{1024: 1000, 4096: 4000, 65536: 1000} { // the product's pages are of 4096
		t.Run(fmt.Sprint(page), func(t *testing.T) {
			f := newFolder(t)
			f.sql(t, "PRAGMA journal_mode=DELETE", fmt.Sprintf("PRAGMA page_size=%d", page), "VACUUM", "PRAGMA journal_mode=WAL")
			db, err := sql.Open("sqlite", f.journal()+"?_pragma=synchronous(0)")
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(1, uint64(page))) //nolint:gosec // sizes
			facts := 0
			for i := range rows {
				size := rng.IntN(300)
				count := 1
				switch {
				case i%500 == 0:
					size, count = 3900, 200 // about 1 MB: hundreds of overflow pages
				case i%50 == 0:
					size = 3000
				}
				var list []epro.Fact
				for range count {
					list = append(list, f.writer.fact(t, body(f.writer.facts, size)))
				}
				facts += count
				s, acks := f.writer.seal(t, list...)
				if _, err := tx.ExecContext(t.Context(), "INSERT INTO frames (frame) VALUES (?)", s.Bytes); err != nil {
					t.Fatal(err)
				}
				f.writer.acknowledge(t, acks)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			f.mustPass(t, fmt.Sprintf("frames %d facts %d", rows, facts))
			db.Close()
			f.mustPass(t, fmt.Sprintf("frames %d facts %d", rows, facts))
		})
	}
}

// Every payload length around the bounds at which SQLite splits a row onto overflow pages.
func TestRowsAroundTheOverflowBounds(t *testing.T) {
	f := newFolder(t)
	db, err := sql.Open("sqlite", f.journal()+"?_pragma=synchronous(0)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for size := 3400; size < 3900; size++ {
		s, acks := f.writer.seal(t, f.writer.fact(t, body(f.writer.facts, size)))
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO frames (frame) VALUES (?)", s.Bytes); err != nil {
			t.Fatal(err)
		}
		f.writer.acknowledge(t, acks)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	f.mustPass(t, "frames 500 facts 500")
}

// Beside a writer that folds its -wal and begins it anew all the time, verify2 always sees a whole journal with all that was
// acknowledged before it started.
func TestBesideAWriter(t *testing.T) {
	f := newFolder(t)
	j := f.open(t, sqlitejournal.Options{CheckpointBytes: 64 << 10})
	defer j.Close()
	f.add(t, j, 50, 3, 50)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		var err error
		for n := 0; ctx.Err() == nil && err == nil; n++ {
			list := []epro.Fact{f.writer.fact(t, body(f.writer.facts, n%3000)), f.writer.fact(t, body(f.writer.facts, 20))}
			s, acks := f.writer.seal(t, list...)
			if _, err = j.Append(context.WithoutCancel(ctx), s); err == nil {
				_, err = f.writer.acks.Write(acks)
			}
		}
		done <- err
	}()
	runs := 0
	for ; ctx.Err() == nil; runs++ {
		if status, out := f.run(t); status != 0 || !strings.Contains(out, "lost 0 altered 0 doubled 0") {
			t.Errorf("status %d:\n%s", status, out)
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d runs beside %d facts", runs, f.writer.facts)
	if runs < 3 || f.writer.facts < 300 {
		t.Errorf("%d runs beside %d facts prove little", runs, f.writer.facts)
	}
}

// The same report again is a repeat however it is spelled, another one under the same id is not, and neither counts as doubled.
func TestRepeatsAndOtherContent(t *testing.T) {
	f := newFolder(t)
	w := f.writer
	const id = `"reportId":"7b0c1f6e-3a5d-4c1e-9d5b-0a4f6f2f9a11","patientId":"P-000001","trialId":"T001"`
	a := `{` + id + `,"timestamp":"2026-03-01T08:30:00+08:00","qolScore":7,"comments":"caf\u00e9","extensions":{"b":1.50,"a":[1e2,{}]}}`
	again := `{ "extensions":{"a":[100,{}],"b":1.5},"comments":"café","qolScore":7,"timestamp":"2026-03-01T00:30:00.0Z",` + id + `}`
	other := `{` + id + `,"timestamp":"2026-03-01T08:30:00+08:00","qolScore":8,"comments":"café"}`
	j := f.open(t, sqlitejournal.Options{})
	for _, b := range []string{a, again, a, other, other} {
		s, acks := w.seal(t, w.fact(t, b))
		if _, err := j.Append(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		w.acknowledge(t, acks)
	}
	f.mustPass(t, "trial T001 accepted 5 first 1 repeated 3 other 1", "acknowledged 5 reports 1")

	// A gateway that reads one content as two would count it twice.
	wrong := w.fact(t, again)
	wrong.Meaning[0] ^= 1
	s, acks := w.seal(t, wrong)
	if _, err := j.Append(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.acknowledge(t, acks)
	j.Close()
	f.mustFail(t, "lost 0 altered 0 doubled 1")
}

// Two processes begin on an empty journal and write it in turn: each run says that it was empty. One that cites a frame which is not there does not pass.
func TestWritersAtOnce(t *testing.T) {
	f := newFolder(t)
	one := *f.writer
	two := one
	two.head.Run[0] ^= 1
	two.facts = 100 // other reports
	j := f.open(t, sqlitejournal.Options{})
	defer j.Close()
	for range 3 {
		for _, w := range []*writer{&one, &two} {
			f.writer = w
			f.add(t, j, 1, 2, 10)
		}
	}
	f.mustPass(t, "frames 6", "acknowledged 12 reports 12")
	three := one
	three.head.Run[0] ^= 2
	three.head.N = 0
	three.head.Prev[0] ^= 1
	f.writer = &three
	f.add(t, j, 1, 1, 10)
	f.mustFail(t, "frame 7: begins a run after a frame that is not in front of it")
}

func TestFactsThatAreNotReports(t *testing.T) {
	f := newFolder(t)
	w := f.writer
	told := func(kind epro.Kind, body string) epro.Fact {
		now := time.Now().UTC()
		e := epro.Fact{
			Envelope: epro.Envelope{Kind: kind, ID: epro.NewUUID(), Actor: epro.Actor{Type: epro.ActorSystem, ID: "test"}, OccurredAt: now, ReceivedAt: now, Meaning: epro.PlainMeaning([]byte(body))},
			Salt:     epro.NewSalt(), Body: []byte(body),
		}
		e.BodyDigest = epro.BodyDigest(e.Salt, e.Body)
		return e
	}
	j := f.open(t, sqlitejournal.Options{})
	defer j.Close()
	put := func(e epro.Fact) {
		t.Helper()
		s, _ := w.seal(t, e)
		if _, err := j.Append(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	put(told(epro.KindRulesActivated, `{"ruleSet":"1","tz":"2026a"}`))
	f.mustPass(t, "frames 1 facts 1")
	wrong := told(epro.KindRulesActivated, `{"ruleSet":"2","tz":"2026a"}`)
	wrong.Meaning[0] ^= 1
	put(wrong)
	f.mustFail(t, "frame 2, fact 0: its meaning digest is not its body's")
	put(told(epro.Kind{Name: "report", Version: 2}, `{}`))
	f.mustFail(t, "frame 3, fact 0: a kind or version this verifier does not know")
}

func TestErasedContent(t *testing.T) {
	f := newFolder(t)
	w := f.writer
	j := f.open(t, sqlitejournal.Options{})
	f.add(t, j, 2, 3, 10)
	gone := w.fact(t, body(100, 5))
	s, acks := w.seal(t, gone, w.fact(t, body(101, 5)))
	if _, err := j.Append(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.acknowledge(t, acks)
	env, err := gone.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	erase := func() {
		frame, err := journal.DecodeFrame(s.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		frame.Entries[0].Erased = true
		again, err := journal.Seal(frame.Header, frame.Entries, []epro.Digest{epro.Leaf(frame.Entries[0].Envelope), epro.Leaf(frame.Entries[1].Envelope)})
		if err != nil || again.Hash != s.Hash {
			t.Fatal("erasing changed the header", err)
		}
		f.sql(t, fmt.Sprintf("UPDATE frames SET frame=x'%x' WHERE position=3", again.Bytes))
	}
	// Gone without a word is a fault, and so the erased fact is what makes it right.
	silent := f.copy(t)
	told, err := json.Marshal(epro.Erased{TrialID: gone.Trial, FactID: gone.ID, Leaf: epro.Leaf(env).String(), Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if told, err = epro.CanonicalJSON(nil, told); err != nil {
		t.Fatal(err)
	}
	e := epro.Fact{
		Envelope: epro.Envelope{
			Kind: epro.KindErased, ID: epro.NewUUID(), Trial: gone.Trial, Subject: gone.Subject, Actor: epro.Actor{Type: epro.ActorSystem, ID: "operator"},
			OccurredAt: time.Now().UTC(), ReceivedAt: time.Now().UTC(), Meaning: epro.PlainMeaning(told),
		}, Salt: epro.NewSalt(), Body: told,
	}
	e.BodyDigest = epro.BodyDigest(e.Salt, e.Body)
	s2, _ := w.seal(t, e)
	if _, err := j.Append(t.Context(), s2); err != nil {
		t.Fatal(err)
	}
	j.Close()
	erase()
	f.mustPass(t, "erased 1", "acknowledged 8 reports 8 erased 1")
	*f, *silent = *silent, *f
	erase()
	f.mustFail(t, "no erased fact says so")
}

func TestWrongUse(t *testing.T) {
	f := newFolder(t)
	empty := &folder{dir: t.TempDir(), acks: f.acks, keys: f.keys, root: f.root}
	if status, out := empty.run(t); status != 2 {
		t.Errorf("no journal: status %d\n%s", status, out)
	}
	write(t, empty.journal(), bytes.Repeat([]byte("not a database "), 100))
	if status, out := empty.run(t); status != 2 || !strings.Contains(out, "not a SQLite file") {
		t.Errorf("no SQLite file: status %d\n%s", status, out)
	}
	if status, _ := f.run(t, "--root", ""); status != 2 {
		t.Errorf("keys without root: status %d", status)
	}
	if status, out := f.run(t, "--root", strings.Repeat("0", 64)); status != 1 || !strings.Contains(out, "another fingerprint") {
		t.Errorf("another root: status %d\n%s", status, out)
	}
	if status, _ := f.run(t, "--acks", filepath.Join(f.dir, "none")); status != 2 {
		t.Errorf("no acks: status %d", status)
	}
}
