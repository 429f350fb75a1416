package pgjournal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/postgres"
)

// The statements of an append. Each is a transaction of its own, so that the
// head is locked for no longer than the server needs to write the frame and to
// commit: no client holds the lock while it thinks.
//
// $1 shard, $2 frame, $3 hash of the header the frame cites (NULL for none),
// $4 run and number of that frame (NULL when any will do), $5 the highest
// timeline this process has seen.
//
// There is no ON CONFLICT: a frame under a used key must roll the head back.
//
// The head's lock alone would keep frames apart, but whoever comes at the moment
// when it is let go may overtake those who wait. So writers line up for a lock
// that is given in order (its first number spells "TGJ1"): a frame waits for one
// of each other writer, and for its own commit.
const (
	appendName = "tidegate_append"
	appendSQL  = `
WITH server AS MATERIALIZED (SELECT ` + postgres.TimelineSQL + ` AS timeline),
prev AS MATERIALIZED (
	SELECT $3::bytea IS NULL OR EXISTS (
		SELECT FROM tidegate_journal.frame WHERE shard = $1 AND hash = $3 AND ($4::bytea IS NULL OR run_n = $4)
	) AS there
),
queue AS MATERIALIZED (SELECT pg_advisory_xact_lock(1413958193, $1)),
head AS (
	UPDATE tidegate_journal.head h SET position = h.position + 1, timeline = server.timeline
	FROM server, prev, queue
	WHERE h.shard = $1::int AND prev.there AND h.timeline <= server.timeline AND server.timeline >= $5::bigint
	RETURNING h.position
),
put AS (
	INSERT INTO tidegate_journal.frame (shard, position, bytes) SELECT $1, position, $2::bytea FROM head RETURNING position
)
SELECT coalesce((SELECT position FROM put), 0), prev.there::int, server.timeline,
	coalesce((SELECT timeline FROM tidegate_journal.head WHERE shard = $1), -1),` + settingsSQL + `
FROM server, prev`

	// confirmName finds a frame that lies in the journal already, and writes the
	// head without changing it. The commit of that write lies behind the frame's
	// own: when it is durable, on the standby too where there is one, so is the
	// frame. That the row can be seen says less: it may be from a commit whose wait
	// for the standby was cancelled, or by a session that did not wait.
	//
	// $1 shard, $2 run and number, $3 the frame, $4 the highest timeline seen.
	confirmName = "tidegate_confirm"
	confirmSQL  = `
WITH server AS MATERIALIZED (SELECT ` + postgres.TimelineSQL + ` AS timeline),
head AS (
	UPDATE tidegate_journal.head h SET timeline = server.timeline
	FROM server WHERE h.shard = $1::int AND h.timeline <= server.timeline AND server.timeline >= $4::bigint
	RETURNING h.position
)
SELECT coalesce((SELECT CASE WHEN bytes = $3::bytea THEN 1 ELSE 2 END FROM tidegate_journal.frame WHERE shard = $1 AND run_n = $2::bytea), 0),
	coalesce((SELECT position FROM head), -1), server.timeline,
	coalesce((SELECT timeline FROM tidegate_journal.head WHERE shard = $1), -1),` + settingsSQL + `
FROM server`

	settingsName = "tidegate_settings"
)

// leading is the number of columns in front of the settings in both.
const leading = 4

// answer is the row of either statement.
type answer struct {
	first    int64 // append: the frame's position, 0 for none; confirm: 1 the same, 2 another, 0 none
	second   int64 // append: 1 when the cited frame is there; confirm: the head's position, -1 when it was not written
	server   int64 // timeline of the server
	timeline int64 // highest timeline of the head as the statement found it, -1 for no such shard
	settings settings
}

func parseAnswer(row []string) (a answer, err error) {
	if len(row) != leading+settingsColumns {
		return a, fmt.Errorf("the server answered with %d columns", len(row))
	}
	for i, to := range []*int64{&a.first, &a.second, &a.server, &a.timeline} {
		if *to, err = strconv.ParseInt(row[i], 10, 64); err != nil {
			return a, fmt.Errorf("the server's answer: %w", err)
		}
	}
	a.settings = parseSettings(row[leading:])
	return a, nil
}

