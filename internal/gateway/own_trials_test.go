package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/store"
)

const ownTrialsPath = "/v1/patient/trials"

// followed is a directory that follows the tables until stop is called.
func followed(d *directory.Directory, src directory.Source) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx, src) })
	return func() {
		cancel()
		running.Wait()
	}
}

// withDirectory is a world whose gateway has a directory, up to date.
func withDirectory(t *testing.T) (w *world, d *directory.Directory, stop func()) {
	t.Helper()
	d = directory.New(directory.Options{})
	w = newWorld(t, setup{options: func(o *gateway.Options) { o.Directory = d }})
	stop = followed(d, directory.NewFeed(w.journal, w.tables, nil))
	w.directorySettled(d)
	return w, d, stop
}

func (w *world) directorySettled(d *directory.Directory) {
	w.t.Helper()
	w.settle()
	for limit := time.Now().Add(10 * time.Second); d.State().Version.Position(0) < w.end(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			w.t.Fatalf("the directory is %+v, the journal at %d", d.State(), w.end())
		}
	}
}

// ownTrials are "trial status enrolment site" of an answer.
func (w *world) ownTrials(token string) string {
	w.t.Helper()
	a := w.get(ownTrialsPath, token)
	if a.status != 200 {
		w.t.Fatal(a)
	}
	var got struct {
		Trials  []map[string]any
		AsOf    time.Time
		Version uint64
	}
	must(w.t, json.Unmarshal(a.body, &got))
	if age := time.Since(got.AsOf); age < 0 || age > time.Minute || got.Version == 0 {
		w.t.Errorf("as of %v, version %d", got.AsOf, got.Version)
	}
	var list []string
	for _, m := range got.Trials {
		list = append(list, fmt.Sprintf("%v %q %v %v %v %v %v", m["trialId"], m["name"], m["status"], m["instruments"], m["enrollmentStatus"], m["siteId"], m["siteName"]))
	}
	return strings.Join(list, "\n")
}

func TestOwnTrials(t *testing.T) {
	w, d, stop := withDirectory(t)
	defer stop()
	// P-1 is an id in both; who that is in the other trial, a token does not tell.
	for trial, want := range map[string]string{
		"T001": `T001 "A Phase III Study of DrugX" Recruiting [qol@1] Enrolled S01 North`,
		"T002": `T002 "Observational Study of DiseaseY" Active [qol@1] Enrolled S01 North`,
	} {
		if got := w.ownTrials(w.participant(trial, "P-1", auth.ScopeRead|auth.ScopeSubmit)); got != want {
			t.Errorf("of P-1, by a token of %s:\n%s", trial, got)
		}
	}
	if got := w.ownTrials(w.participant("T002", "P-3", auth.ScopeRead)); got != "" {
		t.Errorf("of somebody who is in another trial only: %s", got)
	}
	if got := w.ownTrials(w.participant("T001", "P-3", auth.ScopeRead)); got != `T001 "A Phase III Study of DrugX" Recruiting [qol@1] Enrolled S02 South` {
		t.Errorf("of P-3: %s", got)
	}
	if got := w.ownTrials(w.participant("T001", "P-99", auth.ScopeRead)); got != "" {
		t.Errorf("of somebody unknown: %s", got)
	}
	w.command(epro.KindParticipantWithdrew, epro.ParticipantWithdrawn{TrialID: "T001", PatientID: "P-3", Reason: "x", Expect: 1})
	w.command(epro.KindTrialStatusChanged, epro.TrialStatusChanged{TrialID: "T001", Status: epro.TrialSuspended, Reason: "x", Expect: 2})
	w.directorySettled(d)
	if got := w.ownTrials(w.participant("T001", "P-3", auth.ScopeRead)); got != `T001 "A Phase III Study of DrugX" Suspended [qol@1] Withdrawn S02 South` {
		t.Errorf("after leaving: %s", got)
	}
}

func TestOwnTrialsAreForTheirParticipant(t *testing.T) {
	w, d, stop := withDirectory(t)
	defer stop()
	read := w.participant("T001", "P-2", auth.ScopeRead)
	w.isProblem(t, w.get(ownTrialsPath, ""), 401, "token-missing")
	w.isProblem(t, w.get(ownTrialsPath, "tgp1_nonsense"), 401, "token-invalid")
	w.isProblem(t, w.get(ownTrialsPath, w.participant("T001", "P-2", auth.ScopeSubmit)), 403, "scope-missing")
	w.isProblem(t, w.get(ownTrialsPath, w.relay("T001")), 403, "scope-missing")
	w.isProblem(t, w.get(ownTrialsPath, w.staff("anna", epro.StaffRole{Role: "admin"})), 403, "scope-missing")
	for _, query := range []string{"?patientId=P-1", "?trialId=T002", "?limit=1"} {
		w.isProblem(t, w.get(ownTrialsPath+query, read), 400, "invalid")
	}
	if a := w.get(ownTrialsPath, read); strings.Contains(string(a.body), "P-1") || strings.Contains(string(a.body), "T002") {
		t.Errorf("another's: %s", a)
	}
	w.command(epro.KindTokensRevoked, epro.TokensRevoked{TrialID: "T001", PatientID: "P-2", MinEpoch: 7, Reason: "lost", Expect: 1})
	w.directorySettled(d)
	w.isProblem(t, w.get(ownTrialsPath, read), 401, "token-invalid")
}

