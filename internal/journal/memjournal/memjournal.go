// Package memjournal is a journal in memory, with switches that make it fail.
// It survives nothing and is for tests and demonstrations.
package memjournal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
)

// Options of a journal in memory; the zero value gives one shard of class
// demo with dense positions.
type Options struct {
	Class         journal.Class // default ClassDemo
	Shards        uint32        // default 1
	MaxFrameBytes int           // default journal.MaxFrameBytes
	// Stride is the distance between two positions (default 1). With another
	// one, code that takes positions for a count shows itself.
	Stride uint64
}

// Journal is a [journal.Journal] in memory.
type Journal struct {
	opts Options

	mu      sync.Mutex
	shards  []shard
	closed  chan struct{}
	changed chan struct{} // closed and replaced at every append
	before  []error       // what the next appends fail with, before persisting
	after   []error       // and after persisting
	hold    chan struct{} // appends wait until it is closed; nil lets them pass
	slow    time.Duration
	appends int
	doubt   map[key]bool
	pending sync.WaitGroup // appends under way
}

type shard struct {
	records []journal.Record
	runs    map[key]int // index in records
	hashes  map[key]journal.Header
}

type key struct {
	shard uint32
	run   journal.Run
	n     uint64
}

var _ journal.Journal = (*Journal)(nil)

// New returns an empty journal.
func New(opts Options) *Journal {
	if opts.Class == 0 {
		opts.Class = journal.ClassDemo
	}
	if opts.Shards == 0 {
		opts.Shards = 1
	}
	if opts.MaxFrameBytes == 0 {
		opts.MaxFrameBytes = journal.MaxFrameBytes
	}
	if opts.Stride == 0 {
		opts.Stride = 1
	}
	j := &Journal{
		opts: opts, shards: make([]shard, opts.Shards), doubt: map[key]bool{},
		closed: make(chan struct{}), changed: make(chan struct{}),
	}
	for i := range j.shards {
		j.shards[i] = shard{runs: map[key]int{}, hashes: map[key]journal.Header{}}
	}
	return j
}

// FailBefore makes the next len(errs) appends fail before they keep anything.
// An error that is [journal.ErrNotAppended] is passed on as it is, unless the
// frame's outcome is in doubt already: then a journal cannot say that.
func (j *Journal) FailBefore(errs ...error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.before = append(j.before, errs...)
}

// FailAfter makes the next len(errs) appends keep their frame and then fail.
// The errors must not be [journal.ErrNotAppended].
func (j *Journal) FailAfter(errs ...error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.after = append(j.after, errs...)
}

// Hold keeps every append waiting, before anything is kept, until release is
// called. A held append whose context ends was not appended.
func (j *Journal) Hold() (release func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	hold := make(chan struct{})
	j.hold = hold
	return sync.OnceFunc(func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.hold == hold {
			j.hold = nil
		}
		close(hold)
	})
}

// Slow makes every append take at least d.
func (j *Journal) Slow(d time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.slow = d
}

// Appends is how often Append was called, failures and repeats included.
func (j *Journal) Appends() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.appends
}

// Replace puts other bytes in the place of a record, as damage or a forger
// would; nil takes the record away. It panics when there is no such record.
func (j *Journal) Replace(shard uint32, p journal.Position, b []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	records := j.shards[shard].records
	i := slices.IndexFunc(records, func(r journal.Record) bool { return r.Position == p })
	if i < 0 {
		panic(fmt.Sprintf("memjournal: no record at position %d", p))
	}
	// A new slice: what readers were given stays as it was.
	records = slices.Clone(records)
	if b == nil {
		records = slices.Delete(records, i, i+1)
		for k, at := range j.shards[shard].runs {
			switch {
			case at == i:
				delete(j.shards[shard].runs, k)
			case at > i:
				j.shards[shard].runs[k] = at - 1
			}
		}
	} else {
		records[i].Bytes = b
	}
	j.shards[shard].records = records
}

// Append keeps the frame; see [journal.Journal].
func (j *Journal) Append(ctx context.Context, f journal.Sealed) (journal.Class, error) {
	j.mu.Lock()
	j.appends++
	if j.isClosed() {
		err := j.not(&f, journal.ErrClosed)
		j.mu.Unlock()
		return 0, err
	}
	j.pending.Add(1)
	defer j.pending.Done()
	hold, slow := j.hold, j.slow
	j.mu.Unlock()
	if len(f.Bytes) > j.opts.MaxFrameBytes {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", journal.ErrTooLarge, len(f.Bytes), j.opts.MaxFrameBytes)
	}
	err := ctx.Err()
	if err == nil && hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err == nil && slow > 0 {
		timer := time.NewTimer(slow)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		return 0, j.not(&f, err)
	}
	return j.append(&f)
}