// Append makes the frame durable; see [journal.Journal]. The class it returns
// is that of this frame's commit, from the settings in force in front of it and
// behind it.
//
// An end of ctx closes the connection and never cancels the statement: the
// frame may still be kept. Without such an end an append is given up after
// 30 s, as unknown.
func (j *Journal) Append(ctx context.Context, f journal.Sealed) (journal.Class, error) {
	if len(f.Bytes) > MaxFrameBytes {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", journal.ErrTooLarge, len(f.Bytes), MaxFrameBytes)
	}
	if err := j.fits(&f); err != nil {
		return 0, fmt.Errorf("%w: %w", journal.ErrNotAppended, err)
	}
	if err := ctx.Err(); err != nil {
		return 0, j.not(&f, err)
	}
	if !j.begin() {
		return 0, j.not(&f, journal.ErrClosed)
	}
	defer j.under.Done()
	w, err := j.connection(ctx)
	if err != nil {
		return 0, j.not(&f, explain(err))
	}
	defer j.writers.release(w)
	class, err := j.append(ctx, w, &f)
	switch {
	case err == nil:
		j.settle(&f)
		return class, nil
	case errors.Is(err, journal.ErrFork):
		j.settle(&f)
		return 0, err
	}
	var sure *sureError
	if errors.As(err, &sure) {
		return 0, j.not(&f, explain(err))
	}
	j.mu.Lock()
	j.doubtful[keyOf(&f)] = struct{}{}
	j.mu.Unlock()
	return 0, j.unknown(&f, explain(err))
}

// connection lends a writer's connection, until Close begins.
func (j *Journal) connection(ctx context.Context) (*writer, error) {
	bound, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(j.closing, cancel)()
	w, err := j.writers.acquire(bound)
	if err != nil && ctx.Err() == nil && j.closing.Err() != nil {
		err = journal.ErrClosed
	}
	return w, err
}

// fits says what makes a sealed frame one that this journal must not store: the
// server computes the index from the bytes, the caller's Header says them.
func (j *Journal) fits(f *journal.Sealed) error {
	const start, end = 4, 4 + journal.HeaderBytes
	switch {
	case j.opts.ReadOnly:
		return errors.New("the journal is open for reading only")
	case f.Header.Shard >= j.props.Shards:
		return j.noShard(f.Header.Shard)
	case len(f.Bytes) <= end || f.Header.Hash() != f.Hash:
		return errors.New("the sealed frame does not fit its hash")
	}
	var header [journal.HeaderBytes]byte
	if !bytes.Equal(f.Header.AppendBinary(header[:0]), f.Bytes[start:end]) {
		return errors.New("the sealed frame's bytes do not begin with its header")
	}
	return nil
}

// Formats of parameters.
const (
	text   int16 = 0
	binary int16 = 1
)

func (j *Journal) append(ctx context.Context, w *writer, f *journal.Sealed) (journal.Class, error) {
	shard := []byte(strconv.FormatUint(uint64(f.Header.Shard), 10))
	var prev, prevKey []byte
	if f.Header.N > 0 {
		prev, prevKey = f.Header.Prev[:], runAndNumber(f.Header.Run, f.Header.N-1)
	} else if !f.Header.Prev.IsZero() {
		prev = f.Header.Prev[:]
	}
	row, after, err := w.commit(ctx, appendName, [][]byte{shard, f.Bytes, prev, prevKey, j.seen()}, []int16{text, binary, binary, binary, text})
	if postgres.Code(err) == postgres.CodeUniqueViolation {
		return j.confirm(ctx, w, f, shard, nil)
	}
	if err != nil {
		return 0, err
	}
	a, err := parseAnswer(row)
	if err != nil {
		w.broken = true
		return 0, err
	}
	if a.first == 0 {
		if err := j.refused(w, f, &a); err != nil {
			return 0, &sureError{err}
		}
		// The frame it cites is not there: a fork, unless it is there itself.
		return j.confirm(ctx, w, f, shard, fmt.Errorf("%w: frame %d of run %s cites a frame that is not there as it says", journal.ErrFork, f.Header.N, f.Header.Run))
	}
	if err := j.primary(w, a.server); err != nil {
		return 0, err
	}
	class := classOf(&a.settings, &after)
	j.prove(f.Header.Shard, a.first, class)
	return class, nil
}

