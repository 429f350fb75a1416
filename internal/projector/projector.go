// Package projector makes the tables from the journal: it reads frames in
// order and applies each once, together with its cursor. It alone decides what
// becomes of a report or a command.
package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/fault"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// Options of a projector. The zero value is good.
type Options struct {
	// Logger gets one line per change of state; nil for none.
	Logger *slog.Logger
	// BatchFacts is how many facts a transaction takes at most (but always one
	// frame) while the projector catches up; 20,000 when 0. With nothing to catch
	// up each transaction takes what is there.
	BatchFacts int
	// Poll is how often [Projector.Passed] looks into the tables when this
	// process projects nothing itself; 100 ms when 0.
	Poll time.Duration
	// Tracing gets a span for each frame that is applied; nil for none, and then
	// nothing is paid for it.
	Tracing trace.TracerProvider
}

const (
	defaultBatchFacts = 20_000
	defaultPoll       = 100 * time.Millisecond
	maxRetryDelay     = 5 * time.Second
)

// Counters count since the start of the process. They are read while the
// projector runs.
type Counters struct {
	Transactions, Frames, Facts                  atomic.Uint64
	Recorded, Duplicates, Conflicts, Quarantined atomic.Uint64
	CommandsApplied, CommandsRejected            atomic.Uint64
	Retries                                      atomic.Uint64 // transactions or reads that failed and were tried again
	ApplyNanos                                   atomic.Uint64 // time spent in transactions
}

func (c *Counters) add(t *tally, spent time.Duration) {
	c.Transactions.Add(1)
	c.Frames.Add(t.frames)
	c.Facts.Add(t.facts)
	c.Recorded.Add(t.recorded)
	c.Duplicates.Add(t.duplicates)
	c.Conflicts.Add(t.conflicts)
	c.Quarantined.Add(t.quarantined)
	c.CommandsApplied.Add(t.applied)
	c.CommandsRejected.Add(t.rejected)
	c.ApplyNanos.Add(uint64(spent))
}

// Projector follows one shard of a journal. Run is called once; the other
// methods are safe for concurrent use, also before Run and after it.
type Projector struct {
	journal journal.Journal
	store   store.Store
	shard   uint32
	opts    Options
	log     *slog.Logger
	tracer  trace.Tracer // nil: nothing is traced

	counters Counters
	position atomic.Uint64
	err      atomic.Pointer[error]

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when a transaction holds
}

// New makes a projector of a shard.
func New(j journal.Journal, s store.Store, shard uint32, opts Options) *Projector {
	if opts.BatchFacts <= 0 {
		opts.BatchFacts = defaultBatchFacts
	}
	if opts.Poll <= 0 {
		opts.Poll = defaultPoll
	}
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Projector{journal: j, store: s, shard: shard, opts: opts, log: log, tracer: newTracer(opts.Tracing), changed: make(chan struct{})}
}

// Run follows the journal until ctx ends, and then returns nil once the
// transaction in hand is done. It returns an error when it must not go on: a
// [*StopError], [store.ErrFenced], or a closed journal. Other failures (a full
// disk, a lock) are tried again, with growing pauses; Err tells of them.
func (p *Projector) Run(ctx context.Context) error {
	delay := 10 * time.Millisecond
	for {
		before := p.counters.Transactions.Load()
		err := p.follow(ctx, 0, nil)
		if ctx.Err() != nil && !final(err) {
			return nil
		}
		if final(err) {
			p.setErr(err)
			return err
		}
		if p.counters.Transactions.Load() != before {
			delay = 10 * time.Millisecond
		}
		p.counters.Retries.Add(1)
		if p.Err() == nil {
			p.log.WarnContext(ctx, "projector cannot go on, trying again", slog.Any("error", err))
		}
		p.setErr(err)
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		delay = min(2*delay, maxRetryDelay)
	}
}

// final says whether trying again cannot help.
func final(err error) bool {
	var stop *StopError
	return errors.As(err, &stop) || errors.Is(err, store.ErrFenced) || errors.Is(err, journal.ErrClosed)
}

func (p *Projector) setErr(err error) { p.err.Store(&err) }

// Err is why the projector does not go on, or nil while it does.
func (p *Projector) Err() error {
	if e := p.err.Load(); e != nil {
		return *e
	}
	return nil
}

// Counters are the projector's counters.
func (p *Projector) Counters() *Counters { return &p.counters }

// Position is the last frame that this process applied or found applied; 0
// before Run has looked.
func (p *Projector) Position() journal.Position { return journal.Position(p.position.Load()) }

