// Package journaltest is the conformance suite that every journal adapter
// passes, and builders of frames for other tests.
package journaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
)

// Adapter is what the suite needs to know of an adapter.
type Adapter struct {
	// Open returns an empty journal. The suite closes it.
	Open func(t *testing.T) journal.Journal
	// Reopen closes j and opens the same journal anew; nil for a journal that
	// does not outlive its process.
	Reopen func(t *testing.T, j journal.Journal) journal.Journal
	// Faults returns the switches of a journal that Open returned; nil when the
	// adapter has none, and then the tests of failures are not run.
	Faults func(j journal.Journal) Faults
}

// Faults makes appends fail.
type Faults interface {
	// FailBefore makes the next len(errs) appends fail before anything is kept.
	FailBefore(errs ...error)
	// FailAfter makes the next len(errs) appends fail when all is kept.
	FailAfter(errs ...error)
}

// patience bounds every wait of the suite.
const patience = 20 * time.Second

// Run runs the suite. It is safe to run several in parallel.
func Run(t *testing.T, a Adapter) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, journal.Journal)
	}{
		{"Properties", testProperties},
		{"Empty", testEmpty},
		{"Order", testOrder},
		{"Idempotent", testIdempotent},
		{"Fork", testFork},
		{"Beginnings", testBeginnings},
		{"Limit", testLimit},
		{"TooLarge", testTooLarge},
		{"LargeFrame", testLargeFrame},
		{"Shard", testShard},
		{"Wait", testWait},
		{"Follow", testFollow},
		{"Writers", testWriters},
		{"Cancelled", testCancelled},
		{"Closed", testClosed},
		{"Unsealed", testUnsealed},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := a.Open(t)
			defer j.Close()
			c.test(t, j)
		})
	}
	if a.Reopen != nil {
		t.Run("Reopen", func(t *testing.T) { testReopen(t, a) })
	}
	if a.Faults != nil {
		for name, test := range faultTests {
			t.Run(name, func(t *testing.T) {
				j := a.Open(t)
				defer j.Close()
				test(t, j, a.Faults(j))
			})
		}
	}
}

func testProperties(t *testing.T, j journal.Journal) {
	p := j.Properties()
	if !p.Class.Valid() || p.Shards < 1 || p.MaxFrameBytes < 1<<20 || p.MaxFrameBytes > journal.MaxFrameBytes {
		t.Fatalf("properties %+v", p)
	}
	class, err := j.Append(t.Context(), Chain(1, 1)[0])
	if err != nil || class != p.Class {
		t.Fatalf("append: class %v, %v; the properties promise %v", class, err, p.Class)
	}
}

func testEmpty(t *testing.T, j journal.Journal) {
	if r, err := j.End(t.Context(), 0); err != nil || r.Position != 0 || r.Bytes != nil {
		t.Errorf("end of an empty journal: %+v, %v", r, err)
	}
	if r, err := j.Read(t.Context(), 0, 0, 10); err != nil || len(r) != 0 {
		t.Errorf("read of an empty journal: %d records, %v", len(r), err)
	}
}

func testOrder(t *testing.T, j journal.Journal) {
	frames := Chain(50, 2)
	MustAppend(t, j, frames...)
	for _, step := range []int{1, 7, 50, 1000} {
		same(t, ReadAll(t, j, step), frames)
	}
	end, err := j.End(t.Context(), 0)
	if err != nil || !bytes.Equal(end.Bytes, frames[49].Bytes) {
		t.Errorf("end is not the last frame (%v)", err)
	}
	if r, err := j.Read(t.Context(), 0, end.Position, 5); err != nil || len(r) != 0 {
		t.Errorf("after the end: %d records, %v", len(r), err)
	}
	for _, beyond := range []journal.Position{end.Position + 1000, 1 << 63, 1<<64 - 1} {
		if r, err := j.Read(t.Context(), 0, beyond, 5); err != nil || len(r) != 0 {
			t.Errorf("after position %d: %d records, %v", beyond, len(r), err)
		}
	}
}

