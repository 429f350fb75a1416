package pgjournal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/postgres"
)

// Bounds of what one Read returns, beside its limit: a frame may have 4 MiB.
const (
	mostRecords = 4096
	mostBytes   = 8 << 20 // passed by at most one frame
)

// The bound is the server's to keep, because it sends all that it was asked for,
// also when nobody reads it any more. It knows the lengths without reading the
// frames.
const readSQL = `
SELECT position, bytes FROM (
	SELECT position, bytes, sum(octet_length(bytes)) OVER (ORDER BY position) - octet_length(bytes) AS before
	FROM (SELECT position, bytes FROM tidegate_journal.frame WHERE shard = $1 AND position > $2 ORDER BY position LIMIT $3) asked
) sized WHERE before < $4 ORDER BY position`

// Read returns up to limit records after a position; see [journal.Journal].
// It returns fewer than limit, and at least one, also when these have more than
// 8 MiB. Positions are dense here, so a missing frame is a [journal.GapError], also
// when the newest ones are missing.
func (j *Journal) Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error) {
	if shard >= j.props.Shards {
		return nil, j.noShard(shard)
	}
	if limit <= 0 || after >= math.MaxInt64 {
		return nil, nil
	}
	var out []journal.Record
	err := j.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		records, err := chunk(ctx, c, shard, after, min(limit, mostRecords))
		if err != nil {
			return err
		}
		if len(records) == 0 {
			return atEnd(ctx, c, shard, after)
		}
		// Up to the first gap: the next call begins there, and says so.
		for i, last := 0, after; i < len(records) && records[i].Position == last+1; i++ {
			last, out = last+1, records[:i+1]
		}
		if out == nil {
			return &journal.GapError{After: after, Next: records[0].Position}
		}
		return nil
	})
	var gap *journal.GapError
	switch {
	case errors.As(err, &gap):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("read journal after %d: %w", after, err)
	}
	j.grade(shard, out)
	return out, nil
}

func chunk(ctx context.Context, c *pgx.Conn, shard uint32, after journal.Position, limit int) ([]journal.Record, error) {
	rows, err := c.Query(ctx, readSQL, shard, int64(after), limit, mostBytes) //nolint:gosec // checked by the caller
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanRecord)
}

func scanRecord(row pgx.CollectableRow) (r journal.Record, err error) {
	var position int64
	err = row.Scan(&position, &r.Bytes)
	r.Position = journal.Position(position) //nolint:gosec // positions are positive
	return r, err
}

// atEnd says whether a shard ends at a position, or is cut off there.
func atEnd(ctx context.Context, c *pgx.Conn, shard uint32, after journal.Position) error {
	var head, last int64
	err := c.QueryRow(ctx, `SELECT position, coalesce((SELECT max(position) FROM tidegate_journal.frame f WHERE f.shard = h.shard), 0)
		FROM tidegate_journal.head h WHERE shard = $1`, shard).Scan(&head, &last)
	if err != nil {
		return err
	}
	if p := journal.Position(head); p > after && journal.Position(last) <= after { //nolint:gosec // positions are positive
		return &journal.GapError{After: after, Next: p + 1}
	}
	return nil
}

// End returns the last record; see [journal.Journal]. When the newest frames
// are missing it is one without bytes, at the position that the head names.
func (j *Journal) End(ctx context.Context, shard uint32) (journal.Record, error) {
	if shard >= j.props.Shards {
		return journal.Record{}, j.noShard(shard)
	}
	var position int64
	var r journal.Record
	err := j.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		err := c.QueryRow(ctx, `SELECT greatest(h.position, coalesce(l.position, 0)), CASE WHEN l.position >= h.position THEN l.bytes END
			FROM tidegate_journal.head h
			LEFT JOIN LATERAL (SELECT position, bytes FROM tidegate_journal.frame f WHERE f.shard = h.shard ORDER BY position DESC LIMIT 1) l ON true
			WHERE h.shard = $1`, shard).Scan(&position, &r.Bytes)
		return err
	})
	if err != nil {
		return journal.Record{}, fmt.Errorf("read the journal's end: %w", err)
	}
	r.Position = journal.Position(position) //nolint:gosec // positions are positive
	return r, nil
}

// How often Wait looks for what other processes appended: at first as often as
// a frame takes to commit, then less and less while nothing comes.
const (
	firstPoll = 2 * time.Millisecond
	longPoll  = 100 * time.Millisecond
)

// Wait returns when there is a record after the position; see
// [journal.Journal]. An append of this process is seen at once, one of another
// within 100 ms. (A NOTIFY with each append would be quicker, but takes a lock
// over the whole server at each commit.)
func (j *Journal) Wait(ctx context.Context, shard uint32, after journal.Position) error {
	if shard >= j.props.Shards {
		return j.noShard(shard)
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for poll := firstPoll; ; poll = min(poll*3/2, longPoll) {
		// The channel is taken before looking: an append in between closes it.
		j.mu.Lock()
		changed := j.changed
		j.mu.Unlock()
		var last int64
		err := j.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
			return c.QueryRow(ctx, "SELECT position FROM tidegate_journal.head WHERE shard = $1", shard).Scan(&last)
		})
		if err != nil {
			return err
		}
		if journal.Position(last) > after { //nolint:gosec // positions are positive
			return nil
		}
		timer.Reset(poll)
		select {
		case <-changed:
			poll = firstPoll
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-j.done:
			return journal.ErrClosed
		}
	}
}

// read lends a connection to do, one that leads to no primary of the past.
func (j *Journal) read(ctx context.Context, do func(context.Context, *pgx.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if j.closing.Err() != nil {
		return journal.ErrClosed
	}
	bound, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(j.closing, cancel)()
	broken, err := j.lend(bound, do)
	if broken && bound.Err() == nil {
		// The connection had died since it was last used, as all of them do when a
		// server starts anew. Reading again does no harm.
		j.readers.Reset()
		_, err = j.lend(bound, do)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case j.closing.Err() != nil:
		return journal.ErrClosed
	}
	return explain(err)
}

// lend also says whether it failed because the connection broke.
func (j *Journal) lend(ctx context.Context, do func(context.Context, *pgx.Conn) error) (broken bool, err error) {
	c, err := j.readers.Acquire(ctx)
	if err != nil {
		return false, err
	}
	if err := j.current(ctx, c); err != nil {
		conn := c.Hijack()
		broken = conn.IsClosed()
		_ = conn.Close(ctx)
		return broken, err
	}
	defer c.Release()
	err = do(ctx, c.Conn())
	return err != nil && c.Conn().IsClosed(), err
}

// current refuses a connection to a standby, or to a primary from before a
// promotion: what is read there may not be what is kept.
func (j *Journal) current(ctx context.Context, c *pgxpool.Conn) error {
	timeline, err := postgres.ServerTimeline(ctx, c.Conn().PgConn())
	switch {
	case err != nil:
		return err
	case timeline > 0:
		return j.met(timeline)
	case j.opts.ReadOnly:
		return nil // asked again: it may be promoted
	default:
		return errors.New("this database server is a standby: connect to the primary")
	}
}
