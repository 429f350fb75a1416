//go:build linux

package sqlitejournal_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
)

// TestMain is also the child process of the tests below.
func TestMain(m *testing.M) {
	if path := os.Getenv("TIDEGATE_TEST_CHILD"); path != "" {
		limit, _ := strconv.ParseUint(os.Getenv("TIDEGATE_TEST_LIMIT"), 10, 64)
		if err := child(path, limit); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child appends frames as a committer does and prints "ack HASH" for each
// acknowledged one, "fail ERROR" for each failure. No file may grow over limit
// bytes (0: no limit) until the tenth failure.
func child(path string, limit uint64) error {
	signal.Ignore(syscall.SIGXFSZ)
	if limit > 0 {
		if err := limitFiles(limit); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var j *sqlitejournal.Journal
	var err error
	for range 40 { // its opening may be what fails
		if j, err = sqlitejournal.Open(ctx, path, sqlitejournal.Options{CheckpointBytes: 64 << 10}); err == nil {
			break
		}
		fmt.Println("fail", err)
	}
	if err != nil {
		return err
	}
	failures := 0
	for _, f := range journaltest.Chain(30, 30) {
		for {
			if _, err := j.Append(ctx, f); err == nil {
				break
			} else if fmt.Println("fail", err); errors.Is(err, journal.ErrFork) || ctx.Err() != nil {
				return err
			}
			if failures++; failures == 10 {
				if err := limitFiles(1 << 40); err != nil {
					return err
				}
			}
		}
		fmt.Println("ack", f.Hash)
	}
	if err := j.Close(); err != nil {
		fmt.Println("fail", err)
	}
	return nil
}

func limitFiles(bytes uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		return err
	}
	l.Cur = min(bytes, l.Max)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l)
}

// audit runs the child by this command line and checks that all it was told
// was kept is there, once, in order, and nothing else.
func audit(t *testing.T, path string, limit uint64, command ...string) (failures []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command = append(command, os.Args[0])
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "TIDEGATE_TEST_CHILD="+path, fmt.Sprintf("TIDEGATE_TEST_LIMIT=%d", limit))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child: %v\n%s\n%s", err, out, stderr.String())
	}
	var acked []string
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "ack":
			acked = append(acked, rest)
		case "fail":
			failures = append(failures, rest)
		}
	}
	j := must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{}))(t)
	defer j.Close()
	records := journaltest.ReadAll(t, j, 100)
	if len(acked) != 30 || len(records) != len(acked) {
		t.Fatalf("%d acknowledged, %d in the journal, want 30", len(acked), len(records))
	}
	for i, r := range records {
		f, err := journal.DecodeFrame(r.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Check()) != 0 || f.Header.Hash().String() != acked[i] {
			t.Fatalf("record %d is not what was acknowledged", i)
		}
	}
	return failures
}

// Files that may not grow stand for a full disk, and need no rights: the -wal
// meets the limit first, then the file itself.
func TestFileSizeLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a child process")
	}
	for _, limit := range []uint64{50_000, 70_000, 100_000, 200_000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			failures := audit(t, filepath.Join(t.TempDir(), "journal.db"), limit)
			if len(failures) == 0 {
				t.Fatal("nothing failed: the limit does not bite")
			}
			t.Logf("%d failures, the first: %s", len(failures), failures[0])
		})
	}
}

// A small file system of its own, filled to the brim.
func TestDiskFull(t *testing.T) {
	dir := mountSmall(t)
	path := dir + "/journal.db"
	j := must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{CheckpointBytes: 256 << 10}))(t)
	defer func() { j.Close() }()
	frames := journaltest.Chain(60, 100)
	journaltest.MustAppend(t, j, frames[:5]...)
	ballast(t, dir+"/ballast")
	kept, failed := 5, 0
	for failed < 5 && kept < 50 {
		switch _, err := j.Append(t.Context(), frames[kept]); {
		case err == nil:
			kept++
		case errors.Is(err, journal.ErrFork):
			t.Fatal(err)
		default:
			if failed == 0 {
				t.Log(err)
			}
			failed++
		}
	}
	if failed == 0 {
		t.Fatal("nothing failed: the disk is not full")
	}
	// Reading goes on.
	complete(t, j, frames[:kept])
	// With room again the same journal recovers by itself.
	if err := os.Remove(dir + "/ballast"); err != nil {
		t.Fatal(err)
	}
	journaltest.MustAppend(t, j, frames[kept:]...)
	complete(t, j, frames)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{}))(t)
	complete(t, j, frames)
}

func mountSmall(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	image, at := dir+"/image", dir+"/mnt"
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4 is not to be had: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, at).CombinedOutput(); err != nil {
		t.Skipf("loop devices are not to be had: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return at
}

func ballast(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := 1 << 16; block >= 512; block /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, block))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	_ = f.Sync()
}

// The kernel's own answers, made to be errors: the n-th sync or write of each
// thread fails once.
func TestInjectedIOErrors(t *testing.T) {
	if os.Getenv("TIDEGATE_LONG") != "1" {
		t.Skip("long: set TIDEGATE_LONG=1")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	for _, fault := range []string{"fsync:error=EIO", "pwrite64:error=EIO", "pwrite64:error=ENOSPC", "ftruncate:error=EIO"} {
		call, _, _ := strings.Cut(fault, ":")
		bitten := 0
		for n := 1; n <= 30; n++ {
			failures := audit(t, memoryDir(t)+"/journal.db", 0,
				strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:when=%d", fault, n))
			if len(failures) > 0 {
				bitten++
			}
		}
		t.Logf("%s: %d of 30 runs saw failures", fault, bitten)
	}
}