// confirm looks for the frame under its key and makes sure of it.
func (j *Journal) confirm(ctx context.Context, w *writer, f *journal.Sealed, shard []byte, missing error) (journal.Class, error) {
	key := runAndNumber(f.Header.Run, f.Header.N)
	row, after, err := w.commit(ctx, confirmName, [][]byte{shard, key, f.Bytes, j.seen()}, []int16{text, binary, binary, text})
	if err != nil {
		var sure *sureError
		if errors.As(err, &sure) {
			err = sure.err // the frame's own outcome is not known by that
		}
		return 0, fmt.Errorf("make sure of the frame: %w", err)
	}
	a, err := parseAnswer(row)
	if err != nil {
		w.broken = true
		return 0, err
	}
	switch a.first {
	case 0:
		if missing == nil {
			missing = errors.New("the server says that the frame is there, and that it is not")
		}
		return 0, missing
	case 2:
		return 0, fmt.Errorf("%w: run %s, frame %d", journal.ErrFork, f.Header.Run, f.Header.N)
	}
	if a.second < 0 {
		if err := j.refused(w, f, &a); err != nil {
			return 0, err
		}
		return 0, errors.New("the head could not be written")
	}
	if err := j.primary(w, a.server); err != nil {
		return 0, err
	}
	class := classOf(&a.settings, &after)
	j.prove(f.Header.Shard, a.second, class)
	return class, nil
}

// refused says why the head was not moved, nil when it is not for the server's
// timeline or the shard.
func (j *Journal) refused(w *writer, f *journal.Sealed, a *answer) error {
	if a.timeline < 0 {
		return j.noShard(f.Header.Shard)
	}
	if a.timeline > a.server {
		w.broken = true
		j.writers.dropIdle()
		return behindHead(a.server, a.timeline)
	}
	return j.primary(w, a.server)
}

// primary checks a server's timeline against what this process has seen. One
// that is behind is left: the next try connects anew.
func (j *Journal) primary(w *writer, server int64) error {
	err := j.met(server)
	if err != nil {
		w.broken = true
		j.writers.dropIdle()
	}
	return err
}

// met takes note of a server's timeline, or says why the server is not to be
// used. What was known of another primary's standby does not hold for a new one.
func (j *Journal) met(server int64) error {
	raised, err := j.timelines.check(server)
	if raised {
		j.opts.Logger.Warn("the database has a new primary", slog.Int64("timeline", server))
		j.mu.Lock()
		clear(j.proven) // the standby of before may be the primary now
		j.mu.Unlock()
	}
	return err
}

// seen is the highest timeline of this process, as a parameter.
func (j *Journal) seen() []byte { return strconv.AppendInt(nil, j.timelines.seen.Highest(), 10) }

// runAndNumber is the index key: the bytes as they stand in a frame's header.
func runAndNumber(run journal.Run, n uint64) []byte {
	h := journal.Header{Run: run, N: n}
	var b [journal.HeaderBytes]byte
	return h.AppendBinary(b[:0])[8:32]
}

type frameKey struct {
	shard uint32
	run   journal.Run
	n     uint64
}

func keyOf(f *journal.Sealed) frameKey {
	return frameKey{f.Header.Shard, f.Header.Run, f.Header.N}
}

// not is the error of a try that surely kept nothing: so the frame was not
// appended, unless an earlier try of it ended in doubt.
func (j *Journal) not(f *journal.Sealed, reason error) error {
	j.mu.Lock()
	_, doubt := j.doubtful[keyOf(f)]
	j.mu.Unlock()
	if doubt {
		return j.unknown(f, reason)
	}
	return fmt.Errorf("%w: %w", journal.ErrNotAppended, reason)
}

func (j *Journal) unknown(f *journal.Sealed, reason error) error {
	return fmt.Errorf("append frame %d of run %s: not known whether it is kept: %w", f.Header.N, f.Header.Run, reason)
}

// settle ends what was in doubt about the frame and wakes those who wait for a
// new one.
func (j *Journal) settle(f *journal.Sealed) {
	j.mu.Lock()
	delete(j.doubtful, keyOf(f))
	j.mu.Unlock()
	j.wake()
}

func (j *Journal) wake() {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.changed)
	j.changed = make(chan struct{})
}
