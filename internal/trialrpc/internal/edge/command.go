package edge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
)

// Changed is the answer to a command that was applied: its version, and what it
// changed as the tables show it now, if they could be read.
type Changed struct {
	Command    epro.UUID
	Version    uint64
	Trial      *store.Trial
	Site       *store.Site
	Enrollment *store.Enrollment
}

// commandID reads the id that a client gave its command. It must give one: then
// it knows it, whatever becomes of the answer.
func commandID(text string) (epro.UUID, []epro.FieldProblem) {
	u, err := epro.ParseUUID(text)
	if err != nil || u.IsZero() {
		return u, []epro.FieldProblem{{Field: "commandId", Problem: "must be a UUID, not the nil UUID, made once per command"}}
	}
	return u, nil
}

// allowed says whether the caller may give a command.
func (e *Edge) allowed(ctx context.Context, p *auth.Principal, body any) error {
	var action auth.Action
	trial, site := "", ""
	switch b := body.(type) {
	case epro.TrialCreated:
		action = auth.ActionTrialCreate
	case epro.TrialStatusChanged:
		action, trial = auth.ActionTrialStatus, b.TrialID
	case epro.SiteCreated:
		action, trial = auth.ActionSiteCreate, b.TrialID
	case epro.ParticipantEnrolled:
		action, trial, site = auth.ActionParticipantEnroll, b.TrialID, b.SiteID
	case epro.ParticipantWithdrawn:
		_, err := e.participant(ctx, p, auth.ActionParticipantWithdraw, b.TrialID, b.PatientID)
		return err
	case epro.InstrumentPublished:
		action, trial = auth.ActionInstrumentPublish, b.TrialID
	default:
		return fmt.Errorf("no rule says who may give a command of type %T", body)
	}
	if !p.May(action, trial, site) {
		return forbidden(action)
	}
	return nil
}

// Command appends a command and answers what became of it. The body is the
// kind's struct of epro. The answer comes before ctx's deadline, so that no
// caller is left without knowing what to do: an undecided command is
// Unavailable, with its id, and may be sent again.
func (e *Edge) Command(ctx context.Context, id string, kind epro.Kind, body any) (Changed, error) {
	p, err := e.principal(ctx)
	if err != nil {
		return Changed{}, err
	}
	command, problems := commandID(id)
	problems = append(problems, registry.Check(kind, body)...)
	if err := invalidCommand(problems); err != nil {
		// Who may not ask is not told what is wrong with the question.
		var denied *Error
		if errors.As(e.allowed(ctx, p, body), &denied) && denied.Code == codes.PermissionDenied {
			return Changed{}, denied
		}
		return Changed{}, err
	}
	if err := e.allowed(ctx, p, body); err != nil {
		return Changed{}, err
	}
	fact, err := registry.Fact(registry.Command{Kind: kind, ID: command, Actor: p.Actor(), Body: body}, e.o.Now())
	if err != nil {
		return Changed{}, err
	}
	changed, err := e.give(ctx, &fact)
	if err != nil {
		return Changed{}, e.named(ctx, command, kind, err)
	}
	e.trouble.Answered(ctx, kind.String())
	if err := e.show(ctx, body, &changed); err != nil {
		// It is applied: not being able to show it is no reason to say otherwise.
		e.o.Log.WarnContext(ctx, "a command was applied, but what it changed could not be read", "kind", kind.String(), "error", err)
	}
	return changed, nil
}

// named gives an answer to a command that failed, always with the command's id.
func (e *Edge) named(ctx context.Context, command epro.UUID, kind epro.Kind, err error) error {
	known := answer(err)
	switch {
	case known != nil && !known.Command.IsZero():
		return known
	case known != nil:
		named := *known
		named.Command = command
		return &named
	case ctx.Err() == nil:
		e.trouble.tell(ctx, kind.String(), err)
	}
	return &Error{
		Code: codes.Unavailable, Reason: "outcome-unknown", Command: command, RetryAfter: spread(2 * time.Second),
		Text: "Whether this was recorded is not known yet. Send the same again, with the same commandId.",
	}
}

// answerBefore is how long before the call's deadline a command is answered,
// decided or not.
const answerBefore = 250 * time.Millisecond

