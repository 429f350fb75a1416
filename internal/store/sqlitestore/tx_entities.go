package sqlitestore

import (
	"database/sql/driver"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

func (t *tx) Trial(id string) (tr store.Trial, err error) {
	err = t.w.one("SELECT name, status, shard, version, created, instruments FROM trial WHERE trial=?", []driver.Value{id}, func(c []driver.Value) error {
		tr = store.Trial{
			ID: id, Name: colText(c[0]), Status: epro.TrialStatus(colText(c[1])), Shard: uint32(colInt(c[2])),
			Version: uint64(colInt(c[3])), CreatedAt: store.JournalTime(colInt(c[4])), Instruments: splitInstruments(colText(c[5])),
		}
		return nil
	})
	return tr, err
}

func (t *tx) PutTrial(tr store.Trial) error {
	_, err := t.w.exec(`INSERT INTO trial(trial, name, status, shard, version, created, instruments) VALUES(?,?,?,?,?,?,?)
		ON CONFLICT(trial) DO UPDATE SET name=excluded.name, status=excluded.status, version=excluded.version, instruments=excluded.instruments`,
		tr.ID, tr.Name, string(tr.Status), int64(tr.Shard), int64(tr.Version), tr.CreatedAt.UnixNano(), joinInstruments(tr.Instruments))
	return err
}

func (t *tx) Site(trial, id string) (s store.Site, err error) {
	err = t.w.one("SELECT name, created FROM site WHERE trial=? AND site=?", []driver.Value{trial, id}, func(c []driver.Value) error {
		s = store.Site{TrialID: trial, ID: id, Name: colText(c[0]), CreatedAt: store.JournalTime(colInt(c[1]))}
		return nil
	})
	return s, err
}

func (t *tx) PutSite(s store.Site) error {
	_, err := t.w.exec("INSERT INTO site(trial, site, name, created) VALUES(?,?,?,?) ON CONFLICT(trial, site) DO UPDATE SET name=excluded.name",
		s.TrialID, s.ID, s.Name, s.CreatedAt.UnixNano())
	return err
}

func (t *tx) Staff(id string) (s store.Staff, err error) {
	err = t.w.one("SELECT name, removed, version FROM staff WHERE staff=?", []driver.Value{id}, func(c []driver.Value) error {
		s = store.Staff{ID: id, Name: colText(c[0]), Removed: colInt(c[1]) != 0, Version: uint64(colInt(c[2]))}
		return nil
	})
	if err != nil {
		return s, err
	}
	err = t.w.each("SELECT role, trial, site FROM staff_grant WHERE staff=? ORDER BY role, trial, site", []driver.Value{id}, func(c []driver.Value) error {
		s.Grants = append(s.Grants, store.Grant{Role: colText(c[0]), TrialID: colText(c[1]), SiteID: colText(c[2])})
		return nil
	})
	return s, err
}

func (t *tx) PutStaff(s store.Staff) error {
	if _, err := t.w.exec(`INSERT INTO staff(staff, name, removed, version) VALUES(?,?,?,?)
		ON CONFLICT(staff) DO UPDATE SET name=excluded.name, removed=excluded.removed, version=excluded.version`,
		s.ID, s.Name, flag(s.Removed), int64(s.Version)); err != nil {
		return err
	}
	if _, err := t.w.exec("DELETE FROM staff_grant WHERE staff=?", s.ID); err != nil {
		return err
	}
	for _, g := range s.Grants {
		if _, err := t.w.exec("INSERT INTO staff_grant(staff, role, trial, site) VALUES(?,?,?,?)", s.ID, g.Role, g.TrialID, g.SiteID); err != nil {
			return err
		}
	}
	return nil
}

// Command finds the first fact under an id; repeats come after it.
func (t *tx) Command(id epro.UUID) (f store.FactRow, err error) {
	err = t.w.one("SELECT "+factColumns+" FROM fact WHERE id=? ORDER BY row LIMIT 1", []driver.Value{id[:]}, func(c []driver.Value) error {
		return scanFact(&f, func(dest ...any) error { return assign(dest, c) })
	})
	return f, err
}

func (t *tx) AddFact(f *store.FactRow) error {
	if err := store.CheckRef(f.Ref); err != nil {
		return err
	}
	var repeats driver.Value
	if f.Repeats != nil {
		repeats = store.RowKey(*f.Repeats)
	}
	_, err := t.w.exec("INSERT INTO fact("+factColumns+") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
		store.RowKey(f.Ref), f.Kind.Name, int64(f.Kind.Version), f.FactID[:], f.TrialID, f.Subject,
		int64(f.Actor.Type), f.Actor.ID, f.Actor.Device,
		f.OccurredAt.Unix(), int64(f.OccurredAt.Nanosecond()), store.OffsetMinutes(f.OccurredAt),
		f.ReceivedAt.Unix(), int64(f.ReceivedAt.Nanosecond()), f.CommittedAt.UnixNano(), f.Meaning[:],
		f.Summary, f.AuditEntry.Reason, flag(f.Applied), f.Code, f.Rejection, int64(f.Version), repeats)
	return err
}

func (t *tx) AddKey(k store.KeyFact) error {
	_, err := t.w.exec("INSERT INTO key(row, kind, kind_version, body) VALUES(?,?,?,?)", store.RowKey(k.Ref), k.Kind.Name, int64(k.Kind.Version), k.Body)
	return err
}
