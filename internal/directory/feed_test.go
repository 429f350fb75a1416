package directory_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/memjournal"
	"github.com/tidegate/tidegate/internal/store"
)

// told is what a subscriber was told up to the first Done change.
type told struct {
	snapshot bool
	things   []string
	version  directory.Version
	changes  int
}

var errEnough = errors.New("enough")

// follow listens until enough says so of a Done change, and returns all.
func follow(f failer, src directory.Source, from directory.Version, enough func(*told) bool) told {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var all told
	err := src.Follow(ctx, from, func(c directory.Change) error {
		all.changes++
		if c.Snapshot {
			all.snapshot, all.things = true, nil
		}
		for _, t := range c.Trials {
			all.things = append(all.things, fmt.Sprintf("%s v%d", t.ID, t.Version))
		}
		for _, s := range c.Sites {
			all.things = append(all.things, s.TrialID+"/"+s.ID)
		}
		for _, e := range c.Enrollments {
			all.things = append(all.things, fmt.Sprintf("%s/%s v%d", e.TrialID, e.PatientID, e.Version))
		}
		if c.Done {
			all.version = c.Version
			if enough == nil || enough(&all) {
				return errEnough
			}
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		f.Fatalf("follow ended with %v after %+v", err, all)
	}
	slices.Sort(all.things)
	return all
}

// upTo says that all is told up to a position.
func upTo(p journal.Position) func(*told) bool {
	return func(t *told) bool { return t.version.Position(0) >= p }
}

func TestResumeTellsOnlyWhatCameLater(t *testing.T) {
	w := newWorld(t, t.TempDir(), newKeys(t), nil, nil)
	defer w.close()
	w.seed(3)
	w.projected()
	feed := w.feed()
	first := follow(t, feed, nil, upTo(w.end()))
	if want := []string{"T001 v2", "T001/P-1 v1", "T001/P-2 v1", "T001/P-3 v1", "T001/S01"}; !first.snapshot || !slices.Equal(first.things, want) {
		t.Fatalf("the first time: %+v, want %v", first, want)
	}
	w.report("T001", "P-1")
	w.enrol("T001", "P-4")
	w.enrol("T001", "P-4") // rejected: told again as it is, once
	w.command(epro.KindParticipantWithdrew, epro.ParticipantWithdrawn{TrialID: "T001", PatientID: "P-2", Reason: "x", Expect: 1})
	w.enrol("T009", "P-1") // rejected: there is no such trial
	w.projected()
	later := follow(t, feed, first.version, upTo(w.end()))
	if want := []string{"T001/P-2 v2", "T001/P-4 v1"}; later.snapshot || !slices.Equal(later.things, want) {
		t.Fatalf("from %v on: %+v, want %v", first.version, later, want)
	}
	again := follow(t, w.feed(), later.version, nil) // of another process
	if again.snapshot || len(again.things) > 0 || !slices.Equal(again.version, later.version) {
		t.Fatalf("nothing new: %+v", again)
	}
	if v := follow(t, feed, directory.Version{}, nil); !v.snapshot {
		t.Fatal("an empty version is none")
	}
}

// TestAnotherHistoryIsToldWhole: after a restore the journal may be shorter
// than a version, or hold other frames below it.
func TestAnotherHistoryIsToldWhole(t *testing.T) {
	keys := newKeys(t)
	long := newWorld(t, t.TempDir(), keys, nil, nil)
	defer long.close()
	long.seed(1)
	for i := range 20 {
		long.enrol("T001", fmt.Sprintf("Q-%d", i))
	}
	lost := follow(t, long.feed(), nil, upTo(long.end()))
	restored := newWorld(t, t.TempDir(), keys, nil, nil)
	defer restored.close()
	restored.seed(1)
	shorter := follow(t, restored.feed(), lost.version, nil)
	if !shorter.snapshot || shorter.version.Position(0) > restored.end() {
		t.Fatalf("from a version beyond the end: %+v", shorter)
	}
	for i := range 30 {
		restored.enrol("T001", fmt.Sprintf("R-%d", i))
	}
	restored.projected()
	longer := follow(t, restored.feed(), lost.version, upTo(restored.end()))
	if !longer.snapshot || len(longer.things) != 33 || strings.Contains(fmt.Sprint(longer.things), "Q-") {
		t.Fatalf("from a version of another history: %+v", longer)
	}
	// A directory that held the lost history holds nothing of it afterwards.
	d := run(directory.New(directory.Options{}), long.feed())
	long.settle(d.Directory)
	d.stop()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { d.Run(ctx, restored.feed()) })
	eventually(t, func() bool { _, err := d.Enrollment("T001", "R-29"); return err == nil }, func() string { return "it was not told" })
	restored.same(d.Directory)
	cancel()
	wg.Wait()
}

func TestFarBehindIsToldWhole(t *testing.T) {
	mem := memjournal.New(memjournal.Options{Stride: directory.MaxFrames})
	w := newWorld(t, t.TempDir(), newKeys(t), mem, nil)
	defer w.close()
	w.seed(1)
	v := follow(t, w.feed(), nil, upTo(w.end()))
	w.enrol("T001", "P-2")
	w.projected()
	if got := follow(t, w.feed(), v.version, upTo(w.end())); got.snapshot {
		t.Fatalf("%+v", got)
	}
	w.enrol("T001", "P-3")
	w.projected()
	if got := follow(t, w.feed(), v.version, upTo(w.end())); !got.snapshot {
		t.Fatalf("%+v", got)
	}
}

// tables are tables with switches.
type tables struct {
	store.Reader
	fail   atomic.Pointer[error]
	frozen atomic.Pointer[store.Cursor] // what the cursor seems to be
}

func (r *tables) Cursor(ctx context.Context, shard uint32) (store.Cursor, error) {
	if err := r.fail.Load(); err != nil {
		return store.Cursor{}, *err
	}
	if c := r.frozen.Load(); c != nil {
		return *c, nil
	}
	return r.Reader.Cursor(ctx, shard)
}

func TestManyShareOneFollower(t *testing.T) {
	w := newWorld(t, t.TempDir(), newKeys(t), nil, nil)
	defer w.close()
	w.seed(10)
	feed := directory.NewFeed(w.journal, &tables{Reader: w.tables}, nil)
	feed.Hurry()
	var all []*running
	for range 50 {
		all = append(all, run(directory.New(directory.Options{}), feed))
	}
	for i := range 30 {
		w.enrol("T001", fmt.Sprintf("Q-%d", i))
		if i%3 == 0 {
			w.report("T001", "P-1")
		}
	}
	for _, d := range all {
		w.settle(d.Directory)
		w.same(d.Directory)
	}
	if n := feed.Followers(); n != 1 {
		t.Errorf("%d followers", n)
	}
	for _, d := range all {
		d.stop()
	}
	if n := feed.Followers(); n != 0 {
		t.Errorf("%d followers while nobody listens", n)
	}
}

// TestASlowSubscriberHoldsNobody: one that does not take its changes is not
// waited for, nothing is kept for it without bound, and it misses nothing.
func TestASlowSubscriberHoldsNobody(t *testing.T) {
	w := newWorld(t, t.TempDir(), newKeys(t), nil, nil)
	defer w.close()
	w.seed(1)
	feed := w.feed()
	quick := run(directory.New(directory.Options{}), feed)
	defer quick.stop()
	w.settle(quick.Directory)
	d := directory.New(directory.Options{})
	hold, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := run(d, sourceFunc(func(ctx context.Context, from directory.Version, fn func(directory.Change) error) error {
		return feed.Follow(ctx, from, func(c directory.Change) error {
			if c.Done {
				once.Do(func() {
					close(held)
					<-hold
				})
			}
			return fn(c)
		})
	}))
	defer slow.stop()
	<-held
	w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: "T001", SiteID: "S02", Name: "South"})
	w.settle(quick.Directory)
	feed.Forget() // as if more steps had come than are kept
	for i := range 5 {
		w.enrol("T001", fmt.Sprintf("Q-%d", i))
	}
	w.settle(quick.Directory)
	w.same(quick.Directory)
	close(hold)
	w.settle(d)
	w.same(d)
}

