package intake

import (
	"math/rand/v2"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// pool is a frame that fills. Guarded by Intake.mu until the committer takes
// it; then the committer's alone until done is closed; then read only.
type pool struct {
	entries  []journal.Entry
	leaves   []epro.Digest
	keys     []memoryKey
	bytes    int
	opened   time.Time // when its first fact joined
	perTrial map[string]int
	bulk     int // facts of the bulk lane

	done    chan struct{} // closed when signed or err is set
	rotated chan struct{} // closed when the committer takes the pool
	signed  *receipt.Signed
	err     error
}

func newPool() *pool {
	return &pool{perTrial: make(map[string]int, 2), done: make(chan struct{}), rotated: make(chan struct{})}
}

// ticket is a place in a pool.
type ticket struct {
	pool       *pool
	index      int
	remembered bool
}

// join takes a sealed fact into the open pool, or says why not. limit is the
// number of facts at which the pool is full for this caller. in.mu is held.
func (in *Intake) join(s *sealed, now time.Time, limit int) (ticket, error) {
	if in.closed != nil {
		return ticket{}, in.closed
	}
	if s.key.id != (epro.UUID{}) {
		if t, ok := in.recent.find(s.key, s.mean); ok {
			in.stats.remembered.Add(1)
			return t, nil
		}
	}
	p := in.open
	if err := in.admit(p, s, now, limit); err != nil {
		return ticket{}, err
	}
	if len(p.entries) == 0 {
		p.opened = now
	}
	t := ticket{pool: p, index: len(p.entries)}
	p.entries = append(p.entries, s.entry)
	p.leaves = append(p.leaves, s.leaf)
	p.keys = append(p.keys, s.key)
	p.bytes += s.bytes
	p.perTrial[s.trial]++
	if s.key.id != (epro.UUID{}) {
		in.recent.add(s.key, s.mean, t)
	}
	return t, nil
}

// fairWindow is how long after two trials were seen to want room a trial is
// held to its half: long enough to span a slow commit.
const fairWindow = 2 * time.Second

// admit decides, before a fact is taken, whether there is room. in.mu is held.
func (in *Intake) admit(p *pool, s *sealed, now time.Time, limit int) error {
	if in.diskLow.Load() {
		return in.refuse("disk-low", 10*time.Second)
	}
	// The pool in commit holds the oldest waiter.
	if c := in.committing; c != nil && now.Sub(c.opened) > in.cfg.MaxAge {
		return in.refuse("commit-slow", now.Sub(c.opened))
	}
	if len(p.perTrial) > 1 || (len(p.perTrial) == 1 && p.perTrial[s.trial] == 0) {
		in.contended = now.Add(fairWindow)
	}
	full := len(p.entries) >= limit || p.bytes+s.bytes > in.maxRoom
	if full {
		if p.perTrial[s.trial] < in.cfg.MaxFacts/2 {
			// Another trial filled the frame: from now on it is held to its half.
			in.contended = now.Add(fairWindow)
		}
		return in.refuse("frame-full", time.Second)
	}
	if p.perTrial[s.trial] >= in.cfg.MaxFacts/2 && now.Before(in.contended) {
		return in.refuse("trial-share", time.Second)
	}
	return nil
}

// refuse spreads the callers that come back over [base, 3 base], within 1 s to
// 5 min, so that they do not come back together.
func (in *Intake) refuse(reason string, base time.Duration) error {
	base = min(max(base, time.Second), 100*time.Second)
	return &RefusedError{Kind: ErrRefused, Reason: reason, RetryAfter: base + time.Duration(rand.Int64N(int64(2*base)))}
}