// same says whether the records are those frames, in order, at increasing
// positions.
func same(t *testing.T, records []journal.Record, frames []journal.Sealed) {
	t.Helper()
	if len(records) != len(frames) {
		t.Fatalf("%d records, want %d", len(records), len(frames))
	}
	last := journal.Position(0)
	for i, r := range records {
		if r.Position <= last {
			t.Fatalf("record %d has position %d after %d", i, r.Position, last)
		}
		last = r.Position
		if !bytes.Equal(r.Bytes, frames[i].Bytes) {
			t.Fatalf("record %d is not frame %d", i, i)
		}
	}
}

func testIdempotent(t *testing.T, j journal.Journal) {
	frames := Chain(4, 1)
	for i, f := range frames {
		// Again at once, and an old one again.
		MustAppend(t, j, f, f, frames[i/2], f)
	}
	// The same bytes from other memory.
	clone := frames[3]
	clone.Bytes = bytes.Clone(clone.Bytes)
	MustAppend(t, j, clone, frames[0])
	same(t, ReadAll(t, j, 3), frames)
}

func testFork(t *testing.T, j journal.Journal) {
	frames := Chain(3, 1)
	run := frames[0].Header.Run
	MustAppend(t, j, frames[:2]...)
	other := Chain(2, 1)
	body := frames[0]
	body.Bytes = bytes.Clone(body.Bytes)
	body.Bytes[len(body.Bytes)-1] ^= 1
	for name, f := range map[string]journal.Sealed{
		"another frame under a used key":        Frame(run, 1, &frames[0], 1),
		"another first frame":                   Frame(run, 0, nil, 1),
		"a wrong prev":                          Frame(run, 2, &frames[0], 1),
		"no prev":                               Frame(run, 2, nil, 1),
		"a skipped number":                      Frame(run, 3, &frames[1], 1),
		"a number beyond all":                   Frame(run, 1<<64-1, &frames[1], 1),
		"a run that begins with frame 1":        Frame(NewRun(), 1, &frames[0], 1),
		"another run's prev":                    Frame(run, 2, &other[1], 1),
		"the same header with another body":     body,
		"a run that begins with its own second": other[1],
	} {
		if _, err := j.Append(t.Context(), f); !errors.Is(err, journal.ErrFork) {
			t.Errorf("%s: %v, want ErrFork", name, err)
		}
	}
	// None of them did harm: the run goes on.
	MustAppend(t, j, frames[2])
	same(t, ReadAll(t, j, 10), frames)
}

// A run may begin anywhere: on an empty shard, or as if it were empty, because
// its process looked before others appended; behind the last frame or an older
// one.
func testBeginnings(t *testing.T, j journal.Journal) {
	first := Chain(3, 1)
	zero := Chain(2, 1)
	MustAppend(t, j, first...)
	MustAppend(t, j, zero...)
	older, last := Frame(NewRun(), 0, &first[1], 1), Frame(NewRun(), 0, &zero[1], 1)
	MustAppend(t, j, older, last, older)
	same(t, ReadAll(t, j, 3), append(append(first, zero...), older, last))
}

func testLimit(t *testing.T, j journal.Journal) {
	MustAppend(t, j, Chain(5, 1)...)
	for limit, want := range map[int]int{-1: 0, 0: 0, 1: 1, 4: 4, 5: 5, 6: 5, 1 << 30: 5} {
		r, err := j.Read(t.Context(), 0, 0, limit)
		if err != nil || len(r) != want {
			t.Errorf("limit %d: %d records, %v; want %d", limit, len(r), err, want)
		}
	}
}

