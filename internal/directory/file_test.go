package directory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

var when = time.Date(2026, 3, 1, 8, 0, 0, 123456789, time.UTC)

// made is a source of a registry that is made up: n participants at 20 sites of
// two trials. Its version is n.
type made int

func (n made) Follow(ctx context.Context, _ directory.Version, fn func(directory.Change) error) error {
	v := directory.Version{uint64(n), 7}
	c := directory.Change{Version: v, Snapshot: true}
	for _, id := range []string{"T001", "T002"} {
		c.Trials = append(c.Trials, store.Trial{ID: id, Name: "Trial " + id, Status: epro.TrialActive, Version: 3, Instruments: []string{"pain@1", "qol@1"}, CreatedAt: when})
		for i := range 20 {
			c.Sites = append(c.Sites, store.Site{TrialID: id, ID: fmt.Sprintf("S%02d", i), Name: "Site", CreatedAt: when})
		}
	}
	if err := fn(c); err != nil {
		return err
	}
	for i := range int(n) {
		e := store.Enrollment{
			TrialID: "T001", PatientID: fmt.Sprintf("P-%06d", i), SiteID: fmt.Sprintf("S%02d", i%20), Status: epro.Enrolled, MinEpoch: 1, Version: 1, EnrolledAt: when,
		}
		if i%7 == 0 {
			e.Status, e.WithdrawnAt = epro.Withdrawn, when.Add(time.Hour)
		}
		if err := fn(directory.Change{Version: v, Enrollments: []store.Enrollment{e}}); err != nil {
			return err
		}
	}
	if err := fn(directory.Change{Version: v, Done: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// filled is a directory of n participants, written to a file.
func filled(f failer, path string, n int) *directory.Directory {
	f.Helper()
	d := directory.New(directory.Options{Path: path, Identity: "here", SaveEvery: time.Hour})
	r := run(d, made(n))
	eventually(f, func() bool { return d.State().Version.Position(0) == journal.Position(n) && !d.State().LoadedFromDisk }, func() string { return "not filled" })
	r.stop()
	if s := d.State(); s.SaveErr != nil || s.FileBytes == 0 {
		f.Fatalf("%+v", s)
	}
	return d
}

func open(path string) (*directory.Directory, *bytes.Buffer) {
	var log bytes.Buffer
	return directory.New(directory.Options{Path: path, Identity: "here", Log: slog.New(slog.NewTextHandler(&log, nil))}), &log
}

func TestTheFileKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "directory")
	now := when.Add(24 * time.Hour)
	clock := func() time.Time { return now }
	d := directory.New(directory.Options{Path: path, Identity: "here", Now: clock})
	r := run(d, made(50))
	eventually(t, func() bool { return d.State().Loaded() }, func() string { return "not filled" })
	r.stop()
	now = now.Add(90 * time.Second)
	again := directory.New(directory.Options{Path: path, Identity: "here", Now: clock})
	s := again.State()
	if !s.LoadedFromDisk || s.Age != 90*time.Second || s.Trials != 2 || s.Sites != 40 || s.Enrollments != 50 || s.Version.Position(0) != 50 || s.Connected {
		t.Errorf("%+v", s)
	}
	for i := range 50 {
		patient := fmt.Sprintf("P-%06d", i)
		a, err := d.PatientTrial("T001", patient)
		must(t, err)
		if b, err := again.PatientTrial("T001", patient); err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%s was %+v and is %+v, %v", patient, a, b, err)
		}
		if _, err := again.PatientTrial("T002", patient); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s in a trial of others: %v", patient, err)
		}
	}
	if p, err := again.PatientTrial("T001", "P-000007"); err != nil || p.Enrollment.Status != epro.Withdrawn || !p.Enrollment.WithdrawnAt.Equal(when.Add(time.Hour)) || p.Site.Name != "Site" {
		t.Errorf("%+v, %v", p, err)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := os.Stat(path + directory.NewSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file it was written to is still there: %v", err)
	}
	now = now.Add(-time.Hour) // a clock that was put back
	if s := again.State(); s.Age != 0 {
		t.Errorf("age %v", s.Age)
	}
}

