// Package pgjournal keeps a journal in PostgreSQL: one row for each frame,
// and one row for each shard, its head, that whoever appends locks and moves.
//
// An append is one statement and one transaction. It returns the settings that
// were in force, and the class of the frame comes from them and not from what
// was configured once. A commit that gave up waiting for its standby is an
// unknown outcome, and so is everything else that is not surely a failure; the
// same frame again finds out, and makes sure of what it finds.
//
// Several processes may append to one shard, each under runs of its own. Their
// frames are serial: a frame waits for those that other writers have in hand.
package pgjournal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/postgres"
)

// MaxFrameBytes is the largest frame a PostgreSQL journal takes: the same as a
// SQLite journal's, so that frames can be copied both ways.
const MaxFrameBytes = 4 << 20

// minVersion is the first PostgreSQL that is supported. Use a current minor
// release: older ones may not wait for the standby in the first moment after a
// start.
const minVersion = 130000

// Options of a journal.
type Options struct {
	// Postgres says where the database is. MaxConns bounds the connections that
	// read, and those that append too. Its StatementTimeout is for reading only: an
	// append is never cancelled. The journal must be reached directly or through a
	// pooler of sessions: its connections keep settings. Its Timeline, if it has
	// one, is shared with other pools of the same database.
	Postgres postgres.Options
	// ReadOnly opens whatever can be read, also a standby and a journal that Open
	// would refuse: for the auditor. Appends fail.
	ReadOnly bool
	// Logger hears of new primaries (default: nothing is logged).
	Logger *slog.Logger
	// TimelineFile keeps the highest timeline seen over restarts, so that a primary
	// from before a promotion is not taken for the newest; "" for memory only.
	TimelineFile string

	dial  pgconn.DialFunc // tests: failing connections
	trust time.Duration   // tests: how long an idle connection is used without a question
}

// Journal is a [journal.Journal] in a PostgreSQL database.
type Journal struct {
	opts      Options
	props     journal.Properties
	readers   *pgxpool.Pool
	writers   *writers
	timelines *timelines

	closing context.Context // ends when Close begins
	cancel  context.CancelFunc
	done    <-chan struct{} // closing's

	mu       sync.Mutex
	closed   bool
	under    sync.WaitGroup // appends and imports under way
	doubtful map[frameKey]struct{}
	proven   map[uint32]journal.Position // by shard: up to here a standby has all, see prove
	weak     map[uint32]journal.Position // by shard: up to here some commits were of class demo
	changed  chan struct{}               // closed and replaced at every append of this process
}

var _ journal.Journal = (*Journal)(nil)

// Open connects to the journal in a database. It refuses, with one sentence, a
// journal that is not set up or not of this program's schema, a server that is
// too old, a standby, a primary that is behind one this process has seen, and a
// journal whose newest frames are missing. An error that [postgres.Final] does
// not name final may be gone the next time.
func Open(ctx context.Context, opts Options) (*Journal, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	j, err := open(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", postgres.Redact(opts.Postgres.URL), explain(err))
	}
	return j, nil
}

