package receipt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
)

// AnchorStatus is how one anchor stands.
type AnchorStatus struct {
	Anchor   string           // its name for people
	Frames   uint64           // frames of the last checkpoint it holds, as far as known
	Position journal.Position // and its position
	Written  time.Time        // when this process last wrote it; zero for never
	Err      string           // why the last try failed, "" if it did not
	Failing  time.Time        // since when, zero if it is well
}

// AnchorLoop signs checkpoints and writes them to anchors, each at its own
// pace: one that is slow or fails delays neither the others nor any report.
type AnchorLoop struct {
	source  func(context.Context) (Checkpoint, error)
	signer  func() *Signer
	every   time.Duration
	log     *slog.Logger
	writers []*anchorWriter
}

// AnchorLoopOptions configure [NewAnchorLoop].
type AnchorLoopOptions struct {
	// Source gives the shard's checkpoint as the projector has it now, without a
	// time; Frames is 0 while there is none.
	Source func(context.Context) (Checkpoint, error)
	// Signer gives the key that signs now, so that a rotation is followed.
	Signer  func() *Signer
	Anchors []Anchor
	Every   time.Duration // 0 for 5 s
	Log     *slog.Logger  // nil for none
}

// anchorGrace is how long Run takes for the last checkpoint at its end.
const anchorGrace = 3 * time.Second

// NewAnchorLoop returns a loop that [AnchorLoop.Run] runs.
func NewAnchorLoop(opts AnchorLoopOptions) *AnchorLoop {
	l := &AnchorLoop{source: opts.Source, signer: opts.Signer, every: opts.Every, log: opts.Log}
	if l.every <= 0 {
		l.every = 5 * time.Second
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for _, a := range opts.Anchors {
		l.writers = append(l.writers, &anchorWriter{anchor: a, log: l.log, status: AnchorStatus{Anchor: a.String()}})
	}
	return l
}

// Status is a snapshot of every anchor, in the order given.
func (l *AnchorLoop) Status() []AnchorStatus {
	out := make([]AnchorStatus, len(l.writers))
	for i, w := range l.writers {
		w.mu.Lock()
		out[i] = w.status
		w.mu.Unlock()
	}
	return out
}

// RunAnchors is [NewAnchorLoop] and [AnchorLoop.Run] for a caller that needs no
// status.
func RunAnchors(ctx context.Context, opts AnchorLoopOptions) error {
	return NewAnchorLoop(opts).Run(ctx)
}

// Run signs at most once per interval, when there are more frames than the last
// time, and once more when ctx ends: that one may take 3 s. It returns when
// every write has ended, nil after an ordinary end. It must run once only.
func (l *AnchorLoop) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var done sync.WaitGroup
	mailboxes := make([]chan []byte, len(l.writers))
	for i, w := range l.writers {
		mailboxes[i] = make(chan []byte, 1)
		done.Go(func() { w.run(writing, mailboxes[i], l.every) })
	}
	var last Checkpoint
	step := func(ctx context.Context) error {
		c, err := l.source(ctx)
		if err != nil {
			return fmt.Errorf("read the checkpoint to be signed: %w", err)
		}
		if c.Frames == 0 || c.Frames == last.Frames && c.Tree == last.Tree && c.Era == last.Era {
			return nil
		}
		c.Time = time.Now()
		signed, err := l.signer().SignCheckpoint(c)
		if err != nil {
			return err
		}
		last = c
		for _, box := range mailboxes {
			select {
			case <-box: // an anchor that lags gets the newest only
			default:
			}
			box <- signed
		}
		return nil
	}
	ticker := time.NewTicker(l.every)
	defer ticker.Stop()
	failing := false
	try := func(ctx context.Context) error {
		err := step(ctx)
		if failed := err != nil && ctx.Err() == nil; failed != failing {
			failing = failed
			if failed {
				l.log.Error("no checkpoint can be signed; the anchors fall behind", "error", err)
			} else {
				l.log.Info("checkpoints are signed again")
			}
		}
		return err
	}
	for ctx.Err() == nil {
		_ = try(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	ending, cancel := context.WithTimeout(writing, anchorGrace)
	defer cancel()
	err := try(ending)
	for _, box := range mailboxes {
		close(box)
	}
	defer context.AfterFunc(ending, stop)()
	done.Wait()
	return err
}

// anchorWriter writes the newest checkpoint it was handed to one anchor.
type anchorWriter struct {
	anchor Anchor
	log    *slog.Logger
	known  bool // what the anchor holds has been looked at

	mu     sync.Mutex
	status AnchorStatus
	holds  Checkpoint
}

// run ends when the mailbox is closed and empty. A write that failed is tried
// again after a while even if nothing newer came.
func (w *anchorWriter) run(ctx context.Context, mailbox <-chan []byte, every time.Duration) {
	var pending []byte
	retry := time.NewTimer(every)
	defer retry.Stop()
	for {
		select {
		case signed, ok := <-mailbox:
			if !ok {
				return
			}
			pending = signed
		case <-retry.C:
		}
		if pending != nil && w.write(ctx, pending) {
			pending = nil
		}
		retry.Reset(every)
	}
}

// errAhead is why an anchor is left alone.
var errAhead = errors.New("it has seen more frames than the tables have now: it is left as it is until they catch up")

func (w *anchorWriter) write(ctx context.Context, signed []byte) bool {
	next, err := PeekCheckpoint(signed)
	if err == nil {
		err = w.replace(ctx, signed, &next)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if err != nil {
		if w.status.Failing.IsZero() && ctx.Err() == nil {
			w.status.Failing = now
			w.log.Warn("a checkpoint could not be written to an anchor; it is tried again", "anchor", w.anchor.String(), "error", err)
		}
		w.status.Err = err.Error()
		return false
	}
	if !w.status.Failing.IsZero() {
		w.log.Info("the anchor is written again", "anchor", w.anchor.String())
	}
	w.holds = next
	w.status = AnchorStatus{Anchor: w.anchor.String(), Frames: next.Frames, Position: next.Position, Written: now}
	return true
}

// replace writes unless the anchor holds more. Tables that are being built anew
// pass through every smaller tree: writing those would forget what the anchor
// is there to remember. Only a new era may go back.
func (w *anchorWriter) replace(ctx context.Context, signed []byte, next *Checkpoint) error {
	if !w.known {
		held, err := w.anchor.Read(ctx)
		if err != nil && !errors.Is(err, ErrNoAnchor) {
			return err
		}
		if err == nil {
			c, err := PeekCheckpoint(held)
			if err != nil {
				return fmt.Errorf("what it holds is no checkpoint, so it is left as it is: move it away: %w", err)
			}
			if c.Origin() != next.Origin() {
				return fmt.Errorf("it holds a checkpoint of %s, so it is left as it is: give each installation its own anchor", c.Origin())
			}
			w.mu.Lock()
			w.holds = c
			w.status.Frames, w.status.Position = c.Frames, c.Position
			w.mu.Unlock()
		}
		w.known = true
	}
	if w.holds.Era > next.Era || w.holds.Era == next.Era && w.holds.Frames > next.Frames {
		return errAhead
	}
	return w.anchor.Write(ctx, signed)
}