type sourceFunc func(context.Context, directory.Version, func(directory.Change) error) error

func (f sourceFunc) Follow(ctx context.Context, from directory.Version, fn func(directory.Change) error) error {
	return f(ctx, from, fn)
}

// TestASourceThatFails: whoever follows is told, and goes on when it is well.
func TestASourceThatFails(t *testing.T) {
	w := newWorld(t, t.TempDir(), newKeys(t), nil, nil)
	defer w.close()
	w.seed(2)
	r := &tables{Reader: w.tables}
	feed := directory.NewFeed(w.journal, r, nil)
	feed.Hurry()
	d := run(directory.New(directory.Options{}), feed)
	defer d.stop()
	w.settle(d.Directory)
	down := errors.New("tables are down")
	r.fail.Store(&down)
	eventually(t, func() bool { s := d.State(); return !s.Connected && errors.Is(s.Err, down) }, func() string { return fmt.Sprintf("%+v", d.State()) })
	w.enrol("T001", "P-7")
	if s := d.State(); s.Enrollments != 2 {
		t.Errorf("%+v", s)
	}
	was := d.State()
	eventually(t, func() bool { return d.State().Age > was.Age+20*time.Millisecond }, func() string { return "its age does not grow" })
	r.fail.Store(nil)
	w.settle(d.Directory)
	w.same(d.Directory)
	if s := d.State(); s.Err != nil || s.Since.Before(was.Since) {
		t.Errorf("%+v", s)
	}
}

