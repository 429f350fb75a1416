package faults_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

func TestMain(m *testing.M) {
	code := m.Run()
	server.CleanUp()
	os.Exit(code)
}

func long() bool { return os.Getenv("TIDEGATE_LONG") == "1" }

func onlyLong(t *testing.T) {
	t.Helper()
	if !long() {
		t.Skip("a long test: TIDEGATE_LONG=1 runs it, as `make test-all` does")
	}
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
