package e2e_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// refusal is what a command that cannot do its work has to look like: an exit
// code, one sentence, at most one more line with what to do, no stack trace.
type refusal struct {
	t    *testing.T
	code int
	says string // a part of the sentence
	data string // a folder whose files must be as they were, "" for none
	run  func(args ...string) (stdout, stderr string, code int)
}

func (r refusal) of(args ...string) string {
	r.t.Helper()
	var before map[string]string
	if r.data != "" {
		before = contents(r.t, r.data)
	}
	if r.run == nil {
		r.run = func(args ...string) (string, string, int) { r.t.Helper(); return tidegateEnv(r.t, "LC_ALL=C", args...) }
	}
	out, errs, code := r.run(args...)
	fail := func(format string, a ...any) {
		r.t.Helper()
		r.t.Errorf("tidegate %s: %s\nstdout: %s\nstderr: %s", strings.Join(args, " "), fmt.Sprintf(format, a...), out, errs)
	}
	if code != r.code {
		fail("exit %d, want %d", code, r.code)
	}
	if out != "" {
		fail("something on standard output")
	}
	lines := strings.Split(strings.TrimRight(errs, "\n"), "\n")
	if len(lines) > 2 || !strings.HasPrefix(lines[0], "tidegate: ") {
		fail("want one sentence after the program's name, and at most a hint")
	}
	for _, bad := range []string{"goroutine ", "panic", ".go:", "%!", "<nil>"} {
		if strings.Contains(errs, bad) {
			fail("%q reads like a fault of the program", bad)
		}
	}
	if !strings.Contains(errs, r.says) {
		fail("does not say %q", r.says)
	}
	if r.data != "" {
		if after := contents(r.t, r.data); !maps.Equal(before, after) {
			fail("the folder was changed:\n%v\n%v", before, after)
		}
	}
	return errs
}

// contents is the hash of every file of a folder. LOCK names its last holder,
// and -shm is SQLite's index of the -wal, made anew by each process: neither
// holds anything.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" || strings.HasSuffix(path, "-shm") {
			return err
		}
		b, err := os.ReadFile(path)
		if len(b) > 0 || !strings.HasSuffix(path, "-wal") {
			out[strings.TrimPrefix(path, dir)] = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
