package pgjournal_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/test/services"
)

func TestImport(t *testing.T) {
	j := open(t, options(fresh(t, services.SharedPostgres(t))))
	one, two := journaltest.Chain(5, 2), journaltest.Chain(5, 2)
	three := []journal.Sealed{journaltest.Frame(journaltest.NewRun(), 0, &two[1], 1)} // cites one of the same call
	var all []journal.Sealed
	for i := range one {
		all = append(all, one[i], two[i])
	}
	all = append(all, three...)
	load := func(frames ...journal.Sealed) {
		t.Helper()
		if err := j.Import(t.Context(), 0, frames); err != nil {
			t.Fatal(err)
		}
	}
	load()
	load(all[:4]...)
	load(all[:4]...)  // all of it again
	load(all[2:7]...) // some of it again
	load(all[4:]...)
	records := journaltest.ReadAll(t, j, 100)
	if len(records) != len(all) {
		t.Fatalf("%d records, want %d", len(records), len(all))
	}
	for i := range all {
		if !bytes.Equal(records[i].Bytes, all[i].Bytes) {
			t.Fatalf("record %d is not frame %d", i, i)
		}
	}
	// The runs go on, one by one.
	journaltest.MustAppend(t, j, journaltest.Frame(one[0].Header.Run, 5, &one[4], 1), all[3])
}

// A copy is refused whole, for the reasons an append is.
func TestImportRefuses(t *testing.T) {
	j := open(t, options(fresh(t, services.SharedPostgres(t))))
	frames := journaltest.Chain(6, 1)
	run := frames[0].Header.Run
	if err := j.Import(t.Context(), 0, frames[:3]); err != nil {
		t.Fatal(err)
	}
	other := journaltest.Chain(2, 1)
	changed := frames[1]
	changed.Bytes = bytes.Clone(changed.Bytes)
	changed.Bytes[len(changed.Bytes)-1] ^= 1
	unsealed := frames[3]
	unsealed.Header.Time++
	large := frames[3]
	large.Bytes = append(bytes.Clone(large.Bytes), make([]byte, j.Properties().MaxFrameBytes)...)
	for name, c := range map[string]struct {
		frames []journal.Sealed
		want   error
	}{
		"another frame under a key": {[]journal.Sealed{journaltest.Frame(run, 1, &frames[0], 1)}, journal.ErrFork},
		"another body":              {[]journal.Sealed{changed}, journal.ErrFork},
		"a skipped number":          {[]journal.Sealed{frames[4]}, journal.ErrFork},
		"a wrong order":             {[]journal.Sealed{frames[4], frames[3]}, journal.ErrFork},
		"one twice":                 {[]journal.Sealed{frames[3], frames[3]}, journal.ErrFork},
		"an old one behind a new":   {[]journal.Sealed{frames[3], frames[0]}, journal.ErrFork},
		"a wrong prev":              {[]journal.Sealed{journaltest.Frame(run, 3, &frames[1], 1)}, journal.ErrFork},
		"a run in the middle":       {[]journal.Sealed{frames[3], other[1]}, journal.ErrFork},
		"a run behind a lost frame": {[]journal.Sealed{frames[3], journaltest.Frame(journaltest.NewRun(), 0, &other[0], 1)}, journal.ErrFork},
		"unsealed":                  {[]journal.Sealed{unsealed}, journal.ErrNotAppended},
		"another shard":             {[]journal.Sealed{journaltest.FrameOf(1, run, 0, nil, 1, 0)}, journal.ErrNotAppended},
		"too large":                 {[]journal.Sealed{frames[3], large}, journal.ErrTooLarge},
	} {
		if err := j.Import(t.Context(), 0, c.frames); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := j.Import(t.Context(), 3, frames[3:4]); !errors.Is(err, journal.ErrNotAppended) {
		t.Errorf("into shard 3: %v", err)
	}
	holds(t, j, frames[:3])
	if err := j.Import(t.Context(), 0, frames[3:]); err != nil {
		t.Error(err)
	}
	holds(t, j, frames)
}

// A copy and appends at the same time, and a copy broken off again and again.
func TestImportBesideWriters(t *testing.T) {
	pg := services.SharedPostgres(t)
	addr := fresh(t, pg)
	proxy := services.Proxy(t, pg.Addr())
	j := trusting(t, options(through(addr, proxy.Addr())))
	copied, written := journaltest.Chain(400, 2), journaltest.Chain(50, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		w := open(t, options(addr))
		for _, f := range written {
			insist(t, w, f)
		}
	})
	wg.Go(func() {
		for part := range slices.Chunk(copied, 7) {
			for end := time.Now().Add(patience); ; {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				err := j.Import(ctx, 0, part)
				cancel()
				if err == nil {
					break
				}
				if errors.Is(err, journal.ErrFork) || time.Now().After(end) {
					t.Error(err)
					return
				}
			}
		}
	})
	for range 8 {
		time.Sleep(40 * time.Millisecond) // something is under way
		proxy.Cut()
		proxy.Heal()
	}
	wg.Wait()
	holds(t, open(t, options(addr)), copied, written)
}