// append runs under the lock.
func (j *Journal) append(f *journal.Sealed) (journal.Class, error) {
	k := keyOf(f)
	if f.Header.Shard >= j.opts.Shards {
		return 0, fmt.Errorf("%w: there is no shard %d", journal.ErrNotAppended, f.Header.Shard)
	}
	if f.Header.Hash() != f.Hash {
		return 0, fmt.Errorf("%w: the sealed frame does not fit its hash", journal.ErrNotAppended)
	}
	s := &j.shards[f.Header.Shard]
	if err := pop(&j.before); err != nil {
		if !errors.Is(err, journal.ErrNotAppended) {
			j.doubt[k] = true
		} else if _, kept := s.runs[k]; kept || j.doubt[k] {
			return 0, fmt.Errorf("not known whether the frame is kept: %s", err.Error())
		}
		return 0, err
	}
	if i, kept := s.runs[k]; kept {
		if !bytes.Equal(s.records[i].Bytes, f.Bytes) {
			return 0, fmt.Errorf("%w: run %s, frame %d", journal.ErrFork, f.Header.Run, f.Header.N)
		}
	} else {
		if f.Header.N > 0 {
			prev := k
			prev.n--
			h, ok := s.hashes[prev]
			if !ok || h.Hash() != f.Header.Prev {
				return 0, fmt.Errorf("%w: frame %d does not follow its run %s", journal.ErrFork, f.Header.N, f.Header.Run)
			}
		}
		last := journal.Position(0)
		if n := len(s.records); n > 0 {
			last = s.records[n-1].Position
		}
		s.runs[k] = len(s.records)
		s.hashes[k] = f.Header
		s.records = append(s.records, journal.Record{Position: last + journal.Position(j.opts.Stride), Bytes: f.Bytes})
		close(j.changed)
		j.changed = make(chan struct{})
	}
	if err := pop(&j.after); err != nil {
		j.doubt[k] = true
		return 0, err
	}
	delete(j.doubt, k)
	return j.opts.Class, nil
}

func keyOf(f *journal.Sealed) key { return key{f.Header.Shard, f.Header.Run, f.Header.N} }

// not is the error for a frame of which this try kept nothing.
func (j *Journal) not(f *journal.Sealed, reason error) error {
	if j.doubt[keyOf(f)] {
		return fmt.Errorf("not known whether the frame is kept: %w", reason)
	}
	return fmt.Errorf("%w: %w", journal.ErrNotAppended, reason)
}

func pop(errs *[]error) error {
	if len(*errs) == 0 {
		return nil
	}
	err := (*errs)[0]
	*errs = (*errs)[1:]
	return err
}

// Read returns up to limit records; see [journal.Journal].
func (j *Journal) Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error) {
	if err := j.readable(ctx, shard); err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	records := j.shards[shard].records
	i, _ := slices.BinarySearchFunc(records, after, func(r journal.Record, p journal.Position) int {
		if r.Position <= p {
			return -1
		}
		return 1
	})
	if limit <= 0 || i == len(records) {
		return nil, nil
	}
	return slices.Clone(records[i:min(len(records), i+limit)]), nil
}

// End returns the last record; see [journal.Journal].
func (j *Journal) End(ctx context.Context, shard uint32) (journal.Record, error) {
	if err := j.readable(ctx, shard); err != nil {
		return journal.Record{}, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	records := j.shards[shard].records
	if len(records) == 0 {
		return journal.Record{}, nil
	}
	return records[len(records)-1], nil
}

// Wait returns when there is a record after the position; see
// [journal.Journal].
func (j *Journal) Wait(ctx context.Context, shard uint32, after journal.Position) error {
	for {
		j.mu.Lock()
		changed := j.changed
		j.mu.Unlock()
		last, err := j.End(ctx, shard)
		if err != nil {
			return err
		}
		if last.Position > after {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-j.closed:
			return journal.ErrClosed
		}
	}
}

func (j *Journal) readable(ctx context.Context, shard uint32) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case j.isClosed():
		return journal.ErrClosed
	case shard >= j.opts.Shards:
		return fmt.Errorf("there is no shard %d", shard)
	}
	return nil
}

// Properties says what the journal was made to promise.
func (j *Journal) Properties() journal.Properties {
	return journal.Properties{Class: j.opts.Class, MaxFrameBytes: j.opts.MaxFrameBytes, Shards: j.opts.Shards}
}

// Close waits for the appends under way. What was kept is gone.
func (j *Journal) Close() error {
	j.mu.Lock()
	if !j.isClosed() {
		close(j.closed)
	}
	j.mu.Unlock()
	j.pending.Wait()
	return nil
}

func (j *Journal) isClosed() bool {
	select {
	case <-j.closed:
		return true
	default:
		return false
	}
}
