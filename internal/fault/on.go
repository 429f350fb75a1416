//go:build faultpoints

package fault

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Enabled says whether this binary was built with fault points.
const Enabled = true

// TIDEGATE_FAULT is "name" or "name:n", comma separated: kill this process with
// SIGKILL when the point is passed for the n-th time (1 when absent). For
// points that are only asked with On, the name alone switches them on.
var points = sync.OnceValue(func() map[string]*atomic.Int64 {
	m := map[string]*atomic.Int64{}
	for _, part := range strings.Split(os.Getenv("TIDEGATE_FAULT"), ",") {
		name, count, ok := strings.Cut(part, ":")
		n := int64(1)
		if ok {
			if v, err := strconv.ParseInt(count, 10, 64); err == nil {
				n = v
			}
		}
		if name != "" {
			m[name] = &atomic.Int64{}
			m[name].Store(n)
		}
	}
	return m
})

// Point kills the process here when TIDEGATE_FAULT says so.
func Point(name string) {
	if left, ok := points()[name]; ok && left.Add(-1) == 0 {
		if On(AnswerFirst) {
			<-time.After(100 * time.Millisecond) // the answers given too early shall reach their phones
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // never return: the kill is on its way
	}
}

// On says whether TIDEGATE_FAULT names this point.
func On(name string) bool { _, ok := points()[name]; return ok }