// TestASilentSourceIsLeft: a connection that is gone without a word looks like
// one on which nothing happens. The next may be to another source.
func TestASilentSourceIsLeft(t *testing.T) {
	w := newWorld(t, t.TempDir(), newKeys(t), nil, nil)
	defer w.close()
	w.seed(2)
	feed := w.feed()
	tries := 0
	d := directory.New(directory.Options{SilentAfter: 200 * time.Millisecond}) // four signs of life
	r := run(d, sourceFunc(func(ctx context.Context, from directory.Version, fn func(directory.Change) error) error {
		if tries++; tries == 1 {
			<-ctx.Done() // silent from the beginning
			return ctx.Err()
		}
		told := 0
		return feed.Follow(ctx, from, func(c directory.Change) error {
			if told++; tries == 2 && told > 5 {
				<-ctx.Done() // silent after a while
				return ctx.Err()
			}
			return fn(c)
		})
	}))
	defer r.stop()
	eventually(t, func() bool { return d.State().Err != nil }, func() string { return "the first is not left" })
	if s := d.State(); !strings.Contains(s.Err.Error(), "nothing for too long") || s.Connected {
		t.Errorf("%+v", s)
	}
	w.settle(d)
	w.enrol("T001", "P-3")
	w.settle(d)
	w.same(d)
}

// TestSignsOfLife: while nothing changes, the directory stays young.
func TestSignsOfLife(t *testing.T) {
	w := newWorld(t, t.TempDir(), newKeys(t), nil, nil)
	defer w.close()
	w.seed(1)
	d := run(directory.New(directory.Options{}), w.feed())
	defer d.stop()
	w.settle(d.Directory)
	for range 3 {
		was := d.State().AsOf
		eventually(t, func() bool { return d.State().AsOf.After(was) }, func() string { return fmt.Sprintf("%+v", d.State()) })
	}
	// Tables that stand still behind the journal are no news either.
	w.stopProjector()
	w.stopProjector = func() {}
	w.enrol("T001", "P-2")
	was := d.State()
	eventually(t, func() bool { return d.State().AsOf.After(was.AsOf) }, func() string { return fmt.Sprintf("%+v", d.State()) })
	if s := d.State(); s.Version.Position(0) != was.Version.Position(0) {
		t.Errorf("%+v, before %+v", s, was)
	}
}

// TestTablesThatGoBack are being made anew: the directory stays as it is, grows
// old, and goes on when they have come past it again.
func TestTablesThatGoBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), newKeys(t), nil, nil)
	defer w.close()
	w.seed(1)
	early, err := w.tables.Cursor(t.Context(), 0)
	must(t, err)
	w.enrol("T001", "P-2")
	r := &tables{Reader: w.tables}
	feed := directory.NewFeed(w.journal, r, nil)
	feed.Hurry()
	d := run(directory.New(directory.Options{}), feed)
	defer func() { d.stop() }()
	w.settle(d.Directory)
	r.frozen.Store(&early)
	old := func() bool { return d.State().Age > 200*time.Millisecond } // four signs of life are missing
	eventually(t, old, func() string { return fmt.Sprintf("%+v", d.State()) })
	d.stop()
	d = run(d.Directory, feed) // and one that asks anew waits too
	eventually(t, func() bool { return d.State().Age > 500*time.Millisecond }, func() string { return fmt.Sprintf("%+v", d.State()) })
	if s := d.State(); s.Enrollments != 2 || s.Version.Position(0) != w.end() {
		t.Errorf("%+v", s)
	}
	w.enrol("T001", "P-3")
	w.projected()
	r.frozen.Store(nil)
	w.settle(d.Directory)
	w.same(d.Directory)
}

func TestALargeRegistry(t *testing.T) {
	w := newWorld(t, t.TempDir(), newKeys(t), nil, nil)
	defer w.close()
	w.seed(2500)
	w.projected()
	got := follow(t, w.feed(), nil, nil)
	if len(got.things) != 2502 || got.changes < 6 {
		t.Errorf("%d things in %d changes", len(got.things), got.changes)
	}
	empty := newWorld(t, t.TempDir(), newKeys(t), nil, nil)
	defer empty.close()
	none := follow(t, empty.feed(), nil, nil)
	if !none.snapshot || none.version == nil || none.version.Position(0) != 0 || len(none.things) != 0 {
		t.Errorf("of an empty journal: %+v", none)
	}
}
