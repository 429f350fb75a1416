package trialrpc_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/trialrpc"
)

func newID() string { return epro.NewUUID().String() }

// TestLifeOfATrial goes through every method as staff do.
func TestLifeOfATrial(t *testing.T) {
	w := newWorld(t)
	as := trialrpc.WithToken(w.everyone())
	c, ctx := dial(t, w.serve(nil).addr), t.Context()

	made, err := c.CreateTrial(ctx, &trialv1.CreateTrialRequest{CommandId: newID(), TrialId: "T100", Name: "Sleep", Status: "Planned"}, as)
	must(t, err)
	if trial := made.GetTrial(); made.GetVersion() != 1 || trial.GetName() != "Sleep" || trial.GetStatus() != "Planned" || trial.GetCreatedAt().AsTime().IsZero() {
		t.Errorf("made %v", made)
	}
	_, err = c.CreateSite(ctx, &trialv1.CreateSiteRequest{CommandId: newID(), TrialId: "T100", SiteId: "S9", Name: "West"}, as)
	must(t, err)
	published, err := c.PublishInstrument(ctx, &trialv1.PublishInstrumentRequest{CommandId: newID(), TrialId: "T100", Instrument: "qol", Version: 1}, as)
	must(t, err)
	if got := published.GetTrial().GetInstruments(); !slices.Equal(got, []string{"qol@1"}) {
		t.Errorf("instruments %v", got)
	}
	moved, err := c.ChangeTrialStatus(ctx, &trialv1.ChangeTrialStatusRequest{
		CommandId: newID(), TrialId: "T100", Status: "Recruiting", Reason: "approved", Expect: published.GetVersion(),
	}, as)
	must(t, err)
	if moved.GetTrial().GetStatus() != "Recruiting" || moved.GetVersion() != 3 {
		t.Errorf("moved %v", moved)
	}
	enrolled, err := c.EnrollParticipant(ctx, &trialv1.EnrollParticipantRequest{CommandId: newID(), TrialId: "T100", SiteId: "S9", PatientId: "P-7"}, as)
	must(t, err)
	if e := enrolled.GetParticipant(); e.GetStatus() != "Enrolled" || e.GetSiteId() != "S9" || e.GetWithdrawnAt() != nil {
		t.Errorf("enrolled %v", enrolled)
	}
	mine, err := c.GetPatientTrials(ctx, &trialv1.GetPatientTrialsRequest{PatientId: "P-7"})
	if err != nil || len(mine.GetTrials()) != 1 || mine.GetTrials()[0].GetTrialId() != "T100" {
		t.Errorf("P-7 is in %v, %v", mine, err)
	}
	gone, err := c.WithdrawParticipant(ctx, &trialv1.WithdrawParticipantRequest{
		CommandId: newID(), TrialId: "T100", PatientId: "P-7", Reason: "moved away", Expect: enrolled.GetVersion(),
	}, as)
	must(t, err)
	if e := gone.GetParticipant(); e.GetStatus() != "Withdrawn" || e.GetWithdrawnAt() == nil {
		t.Errorf("withdrawn %v", gone)
	}
	if mine, err := c.GetPatientTrials(ctx, &trialv1.GetPatientTrialsRequest{PatientId: "P-7"}); err != nil || len(mine.GetTrials()) != 0 {
		t.Errorf("after the withdrawal P-7 is in %v, %v", mine, err)
	}
	one, err := c.GetParticipant(ctx, &trialv1.GetParticipantRequest{TrialId: "T100", PatientId: "P-7"}, as)
	if err != nil || one.GetParticipant().GetVersion() != gone.GetVersion() {
		t.Errorf("participant %v, %v", one, err)
	}
	trial, err := c.GetTrial(ctx, &trialv1.GetTrialRequest{TrialId: "T100"}, as)
	if err != nil || trial.GetTrial().GetVersion() != 3 {
		t.Errorf("trial %v, %v", trial, err)
	}
	sites, err := c.ListSites(ctx, &trialv1.ListSitesRequest{TrialId: "T001"}, as)
	if err != nil || len(sites.GetSites()) != 2 || sites.GetNext() != "" {
		t.Errorf("sites %v, %v", sites, err)
	}
	outcome, err := c.GetCommand(ctx, &trialv1.GetCommandRequest{CommandId: gone.GetCommandId()}, as)
	if err != nil || outcome.GetState() != "applied" || outcome.GetKind() != "participant.withdrawn@1" || outcome.GetVersion() != gone.GetVersion() {
		t.Errorf("outcome %v, %v", outcome, err)
	}
}

