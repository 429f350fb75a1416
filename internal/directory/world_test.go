package directory_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		// Each of them writes files, and many frames one by one.
		if err := flag.Set("rapid.checks", "25"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		services.CleanUp()
		os.Exit(code)
	}))
}

// failer is what *testing.T and *rapid.T share.
type failer interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// world is a real record path in a folder: intake, journal, projector, tables.
type world struct {
	f       failer
	dir     string
	journal journal.Journal
	tables  store.Store
	intake  *intake.Intake

	stopProjector func()
}

// newWorld makes a world on a journal and tables: for nil, on ones of its own
// in SQLite.
func newWorld(f failer, dir string, keys *auth.Keys, j journal.Journal, tables store.Store) *world {
	f.Helper()
	w := &world{f: f, dir: dir, journal: j, tables: tables, stopProjector: func() {}}
	var err error
	if j == nil {
		w.journal, err = sqlitejournal.Open(context.Background(), filepath.Join(dir, "journal.db"), sqlitejournal.Options{})
		must(f, err)
	}
	if tables == nil {
		w.tables, err = sqlitestore.Open(context.Background(), filepath.Join(dir, "store.db"))
		must(f, err)
	}
	cfg := intake.NewDefaultConfig()
	cfg.Burst = 0
	w.intake, err = intake.New(context.Background(), w.journal, keys.Signer(), intake.Options{Config: cfg})
	must(f, err)
	w.project()
	return w
}

func newKeys(t *testing.T) *auth.Keys {
	t.Helper()
	keys, err := auth.InitKeys(filepath.Join(t.TempDir(), "keys"))
	must(t, err)
	return keys
}

// project starts the projector.
func (w *world) project() {
	ctx, cancel := context.WithCancel(context.Background())
	p := projector.New(w.journal, w.tables, 0, projector.Options{})
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) })
	w.stopProjector = func() {
		cancel()
		running.Wait()
	}
}

func (w *world) close() {
	w.f.Helper()
	must(w.f, w.intake.Close(context.Background()))
	w.stopProjector()
	must(w.f, w.tables.Close())
	must(w.f, w.journal.Close())
}

func must(f failer, err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

var operator = epro.Actor{Type: epro.ActorSystem, ID: "operator"}

func (w *world) command(kind epro.Kind, body any) {
	w.f.Helper()
	fact, err := registry.Fact(registry.Command{Kind: kind, ID: epro.NewUUID(), Actor: operator, Body: body}, time.Now())
	must(w.f, err)
	_, err = w.intake.Submit(context.Background(), &fact)
	must(w.f, err)
}

// report sends a report. Its words are of no matter here.
func (w *world) report(trial, patient string) {
	w.f.Helper()
	now := time.Now().UTC()
	_, err := w.intake.Submit(context.Background(), &epro.Fact{
		Envelope: epro.Envelope{
			Kind: epro.KindReport, ID: epro.NewUUID(), Trial: trial, Subject: patient,
			Actor: epro.Actor{Type: epro.ActorParticipant, ID: patient, Device: "d1"}, OccurredAt: now, ReceivedAt: now,
			Meaning: epro.PlainMeaning([]byte(patient)),
		},
		Body: []byte(`{}`),
	})
	must(w.f, err)
}

// seed makes trial T001 with site S01, and enrols P-1 to P-n.
func (w *world) seed(people int) {
	w.f.Helper()
	w.command(epro.KindRulesActivated, epro.RulesActivated{RuleSet: projector.RuleSet, TZ: "2026a"})
	w.trial("T001")
	var facts []*epro.Fact
	for i := range people {
		body := epro.ParticipantEnrolled{TrialID: "T001", SiteID: "S01", PatientID: fmt.Sprintf("P-%d", i+1)}
		fact, err := registry.Fact(registry.Command{Kind: epro.KindParticipantEnrolled, ID: epro.NewUUID(), Actor: operator, Body: body}, time.Now())
		must(w.f, err)
		facts = append(facts, &fact)
	}
	for _, o := range w.intake.SubmitAll(context.Background(), facts) {
		must(w.f, o.Err)
	}
}

func (w *world) trial(id string) {
	w.f.Helper()
	w.command(epro.KindTrialCreated, epro.TrialCreated{TrialID: id, Name: "Trial " + id, Status: epro.TrialRecruiting})
	w.command(epro.KindInstrumentPublished, epro.InstrumentPublished{TrialID: id, Instrument: "qol", Version: 1})
	w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: id, SiteID: "S01", Name: "North"})
}

