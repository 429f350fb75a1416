package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// timing is how often a feed looks and speaks.
type timing struct {
	pace       time.Duration // between two looks at the tables while they move
	firstRetry time.Duration // while the journal is ahead and the tables do not move,
	idlePace   time.Duration // doubling up to this
	beat       time.Duration // a sign of life at least so often
	quiet      time.Duration // versions alone, without content, are told at most so often
}

var usualTiming = timing{
	pace: 100 * time.Millisecond, firstRetry: 20 * time.Millisecond, idlePace: time.Second, beat: 5 * time.Second, quiet: time.Second,
}

// Bounds of a feed.
const (
	chunk     = 1000   // things in a change: about 150 KB
	maxKept   = 16_384 // things kept for subscribers that are a little behind
	maxSteps  = 1024   // changes kept for them
	maxFrames = 10_000 // so far behind, everything is cheaper than the journal
)

// Feed is the [Source] beside the tables. A snapshot comes from the store's
// lists; after it, whenever the store's cursor has moved, the facts between are
// read in the journal, and the present states of the things they name are told.
// A command that was rejected so tells again what is known, which does no harm.
//
// All subscribers share one follower, which works only while there are any. It
// reads envelopes, never words, and of reports nothing but their kind.
type Feed struct {
	journal journal.Journal
	store   store.Reader
	log     *slog.Logger
	shards  uint32
	timing  timing

	mu       sync.Mutex
	follower *follower // nil while nobody follows
}

// NewFeed makes a feed. It starts nothing: [Feed.Follow] does. A nil log is none.
func NewFeed(j journal.Journal, r store.Reader, log *slog.Logger) *Feed {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Feed{journal: j, store: r, log: log, shards: j.Properties().Shards, timing: usualTiming}
}

// Follow implements [Source]. It ends with an error when the journal or the
// tables cannot be read: whoever follows may have another source to go to.
func (f *Feed) Follow(ctx context.Context, from Version, fn func(Change) error) error {
	fo := f.join()
	defer f.leave(fo)
	s := &subscriber{feed: f, follower: fo, fn: fn, at: from}
	return s.run(ctx)
}

func (f *Feed) join() *follower {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.follower == nil || f.follower.ended() {
		ctx, cancel := context.WithCancel(context.Background())
		fo := &follower{feed: f, cancel: cancel, moved: make(chan struct{}), done: make(chan struct{})}
		f.follower = fo
		go fo.run(ctx)
	}
	f.follower.users++
	return f.follower
}

func (f *Feed) leave(fo *follower) {
	f.mu.Lock()
	fo.users--
	last := fo.users == 0
	if last && f.follower == fo {
		f.follower = nil
	}
	f.mu.Unlock()
	if last {
		fo.cancel()
		<-fo.done
	}
}

// cursors are how far the tables are, by shard.
func (f *Feed) cursors(ctx context.Context) ([]journal.Position, error) {
	list := make([]journal.Position, f.shards)
	for shard := range f.shards {
		c, err := f.store.Cursor(ctx, shard)
		if err != nil {
			return nil, fmt.Errorf("directory: read the cursor of the tables: %w", err)
		}
		list[shard] = c.Position
	}
	return list, nil
}

// version is where the tables are now.
func (f *Feed) version(ctx context.Context) (Version, error) {
	at, err := f.cursors(ctx)
	if err != nil {
		return nil, err
	}
	v := make(Version, 2*f.shards)
	for shard := range f.shards {
		mark, err := f.markAt(ctx, shard, at[shard])
		if err != nil {
			return nil, err
		}
		v[2*shard], v[2*shard+1] = uint64(at[shard]), mark
	}
	return v, nil
}

// markAt reads the mark of a frame: 0 when there is none, or it is damaged.
func (f *Feed) markAt(ctx context.Context, shard uint32, at journal.Position) (uint64, error) {
	if at == 0 {
		return 0, nil
	}
	records, err := f.journal.Read(ctx, shard, at-1, 1)
	var gap *journal.GapError
	switch {
	case errors.As(err, &gap):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("directory: read the journal: %w", err)
	case len(records) == 0 || records[0].Position != at:
		return 0, nil
	}
	h, err := headerOf(records[0].Bytes)
	if err != nil {
		return 0, nil //nolint:nilerr // a damaged frame has no mark; finding damage is the auditor's work
	}
	return markOf(h.Hash()), nil
}

// subscriber is one call of Follow.
type subscriber struct {
	feed     *Feed
	follower *follower
	fn       func(Change) error
	at       Version // told so far
	next     uint64  // the number of the follower's step to tell next
}

func (s *subscriber) run(ctx context.Context) error {
	for {
		if err := s.catchUp(ctx); err != nil {
			return err
		}
		err := s.listen(ctx)
		if !errors.Is(err, errBehind) {
			return err
		}
	}
}

