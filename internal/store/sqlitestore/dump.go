package sqlitestore

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// Hash implements [store.Store].
func (s *Store) Hash(ctx context.Context) (epro.Digest, error) {
	d, _, err := s.HashAt(ctx, 0)
	return d, err
}

// HashAt implements [store.Store].
func (s *Store) HashAt(ctx context.Context, shard uint32) (d epro.Digest, c store.Cursor, err error) {
	h := sha256.New()
	err = s.snapshot(ctx, func(q querier) error {
		if c, err = readCursor(ctx, q, shard); err != nil {
			return err
		}
		return dump(ctx, q, h)
	})
	h.Sum(d[:0])
	return d, c, err
}

// Dump implements [store.Store]. It reads one state in one transaction: while
// it runs the write-ahead log grows by what the projector applies meanwhile.
func (s *Store) Dump(ctx context.Context, w io.Writer) error {
	return s.snapshot(ctx, func(q querier) error { return dump(ctx, q, w) })
}

func dump(ctx context.Context, q querier, w io.Writer) error {
	d := store.NewDumpWriter(w)
	for _, part := range []func(context.Context, querier, *store.DumpWriter) error{dumpFrames, dumpEntities, dumpReports, dumpFacts} {
		if err := part(ctx, q, d); err != nil {
			return err
		}
	}
	return d.Close()
}

func dumpFrames(ctx context.Context, q querier, d *store.DumpWriter) error {
	if err := each(ctx, q, "SELECT shard, position, frames, rule_set, tz, era FROM cursor ORDER BY shard", nil, func(scan func(...any) error) error {
		var shard, position, frames, era int64
		var c store.Cursor
		if err := scan(&shard, &position, &frames, &c.RuleSet, &c.TZ, &era); err != nil {
			return err
		}
		c.Position, c.Frames, c.Era = journal.Position(position), uint64(frames), uint64(era)
		d.Cursor(uint32(shard), c)
		return nil
	}); err != nil {
		return err
	}
	if err := each(ctx, q, "SELECT position, hash, run, n, time FROM frame ORDER BY position", nil, func(scan func(...any) error) error {
		var f store.FrameRow
		err := scanFrame(&f, scan)
		d.Frame(0, &f)
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, q, "SELECT idx, hash FROM tree ORDER BY idx", nil, func(scan func(...any) error) error {
		var index int64
		var hash []byte
		err := scan(&index, &hash)
		d.Tree(0, uint64(index), hash)
		return err
	}); err != nil {
		return err
	}
	return each(ctx, q, "SELECT run, n, hash, time FROM run ORDER BY run", nil, func(scan func(...any) error) error {
		var run, hash []byte
		var n int64
		var h store.RunHead
		err := scan(&run, &n, &hash, &h.Time)
		h.N = uint64(n)
		copy(h.Hash[:], hash)
		d.Run(0, run, &h)
		return err
	})
}

func dumpEntities(ctx context.Context, q querier, d *store.DumpWriter) error {
	if err := each(ctx, q, "SELECT "+trialColumns+" ORDER BY trial", nil, func(scan func(...any) error) error {
		var t store.Trial
		err := scanTrial(&t, scan)
		d.Trial(&t)
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, q, "SELECT trial, site, name, created FROM site ORDER BY trial, site", nil, func(scan func(...any) error) error {
		var s store.Site
		var created int64
		err := scan(&s.TrialID, &s.ID, &s.Name, &created)
		s.CreatedAt = store.JournalTime(created)
		d.Site(&s)
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, q, "SELECT k.trial, "+enrollmentColumns+" WHERE s.status IS NOT NULL ORDER BY k.trial, s.patient", nil, func(scan func(...any) error) error {
		var e store.Enrollment
		err := scanEnrollment(&e, func(dest ...any) error { return scan(append([]any{&e.TrialID}, dest...)...) })
		d.Enrollment(&e)
		return err
	}); err != nil {
		return err
	}
	staff, err := readStaff(ctx, q, "1 ORDER BY staff")
	if err != nil {
		return err
	}
	for i := range staff {
		d.Staff(&staff[i])
	}
	for i := range staff {
		for _, g := range staff[i].Grants {
			d.Grant(staff[i].ID, g)
		}
	}
	return nil
}

func dumpReports(ctx context.Context, q querier, d *store.DumpWriter) error {
	// CROSS JOIN keeps SQLite from walking the subjects first and sorting.
	if err := each(ctx, q, "SELECT "+reportColumns+" FROM report r CROSS JOIN subject s ON s.sk=r.sk CROSS JOIN trial_key k ON k.tk=r.tk ORDER BY r.row", nil, func(scan func(...any) error) error {
		var r store.Report
		var meaning epro.Digest
		err := scanReport(&r, &meaning, scan)
		d.Report(&r, meaning[:])
		return err
	}); err != nil {
		return err
	}
	return each(ctx, q, "SELECT "+duplicateColumns+" FROM duplicate d CROSS JOIN subject s ON s.sk=d.sk CROSS JOIN trial_key k ON k.tk=d.tk ORDER BY d.row", nil, func(scan func(...any) error) error {
		var r store.Duplicate
		err := scanDuplicate(&r, scan)
		d.Duplicate(&r)
		return err
	})
}

func dumpFacts(ctx context.Context, q querier, d *store.DumpWriter) error {
	if err := each(ctx, q, "SELECT "+factColumns+" FROM fact ORDER BY row", nil, func(scan func(...any) error) error {
		var f store.FactRow
		err := scanFact(&f, scan)
		d.Fact(&f)
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, q, "SELECT row, kind, kind_version, body FROM key ORDER BY row", nil, func(scan func(...any) error) error {
		var k store.KeyFact
		var row, version int64
		err := scan(&row, &k.Kind.Name, &version, &k.Body)
		k.Ref, k.Kind.Version = store.RefOfRow(row), uint16(version)
		d.Key(&k)
		return err
	}); err != nil {
		return err
	}
	return each(ctx, q, booksColumns+" ORDER BY trial", nil, func(scan func(...any) error) error {
		var b store.Books
		err := scanBooks(&b, scan)
		d.Books(&b)
		return err
	})
}
