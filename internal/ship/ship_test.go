package ship_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/memjournal"
	"github.com/tidegate/tidegate/internal/ship"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open keeps a journal that is opened again and again open.
type open struct{ ship.Appends }

func (open) Close() error { return nil }

func between(src, dst journal.Journal) ship.Options {
	return ship.Options{
		OpenSource: func(context.Context) (ship.Source, error) { return open{ship.Appends{Journal: src}}, nil },
		OpenTarget: func(context.Context) (ship.Target, error) { return open{ship.Appends{Journal: dst}}, nil },
		Retry:      time.Millisecond,
	}
}

func mem(t testing.TB) *memjournal.Journal {
	j := memjournal.New(memjournal.Options{Class: journal.ClassLocalFsync})
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func once(o ship.Options) ship.Options { o.Once = true; return o }

// same checks that the copy has the source's frames at the same positions, and
// no other.
func same(t testing.TB, src, dst journal.Journal) {
	t.Helper()
	want, got := journaltest.ReadAll(t, src, 7), journaltest.ReadAll(t, dst, 5)
	if len(got) != len(want) {
		t.Fatalf("the copy has %d frames, the source %d", len(got), len(want))
	}
	for i := range want {
		if got[i].Position != want[i].Position || !bytes.Equal(got[i].Bytes, want[i].Bytes) {
			t.Fatalf("frame %d differs", i)
		}
	}
}

// interleaved are frames of two runs, as two writers append them.
func interleaved(n int) []journal.Sealed {
	a, b := journaltest.Chain(n, 3), journaltest.Chain(n, 1)
	var all []journal.Sealed
	for i := range n {
		all = append(all, a[i], b[i])
	}
	return all
}

func TestOnce(t *testing.T) {
	src, dst := mem(t), mem(t)
	s := ship.New(once(between(src, dst)))
	if err := s.Run(t.Context()); err != nil {
		t.Fatalf("an empty journal: %v", err)
	}
	journaltest.MustAppend(t, src, interleaved(300)...)
	var steps []ship.Status
	o := once(between(src, dst))
	o.Progress = func(st ship.Status) { steps = append(steps, st) }
	s = ship.New(o)
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(t, src, dst)
	st := s.Status()
	end, err := src.End(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := journal.DecodeFrame(end.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if st.Position != 600 || st.End != 600 || st.Behind() != 0 || st.Frames != 600 || st.Facts != 1200 || st.Hash != f.Header.Hash() ||
		!st.Committed.Equal(f.Header.CommittedAt()) || st.Current.IsZero() || st.Err != "" {
		t.Errorf("status %+v", st)
	}
	if len(steps) < 3 || steps[0].Behind() != 600 {
		t.Errorf("progress in %d steps, first %+v", len(steps), steps[0])
	}
	// Again there is nothing to do, and a run that goes on is followed.
	s = ship.New(once(between(src, dst)))
	if err := s.Run(t.Context()); err != nil || s.Status().Frames != 0 || s.Status().Position != 600 {
		t.Errorf("again: %v, %+v", err, s.Status())
	}
	same(t, src, dst)
}

// TestFollows: the copy has a frame soon after the source has it.
func TestFollows(t *testing.T) {
	src, dst := mem(t), mem(t)
	ctx, stop := context.WithCancel(t.Context())
	s := ship.New(between(src, dst))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for i, f := range journaltest.Chain(30, 2) {
		journaltest.MustAppend(t, src, f)
		if err := dst.Wait(t.Context(), 0, journal.Position(i)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("a stop is no error: %v", err)
	}
	same(t, src, dst)
}

// TestRefuses: what the copy must not be laid upon, and what must not be copied.
func TestRefuses(t *testing.T) {
	chain := journaltest.Chain(10, 2)
	other := journaltest.Chain(5, 2)
	forked := append(append([]journal.Sealed{}, chain[:4]...), journaltest.Chain(1, 2)...)
	foreign := journaltest.Frame(journaltest.NewRun(), 0, &other[2], 1) // cites what is not here
	skipped := append(append([]journal.Sealed{}, chain[:3]...), chain[4])
	mixed := []journal.Sealed{chain[0], chain[1], other[0]}
	damaged := append([]byte{}, chain[5].Bytes...)
	damaged[len(damaged)-3] ^= 1
	badFrame := func(position journal.Position, part string) func(error) bool {
		return func(err error) bool {
			var f *ship.FrameError
			return errors.As(err, &f) && f.Position == position && strings.Contains(err.Error(), part)
		}
	}
	isOther := func(err error) bool { return errors.Is(err, ship.ErrOther) }
	isFork := func(err error) bool { return errors.Is(err, journal.ErrFork) }
	// The first time a run is known from its beginning, the second time it is not.
	either := func(a, b func(error) bool) func(error) bool { return func(err error) bool { return a(err) || b(err) } }
	for _, test := range []struct {
		name     string
		src, dst []journal.Sealed
		spoil    func(src, dst *memjournal.Journal)
		want     func(error) bool
		copied   int
	}{
		{"the copy is ahead", chain[:4], chain, nil, func(err error) bool { return errors.Is(err, ship.ErrAhead) }, 10},
		{"the source is empty", nil, chain, nil, func(err error) bool { return errors.Is(err, ship.ErrAhead) }, 10},
		{"another journal", chain, other, nil, isOther, 5},
		{"the source was begun anew in the middle", append(append([]journal.Sealed{}, forked...), forked[:0]...), chain[:5], nil, isOther, 5},
		{"a changed body", chain, nil, func(src, _ *memjournal.Journal) { src.Replace(0, 6, damaged) }, badFrame(6, "does not fit its digest"), 5},
		{"no frame at all", chain, nil, func(src, _ *memjournal.Journal) { src.Replace(0, 6, []byte("TGF1")) }, badFrame(6, "position 6"), 5},
		{"a frame twice", chain, nil, func(src, _ *memjournal.Journal) { src.Replace(0, 6, chain[4].Bytes) }, either(badFrame(6, "comes after frame 4"), badFrame(6, "twice")), 5},
		{"a frame twice, and its run goes on", append(mixed[:3:3], chain[2:4]...), mixed, func(src, _ *memjournal.Journal) {
			src.Replace(0, 4, chain[1].Bytes)
			src.Replace(0, 5, chain[2].Bytes)
		}, badFrame(4, "twice"), 3},
		{"a frame that cites another", chain, nil, func(src, _ *memjournal.Journal) {
			src.Replace(0, 6, journaltest.Frame(chain[0].Header.Run, 5, &other[0], 1).Bytes)
		}, badFrame(6, "does not cite the frame before it"), 5},
		{"a frame from before the one before it", chain[:5], chain[:3], func(src, _ *memjournal.Journal) {
			src.Replace(0, 5, older(t, &chain[3]).Bytes)
		}, badFrame(5, "older"), 4},
		{"a frame is missing", chain, nil, func(src, _ *memjournal.Journal) { src.Replace(0, 6, nil) }, badFrame(6, "position 6"), 5},
		{"the frame at the copy's end is damaged in the source", chain, chain[:6], func(src, _ *memjournal.Journal) { src.Replace(0, 6, []byte("x")) }, badFrame(6, "position 6"), 6},
		{"a run that cites nothing here", append(append([]journal.Sealed{}, chain[:2]...), foreign), nil, nil, badFrame(3, "cites a frame that is not in this shard"), 2},
		{"a gap in a run", skipped[:3], nil, func(src, _ *memjournal.Journal) { src.Replace(0, 3, chain[4].Bytes) }, either(badFrame(3, "frame 4 of run"), isFork), 2},
		{"a gap in a run behind what is there", chain[:5], chain[:2], func(src, _ *memjournal.Journal) { src.Replace(0, 3, chain[4].Bytes) }, badFrame(3, "frame 4 of run"), 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			src, dst := mem(t), mem(t)
			journaltest.MustAppend(t, src, test.src...)
			journaltest.MustAppend(t, dst, test.dst...)
			if test.spoil != nil {
				test.spoil(src, dst)
			}
			for _, o := range []ship.Options{once(between(src, dst)), between(src, dst)} { // following ends too: it would not go away
				s := ship.New(o)
				err := s.Run(t.Context())
				if err == nil || !test.want(err) {
					t.Errorf("got %v", err)
				}
				if st := s.Status(); !o.Once && (!st.Stopped || st.Err != err.Error() || st.Failing.IsZero()) {
					t.Errorf("status %+v", st)
				}
				if got := journaltest.ReadAll(t, dst, 100); len(got) != test.copied {
					t.Errorf("the copy has %d frames, want %d", len(got), test.copied)
				}
			}
		})
	}
}

// older is the frame after prev, with a time before it.
func older(t *testing.T, prev *journal.Sealed) journal.Sealed {
	e, leaf := journaltest.Entry(0, journaltest.Body(0))
	h := journal.Header{Run: prev.Header.Run, N: prev.Header.N + 1, Prev: prev.Hash, Time: prev.Header.Time - 1}
	f, err := journal.Seal(h, []journal.Entry{e}, []epro.Digest{leaf})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// hasty is a source that lets go of who waits as soon as a millisecond is over.
type hasty struct{ ship.Source }

func (h hasty) Wait(ctx context.Context, shard uint32, after journal.Position) error {
	limited, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := h.Source.Wait(limited, shard, after); ctx.Err() != nil {
		return err
	}
	return nil
}

// TestSomebodyElseWrites: a copy that changes under the shipper is told, though
// nothing is to be copied.
func TestSomebodyElseWrites(t *testing.T) {
	for _, early := range []bool{false, true} {
		src, dst := mem(t), mem(t)
		journaltest.MustAppend(t, src, journaltest.Chain(3, 1)...)
		o := between(src, dst)
		o.Idle = 100 * time.Millisecond
		if open := o.OpenSource; early {
			o.OpenSource = func(ctx context.Context) (ship.Source, error) {
				s, err := open(ctx)
				return hasty{s}, err
			}
		}
		s := ship.New(o)
		done := make(chan error, 1)
		go func() { done <- s.Run(t.Context()) }()
		if err := dst.Wait(t.Context(), 0, 2); err != nil {
			t.Fatal(err)
		}
		journaltest.MustAppend(t, dst, journaltest.Chain(1, 1)...)
		if err := <-done; !errors.Is(err, ship.ErrOther) && !errors.Is(err, ship.ErrAhead) {
			t.Errorf("got %v", err)
		}
	}
}

// TestTwoShippers: two that work on one copy at once, as while the active
// projector changes, spoil nothing and go on.
func TestTwoShippers(t *testing.T) {
	src, dst := mem(t), mem(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for range 2 {
		o := between(src, dst)
		o.Idle = time.Millisecond
		go func() { done <- ship.New(o).Run(ctx) }()
	}
	chain := journaltest.Chain(200, 1)
	for i, f := range chain {
		journaltest.MustAppend(t, src, f)
		if i%20 == 0 {
			if err := dst.Wait(t.Context(), 0, journal.Position(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := dst.Wait(t.Context(), 0, 199); err != nil {
		t.Fatal(err)
	}
	stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	same(t, src, dst)
}

var errAway = errors.New("away")

// TestAway: while either side is away it is tried again, more and more rarely,
// the status says so, and it goes on by itself.
func TestAway(t *testing.T) {
	for _, side := range []string{"source", "target"} {
		t.Run(side, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, dst := mem(t), mem(t)
				journaltest.MustAppend(t, src, journaltest.Chain(5, 1)...)
				var mu sync.Mutex
				away, tries := true, 0
				gate := func() error {
					mu.Lock()
					defer mu.Unlock()
					tries++
					if away {
						return errAway
					}
					return nil
				}
				o := between(src, dst)
				o.Retry = 0
				openSource, openTarget := o.OpenSource, o.OpenTarget
				if side == "source" {
					o.OpenSource = func(ctx context.Context) (ship.Source, error) {
						if err := gate(); err != nil {
							return nil, err
						}
						return openSource(ctx)
					}
				} else {
					o.OpenTarget = func(ctx context.Context) (ship.Target, error) {
						if err := gate(); err != nil {
							return nil, err
						}
						return openTarget(ctx)
					}
				}
				ctx, stop := context.WithCancel(t.Context())
				s := ship.New(o)
				done := make(chan error, 1)
				begun := time.Now()
				go func() { done <- s.Run(ctx) }()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				mu.Lock()
				n := tries
				away = false
				mu.Unlock()
				if n < 10 || n > 20 { // 1, 2, 4, … 60 s
					t.Errorf("%d tries in 10 minutes", n)
				}
				if st := s.Status(); !strings.Contains(st.Err, "away") || st.Stopped || !st.Failing.Equal(begun) || !st.Current.IsZero() {
					t.Errorf("status %+v", st)
				}
				time.Sleep(maxRetry)
				synctest.Wait()
				if st := s.Status(); st.Err != "" || !st.Failing.IsZero() || st.Position != 5 || st.Behind() != 0 {
					t.Errorf("status after it came back %+v", st)
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
				same(t, src, dst)
			})
		})
	}
}

const maxRetry = time.Minute

// TestSilent: a side that does not answer is told while it is waited for, given
// up after a time, and asked again.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, dst := mem(t), mem(t)
		journaltest.MustAppend(t, src, journaltest.Chain(5, 1)...)
		release := dst.Hold()
		ctx, stop := context.WithCancel(t.Context())
		s := ship.New(between(src, dst))
		done := make(chan error, 1)
		begun := time.Now()
		go func() { done <- s.Run(ctx) }()
		time.Sleep(50 * time.Second)
		if st := s.Status(); !st.Asked.Equal(begun) || st.Err != "" {
			t.Errorf("status while it waits %+v", st)
		}
		time.Sleep(time.Minute)
		if st := s.Status(); !strings.Contains(st.Err, "no answer within 1m0s") || st.Failing.IsZero() || st.Stopped {
			t.Errorf("status after it gave up %+v", st)
		}
		time.Sleep(time.Hour) // it is asked where it ends now and then, and answers, but takes nothing
		if st := s.Status(); st.Err == "" || !st.Failing.Equal(begun.Add(time.Minute)) {
			t.Errorf("status an hour later %+v", st)
		}
		release()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if st := s.Status(); st.Position != 5 || st.Err != "" || !st.Asked.IsZero() {
			t.Errorf("status after the answer %+v", st)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		same(t, src, dst)
	})
}

// TestOnceDoesNotWait: whoever runs from cron is told at once.
func TestOnceDoesNotWait(t *testing.T) {
	src, dst := mem(t), mem(t)
	o := once(between(src, dst))
	o.OpenTarget = func(context.Context) (ship.Target, error) { return nil, errAway }
	if err := ship.New(o).Run(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("got %v", err)
	}
}

// TestFinalOfTheSides: what the adapters say does not go away ends it.
func TestFinalOfTheSides(t *testing.T) {
	src, dst := mem(t), mem(t)
	o := between(src, dst)
	o.OpenTarget = func(context.Context) (ship.Target, error) { return nil, errAway }
	o.Final = func(err error) bool { return errors.Is(err, errAway) }
	if err := ship.New(o).Run(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("got %v", err)
	}
}

// TestAnyFailures: whatever fails and whenever the process ends, what is in the
// copy is a beginning of the source, and in the end all of it.
func TestAnyFailures(t *testing.T) {
	chain := interleaved(40)
	rapid.Check(t, func(r *rapid.T) {
		src, dst := mem(t), mem(t)
		appended := 0
		for range rapid.IntRange(1, 6).Draw(r, "processes") {
			n := rapid.IntRange(0, len(chain)-appended).Draw(r, "appended")
			journaltest.MustAppend(t, src, chain[appended:appended+n]...)
			appended += n
			var fails []error
			for i := range rapid.IntRange(0, 3).Draw(r, "failures") {
				fails = append(fails, fmt.Errorf("disk error %d", i))
			}
			if rapid.Bool().Draw(r, "after") {
				dst.FailAfter(fails...)
			} else {
				dst.FailBefore(fails...)
			}
			ctx, stop := context.WithCancel(t.Context())
			o := between(src, dst)
			o.Retry = time.Microsecond
			steps := rapid.IntRange(1, 8).Draw(r, "steps")
			o.Progress = func(ship.Status) {
				if steps--; steps <= 0 {
					stop()
				}
			}
			o.Once = false
			o.Idle = time.Millisecond
			done := make(chan error, 1)
			go func() { done <- ship.New(o).Run(ctx) }()
			select {
			case err := <-done:
				if err != nil {
					r.Fatal(err)
				}
			case <-time.After(5 * time.Millisecond):
				stop()
				<-done
			}
			stop()
			got, want := journaltest.ReadAll(t, dst, 100), journaltest.ReadAll(t, src, 100)
			if len(got) > len(want) {
				r.Fatalf("the copy has %d frames, the source %d", len(got), len(want))
			}
			for i := range got {
				if !bytes.Equal(got[i].Bytes, want[i].Bytes) {
					r.Fatalf("frame %d differs", i)
				}
			}
		}
		for tries := 0; ; tries++ {
			err := ship.New(once(between(src, dst))).Run(t.Context())
			if err == nil {
				break
			}
			if tries > 10 {
				r.Fatal(err)
			}
		}
		same(t, src, dst)
	})
}