// listen tells the follower's steps as they come.
func (s *subscriber) listen(ctx context.Context) error {
	for {
		c, err := s.follower.step(ctx, s.next)
		if err != nil {
			return err
		}
		if err := s.fn(c); err != nil {
			return err
		}
		s.next++
		if c.Done {
			s.at = c.Version
		}
	}
}

// catchUp brings the subscriber to where the follower is: by the journal when
// it was there before and not too long ago, and else by a snapshot.
func (s *subscriber) catchUp(ctx context.Context) error {
	for {
		head, next, err := s.follower.head(ctx)
		if err != nil {
			return err
		}
		how, err := s.compare(ctx, head)
		if err != nil {
			return err
		}
		switch how {
		case ahead:
			// The tables are being made anew, or the one who told this version was
			// further: what comes is told when they have passed it.
			if err := s.follower.wait(ctx, next); err != nil {
				return err
			}
			continue
		case behind:
			err = s.replay(ctx, head)
			if errors.Is(err, errBroken) {
				err = s.snapshot(ctx, head)
			}
		case foreign:
			err = s.snapshot(ctx, head)
		}
		if err != nil {
			return err
		}
		s.at, s.next = head, next
		return nil
	}
}

// relation is how a subscriber's version stands to the follower's.
type relation int

const (
	foreign relation = iota // not of this journal, or so old that it may as well not be
	behind                  // or equal
	ahead
)

func (s *subscriber) compare(ctx context.Context, head Version) (relation, error) {
	if !s.at.of(s.feed.shards) {
		return foreign, nil
	}
	how := behind
	for shard := range s.feed.shards {
		at := s.at.Position(shard)
		mark, err := s.feed.markAt(ctx, shard, at)
		if err != nil {
			return foreign, err
		}
		if mark != s.at.mark(shard) || mark == 0 && at != 0 {
			return foreign, nil
		}
		if end := head.Position(shard); at > end {
			how = ahead
		} else if end-at > maxFrames {
			return foreign, nil
		}
	}
	return how, nil
}

// replay tells what changed between the subscriber's version and head.
func (s *subscriber) replay(ctx context.Context, head Version) error {
	for shard := range s.feed.shards {
		for s.at.Position(shard) < head.Position(shard) {
			t, err := s.feed.read(ctx, shard, s.at, head.Position(shard))
			if err != nil {
				return err
			}
			changes, err := s.feed.states(ctx, t)
			if err != nil {
				return err
			}
			for _, c := range changes {
				c.Done = false // complete only in all shards together
				if err := s.fn(c); err != nil {
					return err
				}
			}
			s.at = t.version
		}
	}
	return s.fn(Change{Version: head, Done: true})
}

// snapshot tells everything. head was where the tables were before the lists
// are read, so what changes meanwhile is told again by the steps after it.
func (s *subscriber) snapshot(ctx context.Context, head Version) error {
	if err := s.fn(Change{Version: head, Snapshot: true}); err != nil {
		return err
	}
	trials, err := pages(ctx, s.feed.store.Trials, func(list []store.Trial) error {
		return s.fn(Change{Version: head, Trials: list})
	})
	if err != nil {
		return err
	}
	for i := range trials {
		_, err := pages(ctx, func(ctx context.Context, p store.Page) ([]store.Site, string, error) {
			return s.feed.store.Sites(ctx, trials[i].ID, p)
		}, func(list []store.Site) error { return s.fn(Change{Version: head, Sites: list}) })
		if err != nil {
			return err
		}
		err = each(ctx, func(ctx context.Context, p store.Page) ([]store.Enrollment, string, error) {
			return s.feed.store.Participants(ctx, trials[i].ID, nil, p)
		}, func(list []store.Enrollment) error { return s.fn(Change{Version: head, Enrollments: list}) })
		if err != nil {
			return err
		}
	}
	if err := s.feed.notBack(ctx, head); err != nil {
		return err
	}
	return s.fn(Change{Version: head, Done: true})
}

// notBack fails when the tables are before a version: they were exchanged for
// others while they were read, and what was read may be of either.
func (f *Feed) notBack(ctx context.Context, v Version) error {
	now, err := f.cursors(ctx)
	if err != nil {
		return err
	}
	for shard := range f.shards {
		if now[shard] < v.Position(shard) {
			return errors.New("directory: the tables were exchanged while they were read")
		}
	}
	return nil
}

// each reads a list page by page.
func each[T any](ctx context.Context, list func(context.Context, store.Page) ([]T, string, error), fn func([]T) error) error {
	for page := (store.Page{Limit: chunk}); ; {
		got, next, err := list(ctx, page)
		if err != nil {
			return fmt.Errorf("directory: read the tables: %w", err)
		}
		if len(got) > 0 {
			if err := fn(got); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		page.After = next
	}
}

// pages is each, and returns the list too.
func pages[T any](ctx context.Context, list func(context.Context, store.Page) ([]T, string, error), fn func([]T) error) ([]T, error) {
	var all []T
	err := each(ctx, list, func(got []T) error {
		all = append(all, got...)
		return fn(got)
	})
	return all, err
}