func testTooLarge(t *testing.T, j journal.Journal) {
	most := j.Properties().MaxFrameBytes
	f := Chain(1, 1)[0]
	f.Bytes = append(bytes.Clone(f.Bytes), make([]byte, most+1-len(f.Bytes))...)
	if _, err := j.Append(t.Context(), f); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("%d bytes: %v, want ErrTooLarge", len(f.Bytes), err)
	}
	if r := ReadAll(t, j, 1); len(r) != 0 {
		t.Error("something was kept")
	}
}

func testLargeFrame(t *testing.T, j journal.Journal) {
	most := j.Properties().MaxFrameBytes
	run := NewRun()
	count := (most - 200) / (64<<10 + 300)
	first := FrameOf(0, run, 0, nil, count, 64<<10)
	second := FrameOf(0, run, 1, &first, count, 64<<10)
	MustAppend(t, j, first, second, second)
	same(t, ReadAll(t, j, 10), []journal.Sealed{first, second})
}

func testShard(t *testing.T, j journal.Journal) {
	no := j.Properties().Shards
	if _, err := j.Append(t.Context(), FrameOf(no, NewRun(), 0, nil, 1, 0)); !errors.Is(err, journal.ErrNotAppended) {
		t.Errorf("append to shard %d of %d: %v, want ErrNotAppended", no, no, err)
	}
	if _, err := j.Read(t.Context(), no, 0, 1); err == nil {
		t.Error("read of a shard that does not exist: no error")
	}
	if _, err := j.End(t.Context(), no); err == nil {
		t.Error("end of a shard that does not exist: no error")
	}
	if err := j.Wait(t.Context(), no, 0); err == nil {
		t.Error("wait on a shard that does not exist: no error")
	}
}

