// Package sqlitejournal is the journal of one machine: a SQLite file in WAL
// mode, synced before an append returns.
//
// One connection writes and checkpoints, others only read. An append survives
// a crash, a kill, and a power cut of a disk that keeps what it was told to
// sync; it does not survive the loss of that disk.
//
// A frame lies in the file as its own bytes and nothing beside them: run and
// number are indexed where they stand in the frame's header, so no second copy
// of them can disagree.
package sqlitejournal

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// MaxFrameBytes is the largest frame a SQLite journal takes.
const MaxFrameBytes = 4 << 20

// Options of a journal; the zero value is right for a server.
type Options struct {
	// ReadOnly opens an existing journal for reading, also beside a process that
	// writes it. It changes nothing in the file or its -wal.
	ReadOnly bool
	// Audit, with ReadOnly, opens a damaged journal too, as far as SQLite can read
	// it: the auditor is to name what is wrong. See [Journal.Damage].
	Audit bool
	// Readers is how many reads can run at once (default 4).
	Readers int
	// CheckpointBytes is the size of the -wal, in bytes, from which it is folded
	// into the file between two frames (default 4 MiB).
	CheckpointBytes int64
	// PollInterval is how soon Wait sees what another process appended
	// (default 200 ms). Appends by this process are seen at once.
	PollInterval time.Duration
	// Logger hears of disk errors and the recovery from them (default: none).
	Logger *slog.Logger

	vfs  string                        // tests: a failing file layer
	wrap func(driver.Conn) driver.Conn // tests: a failing driver
}

// Journal is a [journal.Journal] in one SQLite file.
type Journal struct {
	path string
	key  string // path as registered in openFiles
	opts Options

	writer  chan struct{} // holds one token: whoever takes it may use the next fields
	w       *conn         // nil while a disk error is not recovered from
	suspect bool          // the -wal may hold frames that a failed sync left in memory only
	heads   map[journal.Run]head
	wal     int64 // estimate of the bytes in the -wal that are not in the file yet
	walSize int64 // bytes of the -wal in use at the last checkpoint
	warned  bool

	readers chan *conn // nil stands for a connection to be opened
	damage  error      // why a journal opened for an audit would have been refused

	mu       sync.Mutex
	last     journal.Position
	changed  chan struct{} // closed at the next append; nil when nobody waits
	doubtful map[frameKey]struct{}

	folding   sync.WaitGroup
	foldQueue chan struct{} // one token: a fold is under way
	done      chan struct{} // closed by Close
	closeOnce sync.Once
	closeErr  error
}

// head is the newest frame of a run, kept to save a query per append. The
// unique index decides when this memory is wrong.
type head struct {
	n    uint64
	hash epro.Digest
}

// maxHeads bounds the memory of heads; a process appends under one run.
const maxHeads = 64

type frameKey struct {
	run journal.Run
	n   uint64
}

var _ journal.Journal = (*Journal)(nil)

// Open opens the journal at path, or makes a new one where there is no file. It
// refuses, with one sentence and without changing a byte of the file or its
// -wal, a file that is damaged, foreign, or of a newer format, and settings
// that do not hold. Looking may leave an empty -wal and a -shm beside it.
func Open(ctx context.Context, path string, opts Options) (*Journal, error) {
	if opts.Readers <= 0 {
		opts.Readers = 4
	}
	if opts.CheckpointBytes <= 0 {
		opts.CheckpointBytes = 4 << 20
	}
	if opts.PollInterval <= 0 {
		opts.PollInterval = 200 * time.Millisecond
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	j := &Journal{
		path: path, opts: opts,
		writer: make(chan struct{}, 1), readers: make(chan *conn, opts.Readers),
		heads: map[journal.Run]head{}, doubtful: map[frameKey]struct{}{},
		foldQueue: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if err := j.open(ctx); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	return j, nil
}

func (j *Journal) open(ctx context.Context) (err error) {
	unclean, err := inspect(ctx, j.path, j.opts)
	if err != nil {
		return err
	}
	j.key = openFiles.add(j.path)
	defer func() {
		if err != nil {
			openFiles.remove(j.key)
		}
	}()
	deadline := time.Now().Add(busyMillis * time.Millisecond)
	for err = j.connect(ctx, unclean); code(err) == codeBusy && ctx.Err() == nil && time.Now().Before(deadline); err = j.connect(ctx, unclean) {
		// Another process reads the -wal that a crash left, and builds its index anew
		// just now. SQLite does not wait for that in every place where it meets it.
		rest := time.NewTimer(busyPause)
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
		}
	}
	if err != nil {
		return explain(err)
	}
	for range j.opts.Readers - 1 {
		j.readers <- nil
	}
	j.writer <- struct{}{}
	return nil
}

// busyPause is the time between two tries while another process holds the file.
const busyPause = 20 * time.Millisecond

// connect opens a connection that reads, over which everything is checked, and
// then the one that writes: a file that is refused stays as it was, -wal
// included. With an error nothing stays open.
func (j *Journal) connect(ctx context.Context, unclean bool) (err error) {
	r, err := connect(j.path, reading, j.opts)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	j.last, err = r.verify(ctx, unclean && !j.opts.ReadOnly)
	if err != nil && j.opts.ReadOnly && j.opts.Audit && code(err) != codeBusy {
		j.damage, err = explain(err), nil
	}
	if err != nil {
		return err
	}
	if !j.opts.ReadOnly {
		if j.w, err = connect(j.path, writing, j.opts); err != nil {
			return err
		}
		// A sync that failed in an earlier process may have left frames that only
		// memory holds: write them again, elsewhere, before anything is built on them.
		if unclean {
			if err = j.fold(); err != nil {
				j.w.close()
				return err
			}
		}
	}
	j.readers <- r
	return nil
}

// Damage is why [Open] would have refused the file had it not been opened for an
// audit; nil when it would not.
func (j *Journal) Damage() error { return j.damage }

// Properties says what the journal promises.
func (j *Journal) Properties() journal.Properties {
	return journal.Properties{Class: journal.ClassLocalFsync, MaxFrameBytes: MaxFrameBytes, Shards: 1}
}

// Close waits for the append and the reads under way, folds the -wal into the
// file and closes it. An error leaves the frames safe in the -wal.
func (j *Journal) Close() error {
	j.closeOnce.Do(func() {
		close(j.done)
		<-j.writer
		j.folding.Wait()
		for range j.opts.Readers {
			if r := <-j.readers; r != nil {
				r.close()
			}
		}
		if j.w != nil {
			var errs []error
			if err := j.fold(); err != nil && !errors.Is(err, errFoldBusy) {
				errs = append(errs, err)
			}
			if j.w != nil {
				errs = append(errs, j.w.close())
				j.w = nil
			}
			if err := errors.Join(errs...); err != nil {
				j.closeErr = fmt.Errorf("close journal %s (its frames are safe in the -wal): %w", j.path, err)
			}
		}
		openFiles.remove(j.key)
	})
	return j.closeErr
}

func (j *Journal) isClosed() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}
