package projector_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
	"github.com/tidegate/tidegate/test/services"
)

func rawJSON(s string) json.RawMessage { return json.RawMessage(s) }

// model decides reports the naive way, from maps.
type model struct {
	trials   map[string]*modelTrial
	contents map[string][]epro.Digest // trial/patient/report id → meanings
	books    map[string]*store.Books
	accepted map[string]uint64
	listed   []string
}

type modelTrial struct {
	status    epro.TrialStatus
	version   uint64
	published bool
	people    map[string]*modelPerson
}

type modelPerson struct {
	in      bool
	epoch   uint32
	version uint64
}

func (m *model) report(f *epro.Fact, readable, qol1 bool) {
	if m.books[f.Trial] == nil {
		m.books[f.Trial] = &store.Books{TrialID: f.Trial}
	}
	m.accepted[f.Trial]++
	b := m.books[f.Trial]
	key := f.Trial + "/" + f.Subject + "/" + f.ID.String()
	earlier := m.contents[key]
	if slices.Contains(earlier, f.Meaning) {
		b.Duplicates++
		return
	}
	m.contents[key] = append(earlier, f.Meaning)
	trial := m.trials[f.Trial]
	var person *modelPerson
	if trial != nil {
		person = trial.people[f.Subject]
	}
	bad := !readable || trial == nil || !trial.status.Open() || person == nil || !person.in ||
		f.Actor.Type == epro.ActorParticipant && f.Epoch < person.epoch || !trial.published || !qol1 ||
		f.OccurredAt.Sub(f.ReceivedAt) > 10*time.Minute && f.Flags&epro.FlagClockApart == 0
	d := epro.Recorded
	switch {
	case bad:
		d = epro.Quarantined
		b.Quarantined++
	case len(earlier) > 0:
		d = epro.Conflict
		b.Conflicts++
	default:
		b.Recorded++
	}
	m.listed = append(m.listed, fmt.Sprintf("%s %d %s", key, len(earlier)+1, d))
}

// TestAgainstModel projects random journals, in random steps, and compares
// dispositions and books with the model, and the tables with a rebuild.
func TestAgainstModel(t *testing.T) {
	againstModel(t, func(r *rapid.T, dir string) store.Store { return openIn(r, t, dir, "followed.db") })
}

// TestAgainstModelPostgres is the same with tables in PostgreSQL, compared with
// a rebuild in SQLite: the same journal makes equal tables on every engine.
func TestAgainstModelPostgres(t *testing.T) {
	opts := pgstore.Options{Postgres: postgres.Options{URL: services.SharedPostgres(t).NewDatabase(t)}}
	againstModel(t, func(r *rapid.T, _ string) store.Store {
		if err := pgstore.Remove(t.Context(), opts); err != nil {
			r.Fatal(err)
		}
		s, err := pgstore.Open(t.Context(), opts)
		if err != nil {
			r.Fatal(err)
		}
		return s
	})
}

func openIn(r *rapid.T, t *testing.T, dir, name string) store.Store {
	s, err := sqlitestore.Open(t.Context(), filepath.Join(dir, name))
	if err != nil {
		r.Fatal(err)
	}
	return s
}

