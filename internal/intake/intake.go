// Package intake takes facts, groups them into frames, makes each frame durable
// once, and only then releases every caller with the durable, signed result.
//
// There is one committer for a shard and there are two pools, no more: while one
// frame is being made durable, the next one fills. So a fact waits for at most
// the rest of one commit and its own. A frame is committed at once when the
// committer is idle; under load frames grow by themselves.
//
// Everything that can be refused is refused before a fact joins a pool. From
// then on its caller may go away, but the commit goes on.
package intake

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// Config is the operator's part.
type Config struct {
	MaxFacts  int           // facts in a frame
	MaxBytes  int           // bytes of a frame; the journal's own limit holds too
	MaxAge    time.Duration // while the oldest waiter is older, nothing new is taken
	WaitLimit time.Duration // a caller waits this long at most, then its outcome is unknown to it
	Remember  int           // recent reports whose retry gets the original receipt

	Burst  int           // reports one participant may send at once: a phone's week off line
	Refill time.Duration // time in which one more is allowed

	DiskFloor uint64 // bytes free under which nothing is taken
}

// NewDefaultConfig returns the defaults.
func NewDefaultConfig() Config {
	return Config{
		MaxFacts:  4096,                          // at 5 ms a commit 800,000 facts/s: HTTP is the limit long before
		MaxBytes:  4 << 20,                       // a frame's write stays some milliseconds
		MaxAge:    2 * time.Second,               // a phone's patience is about ten; the rest is for its network
		WaitLimit: 15 * time.Second,              // below the server's write time-out
		Remember:  1 << 16,                       // about 40 MB; a phone retries within seconds
		Burst:     140, Refill: 30 * time.Second, // 20 reports a day for a week
		DiskFloor: 256 << 20,
	}
}

// Options are the programmer's part.
type Options struct {
	Config   Config
	Shard    uint32
	Log      *slog.Logger
	Now      func() time.Time       // nil for time.Now
	DiskFree func() (uint64, error) // nil: the disk floor is not watched
	OnFatal  func(error)            // called once when the state is unknown for good: stop the process
	Tracing  trace.TracerProvider   // nil: nothing is traced, and nothing is paid for it
}

// Intake is one shard's. It is safe for concurrent use.
type Intake struct {
	cfg     Config
	shard   uint32
	log     *slog.Logger
	now     func() time.Time
	onFatal func(error)
	journal journal.Journal
	tracer  trace.Tracer // nil: nothing is traced
	signer  atomic.Pointer[receipt.Signer]
	limiter *limiter
	diskLow atomic.Bool
	maxRoom int // bytes a pool may hold

	mu         sync.Mutex
	open       *pool // filling
	committing *pool // being made durable, nil when idle
	recent     memory
	contended  time.Time // until then, several trials want room and share it
	closed     error     // set once: why nothing is taken any more

	wake chan struct{} // holds a token when the open pool may have facts or closing began
	stop context.CancelFunc
	done chan struct{} // closed when the committer has ended

	// Owned by the committer.
	run      journal.Run
	next     uint64
	prevHash epro.Digest
	prevTime int64

	journalTime atomic.Int64 // latest header time known, ns: to tell clocks apart
	stats       counters
}

