package trialrpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/trialrpc"
)

// seen is what a follower has put together.
type seen struct {
	version     directory.Version
	snapshots   int
	trials      map[string]epro.TrialStatus
	sites       int
	enrollments map[string]epro.EnrollmentStatus
}

// follow follows until enough says so.
func follow(t *testing.T, source directory.Source, s *seen, enough func(directory.Change) bool) {
	t.Helper()
	done := errors.New("enough")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := source.Follow(ctx, s.version, func(c directory.Change) error {
		if c.Snapshot {
			s.snapshots++
			s.trials, s.enrollments, s.sites = map[string]epro.TrialStatus{}, map[string]epro.EnrollmentStatus{}, 0
		}
		for _, trial := range c.Trials {
			s.trials[trial.ID] = trial.Status
			if trial.Name == "" || trial.Version == 0 || trial.CreatedAt.IsZero() {
				t.Errorf("a trial lost something on the way: %+v", trial)
			}
		}
		s.sites += len(c.Sites)
		for _, e := range c.Enrollments {
			s.enrollments[e.TrialID+" "+e.PatientID] = e.Status
			if e.SiteID == "" || e.Version == 0 || e.EnrolledAt.IsZero() || e.WithdrawnAt.IsZero() == (e.Status == epro.Withdrawn) {
				t.Errorf("an enrolment lost something on the way: %+v", e)
			}
		}
		if c.Done {
			s.version = c.Version
		}
		if enough(c) {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatalf("follow: %v (%+v)", err, s)
	}
}

// TestDirectoryStream follows, hears of changes, and resumes by version: after
// the stream broke, only what came later is told.
func TestDirectoryStream(t *testing.T) {
	w := newWorld(t)
	s := w.serve(nil)
	client := w.client(func(o *trialrpc.ClientOptions) { o.Settings.Endpoints = []string{s.addr} })
	var got seen
	follow(t, client, &got, func(c directory.Change) bool { return c.Done })
	if len(got.trials) != 2 || got.sites != 4 || len(got.enrollments) != 4 || got.snapshots == 0 {
		t.Fatalf("the snapshot has %+v", got)
	}
	w.command(epro.KindParticipantWithdrew, epro.ParticipantWithdrawn{TrialID: "T001", PatientID: "P-1", Reason: "r", Expect: 1})
	before := got.snapshots
	follow(t, client, &got, func(c directory.Change) bool { return c.Done && got.enrollments["T001 P-1"] == epro.Withdrawn })
	w.command(epro.KindTrialStatusChanged, epro.TrialStatusChanged{TrialID: "T002", Status: epro.TrialSuspended, Reason: "r", Expect: 1})
	follow(t, client, &got, func(c directory.Change) bool { return c.Done && got.trials["T002"] == epro.TrialSuspended })
	if got.snapshots != before {
		t.Errorf("a follower that knows a version is told everything again (%d snapshots)", got.snapshots)
	}
}

// TestDirectoryEndsWithTheService tells followers to go elsewhere at once, and
// does not let them hold the stop up.
func TestDirectoryEndsWithTheService(t *testing.T) {
	w := newWorld(t)
	s := w.serve(nil)
	client := w.client(func(o *trialrpc.ClientOptions) { o.Settings.Endpoints = []string{s.addr} })
	following, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		ended <- client.Follow(t.Context(), nil, func(directory.Change) error {
			if first {
				close(following)
			}
			first = false
			return nil
		})
	}()
	<-following
	began := time.Now()
	must(t, s.end())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if f := failureOf(errors.Unwrap(<-ended)); f.code != codes.Unavailable || f.reason != "stopping" {
		t.Errorf("the follower hears %+v", f)
	}
}

// TestDirectoryFollows has the gateway's directory at the client's end.
func TestDirectoryFollows(t *testing.T) {
	w := newWorld(t)
	s := w.serve(nil)
	client := w.client(func(o *trialrpc.ClientOptions) { o.Settings.Endpoints = []string{s.addr} })
	d := directory.New(directory.Options{Path: t.TempDir() + "/directory", Log: w.logger})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		d.Run(ctx, client)
		close(ended)
	}()
	w.eventually("the directory knows both trials of P-2", func() bool {
		_, one := d.PatientTrial("T001", "P-2")
		_, two := d.PatientTrial("T002", "P-2")
		return one == nil && two == nil
	})
	cancel()
	<-ended
}

// standing is a source that tells one thing and then stands.
type standing struct{ directory.Source }

func (s standing) Follow(ctx context.Context, from directory.Version, fn func(directory.Change) error) error {
	if err := fn(directory.Change{Version: directory.Version{1, 1}, Done: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// TestSilentStream: a service that says nothing any more is left, so that
// another instance can be asked.
func TestSilentStream(t *testing.T) {
	w := newWorld(t)
	s := w.serve(func(o *trialrpc.Options) { o.Directory = standing{} })
	client := w.client(func(o *trialrpc.ClientOptions) { o.Settings.Endpoints = []string{s.addr} })
	client.SetSilence(200 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	told := 0
	err := client.Follow(ctx, nil, func(directory.Change) error { told++; return nil })
	if err == nil || ctx.Err() != nil || told != 1 {
		t.Errorf("after %d changes: %v", told, err)
	}
}

// restless is a source that always has something to tell, and ends like the
// feed does: with the error of whoever is told.
type restless struct{}

func (restless) Follow(_ context.Context, _ directory.Version, tell func(directory.Change) error) error {
	for v := uint64(1); ; v++ {
		if err := tell(directory.Change{Version: directory.Version{v, v}, Done: true}); err != nil {
			return err
		}
	}
}

// TestALeavingFollowerIsNoTrouble: gateways stop and are killed every day, and
// the log says nothing of it above debug.
func TestALeavingFollowerIsNoTrouble(t *testing.T) {
	w := newWorld(t)
	s := w.serve(func(o *trialrpc.Options) { o.Directory = restless{} })
	for range 400 {
		at := settings()
		at.Endpoints = []string{s.addr}
		client, err := trialrpc.NewClient(trialrpc.ClientOptions{Settings: at, Log: w.logger})
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err = client.Follow(ctx, nil, func(directory.Change) error { return client.Close() }) // in the midst of the snapshot
		cancel()
		if err == nil {
			t.Error("a stream goes on without its connection")
		}
	}
	must(t, s.end())
	for _, level := range []string{`"WARN"`, `"ERROR"`} {
		if strings.Contains(w.log.String(), level) {
			t.Fatalf("the log has\n%s", w.log)
		}
	}
}
