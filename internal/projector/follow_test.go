package projector_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		// Each journal is projected twice into files: fewer of them by default.
		if err := flag.Set("rapid.checks", "30"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	code := m.Run()
	services.CleanUp()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func TestFollowingAndWaiting(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	p := projector.New(w.journal, s, 0, projector.Options{Poll: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var waiters sync.WaitGroup
	for i := range 40 {
		var kind epro.Kind
		var body any
		if i == 0 {
			kind, body = epro.KindTrialCreated, epro.TrialCreated{TrialID: "T001", Name: "x", Status: epro.TrialPlanned}
		} else {
			kind, body = epro.KindSiteCreated, epro.SiteCreated{TrialID: "T001", SiteID: fmt.Sprintf("S%02d", i), Name: "x"}
		}
		id := w.command(kind, body)
		waiters.Go(func() {
			if o, err := p.Passed(ctx, id); err != nil || !o.Applied {
				t.Errorf("outcome %+v, %v", o, err)
			}
		})
		w.commit()
	}
	waiters.Wait()
	short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	if _, err := p.Passed(short, epro.UUID{1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an unknown command gives %v", err)
	}
	lag, err := p.Lag(ctx)
	if err != nil || lag.Applied != lag.End || lag.Age != 0 || p.Position() != lag.End {
		t.Errorf("lag %+v, %v; position %d", lag, err, p.Position())
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

// TestLagIsTheAgeOfTheOldestThatWaits: a report after a quiet night is not late
// because of the night, and one that waits grows older while nothing comes.
func TestLagIsTheAgeOfTheOldestThatWaits(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	p := projector.New(w.journal, s, 0, projector.Options{})
	commitAgo := func(d time.Duration) {
		w.command(epro.KindKeyAdded, rawJSON(`{}`))
		w.now = time.Now().Add(-d)
		w.commit() // a second later
	}
	lag := func() time.Duration {
		t.Helper()
		l, err := p.Lag(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return l.Age
	}
	if got := lag(); got != 0 {
		t.Errorf("nothing is there, and waits for %v", got)
	}
	commitAgo(12 * time.Hour)
	w.mustProject(s)
	if got := lag(); got != 0 {
		t.Errorf("nothing waits, for %v", got)
	}
	commitAgo(10 * time.Minute)
	commitAgo(time.Second)
	if got := lag(); got < 9*time.Minute || got > 11*time.Minute {
		t.Errorf("the oldest frame waits 10 minutes, the lag is %v", got)
	}
	w.mustProject(s)
	commitAgo(-time.Hour) // of a gateway whose clock is ahead
	if got := lag(); got != 0 {
		t.Errorf("a frame of later waits for %v", got)
	}
}

// TestAppliesWhatIsThere has journals that end where a read ends: what was read
// must not wait for more to come.
func TestAppliesWhatIsThere(t *testing.T) {
	for _, frames := range []int{1, 15, 16, 17, 48, 49} {
		w, s := newWorld(t), openStore(t)
		var last epro.UUID
		for range frames {
			last = w.command(epro.KindKeyAdded, rawJSON(`{}`))
			w.commit()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		p := projector.New(w.journal, s, 0, projector.Options{})
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		if _, err := p.Passed(ctx, last); err != nil {
			t.Errorf("%d frames: %v", frames, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestRebuildTo(t *testing.T) {
	w, s, fresh := newWorld(t), openStore(t), openStore(t)
	w.seed(2)
	w.mustProject(s)
	hash, cursor, err := s.HashAt(t.Context(), 0)
	if err != nil || cursor.Position == 0 {
		t.Fatal(cursor, err)
	}
	w.tell(w.report("T001", "P-1", w.newID(), 1))
	w.commit()
	var seen []journal.Position
	if err := projector.RebuildTo(t.Context(), w.journal, fresh, 0, cursor.Position, projector.Options{BatchFacts: 1}, func(done, total journal.Position) {
		seen = append(seen, done, total)
	}); err != nil {
		t.Fatal(err)
	}
	if got, c, err := fresh.HashAt(t.Context(), 0); err != nil || got != hash || c != cursor {
		t.Errorf("hash %v at %+v, %v; want %v at %+v", got, c, err, hash, cursor)
	}
	if len(seen) == 0 || seen[len(seen)-2] != cursor.Position || seen[len(seen)-1] != cursor.Position {
		t.Errorf("progress %v", seen)
	}
	if err := projector.RebuildTo(t.Context(), w.journal, fresh, 0, cursor.Position+1000, projector.Options{}, nil); err == nil {
		t.Error("a rebuild beyond the journal's end")
	}
}

func TestCheckpointIsTheTreeOfHeaders(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	empty, err := projector.ReadCheckpoint(t.Context(), s, 0)
	if err != nil || empty.Size != 0 || empty.Position != 0 || !empty.Header.IsZero() {
		t.Errorf("the empty checkpoint is %+v, %v", empty, err)
	}
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	p := projector.New(w.journal, s, 0, projector.Options{})
	for n := range 37 {
		if n%10 == 9 {
			w.restart()
		}
		w.command(epro.KindKeyAdded, rawJSON(`{}`))
		at := w.commit()
		hashes, err := tlog.StoredHashes(int64(n), w.prev[:], reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		if n%3 != 0 { // sometimes several frames in one step, and always with a fresh memory
			continue
		}
		w.mustProject(s)
		root, err := tlog.TreeHash(int64(n+1), reader)
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.Checkpoint(t.Context())
		if err != nil || c.Size != uint64(n+1) || c.Root != epro.Digest(root) || c.Header != w.prev || c.Position != at || c.Era != 1 {
			t.Fatalf("checkpoint of %d frames is %+v, %v", n+1, c, err)
		}
	}
}

func TestPendingReports(t *testing.T) {
	w := newWorld(t)
	w.seed(2)
	end, _ := w.journal.End(t.Context(), 0)
	for i := range 5 {
		w.tell(w.report("T001", "P-1", w.newID(), i))
	}
	w.tell(w.report("T002", "P-1", w.newID(), 1))
	w.command(epro.KindKeyAdded, rawJSON(`{}`))
	w.commit()
	pending, err := projector.PendingReports(t.Context(), w.journal, 0, end.Position)
	if err != nil || pending["T001"] != 5 || pending["T002"] != 1 || len(pending) != 2 {
		t.Errorf("pending %v, %v", pending, err)
	}
}
