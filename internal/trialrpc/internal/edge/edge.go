// Package edge is what stands between the methods of the Trial service and the
// rules of the registry: who is asking, what a command is answered, and which
// status an error becomes.
package edge

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
)

// Intake takes facts and answers when they are durable. *intake.Intake is one.
type Intake interface {
	Submit(ctx context.Context, f *epro.Fact) (intake.Committed, error)
}

// Options are what the edge asks of the process.
type Options struct {
	Log         *slog.Logger
	Now         func() time.Time
	Intake      Intake
	Credentials auth.Credentials
	Reader      store.Reader
	Frames      registry.Frames
	// Passed waits until the projector has passed a command and says what became
	// of it, or returns ctx's error.
	Passed func(ctx context.Context, command epro.UUID) (store.Outcome, error)
}

// Edge answers the methods of the Trial service. It is safe for concurrent use.
type Edge struct {
	o       Options
	trouble *Trouble
}

// New makes one.
func New(o Options) *Edge { return &Edge{o, NewTrouble(o.Log)} }

// Bounds of a page.
const (
	defaultLimit = 500
	maxLimit     = 1000
	maxCursor    = 512 // bytes
)

// page is the page that a list asks for, with what is wrong with the ids beside it.
func page(limit uint32, cursor string, problems []epro.FieldProblem) (store.Page, error) {
	if limit > maxLimit {
		problems = append(problems, epro.FieldProblem{Field: "limit", Problem: "must be 1 to 1000, or 0 for 500"})
	}
	if len(cursor) > maxCursor {
		problems = append(problems, epro.FieldProblem{Field: "cursor", Problem: "is not one that this server gave out; begin again without it"})
	}
	if limit == 0 {
		limit = defaultLimit
	}
	return store.Page{Limit: int(limit), After: cursor}, invalid(problems)
}

// id is what is wrong with an id that a request names.
func id(field, value string) []epro.FieldProblem {
	if err := epro.ValidID(value); err != nil {
		return []epro.FieldProblem{{Field: field, Problem: err.Error()}}
	}
	return nil
}

// PatientTrials are the trials a participant is enrolled in. The connection is
// what allows it: see the package trialrpc.
func (e *Edge) PatientTrials(ctx context.Context, patient string) ([]store.Trial, error) {
	if err := invalid(id("patientId", patient)); err != nil {
		return nil, err
	}
	return registry.PatientTrials(ctx, e.o.Reader, patient)
}

// Trials lists the trials that the caller may see.
func (e *Edge) Trials(ctx context.Context, limit uint32, cursor string) ([]store.Trial, string, error) {
	p, err := e.principal(ctx)
	if err != nil {
		return nil, "", err
	}
	pg, err := page(limit, cursor, nil)
	if err != nil {
		return nil, "", err
	}
	extent := p.Trials(auth.ActionTrialList)
	switch {
	case extent.Empty():
		return nil, "", forbidden(auth.ActionTrialList)
	case extent.All:
		return e.o.Reader.Trials(ctx, pg)
	}
	return e.trialsOf(ctx, extent.IDs, pg)
}

// trialsOf lists some trials. A person with some trials has few: they are read
// one by one, and no page has holes where foreign trials would be.
func (e *Edge) trialsOf(ctx context.Context, ids []string, pg store.Page) ([]store.Trial, string, error) {
	after, err := base64.RawURLEncoding.DecodeString(pg.After)
	if err != nil {
		return nil, "", store.ErrCursor
	}
	from := 0
	if len(after) > 0 {
		i, found := slices.BinarySearch(ids, string(after))
		if from = i; found {
			from++
		}
	}
	var list []store.Trial
	for i := from; i < len(ids); i++ {
		if len(list) == pg.Limit {
			return list, base64.RawURLEncoding.EncodeToString([]byte(ids[i-1])), nil
		}
		t, err := e.o.Reader.Trial(ctx, ids[i])
		if errors.Is(err, store.ErrNotFound) {
			continue // granted before it was created
		}
		if err != nil {
			return nil, "", err
		}
		list = append(list, t)
	}
	return list, "", nil
}

