package pgstore

import (
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// queue puts what has gathered into a batch, a statement for each table with
// all its rows as arrays, and forgets it as far as it is to be written.
func (t *tx) queue(b *pgx.Batch) {
	t.queueFrames(b)
	t.queueEntities(b)
	t.queueReports(b)
	t.queueFacts(b)
}

func (t *tx) queueFrames(b *pgx.Batch) {
	if len(t.frames) > 0 {
		b.Queue(t.s.sql("INSERT INTO tidegate_store.frame(shard, position, hash, run, n, time) SELECT $1::bigint, * FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[])"),
			int64(t.shard), column(t.frames, func(f *store.FrameRow) int64 { return int64(f.Position) }), column(t.frames, func(f *store.FrameRow) []byte { return f.Hash[:] }),
			column(t.frames, func(f *store.FrameRow) []byte { return f.Run[:] }), column(t.frames, func(f *store.FrameRow) int64 { return int64(f.N) }),
			column(t.frames, func(f *store.FrameRow) int64 { return f.Time }))
		last := map[journal.Run]bool{}
		var runs []store.FrameRow
		for i := len(t.frames) - 1; i >= 0; i-- {
			if f := &t.frames[i]; !last[f.Run] {
				last[f.Run] = true
				runs = append(runs, *f)
			}
		}
		b.Queue(t.s.sql(`INSERT INTO tidegate_store.run(shard, run, n, hash, time) SELECT $1::bigint, * FROM unnest($2::bytea[], $3::bigint[], $4::bytea[], $5::bigint[])
			ON CONFLICT(shard, run) DO UPDATE SET n=excluded.n, hash=excluded.hash, time=excluded.time`),
			int64(t.shard), column(runs, func(f *store.FrameRow) []byte { return f.Run[:] }), column(runs, func(f *store.FrameRow) int64 { return int64(f.N) }),
			column(runs, func(f *store.FrameRow) []byte { return f.Hash[:] }), column(runs, func(f *store.FrameRow) int64 { return f.Time }))
		t.frames = nil
	}
	if len(t.tree) > 0 {
		b.Queue(t.s.sql("INSERT INTO tidegate_store.tree(shard, idx, hash) SELECT $1::bigint, $2::bigint+n-1, hash FROM unnest($3::bytea[]) WITH ORDINALITY AS q(hash, n)"),
			int64(t.shard), t.treeFirst, column(t.tree, func(d *epro.Digest) []byte { return d[:] }))
		t.tree = nil
	}
}

func (t *tx) queueEntities(b *pgx.Batch) {
	if len(t.newKeys) > 0 {
		b.Queue(t.s.sql("INSERT INTO tidegate_store.trial_key(tk, trial) SELECT * FROM unnest($1::bigint[], $2::bytea[])"),
			column(t.newKeys, func(s *string) int64 { return t.trialKeys[*s] }), raws(t.newKeys))
		t.newKeys = nil
	}
	if list := t.newPeople; len(list) > 0 {
		text := func(get func(*store.Enrollment) string) [][]byte {
			return column(list, func(p **person) []byte {
				if !(*p).Known {
					return nil
				}
				return raw(get(&(*p).Enrollment))
			})
		}
		number := func(get func(*store.Enrollment) pgtype.Int8) []pgtype.Int8 {
			return column(list, func(p **person) pgtype.Int8 {
				if !(*p).Known {
					return null()
				}
				return get(&(*p).Enrollment)
			})
		}
		b.Queue(t.s.sql(`INSERT INTO tidegate_store.subject(sk, tk, patient, site, status, min_epoch, version, enrolled, withdrawn)
			SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])`),
			column(list, func(p **person) int64 { return int64((*p).Key) }), column(list, func(p **person) int64 { return (*p).trial }),
			column(list, func(p **person) []byte { return raw((*p).Enrollment.PatientID) }),
			text(func(e *store.Enrollment) string { return e.SiteID }), text(func(e *store.Enrollment) string { return string(e.Status) }),
			number(func(e *store.Enrollment) pgtype.Int8 { return integer(int64(e.MinEpoch)) }), number(func(e *store.Enrollment) pgtype.Int8 { return integer(int64(e.Version)) }),
			number(func(e *store.Enrollment) pgtype.Int8 { return integer(e.EnrolledAt.UnixNano()) }), number(func(e *store.Enrollment) pgtype.Int8 { return nanosOrNull(e.WithdrawnAt) }))
		for _, p := range list {
			p.isNew = false
		}
		t.newPeople = nil
	}
	if len(t.enrollments) > 0 {
		type change struct {
			key store.SubjectKey
			store.Enrollment
		}
		list := make([]change, 0, len(t.enrollments))
		for key, e := range t.enrollments {
			list = append(list, change{key, e})
		}
		b.Queue(t.s.sql(`UPDATE tidegate_store.subject s SET site=q.site, status=q.status, min_epoch=q.min_epoch, version=q.version, enrolled=q.enrolled, withdrawn=q.withdrawn
			FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[]) AS q(sk, site, status, min_epoch, version, enrolled, withdrawn)
			WHERE s.sk=q.sk`),
			column(list, func(c *change) int64 { return int64(c.key) }), column(list, func(c *change) []byte { return raw(c.SiteID) }),
			column(list, func(c *change) []byte { return raw(string(c.Status)) }), column(list, func(c *change) int64 { return int64(c.MinEpoch) }),
			column(list, func(c *change) int64 { return int64(c.Version) }), column(list, func(c *change) int64 { return c.EnrolledAt.UnixNano() }),
			column(list, func(c *change) pgtype.Int8 { return nanosOrNull(c.WithdrawnAt) })).Exec(changed(int64(len(list)), "participant"))
		clear(t.enrollments)
	}
	t.queueNames(b)
}

// queueNames queues trials, sites and staff: few, so a statement each.
func (t *tx) queueNames(b *pgx.Batch) {
	for id := range t.putTrials {
		tr := t.trials[id]
		b.Queue(t.s.sql(`INSERT INTO tidegate_store.trial(trial, name, status, shard, version, created, instruments) VALUES($1,$2,$3,$4,$5,$6,$7)
			ON CONFLICT(trial) DO UPDATE SET name=excluded.name, status=excluded.status, version=excluded.version, instruments=excluded.instruments`),
			octets(id), octets(tr.Name), octets(tr.Status), int64(tr.Shard), int64(tr.Version), tr.CreatedAt.UnixNano(), octets(joinInstruments(tr.Instruments)))
	}
	for id := range t.putSites {
		s := t.sites[id]
		b.Queue(t.s.sql("INSERT INTO tidegate_store.site(trial, site, name, created) VALUES($1,$2,$3,$4) ON CONFLICT(trial, site) DO UPDATE SET name=excluded.name"),
			octets(s.TrialID), octets(s.ID), octets(s.Name), s.CreatedAt.UnixNano())
	}
	for id := range t.putStaff {
		s := t.staff[id]
		b.Queue(t.s.sql(`INSERT INTO tidegate_store.staff(staff, name, removed, version) VALUES($1,$2,$3,$4)
			ON CONFLICT(staff) DO UPDATE SET name=excluded.name, removed=excluded.removed, version=excluded.version`),
			octets(id), octets(s.Name), s.Removed, int64(s.Version))
		b.Queue(t.s.sql("DELETE FROM tidegate_store.staff_grant WHERE staff=$1"), octets(id))
		if len(s.Grants) > 0 {
			b.Queue(t.s.sql("INSERT INTO tidegate_store.staff_grant(staff, role, trial, site) SELECT $1::bytea, * FROM unnest($2::bytea[], $3::bytea[], $4::bytea[])"), octets(id),
				column(s.Grants, func(g *store.Grant) []byte { return raw(g.Role) }), column(s.Grants, func(g *store.Grant) []byte { return raw(g.TrialID) }),
				column(s.Grants, func(g *store.Grant) []byte { return raw(g.SiteID) }))
		}
	}
	clear(t.putTrials)
	clear(t.putSites)
	clear(t.putStaff)
}

// actorColumn is NULL for the usual actor: the participant themselves.
func actorColumn(a epro.Actor, patient string) []byte {
	if a.Type == epro.ActorParticipant && a.ID == patient {
		return nil
	}
	return raw(a.ID)
}

func sec(t time.Time) int64 { return t.Unix() }

func ns(t time.Time) int32 { return int32(t.Nanosecond()) } // below 10⁹

const insertReports = `INSERT INTO tidegate_store.report(row, tk, sk, id, completed, received, committed, completed_ns, received_ns, version,
	completed_off, disposition, reasons, actor_type, score, clock_apart, erased, meaning, site, instrument, comments, actor, device)
	SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[], $8::integer[], $9::integer[], $10::integer[],
	$11::smallint[], $12::smallint[], $13::smallint[], $14::smallint[], $15::smallint[], $16::boolean[], $17::boolean[], $18::bytea[], $19::bytea[], $20::bytea[],
	$21::bytea[], $22::bytea[], $23::bytea[])`

func (t *tx) queueReports(b *pgx.Batch) {
	if len(t.reports) > 0 {
		text := func(get func(*store.Report) string) [][]byte {
			return column(t.reports, func(r *reportRow) []byte { return rawOrNull(get(&r.Report)) })
		}
		flag := func(get func(*store.Report) bool) []bool {
			return column(t.reports, func(r *reportRow) bool { return get(&r.Report) })
		}
		small := func(get func(*reportRow) int64) []int16 {
			return column(t.reports, func(r *reportRow) int16 { return int16(get(r)) }) // codes, sets of few bits, minutes of a day
		}
		big := func(get func(*reportRow) int64) []int64 { return column(t.reports, get) }
		b.Queue(t.s.sql(insertReports),
			big(func(r *reportRow) int64 { return store.RowKey(r.Ref) }), big(func(r *reportRow) int64 { return r.trial }), big(func(r *reportRow) int64 { return int64(r.Subject) }),
			column(t.reports, func(r *reportRow) pgtype.UUID { return uuid(r.ReportID) }),
			big(func(r *reportRow) int64 { return sec(r.CompletedAt) }), big(func(r *reportRow) int64 { return sec(r.ReceivedAt) }), big(func(r *reportRow) int64 { return r.CommittedAt.UnixNano() }),
			column(t.reports, func(r *reportRow) int32 { return ns(r.CompletedAt) }), column(t.reports, func(r *reportRow) int32 { return ns(r.ReceivedAt) }),
			column(t.reports, func(r *reportRow) int32 { return int32(r.Version) }), // counts contents under one id
			small(func(r *reportRow) int64 { return store.OffsetMinutes(r.CompletedAt) }), small(func(r *reportRow) int64 { return r.disposition }),
			small(func(r *reportRow) int64 { return r.reasons }), small(func(r *reportRow) int64 { return int64(r.Actor.Type) }),
			column(t.reports, func(r *reportRow) pgtype.Int2 {
				if r.Score == nil {
					return pgtype.Int2{}
				}
				return pgtype.Int2{Int16: int16(*r.Score), Valid: true} // 0 to 10
			}),
			flag(func(r *store.Report) bool { return r.ClockApart }), flag(func(r *store.Report) bool { return r.Erased }),
			column(t.reports, func(r *reportRow) []byte { return r.Meaning[:] }),
			text(func(r *store.Report) string { return r.SiteID }), text(func(r *store.Report) string { return r.Instrument }),
			column(t.reports, func(r *reportRow) []byte {
				if r.Comments == nil {
					return nil
				}
				return raw(*r.Comments)
			}),
			column(t.reports, func(r *reportRow) []byte { return actorColumn(r.Actor, r.PatientID) }),
			text(func(r *store.Report) string { return r.Actor.Device }))
		t.reports = nil
	}
	if list := t.duplicates; len(list) > 0 {
		b.Queue(t.s.sql(`INSERT INTO tidegate_store.duplicate(row, of, tk, sk, id, occurred, received, committed, occurred_ns, received_ns, occurred_off, actor_type, actor, device)
			SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::bigint[], $7::bigint[], $8::bigint[], $9::integer[], $10::integer[],
			$11::smallint[], $12::smallint[], $13::bytea[], $14::bytea[])`),
			column(list, func(d *duplicateRow) int64 { return store.RowKey(d.Ref) }), column(list, func(d *duplicateRow) int64 { return store.RowKey(d.Of) }),
			column(list, func(d *duplicateRow) int64 { return d.trial }), column(list, func(d *duplicateRow) int64 { return int64(d.subject) }),
			column(list, func(d *duplicateRow) pgtype.UUID { return uuid(d.ReportID) }),
			column(list, func(d *duplicateRow) int64 { return sec(d.OccurredAt) }), column(list, func(d *duplicateRow) int64 { return sec(d.ReceivedAt) }),
			column(list, func(d *duplicateRow) int64 { return d.CommittedAt.UnixNano() }),
			column(list, func(d *duplicateRow) int32 { return ns(d.OccurredAt) }), column(list, func(d *duplicateRow) int32 { return ns(d.ReceivedAt) }),
			column(list, func(d *duplicateRow) int16 { return int16(store.OffsetMinutes(d.OccurredAt)) }), column(list, func(d *duplicateRow) int16 { return int16(d.Actor.Type) }), // minutes of a day, a code
			column(list, func(d *duplicateRow) []byte { return actorColumn(d.Actor, d.PatientID) }), column(list, func(d *duplicateRow) []byte { return rawOrNull(d.Actor.Device) }))
		t.duplicates = nil
	}
	for trial, add := range t.books { // a row for each trial instead of one for each report
		b.Queue(t.s.sql(`INSERT INTO tidegate_store.books AS b(trial, recorded, duplicates, conflicts, quarantined) VALUES($1,$2,$3,$4,$5)
			ON CONFLICT(trial) DO UPDATE SET recorded=b.recorded+excluded.recorded, duplicates=b.duplicates+excluded.duplicates,
			conflicts=b.conflicts+excluded.conflicts, quarantined=b.quarantined+excluded.quarantined`),
			octets(trial), int64(add.Recorded), int64(add.Duplicates), int64(add.Conflicts), int64(add.Quarantined))
	}
	clear(t.books)
}

const insertFacts = `INSERT INTO tidegate_store.fact(row, id, occurred, received, committed, version, repeats, occurred_ns, received_ns, kind_version, occurred_off, actor_type, applied,
	kind, trial, subject, actor, device, meaning, summary, reason, code, rejection)
	SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::integer[], $9::integer[], $10::integer[],
	$11::smallint[], $12::smallint[], $13::boolean[], $14::bytea[], $15::bytea[], $16::bytea[], $17::bytea[], $18::bytea[], $19::bytea[], $20::bytea[], $21::bytea[],
	$22::bytea[], $23::bytea[])`

func (t *tx) queueFacts(b *pgx.Batch) {
	if list := t.facts; len(list) > 0 {
		text := func(get func(*store.FactRow) string) [][]byte {
			return column(list, func(f *store.FactRow) []byte { return raw(get(f)) })
		}
		big := func(get func(*store.FactRow) int64) []int64 { return column(list, get) }
		b.Queue(t.s.sql(insertFacts),
			big(func(f *store.FactRow) int64 { return store.RowKey(f.Ref) }), column(list, func(f *store.FactRow) pgtype.UUID { return uuid(f.FactID) }),
			big(func(f *store.FactRow) int64 { return sec(f.OccurredAt) }), big(func(f *store.FactRow) int64 { return sec(f.ReceivedAt) }),
			big(func(f *store.FactRow) int64 { return f.CommittedAt.UnixNano() }), big(func(f *store.FactRow) int64 { return int64(f.Version) }),
			column(list, func(f *store.FactRow) pgtype.Int8 {
				if f.Repeats == nil {
					return null()
				}
				return integer(store.RowKey(*f.Repeats))
			}),
			column(list, func(f *store.FactRow) int32 { return ns(f.OccurredAt) }), column(list, func(f *store.FactRow) int32 { return ns(f.ReceivedAt) }),
			column(list, func(f *store.FactRow) int32 { return int32(f.Kind.Version) }),
			column(list, func(f *store.FactRow) int16 { return int16(store.OffsetMinutes(f.OccurredAt)) }), column(list, func(f *store.FactRow) int16 { return int16(f.Actor.Type) }), // minutes of a day, a code
			column(list, func(f *store.FactRow) bool { return f.Applied }),
			text(func(f *store.FactRow) string { return f.Kind.Name }), text(func(f *store.FactRow) string { return f.TrialID }), text(func(f *store.FactRow) string { return f.Subject }),
			text(func(f *store.FactRow) string { return f.Actor.ID }), text(func(f *store.FactRow) string { return f.Actor.Device }),
			column(list, func(f *store.FactRow) []byte { return f.Meaning[:] }),
			text(func(f *store.FactRow) string { return f.Summary }), text(func(f *store.FactRow) string { return f.AuditEntry.Reason }),
			text(func(f *store.FactRow) string { return f.Code }), text(func(f *store.FactRow) string { return f.Rejection }))
		t.facts = nil
	}
	if list := t.keys; len(list) > 0 {
		b.Queue(t.s.sql("INSERT INTO tidegate_store.key(row, kind, kind_version, body) SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::integer[], $4::bytea[])"),
			column(list, func(k *store.KeyFact) int64 { return store.RowKey(k.Ref) }), column(list, func(k *store.KeyFact) []byte { return raw(k.Kind.Name) }),
			column(list, func(k *store.KeyFact) int32 { return int32(k.Kind.Version) }), column(list, func(k *store.KeyFact) []byte { return k.Body }))
		t.keys = nil
	}
}