// give submits a command, or finds that it was given before, and waits for the
// projector's word.
func (e *Edge) give(ctx context.Context, fact *epro.Fact) (Changed, error) {
	wait := ctx
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, left-min(answerBefore, left/4))
		defer cancel()
	}
	outcome, err := e.o.Reader.Outcome(wait, fact.ID)
	if errors.Is(err, store.ErrNotFound) {
		if _, err := e.o.Intake.Submit(wait, fact); err != nil {
			return Changed{}, err
		}
		if outcome, err = e.o.Passed(wait, fact.ID); err != nil {
			// Durable, whatever is the matter with the tables: it will be decided.
			return Changed{}, &Error{
				Code: codes.Unavailable, Reason: "undecided", Command: fact.ID, RetryAfter: time.Second,
				Text: "The command was recorded and is not decided yet. Ask getCommand, or send the same again with the same commandId.",
			}
		}
	} else if err != nil {
		return Changed{}, err
	}
	env, err := registry.CommandEnvelope(wait, e.o.Reader, e.o.Frames, outcome)
	if err != nil {
		return Changed{}, err
	}
	if env.Kind != fact.Kind || env.Meaning != fact.Meaning || env.Actor != fact.Actor {
		return Changed{}, invalidCommand([]epro.FieldProblem{{Field: "commandId", Problem: "was used for another command; make a new one for each"}})
	}
	if !outcome.Applied {
		return Changed{}, e.rejection(wait, fact, outcome)
	}
	return Changed{Command: fact.ID, Version: outcome.Version}, nil
}

// rejection maps the projector's word on a command.
func (e *Edge) rejection(ctx context.Context, fact *epro.Fact, o store.Outcome) error {
	r := &Error{Code: codes.Aborted, Reason: o.Code, Text: o.Reason, Command: o.CommandID}
	switch o.Code {
	case registry.CodeNotFound:
		r.Code = codes.NotFound
	case registry.CodeExists:
		r.Code = codes.AlreadyExists
	case registry.CodeTransition:
		r.Code = codes.FailedPrecondition
	case registry.CodeInvalid:
		r.Code = codes.InvalidArgument
	case registry.CodeConflict:
		// The version to look at again; not being able to say it changes nothing.
		if fact.Subject != "" {
			if n, err := e.o.Reader.Participant(ctx, fact.Trial, fact.Subject); err == nil {
				r.Version = n.Version
			}
		} else if t, err := e.o.Reader.Trial(ctx, fact.Trial); err == nil {
			r.Version = t.Version
		}
	}
	return r
}

// show reads what a command changed.
func (e *Edge) show(ctx context.Context, body any, c *Changed) error {
	if b, is := body.(epro.SiteCreated); is {
		// As it was asked for: a site never changes, and its outcome has no time of its own.
		c.Site = &store.Site{TrialID: b.TrialID, ID: b.SiteID, Name: b.Name}
		return nil
	}
	trial, patient := registry.About(body)
	if patient != "" {
		n, err := e.o.Reader.Participant(ctx, trial, patient)
		if err == nil {
			c.Enrollment = &n
		}
		return err
	}
	t, err := e.o.Reader.Trial(ctx, trial)
	if err == nil {
		c.Trial = &t
	}
	return err
}

// Outcome says what became of a command, to whoever gave it and to those who
// read the audit of its trial.
func (e *Edge) Outcome(ctx context.Context, id string) (store.Outcome, error) {
	p, err := e.principal(ctx)
	if err != nil {
		return store.Outcome{}, err
	}
	command, problems := commandID(id)
	if err := invalid(problems); err != nil {
		return store.Outcome{}, err
	}
	unknown := &Error{
		Code: codes.NotFound, Reason: "not-found", Command: command, RetryAfter: time.Second,
		Text: "There is no such command of yours, or it was sent a moment ago and is not decided yet.",
	}
	o, err := e.o.Reader.Outcome(ctx, command)
	if errors.Is(err, store.ErrNotFound) {
		return o, unknown
	}
	if err != nil {
		return o, err
	}
	env, err := registry.CommandEnvelope(ctx, e.o.Reader, e.o.Frames, o)
	if err != nil {
		return o, err
	}
	if env.Actor != p.Actor() && !p.May(auth.ActionAuditRead, o.TrialID, "") {
		return o, unknown
	}
	return o, nil
}