// follow applies frames from the stored cursor on: up to a position, or with 0
// until ctx ends.
func (p *Projector) follow(ctx context.Context, until journal.Position, between func(store.Cursor)) error {
	cursor, err := p.store.Cursor(ctx, p.shard)
	if err != nil {
		return fmt.Errorf("read the projector's cursor: %w", err)
	}
	p.position.Store(uint64(cursor.Position))
	// The reader works beside the transactions, a few chunks ahead.
	readCtx, cancel := context.WithCancel(ctx)
	r := &reader{journal: p.journal, shard: p.shard, until: until, chunkFacts: max(1, p.opts.BatchFacts/4), out: make(chan chunk, 2)}
	var wg sync.WaitGroup
	wg.Go(func() { r.run(readCtx, cursor.Position) })
	defer wg.Wait()
	defer cancel()

	a := newApplier(p.shard, cursor)
	for {
		frames, bad, ok := r.batch(p.opts.BatchFacts)
		if len(frames) > 0 {
			if err := p.applyBatch(ctx, a, frames); err != nil {
				return err
			}
			if between != nil {
				between(a.cursor)
			}
		}
		if bad != nil {
			return bad
		}
		if !ok {
			return ctx.Err()
		}
	}
}

// applyBatch applies frames in one transaction. When one of them stops the
// projector, those before it are applied without it first.
func (p *Projector) applyBatch(ctx context.Context, a *applier, frames []*frame) error {
	from := a.cursor
	began := time.Now()
	done := 0
	a.tally = tally{}
	err := p.store.Apply(ctx, p.shard, from, func(tx store.Tx) (c store.Cursor, err error) {
		defer func() {
			// Rolled back like any error; without the value, which may hold content.
			if r := recover(); r != nil {
				err = a.stop(-1, "", fmt.Sprintf("%T", r), errPanic)
			}
		}()
		if err := a.prefetch(tx, frames); err != nil {
			return store.Cursor{}, err
		}
		for _, f := range frames {
			if err := a.apply(tx, f); err != nil {
				return store.Cursor{}, err
			}
			done++
		}
		fault.Point(fault.MidProjection)
		return a.cursor, nil
	})
	var stop *StopError
	if errors.As(err, &stop) && done > 0 {
		// Nothing was kept and a's memory is wrong now: begin again, up to there.
		*a = *newApplier(p.shard, from)
		if err := p.applyBatch(ctx, a, frames[:done]); err != nil {
			return err
		}
		return stop
	}
	if err != nil {
		return err
	}
	fault.Point(fault.AfterProjection)
	ended := time.Now()
	p.counters.add(&a.tally, ended.Sub(began))
	p.position.Store(uint64(a.cursor.Position))
	if p.err.Swap(nil) != nil {
		p.log.InfoContext(ctx, "projector goes on", slog.Uint64("position", uint64(a.cursor.Position)))
	}
	p.mu.Lock()
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if p.tracer != nil {
		p.applied(frames, began, ended)
	}
	return nil
}

// Changed is closed when the next transaction holds.
func (p *Projector) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// Passed waits until the projector has passed a command, in this process or
// another, and tells what became of it. It returns ctx's error when that
// comes first; the command may still be applied then.
func (p *Projector) Passed(ctx context.Context, id epro.UUID) (store.Outcome, error) {
	poll := time.NewTicker(p.opts.Poll)
	defer poll.Stop()
	for {
		changed := p.Changed() // before looking, so that no change is missed
		o, err := p.store.Outcome(ctx, id)
		if !errors.Is(err, store.ErrNotFound) {
			return o, err
		}
		select {
		case <-ctx.Done():
			return store.Outcome{}, ctx.Err()
		case <-changed:
		case <-poll.C:
		}
	}
}

// Lag is how far the tables are behind the journal.
type Lag struct {
	Applied, End journal.Position
	// Age is how long the oldest frame that is not applied has waited, by this
	// machine's clock and the frame's committedAt. 0 when all is applied.
	Age time.Duration
}

// Lag compares the tables with the journal's end.
func (p *Projector) Lag(ctx context.Context) (Lag, error) {
	end, err := p.journal.End(ctx, p.shard)
	if err != nil {
		return Lag{}, fmt.Errorf("read the journal's end: %w", err)
	}
	c, err := p.store.Cursor(ctx, p.shard)
	if err != nil {
		return Lag{}, err
	}
	lag := Lag{Applied: c.Position, End: end.Position}
	if lag.End <= lag.Applied {
		return lag, nil
	}
	waiting, err := p.journal.Read(ctx, p.shard, c.Position, 1)
	if err != nil {
		return lag, fmt.Errorf("read the oldest frame that waits: %w", err)
	}
	if len(waiting) == 0 {
		return lag, nil
	}
	var came int64
	if f, err := journal.DecodeFrame(waiting[0].Bytes); err == nil {
		came = f.Header.Time
	} else {
		// A damaged frame, which stops the projector: it came after this one.
		last, err := p.store.LastFrame(ctx, p.shard)
		if errors.Is(err, store.ErrNotFound) {
			return lag, nil
		}
		if err != nil {
			return lag, err
		}
		came = last.Time
	}
	lag.Age = max(0, time.Since(time.Unix(0, came)))
	return lag, nil
}
