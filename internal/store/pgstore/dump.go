package pgstore

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// dumpSettings let a dump take its time, and read rows in the order of their
// index instead of sorting all of them in a temporary file.
const dumpSettings = "set_config('statement_timeout', '0', true), set_config('enable_sort', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('jit', 'off', true), "

// Hash implements [store.Store].
func (s *Store) Hash(ctx context.Context) (epro.Digest, error) {
	d, _, err := s.HashAt(ctx, 0)
	return d, err
}

// HashAt implements [store.Store].
func (s *Store) HashAt(ctx context.Context, shard uint32) (d epro.Digest, c store.Cursor, err error) {
	h := sha256.New()
	c.Era = 1
	err = s.snapshot(ctx, dumpSettings, func(q querier) error {
		if err := each(ctx, q, s.sql(cursorSQL), []any{int64(shard)}, func(scan func(...any) error) error { return scanCursor(&c, scan) }); err != nil {
			return err
		}
		return s.dump(ctx, q, h)
	})
	h.Sum(d[:0])
	return d, c, err
}

// Dump implements [store.Store]. It reads one state in one transaction: a
// [Build] that is through waits for it before it swaps the tables.
func (s *Store) Dump(ctx context.Context, w io.Writer) error {
	return s.snapshot(ctx, dumpSettings, func(q querier) error { return s.dump(ctx, q, w) })
}

func (s *Store) dump(ctx context.Context, q querier, w io.Writer) error {
	d := store.NewDumpWriter(w)
	for _, part := range []func(context.Context, querier, *store.DumpWriter) error{s.dumpFrames, s.dumpEntities, s.dumpReports, s.dumpFacts} {
		if err := part(ctx, q, d); err != nil {
			return err
		}
	}
	return d.Close()
}

func (s *Store) dumpFrames(ctx context.Context, q querier, d *store.DumpWriter) error {
	if err := each(ctx, q, s.sql("SELECT shard, position, frames, rule_set, tz, era FROM tidegate_store.cursor WHERE position IS NOT NULL ORDER BY shard"), nil, func(scan func(...any) error) error {
		var shard int64
		var c store.Cursor
		err := scanCursor(&c, func(dest ...any) error { return scan(append([]any{&shard}, dest...)...) })
		d.Cursor(uint32(shard), c)
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, q, s.sql("SELECT shard, "+frameColumns+" ORDER BY shard, position"), nil, func(scan func(...any) error) error {
		var shard int64
		var f store.FrameRow
		err := scanFrame(&f, func(dest ...any) error { return scan(append([]any{&shard}, dest...)...) })
		d.Frame(uint32(shard), &f)
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, q, s.sql("SELECT shard, idx, hash FROM tidegate_store.tree ORDER BY shard, idx"), nil, func(scan func(...any) error) error {
		var shard, index int64
		var hash epro.Digest
		err := scan(&shard, &index, (*digest)(&hash))
		d.Tree(uint32(shard), uint64(index), hash[:])
		return err
	}); err != nil {
		return err
	}
	return each(ctx, q, s.sql("SELECT shard, run, n, hash, time FROM tidegate_store.run ORDER BY shard, run"), nil, func(scan func(...any) error) error {
		var shard, n int64
		var run []byte
		var h store.RunHead
		err := scan(&shard, &run, &n, (*digest)(&h.Hash), &h.Time)
		h.N = uint64(n)
		d.Run(uint32(shard), run, &h)
		return err
	})
}

func (s *Store) dumpEntities(ctx context.Context, q querier, d *store.DumpWriter) error {
	if err := each(ctx, q, s.sql("SELECT "+trialColumns+" ORDER BY trial"), nil, func(scan func(...any) error) error {
		var t store.Trial
		err := scanTrial(&t, scan)
		d.Trial(&t)
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, q, s.sql("SELECT trial, "+siteColumns+" ORDER BY trial, site"), nil, func(scan func(...any) error) error {
		var v store.Site
		err := scanSite(&v, func(dest ...any) error { return scan(append([]any{into(&v.TrialID)}, dest...)...) })
		d.Site(&v)
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, q, s.sql("SELECT k.trial, "+enrollmentColumns+" FROM tidegate_store.trial_key k JOIN tidegate_store.subject s ON s.tk=k.tk WHERE s.status IS NOT NULL ORDER BY k.trial, s.patient"),
		nil, func(scan func(...any) error) error {
			var e store.Enrollment
			_, err := scanEnrollment(&e, func(dest ...any) error { return scan(append([]any{into(&e.TrialID)}, dest...)...) })
			d.Enrollment(&e)
			return err
		}); err != nil {
		return err
	}
	var staff []store.Staff
	if err := each(ctx, q, s.sql(`SELECT s.staff, s.name, s.removed, s.version, g.role, g.trial, g.site FROM tidegate_store.staff s
		LEFT JOIN tidegate_store.staff_grant g ON g.staff=s.staff ORDER BY s.staff, g.role, g.trial, g.site`), nil, func(scan func(...any) error) (err error) {
		staff, err = scanStaff(staff, scan)
		return err
	}); err != nil {
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

func (s *Store) dumpReports(ctx context.Context, q querier, d *store.DumpWriter) error {
	if err := each(ctx, q, s.sql("SELECT "+reportColumns+reportFrom+" ORDER BY r.row"), nil, func(scan func(...any) error) error {
		var r store.Report
		var meaning epro.Digest
		err := scanReport(&r, &meaning, scan)
		d.Report(&r, meaning[:])
		return err
	}); err != nil {
		return err
	}
	return each(ctx, q, s.sql("SELECT "+duplicateColumns+duplicateFrom+" ORDER BY d.row"), nil, func(scan func(...any) error) error {
		var r store.Duplicate
		err := scanDuplicate(&r, scan)
		d.Duplicate(&r)
		return err
	})
}

func (s *Store) dumpFacts(ctx context.Context, q querier, d *store.DumpWriter) error {
	if err := each(ctx, q, s.sql("SELECT "+factColumns+" FROM tidegate_store.fact f ORDER BY f.row"), nil, func(scan func(...any) error) error {
		var f store.FactRow
		err := scanFact(&f, scan)
		d.Fact(&f)
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, q, s.sql("SELECT "+keyColumns), nil, func(scan func(...any) error) error {
		var k store.KeyFact
		err := scanKey(&k, scan)
		d.Key(&k)
		return err
	}); err != nil {
		return err
	}
	return each(ctx, q, s.sql("SELECT "+booksColumns+" ORDER BY trial"), nil, func(scan func(...any) error) error {
		var b store.Books
		err := scanBooks(&b, scan)
		d.Books(&b)
		return err
	})
}
