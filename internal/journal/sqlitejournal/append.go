package sqlitejournal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/tidegate/tidegate/internal/journal"
)

// Append makes the frame durable; see [journal.Journal].
//
// Nothing is kept before COMMIT, so an error up to there is
// [journal.ErrNotAppended]. After an error of COMMIT itself the frame may or
// may not come back from the -wal: unknown, until the same frame is appended
// again. That finds out, over a new connection and after the -wal was written
// elsewhere: a sync that failed is never believed when it is only repeated.
func (j *Journal) Append(ctx context.Context, f journal.Sealed) (journal.Class, error) {
	if len(f.Bytes) > MaxFrameBytes {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", journal.ErrTooLarge, len(f.Bytes), MaxFrameBytes)
	}
	if err := fits(&f); err != nil {
		return 0, fmt.Errorf("%w: %w", journal.ErrNotAppended, err)
	}
	if err := ctx.Err(); err != nil {
		return 0, j.not(&f, err)
	}
	select {
	case <-j.done: // first, because select picks at random
		return 0, j.not(&f, journal.ErrClosed)
	default:
	}
	select {
	case <-j.writer:
	case <-j.done:
		return 0, j.not(&f, journal.ErrClosed)
	case <-ctx.Done():
		return 0, j.not(&f, ctx.Err())
	}
	// From here to the end nothing can be cancelled: a commit has one outcome.
	defer func() { j.writer <- struct{}{} }()
	if j.isClosed() {
		return 0, j.not(&f, journal.ErrClosed)
	}
	if err := j.append(&f); err != nil {
		return 0, err
	}
	return journal.ClassLocalFsync, nil
}

// fits says what makes a sealed frame one that this journal must not store:
// the index reads run and number from the bytes, the caller's Header says them.
func fits(f *journal.Sealed) error {
	const start, end = 4, 4 + journal.HeaderBytes
	switch {
	case f.Header.Shard != 0:
		return fmt.Errorf("there is no shard %d here: SQLite has shard 0 only", f.Header.Shard)
	case len(f.Bytes) < end || f.Header.Hash() != f.Hash:
		return errors.New("the sealed frame does not fit its hash")
	}
	var header [journal.HeaderBytes]byte
	if !bytes.Equal(f.Header.AppendBinary(header[:0]), f.Bytes[start:end]) {
		return errors.New("the sealed frame's bytes do not begin with its header")
	}
	return nil
}

const (
	begin      = "BEGIN IMMEDIATE"
	commit     = "COMMIT"
	rollback   = "ROLLBACK"
	insert     = "INSERT INTO frames (frame) VALUES (?)" // position: one more than the last
	selectByID = "SELECT frame FROM frames WHERE substr(frame, 13, 24) = ?"
)

// append runs with the writer's token.
func (j *Journal) append(f *journal.Sealed) error {
	if j.opts.ReadOnly {
		return j.not(f, errors.New("the journal is open for reading only"))
	}
	if j.w != nil && j.wal >= walPatience*j.opts.CheckpointBytes {
		// The fold in the background does not get its turn: bound the -wal here.
		if err := j.foldSome(); err != nil {
			j.failed(err)
		}
	}
	if j.w == nil {
		if err := j.reopen(); err != nil {
			return j.not(f, err)
		}
	}
	if _, err := j.w.exec(begin); err != nil {
		j.failed(err)
		return j.not(f, explain(err))
	}
	kept, position, err := j.put(f)
	if err != nil || kept {
		if _, e := j.w.exec(rollback); e != nil && !rolledBack(e, err) {
			j.failed(e)
		}
		switch {
		case err == nil:
			j.remember(f)
			j.settle(f, 0)
			return nil
		case errors.Is(err, journal.ErrFork):
			j.settle(f, 0)
			return err
		}
		j.failed(err)
		return j.not(f, explain(err))
	}
	if _, err := j.w.exec(commit); err != nil {
		j.mu.Lock()
		j.doubtful[keyOf(f)] = struct{}{}
		j.mu.Unlock()
		// Whatever the reason, the connection is not to be trusted with the next
		// frame, and nor is what the -wal holds from here on.
		j.drop(err)
		return j.not(f, explain(err))
	}
	j.remember(f)
	j.settle(f, position)
	j.wal += walBytes(len(f.Bytes))
	if j.wal >= j.opts.CheckpointBytes {
		j.foldSoon()
	}
	return nil
}

// rolledBack says whether a ROLLBACK failed only because SQLite had rolled the
// transaction back by itself, after the error of the statement before.
func rolledBack(rollback, before error) bool {
	return before != nil && code(rollback) == 1 // SQLITE_ERROR: no transaction is active
}

