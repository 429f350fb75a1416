package trialrpc_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// leakyEnv tells the test binary to run a test that leaves goroutines behind.
const leakyEnv = "TIDEGATE_TRIALRPC_LEAKY"

// TestMain looks for goroutines that the tests left behind.
func TestMain(m *testing.M) {
	if os.Getenv(leakyEnv) != "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m,
		// go-zero starts these when it is imported, and never ends them.
		goleak.IgnoreAnyFunction("github.com/zeromicro/go-zero/core/proc.init.1.func1"),
		goleak.IgnoreAnyFunction("github.com/zeromicro/go-zero/core/stat.init.1.func1"),
	)
}
