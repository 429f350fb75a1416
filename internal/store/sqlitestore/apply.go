package sqlitestore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

var errClosed = errors.New("the tables are closed")

// Apply implements [store.Store]. SQLite keeps shard 0 only: row keys hold no shard.
func (s *Store) Apply(ctx context.Context, shard uint32, from store.Cursor, fn func(store.Tx) (store.Cursor, error)) error {
	if shard != 0 {
		return fmt.Errorf("apply to shard %d: SQLite keeps shard 0 only; more shards need tables in PostgreSQL", shard)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.w == nil:
		return errors.New("the tables are open for reading only")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t := &tx{w: s.w, books: map[string]*store.Books{}, trials: map[string]int64{}}
	err := s.transaction(func() error {
		// BEGIN IMMEDIATE took the file's write lock: what is read now stays so.
		stored, err := t.cursor(shard)
		if err != nil {
			return err
		}
		if stored != from {
			return store.ErrFenced
		}
		to, err := fn(t)
		if err != nil {
			return err
		}
		if err := t.flushBooks(); err != nil {
			return err
		}
		if to.Position > store.MaxPosition {
			return fmt.Errorf("position %d does not fit the tables' key", to.Position)
		}
		_, err = t.w.exec(`INSERT INTO cursor(shard, position, frames, rule_set, tz, era) VALUES(?,?,?,?,?,?)
			ON CONFLICT(shard) DO UPDATE SET position=excluded.position, frames=excluded.frames, rule_set=excluded.rule_set, tz=excluded.tz, era=excluded.era`,
			int64(shard), int64(to.Position), int64(to.Frames), to.RuleSet, to.TZ, int64(to.Era))
		return err
	})
	t.w = nil // a Tx kept beyond fn fails at once
	if err != nil {
		return fmt.Errorf("apply frames to the tables: %w", err)
	}
	return nil
}

// tx implements [store.Tx] on the writing connection.
type tx struct {
	w      *writer
	books  map[string]*store.Books
	trials map[string]int64
}

var _ store.Tx = (*tx)(nil)

func (t *tx) cursor(shard uint32) (store.Cursor, error) {
	c := store.Cursor{Era: 1}
	err := t.w.one("SELECT position, frames, rule_set, tz, era FROM cursor WHERE shard=?", []driver.Value{int64(shard)}, func(v []driver.Value) error {
		c = store.Cursor{
			Position: journal.Position(colInt(v[0])), Frames: uint64(colInt(v[1])),
			RuleSet: colText(v[2]), TZ: colText(v[3]), Era: uint64(colInt(v[4])),
		}
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.Cursor{}, err
	}
	return c, nil
}

func (t *tx) Run(run journal.Run) (h store.RunHead, err error) {
	err = t.w.one("SELECT n, hash, time FROM run WHERE run=?", []driver.Value{run[:]}, func(c []driver.Value) error {
		h = store.RunHead{N: uint64(colInt(c[0])), Hash: colDigest(c[1]), Time: colInt(c[2])}
		return nil
	})
	return h, err
}

func (t *tx) HasHeader(hash epro.Digest) (bool, error) {
	// No index: a run cites the last header its process read, so walking back
	// from the end finds it within a few rows. A whole walk is a damaged journal.
	err := t.w.one("SELECT 1 FROM frame WHERE hash=? ORDER BY position DESC LIMIT 1", []driver.Value{hash[:]}, func([]driver.Value) error { return nil })
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (t *tx) AddFrame(f store.FrameRow) error {
	if _, err := t.w.exec("INSERT INTO frame(position, hash, run, n, time) VALUES(?,?,?,?,?)",
		int64(f.Position), f.Hash[:], f.Run[:], int64(f.N), f.Time); err != nil {
		return err
	}
	_, err := t.w.exec(`INSERT INTO run(run, n, hash, time) VALUES(?,?,?,?)
		ON CONFLICT(run) DO UPDATE SET n=excluded.n, hash=excluded.hash, time=excluded.time`, f.Run[:], int64(f.N), f.Hash[:], f.Time)
	return err
}

func (t *tx) TreeHash(index int64) (d epro.Digest, err error) {
	err = t.w.one("SELECT hash FROM tree WHERE idx=?", []driver.Value{index}, func(c []driver.Value) error {
		d = colDigest(c[0])
		return nil
	})
	return d, err
}

func (t *tx) AddTreeHashes(first int64, hashes []epro.Digest) error {
	for i := range hashes {
		if _, err := t.w.exec("INSERT INTO tree(idx, hash) VALUES(?,?)", first+int64(i), hashes[i][:]); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) AddBooks(add store.Books) error {
	b, ok := t.books[add.TrialID]
	if !ok {
		b = &store.Books{TrialID: add.TrialID}
		t.books[add.TrialID] = b
	}
	// Unsigned sums wrap around, so that a difference may be taken away too.
	b.Recorded += add.Recorded
	b.Duplicates += add.Duplicates
	b.Conflicts += add.Conflicts
	b.Quarantined += add.Quarantined
	return nil
}

// flushBooks writes the sums of this transaction, a row for each trial instead of one for each report.
func (t *tx) flushBooks() error {
	for trial, b := range t.books {
		if _, err := t.w.exec(`INSERT INTO books(trial, recorded, duplicates, conflicts, quarantined) VALUES(?,?,?,?,?)
			ON CONFLICT(trial) DO UPDATE SET recorded=recorded+excluded.recorded, duplicates=duplicates+excluded.duplicates,
			conflicts=conflicts+excluded.conflicts, quarantined=quarantined+excluded.quarantined`,
			trial, int64(b.Recorded), int64(b.Duplicates), int64(b.Conflicts), int64(b.Quarantined)); err != nil {
			return err
		}
	}
	return nil
}

// trialKey is the short key of a trial's id, made when first met. Reports may
// name a trial that does not exist.
func (t *tx) trialKey(trial string) (int64, error) {
	if k, ok := t.trials[trial]; ok {
		return k, nil
	}
	var k int64
	get := func(c []driver.Value) error { k = colInt(c[0]); return nil }
	err := t.w.one("SELECT tk FROM trial_key WHERE trial=?", []driver.Value{trial}, get)
	if errors.Is(err, store.ErrNotFound) {
		err = t.w.one("INSERT INTO trial_key(trial) VALUES(?) RETURNING tk", []driver.Value{trial}, get)
	}
	if err != nil {
		return 0, err
	}
	t.trials[trial] = k
	return k, nil
}

const subjectColumns = "sk, site, status, min_epoch, version, enrolled, withdrawn"

func (t *tx) Subject(trial, patient string) (store.Subject, error) {
	tk, err := t.trialKey(trial)
	if err != nil {
		return store.Subject{}, err
	}
	s := store.Subject{Enrollment: store.Enrollment{TrialID: trial, PatientID: patient}}
	get := func(c []driver.Value) error {
		s.Key = store.SubjectKey(colInt(c[0]))
		if c[2] == nil {
			return nil
		}
		s.Known = true
		e := &s.Enrollment
		e.SiteID, e.Status = colText(c[1]), epro.EnrollmentStatus(colText(c[2]))
		e.MinEpoch, e.Version = uint32(colInt(c[3])), uint64(colInt(c[4]))
		e.EnrolledAt = store.JournalTime(colInt(c[5]))
		if c[6] != nil {
			e.WithdrawnAt = store.JournalTime(colInt(c[6]))
		}
		return nil
	}
	err = t.w.one("SELECT "+subjectColumns+" FROM subject WHERE tk=? AND patient=?", []driver.Value{tk, patient}, get)
	if errors.Is(err, store.ErrNotFound) {
		err = t.w.one("INSERT INTO subject(tk, patient) VALUES(?,?) RETURNING "+subjectColumns, []driver.Value{tk, patient}, get)
	}
	return s, err
}

func (t *tx) PutEnrollment(key store.SubjectKey, e store.Enrollment) error {
	n, err := t.w.exec("UPDATE subject SET site=?, status=?, min_epoch=?, version=?, enrolled=?, withdrawn=? WHERE sk=?",
		e.SiteID, string(e.Status), int64(e.MinEpoch), int64(e.Version), e.EnrolledAt.UnixNano(), timeOrNull(e.WithdrawnAt), int64(key))
	return changedOne(n, err, "participant")
}

// changedOne is an error when an update did not find its row: a fault of the caller.
func changedOne(n int64, err error, what string) error {
	if err == nil && n != 1 {
		return fmt.Errorf("the %s to change is not in the tables", what)
	}
	return err
}
