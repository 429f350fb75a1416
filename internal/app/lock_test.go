package app_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/internal/app"
)

func TestOneHolderAtATime(t *testing.T) {
	dir := t.TempDir()
	if _, _, held := app.Holder(dir); held {
		t.Fatal("held by nobody yet")
	}
	if _, err := os.Stat(filepath.Join(dir, "LOCK")); err == nil {
		t.Fatal("asking made a LOCK")
	}
	first, err := app.TakeLock(dir, "serve")
	if err != nil {
		t.Fatal(err)
	}
	_, err = app.TakeLock(dir, "rebuild")
	var locked *app.LockedError
	if !errors.As(err, &locked) || locked.Holder.PID != os.Getpid() {
		t.Fatalf("second: %v", err)
	}
	if want := fmt.Sprintf("data folder %s is in use by process %d (tidegate serve)", dir, os.Getpid()); !strings.HasPrefix(err.Error(), want) {
		t.Fatalf("%q, want %q", err, want)
	}
	if pid, what, held := app.Holder(dir); !held || pid != os.Getpid() || what != "serve" {
		t.Fatalf("holder: %d %s %v", pid, what, held)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	if _, _, held := app.Holder(dir); held {
		t.Fatal("held after its release")
	}
	// What the last holder left in the file says nothing.
	second, err := app.TakeLock(dir, "era open")
	if err != nil {
		t.Fatal(err)
	}
	if _, what, held := app.Holder(dir); !held || what != "era open" {
		t.Fatalf("second holder: %s %v", what, held)
	}
	if err := second.Release(); err != nil {
		t.Fatal(err)
	}
}

// A holder that has not yet written who it is, or wrote nonsense.
func TestHolderThatSaysNothing(t *testing.T) {
	dir := t.TempDir()
	l, err := app.TakeLock(dir, "serve")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release() //nolint:errcheck // the test's end
	for _, text := range []string{"", "{", "\x00\x00", strings.Repeat("x", 10_000)} {
		if err := os.WriteFile(filepath.Join(dir, "LOCK"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := app.TakeLock(dir, "seed"); err == nil || !strings.Contains(err.Error(), "in use by another process: stop it first") {
			t.Fatalf("%.10q: %v", text, err)
		}
	}
}

// Many that only ask do not keep one from taking the lock.
func TestAskingDoesNotHoldUp(t *testing.T) {
	dir := t.TempDir()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				app.Holder(dir)
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	for range 50 {
		l, err := app.TakeLock(dir, "serve")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLockInAPlaceThatIsNone(t *testing.T) {
	if _, err := app.TakeLock(filepath.Join(t.TempDir(), "none"), "serve"); err == nil || errors.As(err, new(*app.LockedError)) {
		t.Fatalf("%v", err)
	}
}