func open(ctx context.Context, opts Options) (_ *Journal, err error) {
	j := &Journal{opts: opts, doubtful: map[frameKey]struct{}{}, proven: map[uint32]journal.Position{}, weak: map[uint32]journal.Position{}, changed: make(chan struct{})}
	if j.opts.Postgres.Timeline == nil {
		j.opts.Postgres.Timeline = new(postgres.Timeline)
	}
	if j.timelines, err = loadTimelines(j.opts.Postgres.Timeline, opts.TimelineFile, opts.Logger); err != nil {
		return nil, err
	}
	if j.readers, err = postgres.Open(ctx, j.opts.Postgres); err != nil {
		return nil, err
	}
	config := j.readers.Config()
	if opts.dial != nil {
		config.ConnConfig.DialFunc = opts.dial
	}
	j.writers = newWriters(config, int(config.MaxConns))
	if opts.trust > 0 {
		j.writers.trust = opts.trust
	}
	j.closing, j.cancel = context.WithCancel(context.Background())
	j.done = j.closing.Done()
	if err := j.inspect(ctx); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

const inspectSQL = `
SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
	CASE WHEN pg_is_in_recovery() THEN 0 ELSE ` + "(SELECT " + postgres.TimelineSQL + ")" + ` END,
	coalesce((SELECT max(shard) + 1 FROM tidegate_journal.head), 0), coalesce((SELECT max(timeline) FROM tidegate_journal.head), 0),
	ARRAY[` + settingsSQL + `]`

// inspect reads what the server is and refuses what cannot be used.
func (j *Journal) inspect(ctx context.Context) error {
	var version, shards int
	var name string
	var standby bool
	var timeline, highest int64
	var text []string
	// The schema first: the other question reads its tables.
	err := schema.Check(ctx, j.readers)
	if err != nil {
		return err
	}
	if err := j.readers.QueryRow(ctx, inspectSQL).Scan(&version, &name, &standby, &timeline, &shards, &highest, &text); err != nil {
		return err
	}
	in := parseSettings(text)
	j.props = journal.Properties{Class: in.class(), MaxFrameBytes: MaxFrameBytes, Shards: uint32(shards)} //nolint:gosec // one row each
	switch {
	case shards == 0:
		return errors.New("the table of heads has no row: the journal was damaged, restore it from a backup")
	case j.opts.ReadOnly:
		return nil
	case version < minVersion:
		return fmt.Errorf("PostgreSQL %s is too old: 13 or later is needed, in its newest minor release", name)
	case standby:
		return errors.New("this database server is a standby: connect to the primary (several hosts in the URL with target_session_attrs=read-write find it by themselves)")
	case timeline < highest:
		return behindHead(timeline, highest)
	}
	if err := j.met(timeline); err != nil {
		return err
	}
	for shard := range j.props.Shards {
		if err := j.whole(ctx, shard); err != nil {
			return err
		}
	}
	return nil
}

// whole says whether the newest frame of a shard is the one its head names.
func (j *Journal) whole(ctx context.Context, shard uint32) error {
	var head, last int64
	err := j.readers.QueryRow(ctx, `SELECT position, coalesce((SELECT max(position) FROM tidegate_journal.frame f WHERE f.shard = h.shard), 0)
		FROM tidegate_journal.head h WHERE shard = $1`, shard).Scan(&head, &last)
	if err != nil {
		return fmt.Errorf("read the head of shard %d: %w", shard, err)
	}
	switch {
	case last < head:
		return fmt.Errorf("shard %d is cut short: %w; run `tidegate verify`", shard, &journal.GapError{After: journal.Position(last), Next: journal.Position(head + 1)}) //nolint:gosec // positions are positive
	case last > head:
		return fmt.Errorf("shard %d has a frame at %d, and its head is at %d: the journal was changed by hand; run `tidegate verify`", shard, last, head)
	}
	return nil
}

// Properties says what the journal promised when it was opened; what an append
// survives, the append itself says.
func (j *Journal) Properties() journal.Properties { return j.props }

// closePatience is how long Close waits for appends under way, and then for
// connections that do not let themselves be closed.
const closePatience = 5 * time.Second

// Close waits for the appends under way, 5 s at most: then their connections
// are closed, and their outcome is unknown.
func (j *Journal) Close() error {
	j.mu.Lock()
	again := j.closed
	j.closed = true
	j.mu.Unlock()
	j.cancel()
	if !within(closePatience, j.under.Wait) {
		j.writers.cut()
		j.under.Wait() // at once: they have lost their connections
	}
	if again {
		return nil
	}
	j.writers.dropIdle()
	if !within(closePatience, j.readers.Close) {
		j.opts.Logger.Warn("connections to the database do not close; the server may be frozen")
	}
	return nil
}

// within says whether f returned in time. It is left running when not.
func within(d time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// begin registers an append; false once the journal is closed.
func (j *Journal) begin() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return false
	}
	j.under.Add(1)
	return true
}

func (j *Journal) noShard(shard uint32) error {
	return fmt.Errorf("there is no shard %d here: the journal has %d", shard, j.props.Shards)
}
