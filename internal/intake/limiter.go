package intake

import (
	"sync"
	"time"
)

// limiter is a token bucket for each participant, sized for a phone that was
// off line for a week; it bounds what a stolen token can do. It keeps one
// instant a participant (the theoretical arrival time of GCRA), and forgets
// those whose bucket is full again.
type limiter struct {
	step  time.Duration // time in which one report is allowed again
	burst time.Duration // burst × step

	mu    sync.Mutex
	due   map[participant]time.Time
	sweep int // size at which full buckets are looked for
}

type participant struct{ trial, id string }

const firstSweep = 1 << 14

func newLimiter(burst int, refill time.Duration) *limiter {
	return &limiter{step: refill, burst: time.Duration(burst) * refill, due: make(map[participant]time.Time), sweep: firstSweep}
}

// take takes one from the participant's bucket, or says in how long it can.
func (l *limiter) take(trial, id string, now time.Time) (time.Duration, bool) {
	if l.burst <= 0 {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := participant{trial, id}
	due := l.due[k]
	if due.Before(now) {
		due = now
	}
	after := due.Add(l.step)
	if wait := after.Sub(now) - l.burst; wait > 0 {
		return wait, false
	}
	l.due[k] = after
	if len(l.due) > l.sweep {
		for k, d := range l.due {
			if d.Before(now) {
				delete(l.due, k)
			}
		}
		l.sweep = max(firstSweep, 2*len(l.due))
	}
	return 0, true
}

// give returns one to the participant's bucket: what was refused, or had been
// taken before, has cost it nothing.
func (l *limiter) give(trial, id string) {
	if l.burst <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := participant{trial, id}
	if due, ok := l.due[k]; ok {
		l.due[k] = due.Add(-l.step)
	}
}