// away is tables and a vault that nobody can reach: touching them is a panic.
type away struct{ store.Reader }

type awayCredentials struct{ auth.Credentials }

type awaySource struct{}

var errAway = errors.New("nobody answers")

func (awaySource) Follow(context.Context, directory.Version, func(directory.Change) error) error {
	return errAway
}

// TestOwnTrialsWithEverythingAway: a gateway that starts while tables, vault and
// Trial service are away shows what its file has, and takes reports.
func TestOwnTrialsWithEverythingAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "directory")
	before := directory.New(directory.Options{Path: path})
	first := newWorld(t, setup{})
	stop := followed(before, directory.NewFeed(first.journal, first.tables, nil))
	first.directorySettled(before)
	stop()

	d := directory.New(directory.Options{Path: path})
	w := newWorld(t, setup{noProjector: true, noSeed: true, options: func(o *gateway.Options) {
		o.Directory, o.Reader, o.Credentials = d, away{}, awayCredentials{}
	}})
	stop = followed(d, awaySource{})
	defer stop()
	for d.State().Err == nil {
		time.Sleep(time.Millisecond)
	}
	if got := w.ownTrials(w.participant("T001", "P-2", auth.ScopeRead)); got != `T001 "A Phase III Study of DrugX" Recruiting [qol@1] Enrolled S01 North` {
		t.Error(got)
	}
	if a := w.post(submitPath, w.participant("T001", "P-2", auth.ScopeSubmit), report("T001", "P-2", epro.NewUUID(), 3)); a.status != 200 {
		t.Error(a)
	}
	code, text := w.admin("/status")
	var status struct {
		Ready        bool
		Dependencies map[string]gateway.State
		Directory    map[string]any
	}
	must(t, json.Unmarshal([]byte(text), &status))
	if s := status.Dependencies["directory"]; code != 200 || !status.Ready || s.OK || s.State != "stale" || !strings.Contains(s.Note, errAway.Error()) {
		t.Errorf("%d %s", code, text)
	}
	if status.Directory["connected"] != false || status.Directory["loadedFromDisk"] != true || status.Directory["enrollments"] != 4.0 {
		t.Errorf("%v", status.Directory)
	}
	_, metrics := w.admin("/metrics")
	for _, line := range []string{"tidegate_directory_connected 0", "tidegate_directory_enrollments 4", "tidegate_directory_age_seconds ", `tidegate_dependency_up{dependency="directory"} 0`} {
		if !strings.Contains(metrics, "\n"+line) {
			t.Errorf("the metrics lack %q", line)
		}
	}
}

func TestAnEmptyDirectorySaysSo(t *testing.T) {
	for name, options := range map[string]func(*gateway.Options){
		"none":         nil,
		"of a new one": func(o *gateway.Options) { o.Directory = directory.New(directory.Options{}) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, setup{noSeed: true, options: options})
			a := w.get(ownTrialsPath, w.participant("T001", "P-1", auth.ScopeRead))
			w.isProblem(t, a, 503, "directory-empty")
			if a.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if _, metrics := w.admin("/metrics"); strings.Contains(metrics, "tidegate_directory_age_seconds") {
				t.Error("an age of nothing")
			}
		})
	}
}

// forbidden is a directory that must not be asked.
type forbidden struct{ gateway.Directory }

func (forbidden) State() directory.State { return directory.State{Version: directory.Version{1, 1}} }

// TestTheDirectoryDecidesNothingAboutReports: whatever a phone or relay sends,
// in any state, is taken or refused without a look at the directory.
func TestTheDirectoryDecidesNothingAboutReports(t *testing.T) {
	w := newWorld(t, setup{options: func(o *gateway.Options) { o.Directory = forbidden{} }})
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	for _, a := range []*answer{
		w.post(submitPath, token, report("T001", "P-1", epro.NewUUID(), 3)),
		w.post(submitPath, w.participant("T009", "P-77", auth.ScopeSubmit), report("T009", "P-77", epro.NewUUID(), 3)),
		w.post(submitPath, w.relay("T001", "S01"), report("T001", "P-3", epro.NewUUID(), 3)),
		w.post(bulkPath, token, report("T001", "P-1", epro.NewUUID(), 4), ndjson),
	} {
		if a.status != 200 {
			t.Error(a)
		}
	}
	w.isProblem(t, w.post(submitPath, token, report("T001", "P-2", epro.NewUUID(), 3)), 403, "not-yours")
	if a := w.get(ownTrialsPath, w.participant("T001", "P-1", auth.ScopeRead)); a.status != 500 {
		t.Errorf("%s: this test would not notice", a)
	}
}

var _ directory.Source = awaySource{}