// New starts an intake on the shard. It reads the shard's last frame, so that
// the first frame of its run can cite it. ctx bounds that read only.
func New(ctx context.Context, j journal.Journal, signer *receipt.Signer, opts Options) (*Intake, error) {
	last, err := j.End(ctx, opts.Shard)
	if err != nil {
		return nil, fmt.Errorf("intake: read the journal's last frame: %w", err)
	}
	in := &Intake{
		cfg: opts.Config, shard: opts.Shard, log: opts.Log, now: opts.Now, onFatal: opts.OnFatal, journal: j,
		limiter: newLimiter(opts.Config.Burst, opts.Config.Refill), tracer: newTracer(opts.Tracing),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if in.log == nil {
		in.log = slog.New(slog.DiscardHandler)
	}
	if in.now == nil {
		in.now = time.Now
	}
	if last.Position != 0 {
		f, err := journal.DecodeFrame(last.Bytes)
		if err != nil {
			return nil, fmt.Errorf("intake: the journal's last frame is damaged: run `tidegate verify`: %w", err)
		}
		in.prevHash = f.Header.Hash()
		in.journalTime.Store(f.Header.Time)
	}
	_, _ = rand.Read(in.run[:])
	in.signer.Store(signer)
	in.maxRoom = min(in.cfg.MaxBytes, j.Properties().MaxFrameBytes) - frameOverhead
	in.recent = newMemory(in.cfg.Remember)
	in.open = newPool()
	background, stop := context.WithCancel(context.Background())
	in.stop = stop
	if opts.DiskFree != nil {
		in.checkDisk(opts.DiskFree)
		go in.watchDisk(background, opts.DiskFree)
	}
	go in.commitLoop(background)
	return in, nil
}

// frameOverhead is what a frame has beside its entries.
const frameOverhead = 4 + journal.HeaderBytes

// Run is the name of this intake's run.
func (in *Intake) Run() journal.Run { return in.run }

// SetSigner makes frames from now on be signed by another certified key.
func (in *Intake) SetSigner(s *receipt.Signer) { in.signer.Store(s) }

// Committed is what a caller gets when its fact is durable.
type Committed struct {
	Signed     *receipt.Signed
	Index      int
	Envelope   []byte // canonical bytes, shared: not to be changed
	Salt       epro.Salt
	Remembered bool // the same report had been taken before: this is its original receipt
}

// Receipt is the fact's receipt.
func (c *Committed) Receipt() *receipt.Receipt {
	return c.Signed.Receipt(c.Index, c.Envelope, c.Salt)
}

// Fact is the envelope as committed: for a remembered report the original's.
func (c *Committed) Fact() (epro.Envelope, error) { return epro.DecodeEnvelope(c.Envelope) }

// Errors of Submit; test with errors.Is. Each but ErrUnknown means that the
// fact was surely not taken.
var (
	// ErrUnknown: the fact was taken into a frame, but whether that frame is
	// durable is not known yet. The caller repeats the same fact.
	ErrUnknown = errors.New("whether the report was recorded is not known yet")
	// ErrRefused: no room now. The error is a *RefusedError.
	ErrRefused = errors.New("not taken now")
	// ErrTooFast: this participant sends too many. The error is a *RefusedError.
	ErrTooFast = errors.New("too many reports from this participant")
	// ErrNotTaken: the journal said that surely nothing was kept.
	ErrNotTaken = errors.New("the journal could not keep the frame")
	// ErrStopped: intake is stopping or has failed.
	ErrStopped = errors.New("intake is stopping")
)

// RefusedError says why a fact was refused before it was taken, and when to try
// again.
type RefusedError struct {
	Kind       error  // ErrRefused or ErrTooFast
	Reason     string // for counters and people: "frame-full", "commit-slow", "disk-low", "trial-share", "participant-rate"
	RetryAfter time.Duration
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Kind.Error() + ": " + e.Reason }

// Unwrap gives the kind to errors.Is.
func (e *RefusedError) Unwrap() error { return e.Kind }

// Submit seals the fact (salt, body digest), takes it into the open frame and
// returns when that frame is durable and signed. The fact's Body is copied into
// the frame before Submit returns, so the caller may reuse it afterwards only if
// the error is not ErrUnknown.
//
// A done ctx ends the wait with ErrUnknown, never the commit.
func (in *Intake) Submit(ctx context.Context, f *epro.Fact) (Committed, error) {
	if in.tracer != nil {
		if span := in.waiting(ctx, 1); span != nil {
			c, err := in.submit(ctx, f)
			waited(span, Outcome{Committed: c, Err: err})
			return c, err
		}
	}
	return in.submit(ctx, f)
}

func (in *Intake) submit(ctx context.Context, f *epro.Fact) (Committed, error) {
	now := in.now()
	if err := in.checkRate(f, now); err != nil {
		return Committed{}, err
	}
	s, err := in.seal(f, now)
	if err != nil {
		return Committed{}, err
	}
	in.mu.Lock()
	ticket, err := in.join(&s, now, in.cfg.MaxFacts)
	in.mu.Unlock()
	in.joined(f, ticket, err)
	if err != nil {
		return Committed{}, err
	}
	in.kick()
	return in.awaitPaid(ctx, f, ticket)
}

func (in *Intake) kick() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// await waits for a ticket's frame.
func (in *Intake) await(ctx context.Context, t ticket) (Committed, error) {
	select {
	case <-t.pool.done:
	default:
		limit := time.NewTimer(in.cfg.WaitLimit)
		defer limit.Stop()
		select {
		case <-t.pool.done:
		case <-ctx.Done():
			in.stats.unknown.Add(1)
			return Committed{}, fmt.Errorf("%w: the caller went away", ErrUnknown)
		case <-limit.C:
			in.stats.unknown.Add(1)
			return Committed{}, fmt.Errorf("%w: the journal is slow", ErrUnknown)
		}
	}
	if t.pool.err != nil {
		return Committed{}, t.pool.err
	}
	e := &t.pool.entries[t.index]
	return Committed{Signed: t.pool.signed, Index: t.index, Envelope: e.Envelope, Salt: e.Salt, Remembered: t.remembered}, nil
}

// sealed is a fact ready to join a pool.
type sealed struct {
	entry journal.Entry
	leaf  epro.Digest
	key   memoryKey // zero for facts that are not reports
	bytes int
	trial string
	mean  epro.Digest
}

// clockTolerance is how far the journal's time may be ahead of this clock
// before the two are called apart.
const clockTolerance = time.Minute

// seal does the costly part in the caller's goroutine, outside the lock.
func (in *Intake) seal(f *epro.Fact, now time.Time) (sealed, error) {
	if len(f.Body) > epro.MaxBodyBytes {
		return sealed{}, fmt.Errorf("intake: body of %d bytes, at most %d", len(f.Body), epro.MaxBodyBytes)
	}
	f.Salt = epro.NewSalt()
	f.BodyDigest = epro.BodyDigest(f.Salt, f.Body)
	if in.journalTime.Load()-now.UnixNano() > int64(clockTolerance) {
		f.Flags |= epro.FlagClockApart
	}
	env, err := f.Envelope.AppendBinary(make([]byte, 0, 256))
	if err != nil {
		return sealed{}, fmt.Errorf("intake: %w", err)
	}
	s := sealed{entry: journal.Entry{Envelope: env, Salt: f.Salt, Body: f.Body}, leaf: epro.Leaf(env), trial: f.Trial, mean: f.Meaning}
	s.bytes = s.entry.EncodedBytes()
	if f.Kind == epro.KindReport {
		s.key = memoryKey{trial: f.Trial, subject: f.Subject, id: f.ID}
	}
	return s, nil
}

// limited says whether a fact is one that its participant's bucket pays for.
func limited(f *epro.Fact) bool {
	return f.Kind == epro.KindReport && f.Actor.Type == epro.ActorParticipant
}

// giveBack returns what a fact took of its participant's bucket. What was
// surely not taken, or had been taken before, costs nothing: a phone that
// empties its queue after an outage must not have paid for the refusals.
func (in *Intake) giveBack(f *epro.Fact) {
	if limited(f) {
		in.limiter.give(f.Trial, f.Subject)
	}
}

// joined counts what became of a fact at the door.
func (in *Intake) joined(f *epro.Fact, t ticket, err error) {
	if err != nil {
		in.stats.refused(err)
	}
	if err != nil || t.remembered {
		in.giveBack(f)
	}
}

// awaitPaid is await for a fact that took from its participant's bucket.
func (in *Intake) awaitPaid(ctx context.Context, f *epro.Fact, t ticket) (Committed, error) {
	c, err := in.await(ctx, t)
	if !t.remembered && errors.Is(err, ErrNotTaken) {
		in.giveBack(f)
	}
	return c, err
}

// checkRate takes one from the participant's bucket, or refuses.
func (in *Intake) checkRate(f *epro.Fact, now time.Time) error {
	if !limited(f) {
		return nil
	}
	wait, ok := in.limiter.take(f.Trial, f.Subject, now)
	if ok {
		return nil
	}
	in.stats.tooFast.Add(1)
	return &RefusedError{Kind: ErrTooFast, Reason: "participant-rate", RetryAfter: wait}
}
