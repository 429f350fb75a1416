package projector_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
)

// fed is a journal whose records a test chooses.
type fed struct {
	journal.Journal
	records []journal.Record
}

func (j *fed) Read(_ context.Context, _ uint32, after journal.Position, limit int) ([]journal.Record, error) {
	var out []journal.Record
	for _, r := range j.records {
		if r.Position > after && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, nil
}

func (j *fed) End(context.Context, uint32) (journal.Record, error) {
	return j.records[len(j.records)-1], nil
}

func (j *fed) Wait(ctx context.Context, _ uint32, _ journal.Position) error {
	<-ctx.Done()
	return ctx.Err()
}

// feed puts sealed frames at the positions 1, 2, 3 …
func feed(frames ...journal.Sealed) *fed {
	j := &fed{}
	for i, f := range frames {
		j.records = append(j.records, journal.Record{Position: journal.Position(i + 1), Bytes: f.Bytes})
	}
	return j
}

// next seals the open facts and moves the world on without appending.
func (w *world) next() journal.Sealed {
	f := w.seal()
	w.n++
	w.prev = f.Hash
	return f
}

func rulesFrame(w *world) journal.Sealed {
	w.command(epro.KindRulesActivated, epro.RulesActivated{RuleSet: projector.RuleSet, TZ: "2026a"})
	w.command(epro.KindTrialCreated, epro.TrialCreated{TrialID: "T001", Name: "A trial", Status: epro.TrialRecruiting})
	return w.next()
}

func TestStopsLoudly(t *testing.T) {
	tests := []struct {
		name  string
		build func(w *world) (*fed, journal.Position, int) // with the place of the stop
		want  error
		says  string
	}{
		{"unknown kind", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			w.tell(w.report("T001", "P-1", w.newID(), 1, func(f *epro.Fact, _ map[string]any) { f.Kind = epro.Kind{Name: "alert.raised", Version: 1} }))
			return feed(a, w.next()), 2, 1
		}, projector.ErrNewer, "alert.raised@1"},
		{"unknown version", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.tell(w.report("T001", "P-1", w.newID(), 1, func(f *epro.Fact, _ map[string]any) { f.Kind.Version = 2 }))
			return feed(a, w.next()), 2, 0
		}, projector.ErrNewer, "report@2"},
		{"body changed", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			j := feed(a, w.next())
			b := j.records[1].Bytes
			b[len(b)-3] ^= 1
			return j, 2, 0
		}, projector.ErrDamaged, "does not fit its digest"},
		{"envelope changed", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			j := feed(a, w.next())
			j.records[1].Bytes[4+journal.HeaderBytes+2+2] ^= 1 // a flag
			return j, 2, -1
		}, projector.ErrDamaged, "root"},
		{"frame cut short", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			j := feed(a, w.next())
			j.records[1].Bytes = j.records[1].Bytes[:100]
			return j, 2, -1
		}, projector.ErrDamaged, ""},
		{"frame missing", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			w.next()
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			return feed(a, w.next()), 2, -1
		}, projector.ErrDamaged, "comes after frame 0"},
		{"frame twice", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			return feed(a, a), 2, -1
		}, projector.ErrDamaged, "comes after frame 0"},
		{"run begins in the middle", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.run[0]++
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			return feed(a, w.next()), 2, -1
		}, projector.ErrDamaged, "earlier frames are missing"},
		{"frame of another fork", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.prev[0] ^= 1
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			return feed(a, w.next()), 2, -1
		}, projector.ErrDamaged, "does not cite the frame before it"},
		{"run cites a foreign header", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.restart()
			w.prev[0] ^= 1
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			return feed(a, w.next()), 2, -1
		}, projector.ErrDamaged, "cites a header that is not in this shard"},
		{"first frame cites something", func(w *world) (*fed, journal.Position, int) {
			w.prev[0] = 1
			return feed(rulesFrame(w)), 1, -1
		}, projector.ErrDamaged, "cites a header that is not in this shard"},
		{"time goes back", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.now = start.Add(-time.Hour)
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			return feed(a, w.next()), 2, -1
		}, projector.ErrDamaged, "older than the frame before it"},
		{"no rule set", func(w *world) (*fed, journal.Position, int) {
			w.tell(w.report("T001", "P-1", w.newID(), 1))
			return feed(w.next()), 1, 0
		}, projector.ErrRules, "names no rule set"},
		{"unknown rule set", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.command(epro.KindRulesActivated, epro.RulesActivated{RuleSet: "2031.4", TZ: "2031a"})
			return feed(a, w.next()), 2, 0
		}, projector.ErrRules, projector.RuleSet},
		{"body of a command gone", func(w *world) (*fed, journal.Position, int) {
			a := rulesFrame(w)
			w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: "T001", SiteID: "S01", Name: "A site"})
			w.open[0].Erased, w.open[0].Body = true, nil
			return feed(a, w.next()), 2, 0
		}, projector.ErrDamaged, "only words of reports"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := openStore(t)
			j, at, index := test.build(newWorld(t))
			p := projector.New(j, s, 0, projector.Options{})
			err := p.Run(t.Context())
			var stop *projector.StopError
			if !errors.As(err, &stop) || !errors.Is(err, test.want) {
				t.Fatalf("Run returned %v", err)
			}
			if stop.Position != at || stop.Index != index || !strings.Contains(err.Error(), test.says) {
				t.Errorf("it says %q; want the place %d, %d and %q", err, at, index, test.says)
			}
			if !errors.Is(p.Err(), test.want) {
				t.Errorf("Err is %v", p.Err())
			}
			// What came before is applied, the frame itself is not, not even in part.
			c, err := s.Cursor(t.Context(), 0)
			if err != nil || c.Position != at-1 || c.Frames != uint64(at-1) {
				t.Errorf("cursor is %+v, %v", c, err)
			}
			if list := reports(t, s, "T001"); len(list) != 0 {
				t.Errorf("%d reports are listed", len(list))
			}
		})
	}
}

