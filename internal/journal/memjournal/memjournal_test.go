package memjournal_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/memjournal"
)

func TestConformance(t *testing.T) {
	for name, opts := range map[string]memjournal.Options{
		"Dense":  {},
		"Sparse": {Stride: 7, Shards: 3, Class: journal.ClassQuorumFsync},
	} {
		t.Run(name, func(t *testing.T) {
			journaltest.Run(t, journaltest.Adapter{
				Open:   func(*testing.T) journal.Journal { return memjournal.New(opts) },
				Faults: func(j journal.Journal) journaltest.Faults { return j.(*memjournal.Journal) },
			})
		})
	}
}

func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := memjournal.New(memjournal.Options{})
		release := j.Hold()
		f := journaltest.Chain(1, 1)[0]
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := j.Append(ctx, f); !errors.Is(err, journal.ErrNotAppended) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("held past its deadline: %v", err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := j.Append(t.Context(), f)
			done <- err
		}()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("a held append returned: %v", err)
		default:
		}
		release()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if j.Appends() != 2 {
			t.Errorf("%d appends counted", j.Appends())
		}
	})
}

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := memjournal.New(memjournal.Options{})
		j.Slow(3 * time.Second)
		start := time.Now()
		journaltest.MustAppend(t, j, journaltest.Chain(2, 1)...)
		if took := time.Since(start); took != 6*time.Second {
			t.Errorf("two slow appends took %v", took)
		}
	})
}

func TestReplace(t *testing.T) {
	j := memjournal.New(memjournal.Options{})
	frames := journaltest.Chain(3, 1)
	journaltest.MustAppend(t, j, frames...)
	j.Replace(0, 2, []byte("damage"))
	j.Replace(0, 1, nil)
	r := journaltest.ReadAll(t, j, 10)
	if len(r) != 2 || string(r[0].Bytes) != "damage" || r[1].Position != 3 {
		t.Fatalf("%+v", r)
	}
}
