package sqlitejournal_test

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
)

// made returns the path of a closed journal with n frames, or of one whose
// process stopped without closing it: the files as they lay beside a running
// writer.
func made(t *testing.T, n int, unclean bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.db")
	j := must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{}))(t)
	journaltest.MustAppend(t, j, journaltest.Chain(n, 3)...)
	if unclean {
		left := filepath.Join(t.TempDir(), "journal.db")
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			write(t, left+suffix, b)
		}
		path = left
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// content is what a refusal must leave as it was.
func content(t *testing.T, path string) string {
	t.Helper()
	var all strings.Builder
	for _, suffix := range []string{"", "-wal", "-journal", ".new"} {
		b, err := os.ReadFile(path + suffix)
		// An empty -wal is the same as none, and reading makes one.
		fmt.Fprintf(&all, "%s %v %x\n", suffix, err == nil && len(b) > 0, b)
	}
	return all.String()
}

func TestRefusals(t *testing.T) {
	edit := func(offset int64, b ...byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(b, offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	statement := func(sqls ...string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for _, s := range sqls {
				if _, err := db.Exec(s); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, c := range map[string]struct {
		unclean bool
		spoil   func(t *testing.T, path string)
		want    string
	}{
		"NotSQLite":     {spoil: func(t *testing.T, p string) { write(t, p, bytes.Repeat([]byte("notes "), 100)) }, want: "not a SQLite file"},
		"Empty":         {spoil: func(t *testing.T, p string) { write(t, p, nil) }, want: "cut short"},
		"Short":         {spoil: func(t *testing.T, p string) { _ = os.Truncate(p, 50) }, want: "cut short"},
		"Foreign":       {spoil: edit(68, 0, 0, 0, 0), want: "another program"},
		"Newer":         {spoil: edit(60, 0, 0, 0, 2), want: "format version is 2"},
		"Directory":     {spoil: func(_ *testing.T, p string) { _ = os.Remove(p); _ = os.Mkdir(p, 0o700) }, want: "not a regular file"},
		"WALOnly":       {unclean: true, spoil: func(_ *testing.T, p string) { _ = os.Remove(p) }, want: "its -wal is still there"},
		"TablesChanged": {spoil: statement("CREATE TABLE notes (t TEXT)"), want: "tables are not those of a journal"},
		"IndexGone":     {spoil: statement("DROP INDEX frames_run"), want: "tables are not those of a journal"},
		"LastBody":      {spoil: statement("UPDATE frames SET frame = CAST(substr(frame, 1, length(frame)-1) || x'00' AS BLOB) WHERE position = 5"), want: "the last frame, 5"},
		"LastCut":       {spoil: statement("UPDATE frames SET frame = substr(frame, 1, 300) WHERE position = 5"), want: "the last frame, 5"},
		"HalfFile":      {spoil: func(t *testing.T, p string) { halve(t, p) }, want: "damaged"},
		"Page":          {spoil: edit(8192, bytes.Repeat([]byte{0xaa}, 64)...), want: "damaged"},
		"Structure": {unclean: true, spoil: func(t *testing.T, p string) {
			// The index's root page, folded into the file, and an -wal that says the
			// last writer did not close it.
			statement("PRAGMA wal_checkpoint(TRUNCATE)")(t, p)
			edit(2*8192+200, bytes.Repeat([]byte{0x55}, 7990)...)(t, p)
			write(t, p+"-wal", []byte("torn"))
		}, want: "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := made(t, 5, c.unclean)
			c.spoil(t, path)
			before := content(t, path)
			j, err := sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{})
			if err == nil {
				j.Close()
				t.Fatal("was opened")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q does not say %q", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
			if strings.Contains(c.want, "damaged") && !errors.Is(err, sqlitejournal.ErrDamaged) {
				t.Errorf("not ErrDamaged: %v", err)
			}
			if content(t, path) != before {
				t.Error("a refused file was changed")
			}
			t.Log(err)
		})
	}
}

func halve(t *testing.T, path string) {
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()/2)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestUncleanStop(t *testing.T) {
	path := made(t, 5, true)
	for _, opts := range []sqlitejournal.Options{{ReadOnly: true}, {}} {
		j := must(sqlitejournal.Open(t.Context(), path, opts))(t)
		if r := journaltest.ReadAll(t, j, 2); len(r) != 5 {
			t.Errorf("%d records, want 5", len(r))
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path + "-wal"); err == nil {
		t.Error("a clean close left a -wal")
	}
}

// A torn tail of the -wal takes away what was never acknowledged, and no more.
func TestTornWAL(t *testing.T) {
	path := made(t, 5, true)
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path+"-wal", info.Size()-100); err != nil {
		t.Fatal(err)
	}
	j := must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{}))(t)
	defer j.Close()
	if r := journaltest.ReadAll(t, j, 2); len(r) != 4 {
		t.Errorf("%d records, want 4", len(r))
	}
}

func TestGap(t *testing.T) {
	path := made(t, 6, false)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("DELETE FROM frames WHERE position IN (3, 4)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	j := must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{ReadOnly: true}))(t)
	defer j.Close()
	r, err := j.Read(t.Context(), 0, 0, 10)
	if err != nil || len(r) != 2 {
		t.Fatalf("before the gap: %d records, %v", len(r), err)
	}
	_, err = j.Read(t.Context(), 0, 2, 10)
	var gap *journal.GapError
	if !errors.As(err, &gap) || gap.After != 2 || gap.Next != 5 {
		t.Fatalf("at the gap: %v", err)
	}
	if r, err = j.Read(t.Context(), 0, gap.Next-1, 10); err != nil || len(r) != 2 {
		t.Fatalf("behind the gap: %d records, %v", len(r), err)
	}
}

func TestReadOnly(t *testing.T) {
	if _, err := sqlitejournal.Open(t.Context(), t.TempDir()+"/none.db", sqlitejournal.Options{ReadOnly: true}); err == nil {
		t.Error("a missing file was opened for reading")
	}
	path := made(t, 2, false)
	before := content(t, path)
	j := must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{ReadOnly: true}))(t)
	if _, err := j.Append(t.Context(), journaltest.Chain(1, 1)[0]); !errors.Is(err, journal.ErrNotAppended) {
		t.Errorf("append: %v", err)
	}
	if r := journaltest.ReadAll(t, j, 10); len(r) != 2 {
		t.Errorf("%d records", len(r))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := strings.Cut(content(t, path), "\n"); !strings.HasPrefix(before, got) {
		t.Error("reading changed the file")
	}
}

// A second handle stands for a second process: SQLite locks both alike.
func TestTwoHandles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	opts := sqlitejournal.Options{PollInterval: 20 * time.Millisecond}
	a := must(sqlitejournal.Open(t.Context(), path, opts))(t)
	defer a.Close()
	b := must(sqlitejournal.Open(t.Context(), path, opts))(t)
	defer b.Close()
	reader := must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{ReadOnly: true, PollInterval: 20 * time.Millisecond}))(t)
	defer reader.Close()
	ca, cb := journaltest.Chain(20, 1), journaltest.Chain(20, 1)
	for i := range ca {
		journaltest.MustAppend(t, a, ca[i])
		journaltest.MustAppend(t, b, cb[i])
	}
	// One writes the other's run: the memory of heads must not decide.
	run := ca[0].Header.Run
	next := journaltest.Frame(run, 20, &ca[19], 1)
	journaltest.MustAppend(t, b, next)
	journaltest.MustAppend(t, a, next)
	if _, err := a.Append(t.Context(), journaltest.Frame(run, 20, &ca[19], 1)); !errors.Is(err, journal.ErrFork) {
		t.Errorf("another frame 20: %v", err)
	}
	journaltest.MustAppend(t, a, journaltest.Frame(run, 21, &next, 1))
	if err := reader.Wait(t.Context(), 0, 41); err != nil {
		t.Fatal(err)
	}
	for _, j := range []journal.Journal{a, b, reader} {
		if r := journaltest.ReadAll(t, j, 7); len(r) != 42 {
			t.Errorf("%d records, want 42", len(r))
		}
	}
}

