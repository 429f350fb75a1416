package ship

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// Bounds of one step.
const (
	firstRead   = 16
	readRecords = 256
	readBytes   = 8 << 20 // aimed at; a journal's frames are at most 16 MiB
)

// session is the work while both sides answer.
type session struct {
	*Shipper
	src Source
	dst Target

	after   journal.Position // last frame of the copy
	hash    epro.Digest      // its header's hash
	looked  time.Time        // when the copy was last asked where it ends
	checker *Checker
}

// read reads the source.
func (s *session) read(ctx context.Context, after journal.Position, limit int) (records []journal.Record, err error) {
	err = s.ask(ctx, func(ctx context.Context) (err error) {
		records, err = s.src.Read(ctx, s.o.Shard, after, limit)
		return err
	})
	return records, err
}

// copyEnd asks where the copy ends.
func (s *session) copyEnd(ctx context.Context) (end journal.Record, err error) {
	err = s.ask(ctx, func(ctx context.Context) (err error) {
		end, err = s.dst.End(ctx, s.o.Shard)
		return err
	})
	if err != nil {
		return end, fmt.Errorf("find the end of the copy: %w", err)
	}
	s.looked = time.Now()
	return end, nil
}

func (s *session) run(ctx context.Context) error {
	if err := s.compare(ctx); err != nil {
		return err
	}
	limit := firstRead
	for ctx.Err() == nil {
		records, err := s.read(ctx, s.after, limit)
		if gap := (*journal.GapError)(nil); errors.As(err, &gap) {
			return &FrameError{gap.After + 1, gap.Error()}
		}
		if err != nil {
			return fmt.Errorf("read the source after position %d: %w", s.after, err)
		}
		if len(records) == 0 {
			s.well(func(st *Status) { st.End = s.after })
			if s.o.Once {
				return s.confirm(ctx)
			}
			if err := s.wait(ctx); err != nil {
				return err
			}
			continue
		}
		bytes, err := s.copy(ctx, records)
		if err != nil {
			return err
		}
		limit = min(max(readBytes*len(records)/max(bytes, 1), 1), 2*limit, readRecords)
	}
	return ctx.Err()
}

// compare finds out where the copy ends, and that the source has the same frame
// there.
func (s *session) compare(ctx context.Context) error {
	end, err := s.copyEnd(ctx)
	if err != nil {
		return err
	}
	var last journal.Record
	if err := s.ask(ctx, func(ctx context.Context) (err error) { last, err = s.src.End(ctx, s.o.Shard); return err }); err != nil {
		return fmt.Errorf("find the end of the source: %w", err)
	}
	s.after, s.checker = end.Position, NewChecker(s.o.Shard, end.Position, FindIn(ctx, s.src, s.o.Shard))
	var committed time.Time
	if end.Position > 0 {
		h, err := header(end)
		if err != nil {
			return fmt.Errorf("%w: its last frame, at position %d, cannot be read (%w): audit it with `tidegate verify`, or begin another copy", ErrOther, end.Position, err)
		}
		s.hash, committed = h.Hash(), h.CommittedAt()
		s.checker.begin(&h, s.hash)
		if last.Position < end.Position {
			return fmt.Errorf("%w: it ends at position %d and the source at %d, so the source was set back, or it is another journal: keep the copy, it may be all that is left of the reports in between, and find out before you begin another", ErrAhead, end.Position, last.Position)
		}
		records, err := s.read(ctx, end.Position-1, 1)
		if err != nil {
			return fmt.Errorf("read the source at position %d: %w", end.Position, err)
		}
		if len(records) != 1 || records[0].Position != end.Position {
			return &FrameError{end.Position, "the frame is missing"}
		}
		same, err := header(records[0])
		if err != nil {
			return &FrameError{end.Position, err.Error()}
		}
		if same.Hash() != s.hash {
			return fmt.Errorf("%w: at position %d it has another frame than the source, so one of the two was begun anew: keep the copy and ship to a new place", ErrOther, end.Position)
		}
	}
	s.note(func(st *Status) {
		st.Position, st.Hash, st.Committed, st.End = end.Position, s.hash, committed, last.Position
	})
	return nil
}

// header is the header of a stored frame.
func header(r journal.Record) (journal.Header, error) {
	const magic = 4
	if len(r.Bytes) < magic+journal.HeaderBytes {
		return journal.Header{}, journal.ErrFrame
	}
	return journal.DecodeHeader(r.Bytes[magic : magic+journal.HeaderBytes])
}

