package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/internal/gateway"
)

// A late dependency is one that a role can start and work without: it is opened
// in the background, tried again for as long as the role runs, and asked now and
// then how it is. Until it is there whoever needs it gets an error at once.
type late[T io.Closer] struct {
	what    string        // in sentences: "the tables"
	without string        // what does not work without it, in a sentence
	limit   time.Duration // of one call; a server that hangs hangs nobody else
	log     *slog.Logger

	value atomic.Pointer[T]
	err   atomic.Pointer[error] // why it is not open
	state atomic.Pointer[gateway.State]
}

// Pauses between two tries to open.
const (
	firstLatePause = 200 * time.Millisecond
	longLatePause  = 5 * time.Second
)

var errNotThere = errors.New("it was not reached yet")

func newLate[T io.Closer](what, without string, limit time.Duration, log *slog.Logger) *late[T] {
	l := &late[T]{what: what, without: without, limit: limit, log: log}
	l.err.Store(&errNotThere)
	l.state.Store(&gateway.State{State: "waiting", Since: time.Now(), Note: without})
	return l
}

// get returns the dependency, or why there is none.
func (l *late[T]) get() (v T, err error) {
	if p := l.value.Load(); p != nil {
		return *p, nil
	}
	return v, fmt.Errorf("%s cannot be used: %w", l.what, *l.err.Load())
}

// now is how it is, for /status.
func (l *late[T]) now() gateway.State { return *l.state.Load() }

// run opens the dependency and then watches it, until ctx ends. What is open is
// closed by [late.Close].
func (l *late[T]) run(ctx context.Context, open func(context.Context) (T, error), ask func(context.Context, T) error) {
	pause := firstLatePause
	for first := true; ; first = false {
		err := l.look(ctx, open, ask)
		if ctx.Err() != nil {
			return
		}
		l.tell(err, first)
		wait := watchEvery
		if l.value.Load() == nil {
			wait, pause = pause, min(2*pause, longLatePause)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (l *late[T]) look(ctx context.Context, open func(context.Context) (T, error), ask func(context.Context, T) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.limit)
	defer cancel()
	v, err := l.get()
	if err == nil {
		return ask(ctx, v)
	}
	if v, err = open(ctx); err != nil {
		err = waitAdvice(err)
		l.err.Store(&err)
		return err
	}
	l.value.Store(&v)
	return nil
}

// tell notes how it is, with one line in the log for each change.
func (l *late[T]) tell(err error, first bool) {
	old := l.now()
	if err == nil {
		if !old.OK {
			l.state.Store(&gateway.State{OK: true, State: "serving"})
			if !first {
				l.log.Info("can be used now", "part", l.what, "after", time.Since(old.Since).Round(time.Millisecond))
			}
		}
		return
	}
	s := gateway.State{State: "failing", Since: old.Since, Note: fmt.Sprintf("%s (%v)", l.without, err)}
	if old.OK {
		s.Since = time.Now()
	}
	if old.OK || first {
		l.log.Warn("cannot be used, it is tried again", "part", l.what, "error", err, "meanwhile", l.without)
	}
	l.state.Store(&s)
}

// Close closes what is open. run has ended before.
func (l *late[T]) Close() error {
	p := l.value.Swap(nil)
	if p == nil {
		return nil
	}
	return (*p).Close()
}

// within bounds one call.
func (l *late[T]) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.limit)
}

// call makes one bounded call of a late dependency.
func call[T io.Closer, R any](ctx context.Context, l *late[T], f func(context.Context, T) (R, error)) (r R, err error) {
	v, err := l.get()
	if err != nil {
		return r, err
	}
	ctx, cancel := l.within(ctx)
	defer cancel()
	return f(ctx, v)
}

// list is call for a page of a list.
func list[T io.Closer, R any](ctx context.Context, l *late[T], f func(context.Context, T) ([]R, string, error)) (r []R, next string, err error) {
	v, err := l.get()
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := l.within(ctx)
	defer cancel()
	return f(ctx, v)
}
