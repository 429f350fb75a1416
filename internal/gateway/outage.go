package gateway

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Times of an outage: how long nothing may have failed before a request that is
// served ends it, or one that fails is another one; and how often one that lasts
// is told again.
const (
	outageSettled  = 5 * time.Second
	outageQuiet    = time.Minute
	outageReminder = 5 * time.Minute
)

// outage is what is wrong with one route: a part that it needs is away. Every
// request fails then, for as long as it takes, and the log has one line when it
// begins, one when it is over, and a reminder now and then. Each failed request
// counts in tidegate_http_requests_total. It is safe for concurrent use.
type outage struct {
	log *slog.Logger
	on  atomic.Bool // for the many requests of a route that is well

	mu                 sync.Mutex
	since, last, told  time.Time
	failed, failedTold uint64
}

// fails notes a request that failed, and tells it if it is news.
func (o *outage) fails(ctx context.Context, now time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.on.Load() || now.Sub(o.last) > outageQuiet {
		o.on.Store(true)
		o.since, o.told, o.failed, o.failedTold = now, time.Time{}, 0, 0
	}
	o.last = now
	o.failed++
	switch {
	case o.told.IsZero():
		o.log.ErrorContext(ctx, "a request could not be served; more of these are counted, not logged", "error", err)
	case now.Sub(o.told) > outageReminder:
		o.log.ErrorContext(ctx, "requests can still not be served", "error", err, "since", o.since.UTC().Format(time.RFC3339), "more", o.failed-o.failedTold)
	default:
		return
	}
	o.told, o.failedTold = now, o.failed
}

// served notes a request that was served.
func (o *outage) served(ctx context.Context, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.on.Load() {
		return
	}
	if now.Sub(o.last) < outageSettled {
		return // some fail and some do not: that is one outage, not many
	}
	o.on.Store(false)
	o.log.InfoContext(ctx, "requests are served again", "failed", o.failed, "after", now.Sub(o.since).Round(time.Millisecond))
}
