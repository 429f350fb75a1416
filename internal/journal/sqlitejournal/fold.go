package sqlitejournal

import (
	"errors"
	"fmt"
	"log/slog"
)

// walBytes estimates what a frame adds to the -wal: its pages, and the two
// that change with every frame.
func walBytes(frame int) int64 {
	return int64((frame/(pageBytes-4) + 3) * (pageBytes + 24))
}

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
	j.wal = 0
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

// walAlarm is the multiple of CheckpointBytes at which a growing -wal is told.
const walAlarm = 32

// foldSoon checkpoints after this append has been answered and before a later
// one: PASSIVE, so it waits for no reader and no reader waits for it.
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
		_, log, done, err := j.checkpoint("PRAGMA wal_checkpoint(PASSIVE)")
		if err != nil {
			// Nothing is lost, the -wal has it all; but a failed sync of the file must
			// not be taken for done, so everything is written again.
			j.failed(err)
			return
		}
		// When all is folded the next frame begins the -wal anew; what a long read
		// holds back is counted again.
		j.wal = (log - done) * (pageBytes + 24)
		full := log*(pageBytes+24) > walAlarm*j.opts.CheckpointBytes
		if full != j.warned {
			j.warned = full
			if full {
				j.opts.Logger.Warn("journal -wal grows: a long read keeps it from being folded", slog.Int64("bytes", log*(pageBytes+24)), slog.String("path", j.path))
			}
		}
	})
}