// copy checks records and appends them to the copy, up to the first that is not
// as it was written.
func (s *session) copy(ctx context.Context, records []journal.Record) (bytes int, err error) {
	var batch []Checked
	for _, r := range records {
		f, bad := s.checker.Check(r)
		if bad != nil {
			return bytes, errors.Join(s.put(ctx, batch), bad) // what lies before it is good
		}
		bytes += len(r.Bytes)
		// A frame whose run was not seen may be in the copy already, where another
		// place of the source was changed: then it is not appended, and those
		// after it would get wrong positions. So it goes alone.
		if !f.Known {
			if err := s.put(ctx, batch); err != nil {
				return bytes, err
			}
			if err := s.put(ctx, []Checked{f}); err != nil {
				return bytes, err
			}
			batch = batch[:0]
			continue
		}
		batch = append(batch, f)
	}
	return bytes, s.put(ctx, batch)
}

// put appends checked frames to the copy and makes sure that they are where
// they belong.
func (s *session) put(ctx context.Context, batch []Checked) error {
	if len(batch) == 0 {
		return nil
	}
	sealed, frames := make([]journal.Sealed, len(batch)), make([]journal.Frame, len(batch))
	facts := 0
	for i := range batch {
		sealed[i], frames[i] = batch[i].Sealed, batch[i].Frame
		facts += len(frames[i].Entries)
	}
	if s.o.BeforeImport != nil {
		if err := s.o.BeforeImport(frames); err != nil {
			return err
		}
	}
	if err := s.ask(ctx, func(ctx context.Context) error { return s.dst.Import(ctx, s.o.Shard, sealed) }); err != nil {
		return fmt.Errorf("append to the copy after position %d: %w", s.after, err)
	}
	first, last := s.after+1, &sealed[len(sealed)-1]
	s.after += journal.Position(len(sealed))
	s.hash = last.Hash
	end, err := s.copyEnd(ctx)
	if err != nil {
		return err
	}
	if end.Position < s.after {
		return &FrameError{first, "the copy has it already, at another position: it lies in the journal twice"}
	}
	if err := s.same(end); err != nil {
		return err
	}
	s.well(func(st *Status) {
		st.Position, st.Hash, st.Committed = s.after, s.hash, last.Header.CommittedAt()
		st.End = max(st.End, s.after)
		st.Frames += uint64(len(sealed))
		st.Facts += uint64(facts)
	})
	return nil
}

// wait returns when the source may have more. Now and then it looks at the
// copy, so that one that has gone away is told before it is needed.
func (s *session) wait(ctx context.Context) error {
	idle, cancel := context.WithTimeout(ctx, s.o.Idle)
	defer cancel()
	err := s.src.Wait(idle, s.o.Shard, s.after)
	switch {
	case err == nil && time.Since(s.looked) < s.o.Idle:
		return nil
	case err == nil: // a source may let go early, again and again
		return s.confirm(ctx)
	case ctx.Err() != nil:
		return ctx.Err()
	case idle.Err() == nil:
		return fmt.Errorf("wait for the source: %w", err)
	}
	return s.confirm(ctx)
}

// confirm compares the end of the copy with what was written there.
func (s *session) confirm(ctx context.Context) error {
	end, err := s.copyEnd(ctx)
	if err != nil {
		return err
	}
	return s.same(end)
}

// errMoved says that the copy does not end with what this session wrote. The next
// session compares it with the source, and tells another shipper at work on the
// same copy from one that holds something else.
var errMoved = errors.New("something else writes to the copy")

func (s *session) same(end journal.Record) error {
	if end.Position == 0 && s.after == 0 {
		return nil
	}
	if h, err := header(end); err == nil && end.Position == s.after && h.Hash() == s.hash {
		return nil
	}
	return fmt.Errorf("%w: it ends at position %d, and not with the frame that was written at %d", errMoved, end.Position, s.after)
}

// Appends makes a target of a journal that takes one frame at a time.
type Appends struct{ journal.Journal }

// Import appends the frames one by one.
func (a Appends) Import(ctx context.Context, shard uint32, frames []journal.Sealed) error {
	for _, f := range frames {
		if f.Header.Shard != shard {
			return fmt.Errorf("%w: a frame of shard %d among those of shard %d", journal.ErrNotAppended, f.Header.Shard, shard)
		}
		if _, err := a.Append(ctx, f); err != nil {
			return err
		}
	}
	return nil
}
