package app_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/app"
)

// Supervisors signal a process and then its group; a person who presses Ctrl-C
// twice means it.
func TestSecondSignal(t *testing.T) {
	for _, c := range []struct {
		first, next os.Signal
		after       time.Duration
		want        bool
	}{
		{syscall.SIGTERM, syscall.SIGTERM, time.Millisecond, false},
		{syscall.SIGTERM, syscall.SIGTERM, 999 * time.Millisecond, false},
		{syscall.SIGTERM, syscall.SIGTERM, time.Second, true},
		{syscall.SIGTERM, os.Interrupt, time.Millisecond, false},
		{os.Interrupt, syscall.SIGTERM, time.Millisecond, false},
		{os.Interrupt, syscall.SIGTERM, 2 * time.Second, true},
		{os.Interrupt, os.Interrupt, time.Millisecond, true},
	} {
		if got := app.Impatient(c.first, c.next, c.after); got != c.want {
			t.Errorf("%v, then %v after %v: %v", c.first, c.next, c.after, got)
		}
	}
}
