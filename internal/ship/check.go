package ship

import (
	"context"
	"fmt"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// FrameError says that a frame of the source is not as it was written: it was
// not copied, and nothing behind it was. It does not go away by itself.
type FrameError struct {
	Position journal.Position
	Reason   string // never quotes content
}

// Error is one sentence.
func (e *FrameError) Error() string {
	return fmt.Sprintf("the source is damaged at position %d and was copied up to the frame before it: %s", e.Position, e.Reason)
}

// Checker looks at the frames of one shard as they come by: each must be what
// its own hashes say, follow the frame before it, and follow its run as far as
// that was seen. What the run's last frame was when it was not seen is for the
// target to know, which refuses a frame that does not follow.
type Checker struct {
	shard uint32
	last  journal.Position
	runs  map[journal.Run]head
	// Headers that came by, cut to 128 bits: the newest, and those before them.
	newer, older map[[16]byte]struct{}
	find         func(epro.Digest, journal.Position) (bool, error)
}

type head struct {
	n    uint64
	hash epro.Digest
	time int64
}

const (
	maxRuns    = 1024    // bounds the memory of runs; only those of live processes go on
	maxHeaders = 1 << 16 // and of headers, twice; a run cites one that was new when it began
)

// NewChecker returns a checker for the frames after a position. find says
// whether a header lies in the shard at or before a position; it is asked, now
// and then, for one that did not come by lately.
func NewChecker(shard uint32, after journal.Position, find func(epro.Digest, journal.Position) (bool, error)) *Checker {
	return &Checker{shard: shard, last: after, runs: map[journal.Run]head{}, newer: map[[16]byte]struct{}{}, find: find}
}

// begin tells the checker the frame before the first that it will check.
func (c *Checker) begin(last *journal.Header, hash epro.Digest) {
	c.runs[last.Run] = head{last.N, hash, last.Time}
	c.newer[[16]byte(hash[:16])] = struct{}{}
}

// FindIn is a find for [NewChecker] that reads a journal backwards.
func FindIn(ctx context.Context, j interface {
	Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error)
}, shard uint32,
) func(epro.Digest, journal.Position) (bool, error) {
	return func(hash epro.Digest, last journal.Position) (bool, error) {
		for last > 0 {
			n := min(last, readRecords)
			records, err := j.Read(ctx, shard, last-n, int(n)) //nolint:gosec // at most readRecords
			if err != nil {
				return false, fmt.Errorf("look for a frame that a run begins with: %w", err)
			}
			for _, r := range records {
				if h, err := header(r); err == nil && h.Hash() == hash {
					return true, nil
				}
			}
			last -= n
		}
		return false, nil
	}
}

// Checked is a frame that was checked. It aliases the record's bytes.
type Checked struct {
	Sealed journal.Sealed
	Frame  journal.Frame
	// Known says that the frame before it in its run came by as well, so that this
	// one cannot be in the copy already.
	Known bool
}

// Check checks the next record.
func (c *Checker) Check(r journal.Record) (Checked, error) {
	bad := func(format string, args ...any) error {
		return &FrameError{r.Position, fmt.Sprintf(format, args...)}
	}
	if r.Position != c.last+1 {
		return Checked{}, &FrameError{c.last + 1, fmt.Sprintf("it is missing, the next frame is at position %d", r.Position)}
	}
	f, err := journal.DecodeFrame(r.Bytes)
	if err != nil {
		return Checked{}, bad("%v", err)
	}
	h := &f.Header
	if h.Shard != c.shard {
		return Checked{}, bad("its header says shard %d, and it lies in shard %d", h.Shard, c.shard)
	}
	if faults := f.Check(); len(faults) > 0 {
		return Checked{}, bad("fact %d: %s", faults[0].Index, faults[0].Reason)
	}
	hash := h.Hash()
	reason, err := c.follows(h)
	if err != nil {
		return Checked{}, err
	}
	if reason != "" {
		return Checked{}, bad("%s", reason)
	}
	if len(c.runs) >= maxRuns {
		clear(c.runs)
	}
	_, known := c.runs[h.Run]
	c.runs[h.Run] = head{h.N, hash, h.Time}
	if len(c.newer) >= maxHeaders {
		c.older, c.newer = c.newer, map[[16]byte]struct{}{}
	}
	c.newer[[16]byte(hash[:16])] = struct{}{}
	c.last = r.Position
	return Checked{journal.Sealed{Header: *h, Hash: hash, Bytes: r.Bytes}, f, known}, nil
}

// follows says what is wrong with a frame's place in its run, "" if nothing.
func (c *Checker) follows(h *journal.Header) (string, error) {
	before, known := c.runs[h.Run]
	switch {
	case known && h.N != before.n+1:
		return fmt.Sprintf("frame %d of run %s comes after frame %d", h.N, h.Run, before.n), nil
	case known && h.Prev != before.hash:
		return fmt.Sprintf("frame %d of run %s does not cite the frame before it", h.N, h.Run), nil
	case known && h.Time < before.time:
		return fmt.Sprintf("frame %d of run %s is older than the frame before it", h.N, h.Run), nil
	case known || h.N != 0 || h.Prev.IsZero():
		return "", nil
	}
	cited := [16]byte(h.Prev[:16])
	_, found := c.newer[cited]
	if !found {
		_, found = c.older[cited]
	}
	if !found {
		var err error
		if found, err = c.find(h.Prev, c.last); err != nil {
			return "", err
		}
	}
	if !found {
		return fmt.Sprintf("run %s cites a frame that is not in this shard", h.Run), nil
	}
	return "", nil
}