// TestPages walks lists page by page, for somebody who sees all and for
// somebody who sees some.
func TestPages(t *testing.T) {
	w := newWorld(t)
	all := w.everyone()
	some := w.staff("some", epro.StaffRole{Role: registry.RoleCoordinator, TrialID: "T001", SiteID: "S01"}, epro.StaffRole{Role: registry.RoleMonitor, TrialID: "T002"})
	c, ctx := dial(t, w.serve(nil).addr), t.Context()
	for name, test := range map[string]struct {
		token          string
		trials, people []string
		sites          []string
	}{
		"all":  {all, []string{"T001", "T002"}, []string{"P-1", "P-2", "P-3"}, []string{"S01", "S02"}},
		"some": {some, []string{"T001", "T002"}, []string{"P-1", "P-2"}, []string{"S01"}},
	} {
		as := trialrpc.WithToken(test.token)
		var trials, people, sites []string
		for cursor := ""; ; {
			r, err := c.ListTrials(ctx, &trialv1.ListTrialsRequest{Limit: 1, Cursor: cursor}, as)
			must(t, err)
			for _, trial := range r.GetTrials() {
				trials = append(trials, trial.GetTrialId())
			}
			if cursor = r.GetNext(); cursor == "" {
				break
			}
		}
		for cursor := ""; ; {
			r, err := c.ListParticipants(ctx, &trialv1.ListParticipantsRequest{TrialId: "T001", Limit: 1, Cursor: cursor}, as)
			must(t, err)
			for _, p := range r.GetParticipants() {
				people = append(people, p.GetPatientId())
			}
			if cursor = r.GetNext(); cursor == "" {
				break
			}
		}
		r, err := c.ListSites(ctx, &trialv1.ListSitesRequest{TrialId: "T001"}, as)
		must(t, err)
		for _, s := range r.GetSites() {
			sites = append(sites, s.GetSiteId())
		}
		if !slices.Equal(trials, test.trials) || !slices.Equal(people, test.people) || !slices.Equal(sites, test.sites) {
			t.Errorf("%s: trials %v, people %v, sites %v", name, trials, people, sites)
		}
	}
	_, err := c.ListTrials(ctx, &trialv1.ListTrialsRequest{Limit: 1001, Cursor: strings.Repeat("x", 600)}, trialrpc.WithToken(all))
	if f := failureOf(err); f.code != codes.InvalidArgument || !slices.Equal(f.fields, []string{"limit", "cursor"}) {
		t.Errorf("a bad page: %v", err)
	}
	_, err = c.ListTrials(ctx, &trialv1.ListTrialsRequest{Cursor: "?"}, trialrpc.WithToken(all))
	if f := failureOf(err); f.code != codes.InvalidArgument || !slices.Equal(f.fields, []string{"cursor"}) {
		t.Errorf("a foreign cursor: %v", err)
	}
}

