// Package ship keeps a verified second copy of a journal: it reads the frames of
// one journal, checks each, and appends them to another at the same position.
//
// A copy is a journal like any other. It is never behind what it says, never
// holds a frame that does not fit its hashes, and is never overwritten: a target
// that holds something else, or more, ends the work with a sentence.
package ship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// Source is the journal that is copied.
type Source interface {
	Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error)
	Wait(ctx context.Context, shard uint32, after journal.Position) error
	End(ctx context.Context, shard uint32) (journal.Record, error)
	Close() error
}

// Target is where the copy lies. Nobody else writes to it, but perhaps another
// shipper of the same source, for a moment.
type Target interface {
	End(ctx context.Context, shard uint32) (journal.Record, error)
	// Import appends frames as [journal.Journal.Append] does each, durably, in
	// order; after an error any number of them may be there. Again is nil.
	Import(ctx context.Context, shard uint32, frames []journal.Sealed) error
	Close() error
}

// Errors that do not go away by themselves; test with errors.Is.
var (
	// ErrAhead: the copy has frames that the source does not have (any more).
	ErrAhead = errors.New("the copy holds frames that the source does not have")
	// ErrOther: the copy was made from another journal.
	ErrOther = errors.New("the copy holds another journal")
)

// Options of a shipper; the zero value of every field but the first two is good.
type Options struct {
	// OpenSource and OpenTarget open the two sides. They are called again after an
	// error, when what they opened before has been closed.
	OpenSource func(context.Context) (Source, error)
	OpenTarget func(context.Context) (Target, error)

	Shard uint32
	// Once ends Run when the copy has all that the source had; otherwise Run
	// follows the source until its context ends.
	Once bool
	// Final says of an error of the two sides that it does not go away by itself.
	Final func(error) bool
	// BeforeImport sees frames that were checked and are not yet in the copy.
	BeforeImport func([]journal.Frame) error
	// Progress is told how far the copy is after each step; nil for nobody.
	Progress func(Status)
	Logger   *slog.Logger
	// Retry is the first pause after an error; it doubles up to a minute. 1 s
	// when 0.
	Retry time.Duration
	// Idle is how often the copy is looked at while nothing is to be done; 30 s
	// when 0.
	Idle time.Duration
	// Limit bounds each call to one of the two sides; 1 min when 0. A side that does
	// not answer is closed, and opened again.
	Limit time.Duration
}

const maxRetry = time.Minute

// Status is how far the copy is. What has happened since the start of this
// process has to happen before the first fields are known.
type Status struct {
	Position  journal.Position // last frame of the copy
	Hash      epro.Digest      // its header's hash
	Committed time.Time        // and when it was committed; zero for an empty copy
	End       journal.Position // last frame of the source, as last seen
	Current   time.Time        // when the copy last had all that the source had; zero: not since the start
	Frames    uint64           // copied since the start
	Facts     uint64
	Failing   time.Time // since when one of the two sides fails; zero when all is well
	Err       string    // why; "" when all is well
	Stopped   bool      // and it does not go away by itself
	Asked     time.Time // since when one of the two sides has not answered; zero when nothing was asked
}

// Behind is how many frames the copy lacks, as far as is known.
func (s *Status) Behind() uint64 {
	if s.End <= s.Position {
		return 0
	}
	return uint64(s.End - s.Position)
}

// Shipper copies one shard. Run is called by one goroutine at a time; Status at
// any time.
type Shipper struct {
	o Options

	mu     sync.Mutex
	status Status
}

// New makes a shipper.
func New(o Options) *Shipper {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Retry <= 0 {
		o.Retry = time.Second
	}
	if o.Idle <= 0 {
		o.Idle = 30 * time.Second
	}
	if o.Limit <= 0 {
		o.Limit = time.Minute
	}
	if o.Final == nil {
		o.Final = func(error) bool { return false }
	}
	return &Shipper{o: o}
}

// Status says how far the copy is.
func (s *Shipper) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run copies until ctx ends, which is no error, or, with Once, until the copy
// has all. It tries again after errors that may go away, with growing pauses;
// with Once it does not. The error that it returns does not go away by itself.
func (s *Shipper) Run(ctx context.Context) error {
	pause := s.o.Retry
	for {
		before := s.Status().Frames
		err := s.session(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case s.o.Once:
			return err
		case s.final(err):
			s.failing(err, true)
			return err
		}
		if s.failing(err, false) {
			s.o.Logger.Warn("the copy of the journal waits: it is tried again until both sides answer", slog.Any("error", err), slog.Uint64("position", uint64(s.Status().Position)))
		}
		if s.Status().Frames > before {
			pause = s.o.Retry
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, maxRetry)
	}
}

func (s *Shipper) final(err error) bool {
	var frame *FrameError
	return errors.Is(err, ErrAhead) || errors.Is(err, ErrOther) || errors.As(err, &frame) ||
		errors.Is(err, journal.ErrFork) || errors.Is(err, journal.ErrTooLarge) || s.o.Final(err)
}

// session opens both sides, compares them, and copies until something ends it.
func (s *Shipper) session(ctx context.Context) (err error) {
	var src Source
	err = s.ask(ctx, func(ctx context.Context) (err error) { src, err = s.o.OpenSource(ctx); return err })
	if err != nil {
		return fmt.Errorf("open the source: %w", err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	var dst Target
	err = s.ask(ctx, func(ctx context.Context) (err error) { dst, err = s.o.OpenTarget(ctx); return err })
	if err != nil {
		return fmt.Errorf("open the copy: %w", err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	return (&session{Shipper: s, src: src, dst: dst}).run(ctx)
}

// ask calls one of the two sides, for a limited time, and lets the status say that
// it waits for the answer.
func (s *Shipper) ask(ctx context.Context, call func(context.Context) error) error {
	s.asked(time.Now())
	defer s.asked(time.Time{})
	limited, cancel := context.WithTimeout(ctx, s.o.Limit)
	defer cancel()
	err := call(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no answer within %s: %w", s.o.Limit, err)
	}
	return err
}

func (s *Shipper) asked(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Asked = since
}

// failing notes a failure, and says whether it is a new one.
func (s *Shipper) failing(err error, stopped bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	isNew := s.status.Err != err.Error()
	if s.status.Failing.IsZero() {
		s.status.Failing = time.Now()
	}
	s.status.Err, s.status.Stopped = err.Error(), stopped
	return isNew
}

// note notes how far the copy is. That it can be asked is no sign yet that it can
// be written.
func (s *Shipper) note(change func(*Status)) {
	s.mu.Lock()
	change(&s.status)
	st := s.status
	s.mu.Unlock()
	if s.o.Progress != nil {
		s.o.Progress(st)
	}
}

// well notes how far the copy is, and that both sides do what they are asked.
func (s *Shipper) well(change func(*Status)) {
	recovered := false
	s.note(func(st *Status) {
		change(st)
		recovered = st.Err != ""
		st.Failing, st.Err, st.Stopped = time.Time{}, "", false
		if st.Position >= st.End {
			st.Current = time.Now()
		}
	})
	if st := s.Status(); recovered {
		s.o.Logger.Info("the copy of the journal goes on", slog.Uint64("position", uint64(st.Position)), slog.Uint64("end", uint64(st.End)))
	}
}
