package trialrpc

import (
	"math/rand/v2"
	"time"

	"github.com/zeromicro/go-zero/core/load"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"

	"github.com/tidegate/tidegate/internal/trialrpc/internal/edge"
)

// limiter refuses calls before they are looked at: too many at once, too many a
// second, and, if asked for, go-zero's adaptive shedding. A refused call is
// ResourceExhausted and says when to come again; nothing was recorded.
//
// Shedding by CPU is off unless asked for: on a small machine a burst of calls
// fills the CPUs although all are answered in time, and a service that waits
// for its database leaves them idle, so it would not shed when it should.
type limiter struct {
	slots   chan struct{} // nil: no limit
	bucket  *rate.Limiter // nil: no limit
	shedder load.Shedder  // nil: none
}

func newLimiter(s *Settings) *limiter {
	l := &limiter{}
	if s.MaxConcurrent > 0 {
		l.slots = make(chan struct{}, s.MaxConcurrent)
	}
	if s.Rate > 0 {
		l.bucket = rate.NewLimiter(rate.Limit(s.Rate), max(1, s.Burst))
	}
	if s.Shedding {
		l.shedder = load.NewAdaptiveShedder(load.WithCpuThreshold(900))
	}
	return l
}

func refused(reason, text string, after time.Duration) *edge.Error {
	// Between one and two times, so that those refused at once do not all come back at once.
	after += time.Duration(rand.Int64N(int64(after) + 1)) //nolint:gosec // jitter needs no secrecy
	return &edge.Error{Code: codes.ResourceExhausted, Reason: reason, RetryAfter: after, Text: text + " Nothing was done; send the same again later."}
}

// enter takes what a call needs, or says why it cannot be had. leave gives it
// back, and says whether the call ran out of time.
func (l *limiter) enter() (leave func(late bool), no *edge.Error) {
	if l.bucket != nil {
		if r := l.bucket.Reserve(); r.Delay() > 0 {
			wait := r.Delay()
			r.Cancel()
			return nil, refused("too-fast", "This instance takes no more calls a second.", max(wait, 100*time.Millisecond))
		}
	}
	if l.slots != nil {
		select {
		case l.slots <- struct{}{}:
		default:
			return nil, refused("too-many-at-once", "This instance answers no more calls at once.", 250*time.Millisecond)
		}
	}
	free := func() {
		if l.slots != nil {
			<-l.slots
		}
	}
	if l.shedder == nil {
		return func(bool) { free() }, nil
	}
	promise, err := l.shedder.Allow()
	if err != nil {
		free()
		return nil, refused("busy", "The machine of this instance is busy.", time.Second)
	}
	return func(late bool) {
		if late {
			promise.Fail()
		} else {
			promise.Pass()
		}
		free()
	}, nil
}
