package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// tx implements [store.Tx]. Writes gather in memory and go to the server in one
// batch at the end; reads are answered from memory where this transaction wrote
// or asked before, [tx.Prefetch] asks for much at once, and what is left costs a
// way to the server each. Rare changes of rows that are already there (a
// resolution, an erasure) first send what has gathered.
type tx struct {
	ctx   context.Context // of the Apply that the Tx belongs to
	s     *Store
	conn  *pgx.Conn
	shard uint32
	err   error // the first one of the server: nothing can follow it

	state                  state
	lastSubject, lastTrial int64 // highest handles given out

	// What is known of the tables; nil for "not there".
	trials    map[string]*store.Trial
	sites     map[siteID]*store.Site
	staff     map[string]*store.Staff
	trialKeys map[string]int64
	people    map[personID]*person
	contents  map[contentID][]store.Content
	commands  map[epro.UUID]*store.FactRow // as the tables say
	runs      map[journal.Run]store.RunHead

	// What is to be written.
	newKeys     []string // trials whose keys are lastTrial-len+1 …
	newPeople   []*person
	enrollments map[store.SubjectKey]store.Enrollment // of participants who are in the tables
	putTrials   map[string]bool
	putSites    map[siteID]bool
	putStaff    map[string]bool
	frames      []store.FrameRow
	treeFirst   int64
	tree        []epro.Digest
	reports     []reportRow
	duplicates  []duplicateRow
	facts       []store.FactRow
	factsByID   map[epro.UUID]*store.FactRow // first of each id, also when it was sent
	keys        []store.KeyFact
	books       map[string]*store.Books
}

type siteID struct{ trial, site string }

type personID struct{ trial, patient string }

// person is a participant who was asked about. isNew: not in the tables yet.
type person struct {
	store.Subject
	trial int64
	isNew bool
}

type contentID struct {
	subject store.SubjectKey
	id      epro.UUID
}

type reportRow struct {
	*store.NewReport
	trial, disposition, reasons int64
}

type duplicateRow struct {
	store.Duplicate
	trial   int64
	subject store.SubjectKey
}

var (
	_ store.Tx         = (*tx)(nil)
	_ store.Prefetcher = (*tx)(nil)
)

func newTx(ctx context.Context, s *Store, conn *pgx.Conn, shard uint32) *tx {
	return &tx{
		ctx: ctx, s: s, conn: conn, shard: shard,
		trials: map[string]*store.Trial{}, sites: map[siteID]*store.Site{}, staff: map[string]*store.Staff{}, trialKeys: map[string]int64{},
		people: map[personID]*person{}, contents: map[contentID][]store.Content{}, commands: map[epro.UUID]*store.FactRow{},
		runs: map[journal.Run]store.RunHead{}, enrollments: map[store.SubjectKey]store.Enrollment{},
		putTrials: map[string]bool{}, putSites: map[siteID]bool{}, putStaff: map[string]bool{},
		factsByID: map[epro.UUID]*store.FactRow{}, books: map[string]*store.Books{},
	}
}

// each asks the server and calls fn for every row.
func (t *tx) each(query string, args []any, fn func(scan func(...any) error) error) error {
	if t.conn == nil {
		return errors.New("the transaction is over")
	}
	return t.failed(each(t.ctx, t.conn, t.s.sql(query), args, fn))
}

// one asks for at most one row; ErrNotFound for none.
func (t *tx) one(query string, args []any, fn func(scan func(...any) error) error) error {
	found := false
	err := t.each(query, args, func(scan func(...any) error) error {
		found = true
		return fn(scan)
	})
	if err == nil && !found {
		return store.ErrNotFound
	}
	return err
}

// flush sends what has gathered.
func (t *tx) flush() error {
	b := &pgx.Batch{}
	if t.queue(b); b.Len() == 0 {
		return nil
	}
	return t.send(b)
}

// changed is an error when a statement did not find all its rows: a fault of
// the caller.
func changed(want int64, what string) func(pgconn.CommandTag) error {
	return func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != want {
			return fmt.Errorf("the %s to change is not in the tables", what)
		}
		return nil
	}
}

