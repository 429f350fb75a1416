package e2e_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

// A disk with no room: a start is refused in one sentence, nothing that is
// there is harmed, and with room again it starts. With less room than the floor
// it serves, and refuses reports for now.
func TestFullDisk(t *testing.T) {
	onlyLong(t)
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil { //nolint:gosec // a mount point
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	base, data := seeded(t), filepath.Join(disk, "data")
	copyTree(t, base, data, nil)
	fill := filepath.Join(disk, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	anchor := []string{"--anchor", filepath.Join(t.TempDir(), "anchor")}
	refusal{t: t, code: 1, says: "is full", data: data, run: quiet(t)}.of(serveArgs(data, anchor...)...)
	refusal{t: t, code: 1, says: "no space left", run: quiet(t)}.of(serveArgs(filepath.Join(disk, "new"), anchor...)...)
	refusal{t: t, code: 1, says: "no space left", data: data, run: quiet(t)}.of("backup", "--data", data, "--to", filepath.Join(disk, "backup"))

	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	s := server.Launch(t, server.Options{Serve: true, Data: data, Args: anchor})
	if err := s.Ready(2 * time.Second); err == nil {
		t.Error("ready, with less room than the floor")
	}
	code, header, body := s.Do(http.MethodPost, "/v1/patient/report", s.Token("P-000001", "T001"), "application/json",
		`{"patientId":"P-000001","trialId":"T001","timestamp":"2026-11-24T08:00:00Z","qolScore":7}`)
	if code != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Fatalf("a report with 4 MB of disk: %d %s", code, body)
	}
	s.Stop()
	clean(t, data, "--anchor", anchor[1])
}
