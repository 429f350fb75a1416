package app

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tidegate/tidegate/internal/postgres"
)

// Pauses between two tries for what a role cannot do without.
const (
	firstUntilPause = 100 * time.Millisecond
	longUntilPause  = 3 * time.Second
	untilReminder   = 5 * time.Minute
)

// until tries for something that a role cannot do without, until it is there,
// ctx ends, or hopeless says that no waiting will help. The log has one line
// when the wait begins, one when it is over, and a reminder now and then.
func until[T any](ctx context.Context, log *slog.Logger, what string, hopeless func(error) bool, try func(context.Context) (T, error)) (v T, err error) {
	start, told := time.Now(), time.Time{}
	var last string
	for pause := firstUntilPause; ; pause = min(2*pause, longUntilPause) {
		v, err = try(ctx)
		if err == nil {
			if !told.IsZero() {
				log.Info("the wait is over", "for", what, "waited", time.Since(start).Round(time.Millisecond))
			}
			return v, nil
		}
		if ctx.Err() != nil || hopeless != nil && hopeless(err) {
			return v, err
		}
		// Another kind of reason is news: first no server, then no schema in it.
		if kind := reasonKind(err); told.IsZero() || kind != last || time.Since(told) > untilReminder {
			log.Warn("waiting", "for", what, "error", err)
			told, last = time.Now(), kind
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return v, ctx.Err()
		}
	}
}

// reasonKind tells reasons to wait apart, without what differs from try to try.
func reasonKind(err error) string {
	var s *postgres.SchemaError
	if errors.As(err, &s) {
		return "schema"
	}
	return postgres.Code(err)
}

// newerSchema says that a database is ahead of this program, which no waiting
// changes.
func newerSchema(err error) bool {
	var s *postgres.SchemaError
	return errors.As(err, &s) && s.Version > s.Known
}

// hopelessDatabase says that waiting for a database will not help.
func hopelessDatabase(err error) bool {
	return newerSchema(err) || errors.Is(err, postgres.ErrURL)
}

// earlier is ctx, ended by a time before its own end. Without an end it is ctx.
func earlier(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	end, ends := ctx.Deadline()
	if !ends {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-by))
}

// inTime runs f and leaves it behind when ctx ends first.
func inTime(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errors.New("did not end in time")
	}
}

// rest waits, and says whether ctx still goes on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
