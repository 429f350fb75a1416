package edge

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Times of a trouble: how long nothing may have failed before a call that is
// answered ends it, or one that fails is another one; and how often one that
// lasts is told again.
const (
	troubleSettled  = 5 * time.Second
	troubleQuiet    = time.Minute
	troubleReminder = 5 * time.Minute
)

// Trouble logs what calls are not answered for. While the tables are away every
// call fails: for each method there is one line when that begins, one when it is
// over, and a reminder now and then. It is safe for concurrent use.
type Trouble struct {
	log *slog.Logger
	any atomic.Bool // some method is in trouble: calls that are answered ask only this otherwise

	mu sync.Mutex
	of map[string]*troubled // by method
}

// troubled is a method that is not answered.
type troubled struct {
	since, last, told time.Time
	failed            uint64
}

// NewTrouble makes one.
func NewTrouble(log *slog.Logger) *Trouble { return &Trouble{log: log, of: map[string]*troubled{}} }

// tell notes a call that could not be answered, and tells it if it is news.
func (t *Trouble) tell(ctx context.Context, method string, err error) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.of[method]
	if m == nil || now.Sub(m.last) > troubleQuiet {
		m = &troubled{since: now}
		t.of[method] = m
		t.any.Store(true)
	}
	m.last = now
	m.failed++
	switch {
	case m.told.IsZero():
		t.log.WarnContext(ctx, "a call was not answered for want of a part of the server; more of these are counted, not logged", "method", method, "error", err)
	case now.Sub(m.told) > troubleReminder:
		t.log.WarnContext(ctx, "calls can still not be answered", "method", method, "error", err, "since", m.since.UTC().Format(time.RFC3339), "failed", m.failed)
	default:
		return
	}
	m.told = now
}

// Answered notes a call that was answered.
func (t *Trouble) Answered(ctx context.Context, method string) {
	if !t.any.Load() {
		return
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.of[method]
	if m == nil || now.Sub(m.last) < troubleSettled {
		return // some fail and some do not: that is one trouble, not many
	}
	delete(t.of, method)
	t.any.Store(len(t.of) > 0)
	t.log.InfoContext(ctx, "calls are answered again", "method", method, "failed", m.failed, "after", now.Sub(m.since).Round(time.Millisecond))
}
