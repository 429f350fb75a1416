package intake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/internal/fault"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// commitLoop is the shard's one committer. It ends when intake is closed and
// the open pool is empty, or when the state is unknown for good.
func (in *Intake) commitLoop(ctx context.Context) {
	defer close(in.done)
	for range in.wake {
		for {
			p := in.rotate()
			if p == nil {
				break
			}
			if err := in.commit(ctx, p); err != nil {
				in.fail(err)
				return
			}
		}
		in.mu.Lock()
		ended := in.closed != nil && len(in.open.entries) == 0
		in.mu.Unlock()
		if ended {
			return
		}
	}
}

// rotate takes the open pool, if it holds anything, and opens the next.
func (in *Intake) rotate() *pool {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.committing = nil
	p := in.open
	if len(p.entries) == 0 {
		return nil
	}
	in.open = newPool()
	in.committing = p
	close(p.rotated)
	return p
}

// commit makes one pool durable and releases its waiters. The error is fatal.
func (in *Intake) commit(ctx context.Context, p *pool) error {
	tree := journal.NewTree(p.leaves)
	now := max(in.now().UnixNano(), in.prevTime)
	frame, err := journal.SealTree(journal.Header{
		Shard: in.shard, Run: in.run, N: in.next, Prev: in.prevHash, Time: now,
	}, p.entries, tree)
	if err != nil {
		return in.resolve(p, nil, fmt.Errorf("intake: seal a frame: %w", err))
	}
	if fault.On(fault.AnswerFirst) {
		in.release(p, &frame, tree, journal.ClassDemo)
	}
	fault.Point(fault.BeforeAppend)
	began := time.Now()
	class, err := in.append(ctx, frame)
	if in.tracer != nil {
		// Told once the waiters are released.
		defer in.committed(&frame.Header, began, time.Now(), len(frame.Bytes), class, err)
	}
	switch {
	case errors.Is(err, journal.ErrNotAppended), errors.Is(err, journal.ErrTooLarge):
		// Surely nothing was kept: the run goes on with the same number.
		in.stats.notTaken.Add(uint64(len(p.entries)))
		in.log.Error("a frame could not be kept; its reports were refused", "facts", len(p.entries), "error", err)
		return in.resolve(p, ErrNotTaken, nil)
	case err != nil:
		return in.resolve(p, ErrUnknown, err)
	}
	fault.Point(fault.AfterAppend)
	in.next++
	in.prevHash, in.prevTime = frame.Hash, frame.Header.Time
	in.journalTime.Store(frame.Header.Time)
	in.stats.frames.Add(1)
	in.stats.facts.Add(uint64(len(p.entries)))
	if !fault.On(fault.AnswerFirst) {
		in.release(p, &frame, tree, class)
	}
	return nil
}

// Pauses between the tries of a frame whose outcome is unknown.
const (
	firstPause = 20 * time.Millisecond
	longPause  = time.Second
)

// append repeats the same frame until its outcome is known. No caller's
// context reaches it; only Close ends it.
func (in *Intake) append(ctx context.Context, frame journal.Sealed) (journal.Class, error) {
	start := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		class, err := in.journal.Append(ctx, frame)
		if err == nil {
			in.stats.commitNanos.Store(time.Since(start).Nanoseconds())
			if in.stats.unresolved.Swap(false) {
				in.log.Info("the outcome of a frame is known now: it is durable", "run", frame.Header.Run, "n", frame.Header.N)
			}
			return class, nil
		}
		known := errors.Is(err, journal.ErrNotAppended) || errors.Is(err, journal.ErrTooLarge)
		if known && !in.stats.unresolved.Load() {
			return 0, err
		}
		if errors.Is(err, journal.ErrFork) || errors.Is(err, journal.ErrClosed) {
			return 0, err
		}
		// After an unknown try, "not appended" speaks of the last try alone: an
		// earlier one may still have been kept. So only success ends it.
		if !in.stats.unresolved.Swap(true) {
			in.log.Error("the outcome of a frame is unknown; the same frame is repeated until it is known",
				"run", frame.Header.Run, "n", frame.Header.N, "error", err)
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("intake stopped while the outcome of a frame was unknown: %w", err)
		case <-time.After(pause):
		}
	}
}

// release signs the durable frame once and lets its waiters go.
func (in *Intake) release(p *pool, frame *journal.Sealed, tree *journal.Tree, class journal.Class) {
	signer := in.signer.Load()
	p.signed = &receipt.Signed{
		Header: frame.Header, Class: class, KeyID: signer.KeyID(), Signature: signer.Sign(frame.Hash, class), Tree: tree,
	}
	for i := range p.entries {
		p.entries[i].Body = nil // the memory of recent reports keeps the pool, not the words
	}
	in.mu.Lock()
	in.recent.settle(p)
	in.mu.Unlock()
	close(p.done)
}

// resolve ends a pool that did not become durable; fatal is passed through.
func (in *Intake) resolve(p *pool, outcome, fatal error) error {
	if outcome == nil {
		outcome = ErrNotTaken
	}
	p.err = outcome
	in.mu.Lock()
	in.recent.forget(p)
	in.mu.Unlock()
	close(p.done)
	return fatal
}

// fail closes intake for good and releases whoever had joined the next frame:
// that one was never offered to the journal.
func (in *Intake) fail(err error) {
	in.mu.Lock()
	closing := in.closed != nil
	if !closing {
		in.closed = fmt.Errorf("%w: %w", ErrStopped, err)
	}
	p := in.open
	in.open, in.committing = newPool(), nil
	in.mu.Unlock()
	close(p.rotated)
	_ = in.resolve(p, ErrNotTaken, nil)
	in.log.Error("intake stopped: the journal's state is unknown", "error", err)
	if in.onFatal != nil && !closing {
		in.onFatal(err)
	}
}

// Close refuses new facts, commits the last frame and releases every waiter.
// When ctx ends first, the frame in hand is given up as unknown. It is safe to
// call twice.
func (in *Intake) Close(ctx context.Context) error {
	in.mu.Lock()
	if in.closed == nil {
		in.closed = ErrStopped
	}
	in.mu.Unlock()
	in.kick()
	var err error
	select {
	case <-in.done:
	case <-ctx.Done():
		err = fmt.Errorf("intake: closed before the last frame's outcome was known: %w", ctx.Err())
	}
	in.stop()
	<-in.done
	return err
}