func testWait(t *testing.T, j journal.Journal) {
	frames := Chain(2, 1)
	MustAppend(t, j, frames[0])
	if err := j.Wait(t.Context(), 0, 0); err != nil {
		t.Fatalf("wait for what is there: %v", err)
	}
	end, _ := j.End(t.Context(), 0)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	var err error
	for err == nil { // it may return early
		err = j.Wait(ctx, 0, end.Position)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("wait past its deadline: %v", err)
	}
	woken := make(chan error, 3)
	for range cap(woken) {
		go func() {
			for {
				err := j.Wait(t.Context(), 0, end.Position)
				if last, e := j.End(t.Context(), 0); err != nil || e != nil || last.Position > end.Position {
					woken <- errors.Join(err, e)
					return
				}
			}
		}()
	}
	MustAppend(t, j, frames[1])
	for range cap(woken) {
		select {
		case err := <-woken:
			if err != nil {
				t.Fatalf("wait: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("not woken by an append")
		}
	}
}

// follow reads n records as they come, and checks each run's order.
func follow(ctx context.Context, t *testing.T, j journal.Journal, n, step int) (map[string]int, error) {
	seen := map[string]int{}
	next := map[journal.Run]uint64{}
	for after := journal.Position(0); len(seen) < n; {
		if err := j.Wait(ctx, 0, after); err != nil {
			return seen, fmt.Errorf("wait after %d with %d of %d seen: %w", after, len(seen), n, err)
		}
		records, err := j.Read(ctx, 0, after, step)
		if err != nil {
			return seen, err
		}
		for _, r := range records {
			if r.Position <= after {
				return seen, fmt.Errorf("position %d after %d", r.Position, after)
			}
			after = r.Position
			run, n := number(t, r.Bytes)
			if n != next[run] {
				return seen, fmt.Errorf("frame %d of a run where %d was next", n, next[run])
			}
			next[run]++
			seen[Key(run, n)]++
		}
	}
	return seen, nil
}

func testFollow(t *testing.T, j journal.Journal) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	frames := Chain(200, 1)
	var wg sync.WaitGroup
	for _, step := range []int{1, 16} {
		wg.Go(func() {
			if _, err := follow(ctx, t, j, len(frames), step); err != nil {
				t.Error(err)
			}
		})
	}
	MustAppend(t, j, frames...)
	wg.Wait()
}

func testWriters(t *testing.T, j journal.Journal) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const writers, each = 6, 30
	var wg sync.WaitGroup
	for range writers {
		frames := Chain(each, 1)
		wg.Go(func() {
			for _, f := range frames {
				for range 2 { // each twice, as after an unknown outcome
					if _, err := j.Append(ctx, f); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	seen, err := follow(ctx, t, j, writers*each, 16)
	if err != nil {
		t.Error(err)
	}
	wg.Wait()
	for key, n := range seen {
		if n != 1 {
			t.Errorf("%s was read %d times", key, n)
		}
	}
	if all := ReadAll(t, j, 100); len(all) != writers*each {
		t.Errorf("%d records, want %d", len(all), writers*each)
	}
}

func testCancelled(t *testing.T, j journal.Journal) {
	frames := Chain(2, 1)
	MustAppend(t, j, frames[0])
	end, _ := j.End(t.Context(), 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Wait(ctx, 0, end.Position); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	if _, err := j.Read(ctx, 0, 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	_, err := j.Append(ctx, frames[1])
	if err == nil {
		t.Error("append on a cancelled context: nil")
	}
	if r := ReadAll(t, j, 10); errors.Is(err, journal.ErrNotAppended) && len(r) != 1 {
		t.Errorf("ErrNotAppended, but there are %d records", len(r))
	}
	MustAppend(t, j, frames[1]) // whatever became of it
	same(t, ReadAll(t, j, 10), frames)
}

func testClosed(t *testing.T, j journal.Journal) {
	frames := Chain(2, 1)
	MustAppend(t, j, frames[0])
	waiting := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			err = j.Wait(t.Context(), 0, 1<<62)
		}
		waiting <- err
	}()
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	select {
	case err := <-waiting:
		if !errors.Is(err, journal.ErrClosed) {
			t.Errorf("wait across the close: %v", err)
		}
	case <-time.After(patience):
		t.Error("a wait outlives the close")
	}
	if _, err := j.Append(t.Context(), frames[1]); !errors.Is(err, journal.ErrClosed) || !errors.Is(err, journal.ErrNotAppended) {
		t.Errorf("append: %v, want ErrClosed and ErrNotAppended", err)
	}
	if _, err := j.Read(t.Context(), 0, 0, 1); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := j.End(t.Context(), 0); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("end: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func testUnsealed(t *testing.T, j journal.Journal) {
	f := Chain(1, 1)[0]
	f.Header.Time++
	if _, err := j.Append(t.Context(), f); !errors.Is(err, journal.ErrNotAppended) {
		t.Errorf("a header that does not fit its hash: %v, want ErrNotAppended", err)
	}
	if r := ReadAll(t, j, 1); len(r) != 0 {
		t.Error("something was kept")
	}
}

func testReopen(t *testing.T, a Adapter) {
	j := a.Open(t)
	defer func() { j.Close() }()
	frames := Chain(30, 2)
	for i, f := range frames {
		if i%10 == 5 {
			j = a.Reopen(t, j)
		}
		MustAppend(t, j, f)
	}
	before := ReadAll(t, j, 7)
	same(t, before, frames)
	j = a.Reopen(t, j)
	after := ReadAll(t, j, 11)
	same(t, after, frames)
	for i := range after {
		if after[i].Position != before[i].Position {
			t.Fatalf("record %d moved from %d to %d", i, before[i].Position, after[i].Position)
		}
	}
	// The run is known again: its last frame, an old one, a fork, and the next.
	MustAppend(t, j, frames[29], frames[3])
	run := frames[0].Header.Run
	if _, err := j.Append(t.Context(), Frame(run, 30, &frames[28], 1)); !errors.Is(err, journal.ErrFork) {
		t.Errorf("a wrong prev after reopening: %v", err)
	}
	next := Frame(run, 30, &frames[29], 1)
	MustAppend(t, j, next)
	same(t, ReadAll(t, j, 100), append(frames, next))
}