// put inserts the frame, or finds it there already, within the transaction.
func (j *Journal) put(f *journal.Sealed) (kept bool, position int64, err error) {
	h, known := j.heads[f.Header.Run]
	if f.Header.N > 0 && !(known && h.n+1 == f.Header.N && h.hash == f.Header.Prev) {
		if kept, err = j.find(f); kept || err != nil {
			return kept, 0, err
		}
		if err := j.follows(f); err != nil {
			return false, 0, err
		}
	}
	res, err := j.w.exec(insert, f.Bytes)
	if code(err) == codeConstraint {
		// The run and number are taken.
		kept, e := j.find(f)
		if e == nil && !kept {
			e = err
		}
		return kept, 0, e
	}
	if err != nil {
		return false, 0, err
	}
	position, err = res.LastInsertId()
	return false, position, err
}

// find says whether this frame lies in the journal; ErrFork when another lies
// under its key.
func (j *Journal) find(f *journal.Sealed) (bool, error) {
	v, err := j.w.one(selectByID, runAndNumber(f.Header.Run, f.Header.N))
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// All the bytes, not only the header's hash: the bodies are not under it.
	if b, ok := v[0].([]byte); !ok || !bytes.Equal(b, f.Bytes) {
		return false, fmt.Errorf("%w: run %s, frame %d", journal.ErrFork, f.Header.Run, f.Header.N)
	}
	return true, nil
}

// follows says whether the frame continues its run as it lies in the journal.
func (j *Journal) follows(f *journal.Sealed) error {
	n := f.Header.N - 1
	v, err := j.w.one(selectByID, runAndNumber(f.Header.Run, n))
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: frame %d of run %s is not there, so %d cannot follow", journal.ErrFork, n, f.Header.Run, f.Header.N)
	}
	if err != nil {
		return err
	}
	b, _ := v[0].([]byte)
	if len(b) < 4+journal.HeaderBytes {
		return damaged("frame %d of run %s is cut short", n, f.Header.Run)
	}
	prev, err := journal.DecodeHeader(b[4 : 4+journal.HeaderBytes])
	if err != nil {
		return damaged("frame %d of run %s: %w", n, f.Header.Run, err)
	}
	if prev.Hash() != f.Header.Prev {
		return fmt.Errorf("%w: frame %d of run %s does not cite frame %d as it is", journal.ErrFork, f.Header.N, f.Header.Run, n)
	}
	return nil
}

// runAndNumber is the index key: the bytes as they stand in a frame's header.
func runAndNumber(run journal.Run, n uint64) []byte {
	h := journal.Header{Run: run, N: n}
	var b [journal.HeaderBytes]byte
	return h.AppendBinary(b[:0])[8:32]
}

func keyOf(f *journal.Sealed) frameKey { return frameKey{f.Header.Run, f.Header.N} }

// not is the error of an append that failed for this reason before its commit:
// surely nothing was kept, unless an earlier try of the same frame ended in
// doubt. Then this one has not found out either.
func (j *Journal) not(f *journal.Sealed, reason error) error {
	j.mu.Lock()
	_, doubt := j.doubtful[keyOf(f)]
	j.mu.Unlock()
	if doubt {
		return fmt.Errorf("append frame %d of run %s: not known whether it is kept: %w", f.Header.N, f.Header.Run, reason)
	}
	return fmt.Errorf("%w: %w", journal.ErrNotAppended, reason)
}

// remember keeps the head of the run.
func (j *Journal) remember(f *journal.Sealed) {
	if h, ok := j.heads[f.Header.Run]; ok && h.n > f.Header.N {
		return // an old frame again
	}
	if len(j.heads) >= maxHeads {
		clear(j.heads)
	}
	j.heads[f.Header.Run] = head{f.Header.N, f.Hash}
}

// settle ends what was in doubt about the frame and wakes those who wait for a
// new one.
func (j *Journal) settle(f *journal.Sealed, position int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.doubtful, keyOf(f))
	if p := journal.Position(position); p > j.last { //nolint:gosec // rowids are positive
		j.last = p
	}
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
}

// failed drops the writer's connection when an error leaves doubt about it.
func (j *Journal) failed(err error) {
	if lasting(err) && j.w != nil {
		j.drop(err)
	}
}

func (j *Journal) drop(reason error) {
	j.opts.Logger.Error("journal writer closed after an error", slog.Any("error", reason), slog.String("path", j.path))
	j.w.close()
	j.w, j.suspect = nil, true
	clear(j.heads)
}

// reopen connects the writer anew and makes sure of all that is in the journal
// before anything is built on it.
func (j *Journal) reopen() error {
	w, err := connect(j.path, writing, j.opts)
	if err != nil {
		return explain(err)
	}
	j.w = w
	if err := j.fold(); err != nil {
		if j.w != nil {
			j.w.close()
			j.w = nil
		}
		return explain(err)
	}
	if _, err := j.w.verifyTail(); err != nil {
		j.w.close()
		j.w = nil
		return explain(err)
	}
	j.suspect = false
	j.opts.Logger.Info("journal writer recovered", slog.String("path", j.path))
	return nil
}