// TestRefusals has every refusal of a command with its code and details.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	as := trialrpc.WithToken(w.everyone())
	c, ctx := dial(t, w.serve(nil).addr), t.Context()
	status := func(to string, expect uint64) error {
		_, err := c.ChangeTrialStatus(ctx, &trialv1.ChangeTrialStatusRequest{CommandId: newID(), TrialId: "T001", Status: to, Reason: "r", Expect: expect}, as)
		return err
	}
	tests := []struct {
		name    string
		err     error
		code    codes.Code
		reason  string
		fields  []string
		version string
	}{
		{"every bad field", func() error {
			_, err := c.ChangeTrialStatus(ctx, &trialv1.ChangeTrialStatusRequest{CommandId: "7", TrialId: "", Status: "active"}, as)
			return err
		}(), codes.InvalidArgument, "invalid", []string{"commandId", "trialId", "status", "reason"}, ""},
		{"nil UUID", func() error {
			_, err := c.CreateSite(ctx, &trialv1.CreateSiteRequest{CommandId: epro.UUID{}.String(), TrialId: "T001", SiteId: "S 1", Name: ""}, as)
			return err
		}(), codes.InvalidArgument, "invalid", []string{"commandId", "siteId", "name"}, ""},
		{"forbidden move", status("Planned", 1), codes.FailedPrecondition, registry.CodeTransition, nil, ""},
		{"old version", status("Active", 9), codes.Aborted, registry.CodeConflict, nil, "1"},
		{"exists", func() error {
			_, err := c.CreateTrial(ctx, &trialv1.CreateTrialRequest{CommandId: newID(), TrialId: "T001", Name: "x", Status: "Planned"}, as)
			return err
		}(), codes.AlreadyExists, registry.CodeExists, nil, ""},
		{"not there", func() error {
			_, err := c.CreateSite(ctx, &trialv1.CreateSiteRequest{CommandId: newID(), TrialId: "T404", SiteId: "S1", Name: "x"}, as)
			return err
		}(), codes.NotFound, registry.CodeNotFound, nil, ""},
		{"one trial", func() error {
			_, err := c.GetTrial(ctx, &trialv1.GetTrialRequest{TrialId: "T404"}, as)
			return err
		}(), codes.NotFound, "not-found", nil, ""},
		{"one participant", func() error {
			_, err := c.GetParticipant(ctx, &trialv1.GetParticipantRequest{TrialId: "T001", PatientId: "P-404"}, as)
			return err
		}(), codes.NotFound, "not-found", nil, ""},
		{"another version of a participant", func() error {
			_, err := c.WithdrawParticipant(ctx, &trialv1.WithdrawParticipantRequest{CommandId: newID(), TrialId: "T001", PatientId: "P-1", Reason: "r", Expect: 5}, as)
			return err
		}(), codes.Aborted, registry.CodeConflict, nil, "1"},
		{"no such command", func() error {
			_, err := c.GetCommand(ctx, &trialv1.GetCommandRequest{CommandId: newID()}, as)
			return err
		}(), codes.NotFound, "not-found", nil, ""},
	}
	for _, test := range tests {
		f := failureOf(test.err)
		if f.code != test.code || f.reason != test.reason || !slices.Equal(f.fields, test.fields) || f.info["version"] != test.version {
			t.Errorf("%s: %v, %+v", test.name, test.err, f)
		}
		if decided := f.code == codes.FailedPrecondition || f.code == codes.Aborted || f.code == codes.AlreadyExists; decided && f.info["commandId"] == "" {
			t.Errorf("%s: the command's id is not told", test.name)
		}
	}
	// A rejected command stays known as such.
	id := newID()
	_, err := c.CreateSite(ctx, &trialv1.CreateSiteRequest{CommandId: id, TrialId: "T001", SiteId: "S01", Name: "x"}, as)
	if failureOf(err).code != codes.AlreadyExists {
		t.Fatal(err)
	}
	if o, err := c.GetCommand(ctx, &trialv1.GetCommandRequest{CommandId: id}, as); err != nil || o.GetState() != "rejected" || o.GetCode() != registry.CodeExists || o.GetReason() == "" {
		t.Errorf("outcome %v, %v", o, err)
	}
}

// TestTheSameCommandAgain changes nothing more and is answered as the first.
func TestTheSameCommandAgain(t *testing.T) {
	w := newWorld(t)
	as := trialrpc.WithToken(w.everyone())
	c, ctx := dial(t, w.serve(nil).addr), t.Context()
	ask := &trialv1.EnrollParticipantRequest{CommandId: newID(), TrialId: "T001", SiteId: "S01", PatientId: "P-50"}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if r, err := c.EnrollParticipant(ctx, ask, as); err != nil || r.GetVersion() != 1 || r.GetCommandId() != ask.GetCommandId() {
				t.Errorf("the same command at once: %v, %v", r, err)
			}
		})
	}
	all.Wait()
	before, err := w.journal.End(ctx, 0)
	must(t, err)
	if r, err := c.EnrollParticipant(ctx, ask, as); err != nil || r.GetVersion() != 1 {
		t.Errorf("again: %v, %v", r, err)
	}
	after, err := w.journal.End(ctx, 0)
	must(t, err)
	if after.Position != before.Position {
		t.Error("a command that was decided was written once more")
	}
	// Its id for another command, and for the same one of somebody else.
	_, err = c.EnrollParticipant(ctx, &trialv1.EnrollParticipantRequest{CommandId: ask.GetCommandId(), TrialId: "T001", SiteId: "S01", PatientId: "P-51"}, as)
	if f := failureOf(err); f.code != codes.InvalidArgument || !slices.Equal(f.fields, []string{"commandId"}) {
		t.Errorf("another command under the id: %v", err)
	}
	other := trialrpc.WithToken(w.staff("other", epro.StaffRole{Role: registry.RoleCoordinator}))
	if _, err = c.EnrollParticipant(ctx, ask, other); failureOf(err).code != codes.InvalidArgument {
		t.Errorf("the same command of somebody else: %v", err)
	}
	if _, err := c.GetCommand(ctx, &trialv1.GetCommandRequest{CommandId: ask.GetCommandId()}, other); failureOf(err).code != codes.NotFound {
		t.Errorf("somebody else's command is shown: %v", err)
	}
}

