package edge

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// quiet is the least time between two lines of a kind.
const quiet = time.Second

// Trouble logs what calls were not answered for, at most one line a second:
// while the tables are away every call fails, and a line each would fill the
// disk. It is safe for concurrent use.
type Trouble struct {
	log *slog.Logger

	mu     sync.Mutex
	last   time.Time
	silent uint64 // calls since the last line
}

// NewTrouble makes one.
func NewTrouble(log *slog.Logger) *Trouble { return &Trouble{log: log} }

func (t *Trouble) tell(ctx context.Context, method string, err error) {
	now := time.Now()
	t.mu.Lock()
	if now.Sub(t.last) < quiet {
		t.silent++
		t.mu.Unlock()
		return
	}
	more := t.silent
	t.last, t.silent = now, 0
	t.mu.Unlock()
	t.log.WarnContext(ctx, "a call was not answered for want of a part of the server", "method", method, "error", err, "moreSinceTheLastLine", more)
}