func TestSettingsHold(t *testing.T) {
	// Another program holds a transaction on a file in rollback mode, so the mode
	// cannot become WAL: refused, and not opened without it.
	path := made(t, 1, false)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range []string{"PRAGMA journal_mode=DELETE", "BEGIN IMMEDIATE"} {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	_, err = sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{})
	if err == nil || !strings.Contains(err.Error(), "journal_mode") {
		t.Fatalf("a journal that cannot be in WAL mode: %v", err)
	}
	t.Log(err)
	if _, err := db.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	j := must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{}))(t)
	journaltest.MustAppend(t, j, journaltest.Chain(1, 1)...)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b[18] != 2 || b[19] != 2 {
		t.Error("the file is not in WAL mode")
	}
	if id := binary.BigEndian.Uint32(b[68:]); id != 0x54474A31 {
		t.Errorf("application id %x", id)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600: facts are health data", info.Mode())
	}
}

func TestVersionGate(t *testing.T) {
	for v, ok := range map[string]bool{
		"3.51.2": false, "3.51.3": true, "3.51.10": true, "3.54.1": true, "4.0.0": true, "3.50.7": false, "2.8.17": false, "": false, "x.y": false,
	} {
		if err := sqlitejournal.CheckVersion(v); (err == nil) != ok {
			t.Errorf("%q: %v", v, err)
		}
	}
}

