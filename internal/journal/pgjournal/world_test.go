package pgjournal_test

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/test/services"
)

func options(url string) pgjournal.Options {
	return pgjournal.Options{Postgres: postgres.Options{URL: url}}
}

// fresh is a database with an empty journal.
func fresh(t testing.TB, pg *services.PG) string {
	t.Helper()
	url := pg.NewDatabase(t)
	if _, _, err := pgjournal.Migrate(t.Context(), postgres.Options{URL: url}); err != nil {
		t.Fatal(err)
	}
	return url
}

// open opens a journal that is closed with the test.
func open(t testing.TB, opts pgjournal.Options) *pgjournal.Journal {
	t.Helper()
	j, err := pgjournal.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// trusting is open with connections that are used without a question.
func trusting(t testing.TB, opts pgjournal.Options) *pgjournal.Journal {
	t.Helper()
	j, err := pgjournal.OpenTrusting(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func database(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		panic(err) // services made it
	}
	return strings.TrimPrefix(u.Path, "/")
}

// through is a database's URL with another address in it.
func through(text, addr string) string {
	u, err := url.Parse(text)
	if err != nil {
		panic(err) // services made it
	}
	u.Host = addr
	return u.String()
}

// patience bounds what must happen at some time.
const patience = time.Minute

func until(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !happened(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// try appends with a limit and says what became of it.
func try(t testing.TB, j journal.Journal, f journal.Sealed, limit time.Duration) (journal.Class, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return j.Append(ctx, f)
}

// unknown ends the test unless the error says that the outcome is not known.
func unknown(t testing.TB, err error) {
	t.Helper()
	for _, known := range []error{journal.ErrNotAppended, journal.ErrFork, journal.ErrTooLarge} {
		if err == nil || errors.Is(err, known) {
			t.Fatalf("%v: must be unknown", err)
		}
	}
}

// insist appends as a committer does: the same frame again until it is there.
func insist(t testing.TB, j journal.Journal, f journal.Sealed) journal.Class {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		class, err := try(t, j, f, 3*time.Second)
		switch {
		case err == nil:
			return class
		case errors.Is(err, journal.ErrFork), errors.Is(err, journal.ErrTooLarge), time.Now().After(end):
			t.Errorf("frame %d: %v", f.Header.N, err)
			return 0
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// holds ends the test unless the journal has all the frames, each once, each
// run in its order, at dense positions, and no others.
func holds(t testing.TB, j journal.Journal, runs ...[]journal.Sealed) {
	t.Helper()
	want := map[string][]byte{}
	for _, frames := range runs {
		for _, f := range frames {
			want[journaltest.Key(f.Header.Run, f.Header.N)] = f.Bytes
		}
	}
	next := map[journal.Run]uint64{}
	for i, r := range journaltest.ReadAll(t, j, 100) {
		f, err := journal.DecodeFrame(r.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		h := f.Header
		if r.Position != journal.Position(i+1) || h.N != next[h.Run] { //nolint:gosec // small
			t.Fatalf("record %d at %d is frame %d of its run, %d was next", i, r.Position, h.N, next[h.Run])
		}
		next[h.Run]++
		if b, ok := want[journaltest.Key(h.Run, h.N)]; !ok || !bytes.Equal(b, r.Bytes) {
			t.Fatalf("record %d: frame %d of run %s is not one that was appended", i, h.N, h.Run)
		}
		delete(want, journaltest.Key(h.Run, h.N))
	}
	if len(want) != 0 {
		t.Fatalf("%d acknowledged frames are not there", len(want))
	}
}
