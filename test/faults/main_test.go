package faults_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

func TestMain(m *testing.M) {
	code := m.Run()
	server.CleanUp()
	if verifier2In != "" {
		_ = os.RemoveAll(verifier2In)
	}
	os.Exit(code)
}

func long() bool { return os.Getenv("TIDEGATE_LONG") == "1" }

func onlyLong(t *testing.T) {
	t.Helper()
	if !long() {
		t.Skip("a long test: TIDEGATE_LONG=1 runs it, as `make test-all` does")
	}
}

var (
	verifier2Mu sync.Mutex
	verifier2In string
)

// verifier2 builds the second verifier, once.
func verifier2(t testing.TB) string {
	t.Helper()
	verifier2Mu.Lock()
	defer verifier2Mu.Unlock()
	if verifier2In == "" {
		dir, err := os.MkdirTemp("", "tidegate-verify2-") //nolint:usetesting // outlives the test that builds first; TestMain removes it
		if err != nil {
			t.Fatal(err)
		}
		verifier2In = dir
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "verify2"), "./test/verify2")
		cmd.Dir = server.Root(t)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build verify2: %v\n%s", err, out)
		}
	}
	return filepath.Join(verifier2In, "verify2")
}

// eventually waits until ok, or fails.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not so: %s", limit, what)
		}
	}
}

// names are role-1 to role-n.
func names(role string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%s-%d", role, i+1))
	}
	return list
}
