package pgjournal_test

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/test/services"
)

func TestOpenRefuses(t *testing.T) {
	pg := services.SharedPostgres(t)
	unset, newer, headless := pg.NewDatabase(t), fresh(t, pg), fresh(t, pg)
	pg.Exec(database(newer), "INSERT INTO tidegate_journal.migrations (version_id, is_applied) VALUES (99, true)")
	pg.Exec(database(headless), "DELETE FROM tidegate_journal.head")
	bad := filepath.Join(t.TempDir(), "timeline")
	if err := os.WriteFile(bad, []byte("seven\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		url, file string
		schema    bool
		says      string
	}{
		"not migrated":   {url: unset, schema: true, says: "tidegate migrate"},
		"newer":          {url: newer, schema: true, says: "99"},
		"no head":        {url: headless, says: "no row"},
		"no database":    {url: pg.URL("nowhere"), says: "nowhere"},
		"no server":      {url: "postgres://app@127.0.0.1:1/x", says: "127.0.0.1"},
		"no URL":         {url: "postgres://app:secret@[::1/x", says: "no URL"},
		"a bad timeline": {url: unset, file: bad, says: "timeline"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, readOnly := range []bool{false, true} {
				opts := options(c.url)
				opts.TimelineFile, opts.ReadOnly = c.file, readOnly
				j, err := pgjournal.Open(t.Context(), opts)
				if err == nil {
					j.Close()
					t.Fatal("it opened")
				}
				var schema *postgres.SchemaError
				if errors.As(err, &schema) != c.schema || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") {
					t.Errorf("it says %q; want %q", err, c.says)
				}
			}
		})
	}
}

// Frames that were taken away are named, by whoever reads, wherever they were.
// Nothing is appended behind a shard that is cut short.
func TestFramesTakenAway(t *testing.T) {
	pg := services.SharedPostgres(t)
	addr := fresh(t, pg)
	frames := journaltest.Chain(9, 1)
	w := open(t, options(addr))
	journaltest.MustAppend(t, w, frames...)
	w.Close()
	pg.Exec(database(addr), "DELETE FROM tidegate_journal.frame WHERE position IN (1, 4, 5, 8, 9)")

	if j, err := pgjournal.Open(t.Context(), options(addr)); err == nil || !strings.Contains(err.Error(), "8 to 9") {
		t.Errorf("open: %v, want a refusal that names the missing end", err)
		j.Close()
	}
	opts := options(addr)
	opts.ReadOnly = true
	j := open(t, opts)
	var gaps []journal.GapError
	var seen []journal.Position
	for after := journal.Position(0); ; {
		r, err := j.Read(t.Context(), 0, after, 100)
		var gap *journal.GapError
		if errors.As(err, &gap) {
			gaps = append(gaps, *gap)
			after = gap.Next - 1
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(r) == 0 {
			break
		}
		for _, rec := range r {
			seen = append(seen, rec.Position)
			after = rec.Position
			if !bytes.Equal(rec.Bytes, frames[rec.Position-1].Bytes) {
				t.Errorf("another frame at %d", rec.Position)
			}
		}
	}
	want := []journal.GapError{{After: 0, Next: 2}, {After: 3, Next: 6}, {After: 7, Next: 10}}
	if len(gaps) != 3 || gaps[0] != want[0] || gaps[1] != want[1] || gaps[2] != want[2] || len(seen) != 4 {
		t.Errorf("gaps %+v, seen %v", gaps, seen)
	}
	if r, err := j.End(t.Context(), 0); err != nil || r.Position != 9 || r.Bytes != nil {
		t.Errorf("the end is at %d with %d bytes, %v; the head says 9, and its frame is gone", r.Position, len(r.Bytes), err)
	}
}

// The index is computed by the server from the bytes: it cannot be told apart.
func TestIndexIsOfTheBytes(t *testing.T) {
	pg := services.SharedPostgres(t)
	addr := fresh(t, pg)
	frames := journaltest.Chain(2, 1)
	journaltest.MustAppend(t, open(t, options(addr)), frames...)
	for i, f := range frames {
		got := pg.Query(database(addr), "SELECT encode(hash, 'hex') FROM tidegate_journal.frame WHERE position = "+string(rune('1'+i)))
		if got != f.Hash.String() {
			t.Errorf("frame %d: hash %s, want %s", i, got, f.Hash)
		}
	}
}

// A run that begins behind a frame which this database does not have was begun
// elsewhere: on a primary whose end was lost.
func TestRunBehindALostFrame(t *testing.T) {
	j := open(t, options(fresh(t, services.SharedPostgres(t))))
	lost := journaltest.Chain(1, 1)[0]
	first := journaltest.Chain(1, 1)[0]
	journaltest.MustAppend(t, j, first)
	if _, err := j.Append(t.Context(), journaltest.Frame(journaltest.NewRun(), 0, &lost, 1)); !errors.Is(err, journal.ErrFork) {
		t.Errorf("%v, want ErrFork", err)
	}
	second := journaltest.Frame(journaltest.NewRun(), 0, &first, 1)
	alone := journaltest.Frame(journaltest.NewRun(), 0, nil, 1)
	journaltest.MustAppend(t, j, second, alone, second)
	holds(t, j, []journal.Sealed{first}, []journal.Sealed{second}, []journal.Sealed{alone})
}

// The password comes from a file, for the connections that append too.
func TestPasswordFile(t *testing.T) {
	t.Parallel()
	const password = "correct horse"
	pg := services.Postgres(t, services.PGOptions{Password: password})
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := postgres.Options{URL: pg.NewDatabase(t), PasswordFile: file}
	if _, _, err := pgjournal.Migrate(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	j := open(t, pgjournal.Options{Postgres: o})
	journaltest.MustAppend(t, j, journaltest.Chain(2, 1)...)
	if _, err := pgjournal.Open(t.Context(), options(o.URL)); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("without the file: %v", err)
	}
}

func TestMigrateAtOnce(t *testing.T) {
	addr := services.SharedPostgres(t).NewDatabase(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, to, err := pgjournal.Migrate(context.Background(), postgres.Options{URL: addr}); err != nil || to != 1 {
				t.Errorf("to %d, %v", to, err)
			}
		})
	}
	wg.Wait()
	journaltest.MustAppend(t, open(t, options(addr)), journaltest.Chain(1, 1)...)
}

