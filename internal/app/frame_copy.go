package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/ship"
)

// frameCopy copies a whole journal to another place: what is there already is
// compared frame by frame, the rest is checked and appended.
type frameCopy struct {
	src journal.Journal
	dst interface {
		ship.Source
		Import(ctx context.Context, shard uint32, frames []journal.Sealed) error
	}
	progress func(format string, args ...any)

	checker *ship.Checker
	end     journal.Position // of the source
	after   journal.Position // so far
	frames  uint64           // so far, all of them
	facts   uint64
	copied  uint64
}

// Bounds of what is read at once.
const (
	windowFrames = 256
	windowBytes  = 8 << 20 // aimed at
)

// compare walks through what is at the target already. It must be a beginning
// of the source.
func (c *frameCopy) compare(ctx context.Context) error {
	end, err := c.src.End(ctx, shard)
	if err != nil {
		return err
	}
	there, err := c.dst.End(ctx, shard)
	if err != nil {
		return err
	}
	c.end, c.checker = end.Position, ship.NewChecker(shard, 0, ship.FindIn(ctx, c.src, shard))
	switch {
	case end.Position == 0:
		return errors.New("the journal has no frame: there is nothing to copy")
	case there.Position > end.Position && c.goesOn(ctx, end):
		return fmt.Errorf("the database has all %d frames of the folder, and its journal has gone on since to position %d: there is nothing to copy any more. Serve from there", end.Position, there.Position)
	case there.Position > end.Position:
		return fmt.Errorf("the database's journal has %d frames and the folder's %d: it is another journal, or has gone on by itself. Name an empty database", there.Position, end.Position)
	}
	return c.walk(ctx, there.Position, "comparing what is there", func(batch []journal.Sealed) error {
		first := c.after
		for len(batch) > 0 {
			records, err := c.dst.Read(ctx, shard, first, len(batch))
			if err != nil {
				return err
			}
			if len(records) == 0 {
				return fmt.Errorf("the database's journal has no frame at position %d, but others behind it: it is damaged, name an empty database", first+1)
			}
			for i, r := range records {
				if r.Position != first+1 || !bytes.Equal(r.Bytes, batch[i].Bytes) {
					return fmt.Errorf("the database holds another journal: at position %d it has another frame than the folder. Name an empty database", first+1)
				}
				first++
			}
			batch = batch[len(records):]
		}
		return nil
	})
}

// goesOn says whether the target has the source's last frame at its place.
func (c *frameCopy) goesOn(ctx context.Context, end journal.Record) bool {
	records, err := c.dst.Read(ctx, shard, end.Position-1, 1)
	return err == nil && len(records) == 1 && records[0].Position == end.Position && bytes.Equal(records[0].Bytes, end.Bytes)
}

// copy appends what is not there yet.
func (c *frameCopy) copy(ctx context.Context) error {
	return c.walk(ctx, c.end, "copying", func(batch []journal.Sealed) error {
		if err := c.dst.Import(ctx, shard, batch); err != nil {
			return fmt.Errorf("append after position %d: %w", c.after, err)
		}
		c.copied += uint64(len(batch))
		return nil
	})
}

// walk checks the source's frames up to a position and hands them on.
func (c *frameCopy) walk(ctx context.Context, until journal.Position, what string, do func([]journal.Sealed) error) error {
	limit := windowFrames / 16
	for c.after < until {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.progress("%s: frame %d of %d", what, c.after, c.end)
		records, err := c.src.Read(ctx, shard, c.after, min(limit, int(until-c.after))) //nolint:gosec // small where it counts
		if err != nil {
			return err
		}
		if len(records) == 0 {
			return fmt.Errorf("the journal ends at position %d, before position %d", c.after, until)
		}
		batch := make([]journal.Sealed, len(records))
		size, facts := 0, 0
		for i, r := range records {
			f, err := c.checker.Check(r)
			if err != nil {
				return err
			}
			batch[i] = f.Sealed
			size += len(r.Bytes)
			facts += len(f.Frame.Entries)
		}
		if err := do(batch); err != nil {
			return err
		}
		c.after += journal.Position(len(batch))
		c.frames += uint64(len(batch))
		c.facts += uint64(facts) //nolint:gosec // not negative
		limit = min(max(windowBytes*len(records)/max(size, 1), 1), windowFrames)
	}
	return nil
}

// lastFrame is where a journal ends.
type lastFrame struct {
	position journal.Position
	hash     epro.Digest
}

func lastOf(ctx context.Context, j ship.Source) (last lastFrame, err error) {
	end, err := j.End(ctx, shard)
	if err != nil || end.Position == 0 {
		return last, err
	}
	f, err := journal.DecodeFrame(end.Bytes)
	return lastFrame{end.Position, f.Header.Hash()}, err
}

// atEnd compares the ends of both sides.
func (c *frameCopy) atEnd(ctx context.Context) (lastFrame, error) {
	from, err := lastOf(ctx, c.src)
	if err != nil {
		return from, err
	}
	to, err := lastOf(ctx, c.dst)
	if err == nil && from != to {
		err = fmt.Errorf("after the copy the source ends at position %d with header %s, and the target at %d with %s: does something else write to it?", from.position, from.hash, to.position, to.hash)
	}
	return to, err
}