func (t *tx) Trial(id string) (store.Trial, error) {
	tr, asked := t.trials[id]
	if !asked {
		var got store.Trial
		err := t.one("SELECT "+trialColumns+" WHERE trial=$1", []any{octets(id)}, func(scan func(...any) error) error { return scanTrial(&got, scan) })
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return store.Trial{}, err
		}
		if err == nil {
			tr = &got
		}
		t.trials[id] = tr
	}
	if tr == nil {
		return store.Trial{}, store.ErrNotFound
	}
	out := *tr
	out.Instruments = slices.Clone(tr.Instruments)
	return out, nil
}

func (t *tx) PutTrial(tr store.Trial) error {
	was, err := t.Trial(tr.ID)
	if err == nil { // these never change
		tr.Shard, tr.CreatedAt = was.Shard, was.CreatedAt
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	tr.CreatedAt, tr.Instruments = store.JournalTime(tr.CreatedAt.UnixNano()), slices.Clone(tr.Instruments)
	t.trials[tr.ID], t.putTrials[tr.ID] = &tr, true
	return nil
}

func (t *tx) Site(trial, id string) (store.Site, error) {
	k := siteID{trial, id}
	site, asked := t.sites[k]
	if !asked {
		got := store.Site{TrialID: trial}
		err := t.one("SELECT "+siteColumns+" WHERE trial=$1 AND site=$2", []any{octets(trial), octets(id)}, func(scan func(...any) error) error { return scanSite(&got, scan) })
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return store.Site{}, err
		}
		if err == nil {
			site = &got
		}
		t.sites[k] = site
	}
	if site == nil {
		return store.Site{}, store.ErrNotFound
	}
	return *site, nil
}

func (t *tx) PutSite(s store.Site) error {
	was, err := t.Site(s.TrialID, s.ID)
	if err == nil {
		s.CreatedAt = was.CreatedAt
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	s.CreatedAt = store.JournalTime(s.CreatedAt.UnixNano())
	k := siteID{s.TrialID, s.ID}
	t.sites[k], t.putSites[k] = &s, true
	return nil
}

func (t *tx) Staff(id string) (store.Staff, error) {
	m, asked := t.staff[id]
	if !asked {
		var list []store.Staff
		if err := t.each(staffSQL, []any{octets(id)}, func(scan func(...any) error) (err error) {
			list, err = scanStaff(list, scan)
			return err
		}); err != nil {
			return store.Staff{}, err
		}
		if len(list) > 0 {
			m = &list[0]
		}
		t.staff[id] = m
	}
	if m == nil {
		return store.Staff{}, store.ErrNotFound
	}
	out := *m
	out.Grants = slices.Clone(m.Grants)
	return out, nil
}

func (t *tx) PutStaff(s store.Staff) error {
	s.Grants = slices.Clone(s.Grants)
	slices.SortFunc(s.Grants, compareGrants)
	t.staff[s.ID], t.putStaff[s.ID] = &s, true
	return nil
}

// Command finds the first fact under an id; repeats come after it.
func (t *tx) Command(id epro.UUID) (store.FactRow, error) {
	f, asked := t.commands[id]
	if !asked {
		if err := t.ask(nil, nil, []epro.UUID{id}); err != nil {
			return store.FactRow{}, err
		}
		f = t.commands[id]
	}
	if f == nil {
		f = t.factsByID[id]
	}
	if f == nil {
		return store.FactRow{}, store.ErrNotFound
	}
	return *f, nil
}

func (t *tx) AddFact(f *store.FactRow) error {
	if err := store.CheckRef(f.Ref); err != nil {
		return err
	}
	row := *f
	if f.Repeats != nil {
		of := *f.Repeats
		row.Repeats = &of
	}
	t.facts = append(t.facts, row)
	if t.factsByID[f.FactID] == nil {
		t.factsByID[f.FactID] = &row
	}
	return nil
}

func (t *tx) AddKey(k store.KeyFact) error {
	k.Body = append([]byte{}, k.Body...)
	t.keys = append(t.keys, k)
	return nil
}
