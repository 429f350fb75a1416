package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// errBehind says that a subscriber has to catch up: the steps it has not heard
// are no longer kept.
var errBehind = errors.New("directory: behind the steps that are kept")

// follower looks at the tables for all subscribers, and keeps the last steps
// for them.
type follower struct {
	feed   *Feed
	cancel context.CancelFunc
	done   chan struct{} // closed when run has ended
	users  int           // guarded by Feed.mu

	mu    sync.Mutex
	at    Version // nil before the first look
	steps []Change
	first uint64 // number of steps[0]
	held  int    // things in steps
	err   error  // why it ended
	moved chan struct{}

	told     time.Time // when the last step was
	toldUpTo Version   // by it
}

func (fo *follower) ended() bool {
	select {
	case <-fo.done:
		return true
	default:
		return false
	}
}

func (fo *follower) run(ctx context.Context) {
	err := fo.follow(ctx)
	if err == nil || ctx.Err() != nil {
		err = context.Canceled
	}
	fo.mu.Lock()
	fo.err = err
	close(fo.moved) // for good: wakes everybody, who then sees err
	fo.mu.Unlock()
	close(fo.done)
}

// follow ends with ctx, or when the journal or the tables cannot be read.
func (fo *follower) follow(ctx context.Context) error {
	f := fo.feed
	at, err := f.version(ctx)
	if err != nil {
		return err
	}
	fo.reset(at)
	retry := f.timing.firstRetry
	for {
		more, err := fo.await(ctx, at)
		if err != nil {
			return err
		}
		next, err := fo.advance(ctx, at)
		switch {
		case errors.Is(err, errBroken):
			f.log.Warn("the journal and the tables do not fit together: the directory is told anew from the tables; run `tidegate verify`", "error", err)
			if next, err = f.version(ctx); err != nil {
				return err
			}
			fo.reset(next)
		case err != nil:
			return err
		}
		pause := time.Duration(0)
		switch {
		case !slices.Equal(next, at):
			pause, retry = f.timing.pace, f.timing.firstRetry
		case more: // the journal is ahead, the tables are not there yet
			pause, retry = retry, min(2*retry, f.timing.idlePace)
		}
		at = next
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// await returns when the journal has something new, which it then says, and
// else after a beat.
func (fo *follower) await(ctx context.Context, at Version) (more bool, err error) {
	limit := fo.feed.timing.beat
	if fo.feed.shards > 1 {
		limit = fo.feed.timing.pace // there is one wait for one shard
	}
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = fo.feed.journal.Wait(wait, 0, at.Position(0))
	if err != nil && wait.Err() == nil {
		return false, fmt.Errorf("directory: wait for the journal: %w", err)
	}
	return err == nil, ctx.Err()
}

// advance tells what the tables have come to hold since at, a part of it when
// that is much. Tables that went back are waited for.
func (fo *follower) advance(ctx context.Context, at Version) (Version, error) {
	f := fo.feed
	cursors, err := f.cursors(ctx)
	if err != nil {
		return at, err
	}
	current := true
	for shard := range f.shards {
		if cursors[shard] < at.Position(shard) {
			current = false
			continue
		}
		if cursors[shard] == at.Position(shard) {
			continue
		}
		t, err := f.read(ctx, shard, at, cursors[shard])
		if err != nil {
			return at, err
		}
		changes, err := f.states(ctx, t)
		if err != nil {
			return at, err
		}
		at = t.version
		fo.tell(at, changes)
	}
	if current {
		fo.tell(at, nil)
	}
	return at, nil
}

// reset begins anew at a version: whoever listens has to catch up.
func (fo *follower) reset(at Version) {
	fo.mu.Lock()
	defer fo.mu.Unlock()
	fo.first += uint64(len(fo.steps)) + 1
	fo.steps, fo.held, fo.at = nil, 0, at
	fo.wake()
}

// tell adds changes as steps, and moves on to a version. Without changes the
// version is told now and then only.
func (fo *follower) tell(at Version, changes []Change) {
	fo.mu.Lock()
	defer fo.mu.Unlock()
	fo.at = at
	now := time.Now()
	if len(changes) == 0 {
		quiet := now.Sub(fo.told)
		if quiet < fo.feed.timing.quiet || quiet < fo.feed.timing.beat && slices.Equal(at, fo.toldUpTo) {
			return
		}
		changes = []Change{{Version: at, Done: true}}
	}
	fo.told, fo.toldUpTo = now, at
	for _, c := range changes {
		fo.steps = append(fo.steps, c)
		fo.held += c.size()
	}
	drop := 0
	for len(fo.steps)-drop > maxSteps || fo.held > maxKept && len(fo.steps)-drop > 1 {
		fo.held -= fo.steps[drop].size()
		fo.steps[drop] = Change{}
		drop++
	}
	fo.steps = fo.steps[drop:]
	fo.first += uint64(drop)
	fo.wake()
}

// wake wakes whoever waits. fo.mu is held.
func (fo *follower) wake() {
	close(fo.moved)
	fo.moved = make(chan struct{})
}

// head is where the follower is, and the number of the step after that.
func (fo *follower) head(ctx context.Context) (Version, uint64, error) {
	for {
		fo.mu.Lock()
		at, next, err, moved := fo.at, fo.first+uint64(len(fo.steps)), fo.err, fo.moved
		fo.mu.Unlock()
		if err != nil || at != nil {
			return at, next, err
		}
		if err := waitFor(ctx, moved); err != nil {
			return nil, 0, err
		}
	}
}

// step returns the step of a number once it is there.
func (fo *follower) step(ctx context.Context, number uint64) (Change, error) {
	for {
		fo.mu.Lock()
		err, first, moved := fo.err, fo.first, fo.moved
		var c Change
		ready := number >= first && number-first < uint64(len(fo.steps))
		if ready {
			c = fo.steps[number-first]
		}
		fo.mu.Unlock()
		switch {
		case err != nil:
			return c, err
		case number < first:
			return c, errBehind
		case ready:
			return c, ctx.Err()
		}
		if err := waitFor(ctx, moved); err != nil {
			return c, err
		}
	}
}

// wait returns when the follower has gone on, or looked again.
func (fo *follower) wait(ctx context.Context, next uint64) error {
	_, err := fo.step(ctx, next)
	if errors.Is(err, errBehind) {
		return nil
	}
	return err
}

func waitFor(ctx context.Context, moved <-chan struct{}) error {
	select {
	case <-moved:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sleep says whether the time passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
