package crash_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

func TestMain(m *testing.M) {
	code := m.Run()
	server.CleanUp()
	os.Exit(code)
}

// long says whether the long tests were asked for.
func long() bool { return os.Getenv("TIDEGATE_LONG") == "1" }

func onlyLong(t *testing.T) {
	t.Helper()
	if !long() {
		t.Skip("a long test: TIDEGATE_LONG=1 runs it, as `make test-all` does")
	}
}

// number reads a number from the environment.
func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number", name, v)
	}
	return n
}

// choices are a test's random ones.
type choices struct {
	*rand.Rand
	seed uint64
}

// random gives the test's random choices, and says how to have the same again.
func random(t testing.TB) choices {
	t.Helper()
	seed := uint64(number(t, "TIDEGATE_SEED", int(time.Now().UnixNano()%1_000_000_000)+1))
	t.Logf("seed %d: TIDEGATE_SEED=%d makes the same choices again", seed, seed)
	return choices{rand.New(rand.NewPCG(seed, 0)), seed}
}

// between is a random duration in [from, to).
func between(r choices, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}

// eventually waits until ok, or fails.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not so: %s", limit, what)
		}
	}
}

// kib reads a line of /proc/PID/status such as VmHWM, in KiB; 0 where there is none.
func kib(pid int, name string) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var n int
	if _, at, ok := cutLine(string(b), name+":"); ok {
		_, _ = fmt.Sscan(at, &n)
	}
	return n
}