// TestConcurrentEdits has many change one trial from the same version: one does,
// the others hear which version there is now.
func TestConcurrentEdits(t *testing.T) {
	w := newWorld(t)
	as := trialrpc.WithToken(w.everyone())
	c, ctx := dial(t, w.serve(nil).addr), t.Context()
	results := make(chan error, 10)
	for i := range cap(results) {
		go func() {
			to := []string{"Active", "Suspended"}[i%2]
			_, err := c.ChangeTrialStatus(ctx, &trialv1.ChangeTrialStatusRequest{CommandId: newID(), TrialId: "T001", Status: to, Reason: "r", Expect: 1}, as)
			results <- err
		}()
	}
	applied := 0
	for range cap(results) {
		err := <-results
		if err == nil {
			applied++
			continue
		}
		if f := failureOf(err); f.code != codes.Aborted || f.info["version"] != "2" {
			t.Errorf("%v, %+v", err, f)
		}
	}
	if applied != 1 {
		t.Errorf("%d of the edits were applied", applied)
	}
}

// TestUndecidedCommand has a projector that stands: the caller hears, before its
// deadline, that the command is recorded and under which id, and later the
// same command again is answered.
func TestUndecidedCommand(t *testing.T) {
	w := newWorld(t)
	as := trialrpc.WithToken(w.everyone())
	c := dial(t, w.serve(nil).addr)
	w.pauseProjector()
	ask := &trialv1.CreateSiteRequest{CommandId: newID(), TrialId: "T001", SiteId: "S77", Name: "x"}
	for _, limit := range []time.Duration{400 * time.Millisecond, 2 * time.Second} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		_, err := c.CreateSite(ctx, ask, as)
		if f := failureOf(err); f.code != codes.Unavailable || f.reason != "undecided" || f.info["commandId"] != ask.GetCommandId() || f.retry <= 0 {
			t.Errorf("within %v: %v, %+v", limit, err, f)
		}
		cancel()
	}
	if _, err := c.GetCommand(t.Context(), &trialv1.GetCommandRequest{CommandId: ask.GetCommandId()}, as); failureOf(err).code != codes.NotFound || failureOf(err).retry <= 0 {
		t.Errorf("what became of it is known: %v", err)
	}
	w.resumeProjector()
	r, err := c.CreateSite(t.Context(), ask, as)
	if err != nil || r.GetSite().GetSiteId() != "S77" {
		t.Errorf("again: %v, %v", r, err)
	}
}

// TestStorageAway has tables that cannot be read, and an intake that is gone.
func TestStorageAway(t *testing.T) {
	w := newWorld(t)
	as := trialrpc.WithToken(w.everyone())
	c, ctx := dial(t, w.serve(nil).addr), t.Context()
	w.reader.fail.Store(true)
	_, err := c.GetPatientTrials(ctx, &trialv1.GetPatientTrialsRequest{PatientId: "P-1"})
	if f := failureOf(err); f.code != codes.Unavailable || f.retry <= 0 || strings.Contains(err.Error(), "down") {
		t.Errorf("without tables: %v, %+v", err, f)
	}
	_, err = c.CreateSite(ctx, &trialv1.CreateSiteRequest{CommandId: newID(), TrialId: "T001", SiteId: "S5", Name: "x"}, as)
	if f := failureOf(err); f.code != codes.Unavailable || f.retry <= 0 {
		t.Errorf("a command without tables: %v, %+v", err, f)
	}
	w.reader.fail.Store(false)
	must(t, w.intake.Close(ctx))
	id := newID()
	_, err = c.CreateSite(ctx, &trialv1.CreateSiteRequest{CommandId: id, TrialId: "T001", SiteId: "S5", Name: "x"}, as)
	if f := failureOf(err); f.code != codes.Unavailable || f.retry <= 0 || f.info["commandId"] != id {
		t.Errorf("a command without intake: %v, %+v", err, f)
	}
}

// TestManyTrials has one participant in trials beyond one page of the tables.
func TestManyTrials(t *testing.T) {
	w := newWorld(t)
	var facts []*epro.Fact
	for i := range 1005 {
		fact, err := registry.Fact(registry.Command{
			Kind: epro.KindTrialCreated, ID: epro.NewUUID(), Actor: epro.Actor{Type: epro.ActorSystem, ID: "operator"},
			Body: epro.TrialCreated{TrialID: "X" + strconv.Itoa(i), Name: "x", Status: epro.TrialActive},
		}, time.Now())
		must(t, err)
		facts = append(facts, &fact)
	}
	for _, o := range w.intake.SubmitAll(t.Context(), facts) {
		must(t, o.Err)
	}
	for _, trial := range []string{"X1", "X999"} {
		w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: trial, SiteID: "S", Name: "x"})
		w.command(epro.KindParticipantEnrolled, epro.ParticipantEnrolled{TrialID: trial, SiteID: "S", PatientID: "P-1"})
	}
	w.settle()
	r, err := dial(t, w.serve(nil).addr).GetPatientTrials(t.Context(), &trialv1.GetPatientTrialsRequest{PatientId: "P-1"})
	if err != nil || len(r.GetTrials()) != 3 {
		t.Errorf("P-1 is in %v, %v", r, err)
	}
}
