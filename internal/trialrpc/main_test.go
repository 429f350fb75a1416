package trialrpc_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs this binary as a Trial service where a test wants a process of
// its own, and else looks for goroutines that the tests left behind.
func TestMain(m *testing.M) {
	if os.Getenv(processEnv) != "" {
		os.Exit(process())
	}
	goleak.VerifyTestMain(m,
		// go-zero starts these when it is imported, and never ends them.
		goleak.IgnoreAnyFunction("github.com/zeromicro/go-zero/core/proc.init.0.func1"),
		goleak.IgnoreAnyFunction("github.com/zeromicro/go-zero/core/proc.init.1.func1"),
		goleak.IgnoreAnyFunction("github.com/zeromicro/go-zero/core/stat.init.0.func1"),
		goleak.IgnoreAnyFunction("github.com/zeromicro/go-zero/core/stat.init.1.func1"),
	)
}
