package sqlitejournal_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
)

func TestConformance(t *testing.T) {
	spoilers := map[journal.Journal]*spoiler{}
	paths := map[journal.Journal]string{}
	open := func(t *testing.T, path string, opts sqlitejournal.Options) journal.Journal {
		s := &spoiler{}
		j := must(sqlitejournal.OpenWrapped(t.Context(), path, opts, s.wrap))(t)
		spoilers[j], paths[j] = s, path
		return j
	}
	for name, opts := range map[string]sqlitejournal.Options{
		"Default":          {},
		"CheckpointAtEach": {CheckpointBytes: 1, Readers: 1},
	} {
		t.Run(name, func(t *testing.T) {
			journaltest.Run(t, journaltest.Adapter{
				Open: func(t *testing.T) journal.Journal { return open(t, t.TempDir()+"/journal.db", opts) },
				Reopen: func(t *testing.T, j journal.Journal) journal.Journal {
					if err := j.Close(); err != nil {
						t.Fatal(err)
					}
					return open(t, paths[j], opts)
				},
				Faults: func(j journal.Journal) journaltest.Faults { return spoilers[j] },
			})
		})
	}
}

// must ends the test when opening failed.
func must(j *sqlitejournal.Journal, err error) func(testing.TB) *sqlitejournal.Journal {
	return func(t testing.TB) *sqlitejournal.Journal {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
}

// persist appends n frames of one run as a committer does: the same frame again
// until the outcome is known. It calls at(i) before frame i, and at(-1) after
// every failure. Each frame is big enough to take several pages.
func persist(t *testing.T, j journal.Journal, n int, at func(int)) []journal.Sealed {
	t.Helper()
	frames := journaltest.Chain(n, 20)
	for i, f := range frames {
		at(i)
		for try := 0; ; try++ {
			_, err := j.Append(t.Context(), f)
			if err == nil {
				break
			}
			if errors.Is(err, journal.ErrFork) || errors.Is(err, journal.ErrTooLarge) || try > 20 {
				t.Fatalf("frame %d, try %d: %v", i, try, err)
			}
			at(-1)
			_ = j.Wait(shortly(t), 0, 1<<62)
		}
		// What was acknowledged can be read at once.
		end, err := j.End(t.Context(), 0)
		for try := 0; err != nil && try < 20; try++ { // a failing reader is replaced
			end, err = j.End(t.Context(), 0)
		}
		if err != nil || !bytes.Equal(end.Bytes, f.Bytes) {
			t.Fatalf("frame %d was acknowledged and is not the end (%v)", i, err)
		}
	}
	return frames
}

// shortly is a context that ends in a moment.
func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// complete checks that the journal holds these frames and no others.
func complete(t *testing.T, j journal.Journal, frames []journal.Sealed) {
	t.Helper()
	records := journaltest.ReadAll(t, j, 100)
	if len(records) != len(frames) {
		t.Fatalf("%d records, want %d", len(records), len(frames))
	}
	for i, r := range records {
		if !bytes.Equal(r.Bytes, frames[i].Bytes) || r.Position != journal.Position(i+1) { //nolint:gosec // small
			t.Fatalf("record %d at %d is not frame %d", i, r.Position, i)
		}
	}
}

// memoryDir is a folder in memory where there is one: for sweeps that open
// hundreds of journals and do not need a disk, because the faults are made
// above it.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tidegate-*") //nolint:usetesting // t.TempDir is on the disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