// inTrial resolves the caller and finds the trial. Whoever may do the action
// nowhere in it is refused before anything is looked up, so that a trial that
// exists and one that does not look the same from outside. bad is what is wrong
// with the request: the caller is told after having said who they are.
func (e *Edge) inTrial(ctx context.Context, action auth.Action, trial string, bad error) (*auth.Principal, store.Trial, error) {
	p, err := e.principal(ctx)
	switch {
	case err != nil:
		return nil, store.Trial{}, err
	case bad != nil:
		return nil, store.Trial{}, bad
	case !p.Trials(action).Has(trial):
		return nil, store.Trial{}, forbidden(action)
	}
	t, err := e.o.Reader.Trial(ctx, trial)
	if errors.Is(err, store.ErrNotFound) {
		return nil, t, &Error{Code: codes.NotFound, Reason: "not-found", Text: "There is no such trial."}
	}
	return p, t, err
}

// Trial is one trial.
func (e *Edge) Trial(ctx context.Context, trial string) (store.Trial, error) {
	_, t, err := e.inTrial(ctx, auth.ActionTrialList, trial, invalid(id("trialId", trial)))
	return t, err
}

// Sites lists the sites of a trial at which the caller may see something.
func (e *Edge) Sites(ctx context.Context, trial string, limit uint32, cursor string) ([]store.Site, string, error) {
	pg, bad := page(limit, cursor, id("trialId", trial))
	p, _, err := e.inTrial(ctx, auth.ActionSiteList, trial, bad)
	if err != nil {
		return nil, "", err
	}
	extent := p.Sites(auth.ActionSiteList, trial)
	list, next, err := e.o.Reader.Sites(ctx, trial, pg)
	if err != nil {
		return nil, "", err
	}
	return slices.DeleteFunc(list, func(s store.Site) bool { return !extent.Has(s.ID) }), next, nil
}

// Participants lists the participants at the sites that the caller may see.
func (e *Edge) Participants(ctx context.Context, trial string, limit uint32, cursor string) ([]store.Enrollment, string, error) {
	pg, bad := page(limit, cursor, id("trialId", trial))
	p, _, err := e.inTrial(ctx, auth.ActionParticipantList, trial, bad)
	if err != nil {
		return nil, "", err
	}
	extent := p.Sites(auth.ActionParticipantList, trial)
	switch {
	case extent.All:
		return e.o.Reader.Participants(ctx, trial, nil, pg)
	case extent.Empty():
		return nil, "", forbidden(auth.ActionParticipantList)
	}
	return e.o.Reader.Participants(ctx, trial, extent.IDs, pg)
}

// Participant is one participant of a trial.
func (e *Edge) Participant(ctx context.Context, trial, patient string) (store.Enrollment, error) {
	p, err := e.principal(ctx)
	if err != nil {
		return store.Enrollment{}, err
	}
	if err := invalid(slices.Concat(id("trialId", trial), id("patientId", patient))); err != nil {
		return store.Enrollment{}, err
	}
	return e.participant(ctx, p, auth.ActionParticipantList, trial, patient)
}

// participant finds a participant for whom the caller may do the action. To
// those who see one site only, a participant of another and one who does not
// exist look the same.
func (e *Edge) participant(ctx context.Context, p *auth.Principal, action auth.Action, trial, patient string) (store.Enrollment, error) {
	if !p.Trials(action).Has(trial) {
		return store.Enrollment{}, forbidden(action)
	}
	n, err := e.o.Reader.Participant(ctx, trial, patient)
	switch {
	case err == nil && p.May(action, trial, n.SiteID):
		return n, nil
	case err == nil, errors.Is(err, store.ErrNotFound) && !p.May(action, trial, ""):
		return store.Enrollment{}, forbidden(action)
	case errors.Is(err, store.ErrNotFound):
		return store.Enrollment{}, &Error{Code: codes.NotFound, Reason: "not-found", Text: "There is no such participant in this trial."}
	}
	return store.Enrollment{}, err
}