func (w *world) enrol(trial, patient string) {
	w.f.Helper()
	w.command(epro.KindParticipantEnrolled, epro.ParticipantEnrolled{TrialID: trial, SiteID: "S01", PatientID: patient})
}

// projected waits until the tables have all that the journal has.
func (w *world) projected() {
	w.f.Helper()
	eventually(w.f, func() bool {
		c, err := w.tables.Cursor(context.Background(), 0)
		return err == nil && c.Position >= w.end()
	}, func() string { return "the tables do not come to the journal's end" })
}

// versions are those of an enrolment and of its trial, once all is projected.
func (w *world) versions(trial, patient string) (enrollment, ofTrial uint64) {
	w.f.Helper()
	w.projected()
	e, _ := w.tables.Participant(context.Background(), trial, patient) // none has version 0
	t, _ := w.tables.Trial(context.Background(), trial)
	return e.Version, t.Version
}

func (w *world) end() journal.Position {
	w.f.Helper()
	end, err := w.journal.End(context.Background(), 0)
	must(w.f, err)
	return end.Position
}

// feed is a hurried feed.
func (w *world) feed() *directory.Feed {
	f := directory.NewFeed(w.journal, w.tables, nil)
	f.Hurry()
	return f
}

// running is a directory at work.
type running struct {
	*directory.Directory
	stop func()
}

func run(d *directory.Directory, src directory.Source) *running {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { d.Run(ctx, src) })
	return &running{d, func() {
		cancel()
		wg.Wait()
	}}
}

// settle waits until the directory is complete up to the journal's end.
func (w *world) settle(d *directory.Directory) {
	w.f.Helper()
	eventually(w.f, func() bool { s := d.State(); return s.Version.Position(0) >= w.end() && s.Loaded() && s.Connected }, func() string {
		s := d.State()
		return fmt.Sprintf("the directory is %+v, the journal ends at %d", s, w.end())
	})
}

func eventually(f failer, ok func() bool, what func() string) {
	f.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			f.Fatal(what())
		}
	}
}

// same compares the directory with the tables, thing by thing.
func (w *world) same(d *directory.Directory) {
	w.f.Helper()
	ctx := context.Background()
	page := store.Page{Limit: 1000}
	trials, next, err := w.tables.Trials(ctx, page)
	must(w.f, err)
	count, sites := 0, 0
	for _, t := range trials {
		known, err := d.Trial(t.ID)
		must(w.f, err)
		if a, b := trialText(&known), trialText(&t); a != b {
			w.f.Fatalf("trial %s, in the tables %s", a, b)
		}
		names := map[string]string{}
		list, _, err := w.tables.Sites(ctx, t.ID, page)
		must(w.f, err)
		sites += len(list)
		for _, s := range list {
			names[s.ID] = s.Name
		}
		people, more, err := w.tables.Participants(ctx, t.ID, nil, page)
		must(w.f, err)
		if more != "" || next != "" {
			w.f.Fatal("too much for this test")
		}
		count += len(people)
		for _, e := range people {
			p, err := d.PatientTrial(t.ID, e.PatientID)
			must(w.f, err)
			if a, b := trialText(&p.Trial)+" "+p.Site.Name+" "+personText(&p.Enrollment), trialText(&t)+" "+names[e.SiteID]+" "+personText(&e); a != b {
				w.f.Fatalf("%s:\n%s\nin the tables:\n%s", e.PatientID, a, b)
			}
			one, err := d.Enrollment(t.ID, e.PatientID)
			must(w.f, err)
			if a, b := personText(&one), personText(&e); a != b {
				w.f.Fatalf("enrolment %s, in the tables %s", a, b)
			}
		}
	}
	if s := d.State(); s.Trials != len(trials) || s.Enrollments != count || s.Sites != sites {
		w.f.Fatalf("the directory has %d trials, %d sites and %d enrolments, the tables %d, %d and %d", s.Trials, s.Sites, s.Enrollments, len(trials), sites, count)
	}
}

func trialText(t *store.Trial) string {
	return fmt.Sprintf("%s %q %s %d v%d %v %s", t.ID, t.Name, t.Status, t.Shard, t.Version, t.Instruments, t.CreatedAt.UTC().Format(time.RFC3339Nano))
}

func personText(e *store.Enrollment) string {
	return fmt.Sprintf("%s/%s %s %s epoch %d v%d %s %s", e.TrialID, e.PatientID, e.SiteID, e.Status, e.MinEpoch, e.Version,
		e.EnrolledAt.UTC().Format(time.RFC3339Nano), e.WithdrawnAt.UTC().Format(time.RFC3339Nano))
}
