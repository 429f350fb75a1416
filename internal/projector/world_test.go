package projector_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/memjournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
)

// start is when the worlds of these tests begin.
var start = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

var meaningKey = epro.MeaningKey{1, 2, 3}

// world writes a journal fact by fact.
type world struct {
	t       testing.TB
	journal *memjournal.Journal
	run     journal.Run
	n       uint64
	prev    epro.Digest
	now     time.Time
	open    []epro.Fact
	ids     uint32
}

func newWorld(t testing.TB) *world {
	return &world{t: t, journal: memjournal.New(memjournal.Options{Stride: 3}), run: journal.Run{7}, now: start}
}

// restart begins a new run, as a new process would.
func (w *world) restart() {
	w.run[0]++
	w.n = 0
}

func (w *world) newID() epro.UUID {
	w.ids++
	return epro.UUID{0xee, 6: 0x40, 8: 0x80, 12: byte(w.ids >> 24), 13: byte(w.ids >> 16), 14: byte(w.ids >> 8), 15: byte(w.ids)}
}

// seal makes the frame of the facts given so far, without appending it.
func (w *world) seal() journal.Sealed {
	entries := make([]journal.Entry, len(w.open))
	leaves := make([]epro.Digest, len(w.open))
	for i := range w.open {
		env, err := w.open[i].AppendBinary(nil)
		if err != nil {
			w.t.Fatal(err)
		}
		entries[i] = journal.Entry{Envelope: env, Salt: w.open[i].Salt, Body: w.open[i].Body, Erased: w.open[i].Erased}
		leaves[i] = epro.Leaf(env)
	}
	w.now = w.now.Add(time.Second)
	f, err := journal.Seal(journal.Header{Run: w.run, N: w.n, Prev: w.prev, Time: w.now.UnixNano()}, entries, leaves)
	if err != nil {
		w.t.Fatal(err)
	}
	w.open = nil
	return f
}

// commit appends the facts given so far as one frame.
func (w *world) commit() journal.Position {
	w.t.Helper()
	if len(w.open) == 0 {
		return 0
	}
	f := w.seal()
	if _, err := w.journal.Append(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
	w.n++
	w.prev = f.Hash
	end, err := w.journal.End(w.t.Context(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return end.Position
}

// tell adds a fact to the open frame.
func (w *world) tell(f epro.Fact) epro.Fact {
	w.open = append(w.open, f)
	return f
}

var coordinator = epro.Actor{Type: epro.ActorStaff, ID: "anna"}

func (w *world) command(kind epro.Kind, body any) epro.UUID {
	w.t.Helper()
	id := w.newID()
	f, err := registry.Fact(registry.Command{Kind: kind, ID: id, Actor: coordinator, Body: body}, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	w.tell(f)
	return id
}

// seed tells rules, trial T001 (Recruiting) with site S01 and qol@1, and
// participants P-1 … P-n, in one frame.
func (w *world) seed(participants int) {
	w.command(epro.KindRulesActivated, epro.RulesActivated{RuleSet: projector.RuleSet, TZ: "2026a"})
	w.command(epro.KindTrialCreated, epro.TrialCreated{TrialID: "T001", Name: "A trial", Status: epro.TrialRecruiting})
	w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: "T001", SiteID: "S01", Name: "A site"})
	w.command(epro.KindInstrumentPublished, epro.InstrumentPublished{TrialID: "T001", Instrument: "qol", Version: 1})
	for i := 1; i <= participants; i++ {
		w.enrol("T001", fmt.Sprintf("P-%d", i))
		if i%10_000 == 0 {
			w.commit()
		}
	}
	w.commit()
}

func (w *world) enrol(trial, patient string) epro.UUID {
	return w.command(epro.KindParticipantEnrolled, epro.ParticipantEnrolled{TrialID: trial, SiteID: "S01", PatientID: patient})
}

// report makes the fact of a report as a gateway would. edit may change the
// fact before its meaning and digest are made.
func (w *world) report(trial, patient string, id epro.UUID, score int, edit ...func(*epro.Fact, map[string]any)) epro.Fact {
	w.t.Helper()
	at := w.now.In(time.FixedZone("", 2*60*60))
	f := epro.Fact{Envelope: epro.Envelope{
		Kind: epro.KindReport, ID: id, Trial: trial, Subject: patient, TokenKey: 1, Epoch: 1,
		Actor: epro.Actor{Type: epro.ActorParticipant, ID: patient, Device: "phone-1"}, OccurredAt: at, ReceivedAt: w.now,
	}, Salt: epro.Salt{byte(w.ids)}}
	fields := map[string]any{"patientId": patient, "trialId": trial, "reportId": id.String(), "qolScore": score, "comments": "slept well"}
	for _, e := range edit {
		e(&f, fields)
	}
	if _, ok := fields["timestamp"]; !ok {
		fields["timestamp"] = f.OccurredAt.Format(time.RFC3339Nano)
	}
	if f.Body == nil {
		f.Body, _ = json.Marshal(fields)
	}
	if f.Meaning.IsZero() {
		if r, problems := epro.ParseReport(f.Body); problems == nil {
			f.Meaning = epro.ReportMeaning(meaningKey, r.AppendMeaning(nil))
		} else {
			f.Meaning = epro.ReportMeaning(meaningKey, f.Body)
		}
	}
	f.BodyDigest = epro.BodyDigest(f.Salt, f.Body)
	return f
}

// openStore opens an empty store: in SQLite, unless TestOnPostgres says otherwise.
var openStore = openSQLite

func openSQLite(t testing.TB) store.Store {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"))
	return closing(t, s, err)
}

func closing(t testing.TB, s store.Store, err error) store.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// project applies all that the journal holds.
func (w *world) project(s store.Store) error {
	w.t.Helper()
	return projector.Rebuild(w.t.Context(), w.journal, s, 0, projector.Options{}, nil)
}

func (w *world) mustProject(s store.Store) {
	w.t.Helper()
	if err := w.project(s); err != nil {
		w.t.Fatal(err)
	}
}