// TestADamagedFileIsPutAside flips and cuts the file at every place.
func TestADamagedFileIsPutAside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "directory")
	filled(t, path, 3)
	whole, err := os.ReadFile(path)
	must(t, err)
	try := func(name string, b []byte) {
		t.Helper()
		must(t, os.WriteFile(path, b, 0o600))
		d, log := open(path)
		if s := d.State(); s.Loaded() || s.Enrollments != 0 || s.LoadedFromDisk {
			t.Fatalf("%s: %+v", name, s)
		}
		if kept, err := os.ReadFile(path + directory.AsideSuffix); err != nil || !bytes.Equal(kept, b) {
			t.Fatalf("%s: it was not put aside: %v", name, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: it is still there: %v", name, err)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "put aside") || strings.Contains(log.String(), "P-0000") {
			t.Fatalf("%s: log %s", name, log)
		}
	}
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1 << (i % 8)
		try(fmt.Sprintf("byte %d flipped", i), b)
	}
	for i := range len(whole) {
		try(fmt.Sprintf("cut to %d bytes", i), whole[:i])
	}
	try("longer", append(bytes.Clone(whole), 0))
	other := filepath.Join(dir, "other")
	r := run(directory.New(directory.Options{Path: other, Identity: "elsewhere"}), made(3))
	eventually(t, func() bool { return r.State().Loaded() }, func() string { return "not filled" })
	r.stop()
	foreign, err := os.ReadFile(other)
	must(t, err)
	try("of another installation", foreign)

	must(t, os.WriteFile(path, whole, 0o600))
	if d, _ := open(path); !d.State().Loaded() {
		t.Error("the whole file is not read: this test shows nothing")
	}
}

// TestWhatACrashLeaves: each state of the folder that a crash in the middle of a
// write can leave is the old file or the new one, whole.
func TestWhatACrashLeaves(t *testing.T) {
	dir := t.TempDir()
	path, next := filepath.Join(dir, "directory"), filepath.Join(dir, "next")
	filled(t, path, 3)
	filled(t, next, 5)
	was, err := os.ReadFile(path)
	must(t, err)
	is, err := os.ReadFile(next)
	must(t, err)
	for cut := 0; cut <= len(is); cut += 7 {
		must(t, os.WriteFile(path, was, 0o600))
		must(t, os.WriteFile(path+directory.NewSuffix, is[:cut], 0o600))
		d, log := open(path)
		if s := d.State(); s.Enrollments != 3 || strings.Contains(log.String(), "level=ERROR") {
			t.Fatalf("with %d bytes of the next one beside it: %+v %s", cut, s, log)
		}
	}
	filled(t, path, 7) // over the rest
	if d, _ := open(path); d.State().Enrollments != 7 {
		t.Error("a rest of a crash hinders the next write")
	}
}

const childFile = "TIDEGATE_TEST_DIRECTORY_FILE"

// TestKilledWhileWriting kills a process that does nothing but write its file:
// what it leaves is always whole.
func TestKilledWhileWriting(t *testing.T) {
	if path := os.Getenv(childFile); path != "" {
		for n := 1; ; n = n%40 + 1 {
			filled(t, path, n*50)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "directory")
	exe, err := os.Executable()
	must(t, err)
	for i := range 12 {
		cmd := exec.Command(exe, "-test.run=^TestKilledWhileWriting$")
		cmd.Env = append(os.Environ(), childFile+"="+path)
		must(t, cmd.Start())
		eventually(t, func() bool { _, err := os.Stat(path); return err == nil }, func() string { return "the child writes nothing" })
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		must(t, cmd.Process.Kill()) // SIGKILL: nothing is finished
		_ = cmd.Wait()
		d, log := open(path)
		s := d.State()
		if !s.Loaded() || s.Enrollments != int(s.Version.Position(0)) || s.Enrollments%50 != 0 {
			t.Fatalf("after kill %d: %+v %s", i, s, log)
		}
	}
}

// TestAFileThatCannotBeWritten costs the copy for a restart and nothing else.
func TestAFileThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	path := filepath.Join(dir, "directory")
	var log bytes.Buffer
	d := directory.New(directory.Options{Path: path, SaveEvery: time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	r := run(d, made(5))
	eventually(t, func() bool { return d.State().SaveErr != nil }, func() string { return "no error" })
	if d.State().Enrollments != 5 {
		t.Errorf("%+v", d.State())
	}
	must(t, os.Mkdir(dir, 0o700))
	eventually(t, func() bool { return d.State().SaveErr == nil && d.State().FileBytes > 0 }, func() string { return "it is not tried again" })
	r.stop()
	if n := strings.Count(log.String(), "cannot be kept"); n != 1 {
		t.Errorf("%d lines: %s", n, log.String())
	}
	if again := directory.New(directory.Options{Path: path}); again.State().Enrollments != 5 {
		t.Errorf("%+v", again.State())
	}
}

// TestMemory is a measure with a wide bar: a registry of 100,000 enrolments
// must not cost hundreds of megabytes.
func TestMemory(t *testing.T) {
	const people = 100_000
	path := filepath.Join(t.TempDir(), "directory")
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	began := time.Now()
	d := filled(t, path, people)
	took := time.Since(began)
	after := heap()
	began = time.Now()
	again, _ := open(path)
	t.Logf("%d enrolments: %.1f MB of heap, %.1f MB on disk, filled and written in %v, read in %v", people, float64(after-before)/1e6,
		float64(d.State().FileBytes)/1e6, took, time.Since(began))
	if again.State().Enrollments != people {
		t.Errorf("%+v", again.State())
	}
	if after-before > 60<<20 {
		t.Errorf("%d bytes of heap", after-before)
	}
	runtime.KeepAlive(d)
}