// The rights that docs/operations.md names are enough, and no more is needed.
func TestRights(t *testing.T) {
	pg := services.SharedPostgres(t)
	addr := fresh(t, pg)
	db := database(addr)
	pg.Exec(db, "CREATE ROLE "+db+"_writer LOGIN", "CREATE ROLE "+db+"_reader LOGIN")
	t.Cleanup(func() {
		for _, role := range []string{"_writer", "_reader"} {
			pg.Exec(db, "DROP OWNED BY "+db+role, "DROP ROLE "+db+role)
		}
	})
	pg.Exec(db,
		"GRANT USAGE ON SCHEMA tidegate_journal TO "+db+"_writer, "+db+"_reader",
		"GRANT SELECT ON ALL TABLES IN SCHEMA tidegate_journal TO "+db+"_writer, "+db+"_reader",
		"GRANT INSERT ON tidegate_journal.frame TO "+db+"_writer",
		"GRANT UPDATE ON tidegate_journal.head TO "+db+"_writer")
	as := func(role string) string {
		u, err := url.Parse(addr)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.User(db + role)
		return u.String()
	}
	frames := journaltest.Chain(3, 1)
	w := open(t, options(as("_writer")))
	journaltest.MustAppend(t, w, frames[0], frames[0])
	if err := w.Import(t.Context(), 0, frames); err != nil {
		t.Errorf("import: %v", err)
	}
	r := open(t, options(as("_reader")))
	holds(t, r, frames)
	if _, err := r.Append(t.Context(), journaltest.Chain(1, 1)[0]); !errors.Is(err, journal.ErrNotAppended) || postgres.Code(err) != postgres.CodeInsufficientPriv {
		t.Errorf("append without the right: %v", err)
	}
	w.Close()
	r.Close()
}
