package projector

import (
	"context"
	"fmt"

	"github.com/tidegate/tidegate/internal/journal"
)

// Bounds of reading ahead.
const (
	firstRead   = 16
	readRecords = 256
	readBytes   = 8 << 20 // aimed at; a journal's frames are at most 16 MiB
)

// chunk is some prepared frames, and perhaps why there are no more.
type chunk struct {
	frames []*frame
	facts  int
	more   bool  // others follow at once
	err    error // of the frame after these, or of the journal
}

// reader reads and prepares frames ahead of the transactions. At most four
// chunks exist at a time (one being made, two waiting, one being applied), so
// memory is bounded by four times what one read returns.
type reader struct {
	journal    journal.Journal
	shard      uint32
	until      journal.Position // 0: follow
	chunkFacts int
	out        chan chunk
}

// run sends chunks until ctx ends, the last position is reached or something
// is wrong, and then closes out.
func (r *reader) run(ctx context.Context, after journal.Position) {
	defer close(r.out)
	limit := firstRead
	promised := false // the last chunk said that others follow
	for ctx.Err() == nil {
		if r.until != 0 && after >= r.until {
			return
		}
		records, err := r.journal.Read(ctx, r.shard, after, limit)
		if err != nil {
			r.send(ctx, chunk{err: fmt.Errorf("read the journal after position %d: %w", after, err)})
			return
		}
		if len(records) == 0 {
			if r.until != 0 {
				r.send(ctx, chunk{err: fmt.Errorf("the journal ends at position %d, before position %d", after, r.until)})
				return
			}
			if promised && !r.send(ctx, chunk{}) {
				return
			}
			promised = false
			if err := r.journal.Wait(ctx, r.shard, after); err != nil {
				r.send(ctx, chunk{err: fmt.Errorf("wait for the journal: %w", err)})
				return
			}
			continue
		}
		full := len(records) == limit
		bytes := 0
		var c chunk
		for _, rec := range records {
			if r.until != 0 && rec.Position > r.until {
				after = r.until
				break
			}
			bytes += len(rec.Bytes)
			f, err := prepare(r.shard, rec)
			if err != nil {
				c.err = err
				break
			}
			after = rec.Position
			c.frames = append(c.frames, f)
			if c.facts += len(f.facts); c.facts >= r.chunkFacts {
				c.more = true
				if !r.send(ctx, c) {
					return
				}
				c = chunk{}
			}
		}
		c.more, promised = full, full
		if !r.send(ctx, c) || c.err != nil {
			return
		}
		limit = min(max(readBytes*len(records)/max(bytes, 1), 1), 2*limit, readRecords)
	}
}

func (r *reader) send(ctx context.Context, c chunk) bool {
	select {
	case r.out <- c:
		return true
	case <-ctx.Done():
		return false
	}
}

// batch takes chunks for one transaction: as many as are at hand, and while
// others follow at once until there are enough facts. ok is false at the end.
func (r *reader) batch(facts int) (frames []*frame, err error, ok bool) { //nolint:revive,staticcheck // err belongs to the frame after these, ok to the stream
	c, ok := <-r.out
	for n := 0; ok; {
		frames = append(frames, c.frames...)
		n += c.facts
		if c.err != nil || n >= facts {
			return frames, c.err, true
		}
		if c.more {
			c, ok = <-r.out
			continue
		}
		select {
		case c, ok = <-r.out:
		default:
			return frames, nil, true
		}
	}
	return frames, nil, false
}