func againstModel(t *testing.T, open func(r *rapid.T, dir string) store.Store) {
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "") //nolint:usetesting // a folder for each of rapid's runs
		if err != nil {
			r.Fatal(err)
		}
		runs++
		followed, rebuilt := open(r, dir), openIn(r, t, dir, "rebuilt.db")
		defer followed.Close()
		defer rebuilt.Close()

		w := newWorld(t)
		m := &model{trials: map[string]*modelTrial{}, contents: map[string][]epro.Digest{}, books: map[string]*store.Books{}, accepted: map[string]uint64{}}
		w.command(epro.KindRulesActivated, epro.RulesActivated{RuleSet: projector.RuleSet, TZ: "2026a"})
		trials, people := []string{"T1", "T2"}, []string{"P-1", "P-2", "P-3"}
		opts := projector.Options{BatchFacts: rapid.IntRange(1, 30).Draw(r, "batch")}
		for range rapid.IntRange(1, 120).Draw(r, "steps") {
			trial, patient := rapid.SampledFrom(trials).Draw(r, "trial"), rapid.SampledFrom(people).Draw(r, "patient")
			mt := m.trials[trial]
			var mp *modelPerson
			if mt != nil {
				mp = mt.people[patient]
			}
			switch rapid.IntRange(0, 13).Draw(r, "step") {
			case 0:
				w.command(epro.KindTrialCreated, epro.TrialCreated{TrialID: trial, Name: "x", Status: epro.TrialActive})
				w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: trial, SiteID: "S01", Name: "x"})
				w.command(epro.KindInstrumentPublished, epro.InstrumentPublished{TrialID: trial, Instrument: "qol", Version: 1})
				if mt == nil {
					m.trials[trial] = &modelTrial{status: epro.TrialActive, version: 2, published: true, people: map[string]*modelPerson{}}
				}
			case 1:
				to := rapid.SampledFrom([]epro.TrialStatus{epro.TrialSuspended, epro.TrialActive}).Draw(r, "status")
				expect := uint64(rapid.IntRange(2, 5).Draw(r, "expect"))
				w.command(epro.KindTrialStatusChanged, epro.TrialStatusChanged{TrialID: trial, Status: to, Reason: "x", Expect: expect})
				if mt != nil && mt.version == expect && mt.status != to {
					mt.status, mt.version = to, expect+1
				}
			case 2, 3:
				expect := uint64(rapid.SampledFrom([]int{0, 0, 0, 2, 3, 4}).Draw(r, "expect"))
				w.command(epro.KindParticipantEnrolled, epro.ParticipantEnrolled{TrialID: trial, SiteID: "S01", PatientID: patient, Expect: expect})
				switch {
				case mt == nil || !mt.status.Open():
				case mp == nil && expect == 0:
					mt.people[patient] = &modelPerson{in: true, version: 1}
				case mp != nil && !mp.in && expect == mp.version:
					mp.in = true
					mp.version++
				}
			case 4:
				expect := uint64(rapid.IntRange(1, 4).Draw(r, "expect"))
				w.command(epro.KindParticipantWithdrew, epro.ParticipantWithdrawn{TrialID: trial, PatientID: patient, Reason: "x", Expect: expect})
				if mp != nil && mp.in && mp.version == expect {
					mp.in = false
					mp.version++
				}
			case 5:
				epoch, expect := uint32(rapid.IntRange(1, 3).Draw(r, "epoch")), uint64(rapid.IntRange(1, 4).Draw(r, "expect"))
				w.command(epro.KindTokensRevoked, epro.TokensRevoked{TrialID: trial, PatientID: patient, MinEpoch: epoch, Reason: "x", Expect: expect})
				if mp != nil && mp.version == expect && epoch > mp.epoch {
					mp.epoch = epoch
					mp.version++
				}
			case 6:
				w.commit()
				if rapid.Bool().Draw(r, "restart") {
					w.restart()
				}
				if rapid.Bool().Draw(r, "project") {
					if err := projector.Rebuild(t.Context(), w.journal, followed, 0, opts, nil); err != nil {
						r.Fatal(err)
					}
				}
			default:
				readable, qol1 := true, true
				f := w.report(trial, patient, epro.UUID{1, 6: 0x40, 8: 0x80, 15: byte(rapid.IntRange(1, 3).Draw(r, "id"))}, rapid.IntRange(0, 2).Draw(r, "score"), func(f *epro.Fact, fields map[string]any) {
					f.OccurredAt = start.In(f.OccurredAt.Location())
					f.Epoch = uint32(rapid.IntRange(0, 3).Draw(r, "epoch"))
					if rapid.IntRange(0, 5).Draw(r, "relay") == 0 {
						f.Actor = epro.Actor{Type: epro.ActorRelay, ID: "relay"}
					}
					switch rapid.IntRange(0, 9).Draw(r, "fault") {
					case 0:
						fields["qolScore"], readable = "7", false
					case 1:
						fields["instrument"], qol1 = "qol@2", false
					case 2:
						f.ReceivedAt = f.OccurredAt.UTC().Add(-11 * time.Minute)
					case 3:
						f.ReceivedAt, f.Flags = f.OccurredAt.UTC().Add(-11*time.Minute), epro.FlagClockApart
					}
				})
				w.tell(f)
				m.report(&f, readable, qol1)
			}
		}
		w.commit()
		for _, s := range []store.Store{followed, rebuilt} {
			if err := projector.Rebuild(t.Context(), w.journal, s, 0, opts, nil); err != nil {
				r.Fatal(err)
			}
		}
		compare(r, t, m, followed, rebuilt)
	})
	t.Logf("%d journals", runs)
}

func compare(r *rapid.T, t *testing.T, m *model, followed, rebuilt store.Store) {
	var listed []string
	for _, trial := range []string{"T1", "T2"} {
		if err := followed.EachReport(t.Context(), trial, store.ReportFilter{}, func(p *store.Report) error {
			listed = append(listed, fmt.Sprintf("%s/%s/%s %d %s", p.TrialID, p.PatientID, p.ReportID, p.Version, p.Disposition))
			return nil
		}); err != nil {
			r.Fatal(err)
		}
		got, err := followed.Books(t.Context(), trial)
		if err != nil {
			r.Fatal(err)
		}
		want := store.Books{TrialID: trial}
		if b := m.books[trial]; b != nil {
			want = *b
		}
		if got != want || got.Recorded+got.Duplicates+got.Conflicts+got.Quarantined != m.accepted[trial] {
			r.Fatalf("books are %+v, want %+v; accepted %d", got, want, m.accepted[trial])
		}
	}
	want := slices.Clone(m.listed)
	slices.Sort(want)
	slices.Sort(listed)
	if !slices.Equal(listed, want) {
		r.Fatalf("listed\n%q, want\n%q", listed, want)
	}
	a, at, err := followed.HashAt(t.Context(), 0)
	if err != nil {
		r.Fatal(err)
	}
	if b, same, err := rebuilt.HashAt(t.Context(), 0); err != nil || a != b || at != same {
		r.Fatalf("a rebuild is not the same: %v", err)
	}
}
