package sqlitejournal

import (
	"errors"
	"fmt"
	"log/slog"
)

// walBytes estimates what a frame adds to the -wal: its pages, and the two
// that change with every frame.
func walBytes(frame int) int64 {
	return int64(frame/(pageBytes-4)+3) * walPageBytes
}

const walPageBytes = pageBytes + 24

var errFoldBusy = errors.New("readers or another process keep the -wal from being folded into the file: try again")

// fold writes all of the -wal into the file, syncs it, and empties the -wal.
// Afterwards no frame depends on a sync of the -wal that may have failed.
func (j *Journal) fold() error {
	busy, _, _, err := j.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)")
	if err != nil {
		return err
	}
	if busy {
		return errFoldBusy
	}
	j.wal, j.walSize = 0, 0
	return nil
}

func (j *Journal) checkpoint(sql string) (busy bool, log, done int64, err error) {
	v, err := j.w.one(sql)
	if err != nil {
		return false, 0, 0, err
	}
	b, ok1 := v[0].(int64)
	log, ok2 := v[1].(int64)
	done, ok3 := v[2].(int64)
	if !ok1 || !ok2 || !ok3 {
		return false, 0, 0, fmt.Errorf("SQLite answers %v to a checkpoint", v)
	}
	return b != 0, log, done, nil
}

// Multiples of CheckpointBytes: from where a fold waits, a moment, for the
// readers that keep the -wal from being begun anew, and where a growing -wal is
// told of.
const (
	walPatience = 4
	walAlarm    = 32
)

// momentMillis is that moment. Reads by the journal itself are shorter.
const momentMillis = 20

// foldSoon checkpoints after this append has been answered and before a later
// one. At first PASSIVE: it waits for no reader, and no reader waits for it.
func (j *Journal) foldSoon() {
	select {
	case j.foldQueue <- struct{}{}:
	default:
		return // one is under way
	}
	j.folding.Go(func() {
		defer func() { <-j.foldQueue }()
		select {
		case <-j.writer:
		case <-j.done:
			return
		}
		defer func() { j.writer <- struct{}{} }()
		if j.w == nil || j.isClosed() {
			return
		}
		if err := j.foldSome(); err != nil {
			// Nothing is lost, the -wal has it all; but a failed sync of the file must
			// not be taken for done, so everything is written again.
			j.failed(err)
		}
	})
}

func (j *Journal) foldSome() error {
	sql := "PRAGMA wal_checkpoint(PASSIVE)"
	patient := j.walSize >= walPatience*j.opts.CheckpointBytes
	if patient {
		sql = "PRAGMA wal_checkpoint(RESTART)"
		if _, err := j.w.one(fmt.Sprintf("PRAGMA busy_timeout=%d", momentMillis)); err != nil {
			return err
		}
	}
	busy, log, done, err := j.checkpoint(sql)
	if patient {
		if _, e := j.w.one(fmt.Sprintf("PRAGMA busy_timeout=%d", busyMillis)); err == nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	// When all is folded the next frame may begin the -wal anew; what a long read
	// holds back is counted again.
	j.wal = (log - done) * walPageBytes
	j.walSize = log * walPageBytes
	if patient && !busy {
		j.walSize = 0
	}
	if full := j.walSize > walAlarm*j.opts.CheckpointBytes; full != j.warned {
		j.warned = full
		if full {
			j.opts.Logger.Warn("journal -wal grows: a long read, such as a copy, keeps it from being begun anew",
				slog.Int64("bytes", j.walSize), slog.String("path", j.path))
		}
	}
	return nil
}