func TestPanicInParsingHurtsOneReport(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	w.seed(3)
	for i := 1; i <= 3; i++ {
		w.tell(w.report("T001", fmt.Sprintf("P-%d", i), w.newID(), i))
	}
	w.commit()
	restore := projector.SetParseReport(func(b []byte) (epro.Report, []epro.FieldProblem) {
		r, problems := epro.ParseReport(b)
		if r.PatientID == "P-2" {
			panic("poison")
		}
		return r, problems
	})
	defer restore()
	w.mustProject(s)
	list := reports(t, s, "T001")
	if len(list) != 3 || list[0].Disposition != epro.Recorded || list[2].Disposition != epro.Recorded ||
		list[1].Disposition != epro.Quarantined || list[1].Reasons[0] != epro.ReasonMalformed || list[1].Score != nil {
		t.Errorf("reports are %+v", list)
	}
}

// TestWritersAtOnce: processes that begin on an empty shard at the same time
// each say that it was empty, and a later run may cite any frame before it.
func TestWritersAtOnce(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	w.seed(1) // the first run: it found nothing either
	first := w.prev
	one := w.run
	w.restart()
	w.prev = epro.Digest{}
	w.tell(w.report("T001", "P-1", w.newID(), 1))
	w.commit()
	second, n := w.prev, w.n
	two := w.run
	w.run, w.n, w.prev = one, 1, first // the first goes on
	w.tell(w.report("T001", "P-1", w.newID(), 2))
	w.commit()
	w.run, w.n, w.prev = two, n, second
	w.tell(w.report("T001", "P-1", w.newID(), 3))
	w.commit()
	w.restart()
	w.prev = first // not the last one: others came in between
	w.tell(w.report("T001", "P-1", w.newID(), 4))
	w.commit()
	w.mustProject(s)
	if list := reports(t, s, "T001"); len(list) != 4 {
		t.Errorf("%d reports, want 4", len(list))
	}
}

// breaking is a store whose Apply fails, before or after it did its work.
type breaking struct {
	store.Store
	fail   int // how many Applies fail
	keep   bool
	panics bool
}

var errBroken = errors.New("the disk is full")

func (b *breaking) Apply(ctx context.Context, shard uint32, from store.Cursor, fn func(store.Tx) (store.Cursor, error)) error {
	if b.fail == 0 {
		return b.Store.Apply(ctx, shard, from, fn)
	}
	b.fail--
	if b.keep {
		if err := b.Store.Apply(ctx, shard, from, fn); err != nil {
			return err
		}
		return errBroken
	}
	return b.Store.Apply(ctx, shard, from, func(tx store.Tx) (store.Cursor, error) {
		if _, err := fn(tx); err != nil {
			return store.Cursor{}, err
		}
		if b.panics {
			panic("after the frame")
		}
		return store.Cursor{}, errBroken
	})
}

