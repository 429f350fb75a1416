package sqlitejournal

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
)

// A read is cut into statements of at most so many records and about so many
// bytes, so that none of them keeps the -wal from being begun anew for long.
const (
	chunkRecords = 64
	chunkBytes   = 4 << 20
)

const selectAfter = "SELECT position, frame FROM frames WHERE position > ? ORDER BY position LIMIT ?"

func record(v []driver.Value) journal.Record {
	p, _ := v[0].(int64)
	b, _ := v[1].([]byte)
	return journal.Record{Position: journal.Position(p), Bytes: b} //nolint:gosec // rowids of frames are positive
}

var errEnoughBytes = errors.New("enough bytes for one statement")

// Read returns up to limit records after a position; see [journal.Journal].
// Positions are dense here, so a missing frame is a [journal.GapError].
func (j *Journal) Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error) {
	if err := checkShard(shard); err != nil {
		return nil, err
	}
	if int64(after) < 0 { //nolint:gosec // beyond what SQLite can number: nothing is there
		return nil, nil
	}
	var out []journal.Record
	for len(out) < limit {
		got, size, last := 0, 0, after
		ask := min(limit-len(out), chunkRecords)
		err := j.read(ctx, func(c *conn) error {
			return c.query(context.Background(), selectAfter, []driver.Value{int64(after), int64(ask)}, func(v []driver.Value) error { //nolint:gosec // checked above
				rec := record(v)
				if rec.Position != last+1 {
					return &journal.GapError{After: last, Next: rec.Position}
				}
				out = append(out, rec)
				last = rec.Position
				got++
				if size += len(rec.Bytes); size >= chunkBytes {
					return errEnoughBytes
				}
				return nil
			})
		})
		after = last
		var gap *journal.GapError
		switch {
		case errors.Is(err, errEnoughBytes):
			continue
		case errors.As(err, &gap):
			if len(out) > 0 {
				return out, nil // the next call begins at the gap, and says so
			}
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("read journal after %d: %w", after, err)
		case got < ask:
			return out, nil
		}
	}
	return out, nil
}

// End returns the last record; see [journal.Journal].
func (j *Journal) End(ctx context.Context, shard uint32) (journal.Record, error) {
	var rec journal.Record
	if err := checkShard(shard); err != nil {
		return rec, err
	}
	err := j.read(ctx, func(c *conn) error {
		v, err := c.one(selectLast)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			rec = record(v)
		}
		return err
	})
	if err != nil {
		return journal.Record{}, fmt.Errorf("read the journal's end: %w", err)
	}
	return rec, nil
}

// LastPosition returns the position of the last record, 0 for an empty
// journal, without reading the record.
func (j *Journal) LastPosition(ctx context.Context) (journal.Position, error) {
	var last int64
	err := j.read(ctx, func(c *conn) error {
		v, err := c.one("SELECT coalesce(max(position), 0) FROM frames")
		if err == nil {
			last, _ = v[0].(int64)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read the journal's last position: %w", err)
	}
	return journal.Position(last), nil //nolint:gosec // rowids of frames are positive
}

// Wait returns when there is a record after the position; see
// [journal.Journal]. It is woken by an append of this process, and looks for
// those of others every PollInterval.
func (j *Journal) Wait(ctx context.Context, shard uint32, after journal.Position) error {
	if err := checkShard(shard); err != nil {
		return err
	}
	ticker := time.NewTicker(j.opts.PollInterval)
	defer ticker.Stop()
	for {
		// The channel is taken before looking: an append in between closes it.
		j.mu.Lock()
		if j.last > after {
			j.mu.Unlock()
			return nil
		}
		if j.changed == nil {
			j.changed = make(chan struct{})
		}
		changed := j.changed
		j.mu.Unlock()
		last, err := j.LastPosition(ctx)
		if err != nil {
			return err
		}
		if last > after {
			return nil
		}
		select {
		case <-changed:
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-j.done:
			return journal.ErrClosed
		}
	}
}

func checkShard(shard uint32) error {
	if shard != 0 {
		return fmt.Errorf("there is no shard %d here: SQLite has shard 0 only", shard)
	}
	return nil
}

// read lends a reading connection to do. One that failed is not used again.
func (j *Journal) read(ctx context.Context, do func(*conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if j.isClosed() {
		return journal.ErrClosed
	}
	var c *conn
	select {
	case c = <-j.readers:
	case <-ctx.Done():
		return ctx.Err()
	case <-j.done:
		return journal.ErrClosed
	}
	defer func() { j.readers <- c }()
	if c == nil {
		var err error
		if c, err = connect(j.path, reading, j.opts); err != nil {
			c = nil
			return explain(err)
		}
	}
	err := do(c)
	if code(err) != 0 && lasting(err) {
		c.close()
		c = nil
	}
	if code(err) != 0 {
		return explain(err)
	}
	return err
}
