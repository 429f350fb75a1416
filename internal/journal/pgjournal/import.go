package pgjournal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/postgres"
)

const (
	importHeadSQL = `SELECT position, timeline, ` + postgres.TimelineSQL + ` FROM tidegate_journal.head WHERE shard = $1 FOR UPDATE`
	importMoveSQL = `UPDATE tidegate_journal.head SET position = $2, timeline = $3 WHERE shard = $1`
	importHaveSQL = `SELECT run_n, sha256(bytes) FROM tidegate_journal.frame WHERE shard = $1 AND run_n = ANY($2)`
	importPrevSQL = `SELECT hash, run_n FROM tidegate_journal.frame WHERE shard = $1 AND hash = ANY($2)`
)

// Import appends many frames of a shard, in order, as one transaction: all of
// them or none. It is how a journal is copied here, and refuses what [Journal.Append]
// refuses, with the same errors. Frames that are there already are passed over,
// so a copy that was broken off is simply repeated: after any error but
// [journal.ErrFork], [journal.ErrTooLarge] and [journal.ErrNotAppended] the
// outcome is unknown, and the same call again finds out. ctx may end it like an
// append.
func (j *Journal) Import(ctx context.Context, shard uint32, frames []journal.Sealed) error {
	if shard >= j.props.Shards {
		return fmt.Errorf("%w: %w", journal.ErrNotAppended, j.noShard(shard))
	}
	for i := range frames {
		f := &frames[i]
		if len(f.Bytes) > MaxFrameBytes {
			return fmt.Errorf("%w: %d bytes, at most %d", journal.ErrTooLarge, len(f.Bytes), MaxFrameBytes)
		}
		err := j.fits(f)
		if err == nil && f.Header.Shard != shard {
			err = fmt.Errorf("a frame of shard %d", f.Header.Shard)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", journal.ErrNotAppended, err)
		}
	}
	if len(frames) == 0 {
		return nil
	}
	if !j.begin() {
		return fmt.Errorf("%w: %w", journal.ErrNotAppended, journal.ErrClosed)
	}
	defer j.under.Done()
	w, err := j.connection(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", journal.ErrNotAppended, explain(err))
	}
	defer j.writers.release(w)
	if err := w.transaction(ctx, func(ctx context.Context, tx pgx.Tx) error { return j.load(ctx, w, tx, shard, frames) }); err != nil {
		return fmt.Errorf("import %d frames: %w", len(frames), explain(err))
	}
	j.wake()
	return nil
}

// transaction runs do and commits. Like commit, it never has the server cancel
// anything.
func (w *writer) transaction(ctx context.Context, do func(context.Context, pgx.Tx) error) (err error) {
	stop := context.AfterFunc(ctx, func() { _ = w.raw.Close() })
	defer func() {
		if !stop() {
			w.broken = true
			if err != nil {
				err = fmt.Errorf("%w (%w): %w", errGiven, ctx.Err(), err)
			}
		}
	}()
	w.warned.Store(false)
	background := context.Background()
	tx, err := w.conn.Begin(background)
	if err != nil {
		w.broken = true
		return err
	}
	if err := do(background, tx); err != nil {
		if e := tx.Rollback(background); e != nil {
			w.broken = true
		}
		return err
	}
	if err := tx.Commit(background); err != nil {
		w.broken = true
		return err
	}
	if w.warned.Load() {
		w.broken = true
		return errNoStandby
	}
	return nil
}

// load is the transaction of Import.
func (j *Journal) load(ctx context.Context, w *writer, tx pgx.Tx, shard uint32, frames []journal.Sealed) error {
	var position, highest, server int64
	if err := tx.QueryRow(ctx, importHeadSQL, shard).Scan(&position, &highest, &server); err != nil {
		return err
	}
	if highest > server {
		w.broken = true
		return behindHead(server, highest)
	}
	if err := j.primary(w, server); err != nil {
		return err
	}
	fresh, err := missing(ctx, tx, shard, frames)
	if err != nil {
		return err
	}
	if err := follow(ctx, tx, shard, frames); err != nil {
		return err
	}
	// The head is written also when nothing is missing: the commit then makes sure
	// of the frames that are there.
	if _, err := tx.Exec(ctx, importMoveSQL, shard, position+int64(len(fresh)), server); err != nil {
		return err
	}
	if len(fresh) == 0 {
		return nil
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{schema.Name, "frame"}, []string{"shard", "position", "bytes"},
		pgx.CopyFromSlice(len(fresh), func(i int) ([]any, error) {
			return []any{shard, position + int64(i) + 1, fresh[i].Bytes}, nil
		}))
	return err
}

// missing are the frames that the journal does not have yet. They must be the
// last ones: a frame that is there does not come after one that is not.
func missing(ctx context.Context, tx pgx.Tx, shard uint32, frames []journal.Sealed) ([]journal.Sealed, error) {
	keys := make([][]byte, len(frames))
	for i := range frames {
		keys[i] = runAndNumber(frames[i].Header.Run, frames[i].Header.N)
	}
	rows, err := tx.Query(ctx, importHaveSQL, shard, keys)
	if err != nil {
		return nil, err
	}
	have := map[string][]byte{}
	var key, sum []byte
	_, err = pgx.ForEachRow(rows, []any{&key, &sum}, func() error {
		have[string(key)] = bytes.Clone(sum)
		return nil
	})
	if err != nil {
		return nil, err
	}
	from := 0
	for i := range frames {
		want, there := have[string(keys[i])]
		if !there {
			have[string(keys[i])] = nil // twice in one call is a fork
			continue
		}
		h := &frames[i].Header
		if got := sha256.Sum256(frames[i].Bytes); !bytes.Equal(got[:], want) {
			return nil, fmt.Errorf("%w: run %s, frame %d", journal.ErrFork, h.Run, h.N)
		}
		if i != from {
			return nil, fmt.Errorf("%w: frame %d of run %s is there already, and one in front of it is not", journal.ErrFork, h.N, h.Run)
		}
		from = i + 1
	}
	return frames[from:], nil
}

// follow says whether each frame cites one that is there or goes before it.
func follow(ctx context.Context, tx pgx.Tx, shard uint32, frames []journal.Sealed) error {
	var cited [][]byte
	for i := range frames {
		if !frames[i].Header.Prev.IsZero() {
			cited = append(cited, frames[i].Header.Prev[:])
		}
	}
	rows, err := tx.Query(ctx, importPrevSQL, shard, cited)
	if err != nil {
		return err
	}
	there := map[epro.Digest]string{} // run and number of each header
	var hash, key []byte
	_, err = pgx.ForEachRow(rows, []any{&hash, &key}, func() error {
		if len(hash) != len(epro.Digest{}) {
			return errors.New("the journal's index is damaged")
		}
		there[epro.Digest(hash)] = string(key)
		return nil
	})
	if err != nil {
		return err
	}
	for i := range frames {
		h := &frames[i].Header
		key, ok := there[h.Prev]
		if h.N > 0 && key != string(runAndNumber(h.Run, h.N-1)) || h.N == 0 && !h.Prev.IsZero() && !ok {
			return fmt.Errorf("%w: frame %d of run %s cites a frame that is not there as it says", journal.ErrFork, h.N, h.Run)
		}
		there[frames[i].Hash] = string(runAndNumber(h.Run, h.N))
	}
	return nil
}