func TestFailedTransactionsAreTriedAgain(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep=%v", keep), func(t *testing.T) {
			w := newWorld(t)
			w.seed(2)
			id := w.newID()
			first := w.tell(w.report("T001", "P-1", id, 5))
			w.commit()
			s := &breaking{Store: openStore(t), fail: 3, keep: keep}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			p := projector.New(w.journal, s, 0, projector.Options{})
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			last := w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: "T001", SiteID: "S02", Name: "Another"})
			w.tell(first)
			w.commit()
			if o, err := p.Passed(ctx, last); err != nil || !o.Applied {
				t.Fatalf("outcome %+v, %v", o, err)
			}
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			wantBooks(t, s, store.Books{TrialID: "T001", Recorded: 1, Duplicates: 1})
			if p.Counters().Retries.Load() == 0 {
				t.Error("no failure was counted")
			}
			wantSameAsRebuild(t, w, s)
		})
	}
}

func wantSameAsRebuild(t *testing.T, w *world, s store.Store) {
	t.Helper()
	got, err := s.Hash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fresh := openSQLite(t) // whatever s is: equal tables have equal dumps on every engine
	w.mustProject(fresh)
	want, err := fresh.Hash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		var a, b strings.Builder
		_ = s.Dump(t.Context(), &a)
		_ = fresh.Dump(t.Context(), &b)
		t.Errorf("a rebuild is not the same; followed:\n%s\nrebuilt:\n%s", a.String(), b.String())
	}
}

func TestTwoProjectorsOnOneStore(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	w.seed(1)
	// The other one moves the cursor at the moment this one begins to apply.
	b := &intruded{Store: s}
	b.intrude = func() {
		if err := w.project(s); err != nil {
			t.Error(err)
		}
	}
	p := projector.New(w.journal, b, 0, projector.Options{})
	if err := p.Run(t.Context()); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("Run returned %v", err)
	}
	wantSameAsRebuild(t, w, s)
}

type intruded struct {
	store.Store
	intrude func()
}

func (b *intruded) Apply(ctx context.Context, shard uint32, from store.Cursor, fn func(store.Tx) (store.Cursor, error)) error {
	if b.intrude != nil {
		b.intrude()
		b.intrude = nil
	}
	return b.Store.Apply(ctx, shard, from, fn)
}

func TestBadCommandsAreRejectedNotFatal(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	w.seed(1)
	raw := func(kind epro.Kind, trial, subject, body string) epro.UUID {
		id := w.newID()
		f := epro.Fact{Envelope: epro.Envelope{
			Kind: kind, ID: id, Trial: trial, Subject: subject, Actor: coordinator, OccurredAt: w.now, ReceivedAt: w.now,
			Meaning: epro.PlainMeaning([]byte(body)), BodyDigest: epro.BodyDigest(epro.Salt{}, []byte(body)),
		}, Body: []byte(body)}
		w.tell(f)
		return id
	}
	ids := []epro.UUID{
		raw(epro.KindSiteCreated, "T001", "", `{`),
		raw(epro.KindSiteCreated, "T001", "", `{"name":"A site","siteId":"S02"}`),
		raw(epro.KindSiteCreated, "T001", "", `{"name":"A site", "siteId":"S02","trialId":"T001"}`),           // a space
		raw(epro.KindSiteCreated, "T002", "", `{"name":"A site","siteId":"S02","trialId":"T001"}`),            // another trial
		raw(epro.KindSiteCreated, "T001", "", `{"Name":"A site","name":"x","siteId":"S02","trialId":"T001"}`), // unknown field
	}
	w.commit()
	w.mustProject(s)
	for i, id := range ids {
		o, err := s.Outcome(t.Context(), id)
		if err != nil || o.Applied || o.Code != registry.CodeInvalid || o.Reason == "" {
			t.Errorf("command %d: %+v, %v", i, o, err)
		}
	}
	if sites, _, err := s.Sites(t.Context(), "T001", store.Page{Limit: 10}); err != nil || len(sites) != 1 {
		t.Errorf("sites are %v, %v", sites, err)
	}
}