func TestCopyTo(t *testing.T) {
	dir := t.TempDir()
	j := must(sqlitejournal.Open(t.Context(), dir+"/journal.db", sqlitejournal.Options{}))(t)
	defer j.Close()
	frames := journaltest.Chain(60, 3)
	journaltest.MustAppend(t, j, frames[:20]...)
	done := make(chan error, 1)
	go func() {
		var err error
		for _, f := range frames[20:] {
			if _, e := j.Append(t.Context(), f); e != nil {
				err = e
			}
		}
		done <- err
	}()
	copied := dir + "/it's a copy?.db"
	if err := j.CopyTo(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := j.CopyTo(t.Context(), copied); err == nil {
		t.Error("a second copy replaced the first")
	}
	for _, suffix := range []string{"-wal", "-journal", ".new", ".new-wal"} {
		if _, err := os.Stat(copied + suffix); err == nil {
			t.Errorf("the copy left %s", suffix)
		}
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("copy: %v, %v", info, err)
	}
	c := must(sqlitejournal.Open(t.Context(), copied, sqlitejournal.Options{}))(t)
	defer c.Close()
	last, err := c.LastPosition(t.Context())
	if err != nil || last < 20 {
		t.Fatalf("the copy ends at %d (%v), want 20 or later", last, err)
	}
	complete(t, c, frames[:last])
	journaltest.MustAppend(t, c, frames[last:]...) // and it goes on from there
	complete(t, c, frames)
}

// The -wal is begun anew under load, although a reader comes and goes without a
// pause: otherwise it would hold all that the file holds.
func TestWALStaysSmall(t *testing.T) {
	path := memoryDir(t) + "/journal.db"
	j := must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{CheckpointBytes: 128 << 10}))(t)
	defer j.Close()
	stop := make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = j.Read(t.Context(), 0, 0, 20)
			}
		}
	}()
	journaltest.MustAppend(t, j, journaltest.Chain(1200, 50)...)
	close(stop)
	<-read
	wal, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("-wal %d KiB beside a file of %d KiB", wal.Size()>>10, whole.Size()>>10)
	if wal.Size() > whole.Size()/2 {
		t.Errorf("the -wal has grown to %d bytes", wal.Size())
	}
}
