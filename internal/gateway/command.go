package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
)

// maxCommandBytes bounds the body of a command: a few short texts.
const maxCommandBytes = 16 << 10

// commandBody reads the JSON object of a command and adds what the path says.
// A field that the path says may be repeated in the body only with the same
// value. Defaults stand for fields that were not sent.
func commandBody(c *gin.Context, path map[string]string, defaults map[string]string) (map[string]json.RawMessage, error) {
	if err := checkType(c.Request, "application/json"); err != nil {
		return nil, err
	}
	raw, err := readBody(c.Writer, c.Request, maxCommandBytes)
	if err != nil {
		return nil, err
	}
	if err := epro.CheckObject(raw); err != nil {
		text := "is not valid JSON"
		if j := (*epro.JSONError)(nil); errors.As(err, &j) {
			text = j.Problem
		}
		return nil, invalidCommand(fieldProblem("body", text))
	}
	var body map[string]json.RawMessage
	if err := json.Unmarshal(raw, &body); err != nil {
		return nil, invalidCommand(fieldProblem("body", "is not valid JSON"))
	}
	var fields []epro.FieldProblem
	for name, value := range path {
		text, _ := json.Marshal(value) // a string always encodes
		if sent, twice := body[name]; twice {
			var s string
			if json.Unmarshal(sent, &s) != nil || s != value {
				fields = append(fields, epro.FieldProblem{Field: name, Problem: "is another than in the path; leave it out"})
			}
		}
		body[name] = text
	}
	if fields != nil {
		return nil, invalidCommand(fields)
	}
	for name, value := range defaults {
		if _, sent := body[name]; !sent {
			body[name] = json.RawMessage(value)
		}
	}
	return body, nil
}

func invalidCommand(fields []epro.FieldProblem) error {
	return &problem{
		status: http.StatusBadRequest, code: codeInvalid, accepted: acceptedFalse, fields: fields,
		detail: "The command is not valid; every field that is wrong is listed in fields. Nothing was recorded.",
	}
}

// stringIn is a string field of a body, "" if it is none.
func stringIn(body map[string]json.RawMessage, name string) string {
	var s string
	_ = json.Unmarshal(body[name], &s) // what is wrong with it is said when the command is checked
	return s
}

// command appends a command and answers what became of it. show reads the
// entity it changed; success is the status of a command that was applied.
func (s *Server) command(c *gin.Context, p *auth.Principal, kind epro.Kind, body map[string]json.RawMessage, success int, show func(context.Context) (string, any, error)) error {
	id, given, err := commandID(c.Request)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	fact, err := registry.Fact(registry.Command{Kind: kind, ID: id, Actor: p.Actor(), Body: json.RawMessage(raw)}, s.now())
	if err != nil {
		var invalid *registry.InvalidError
		if errors.As(err, &invalid) {
			return invalidCommand(invalid.Problems)
		}
		return err
	}
	ctx := c.Request.Context()
	if given {
		// The same command again: what became of the first is the answer.
		if done, err := s.reader.Outcome(ctx, id); err == nil {
			return s.answerOutcome(c, &fact, done, true, success, show)
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if _, err := s.submit(ctx, &fact); err != nil {
		var p *problem
		if errors.As(err, &p) && p.accepted == acceptedUnknown {
			q := *p
			q.commandID = id
			return &q
		}
		return err
	}
	wait, cancel := context.WithTimeout(ctx, s.cfg.CommandWait)
	defer cancel()
	outcome, err := s.opts.Passed(wait, id)
	if err != nil {
		// Durable, whatever is the matter with the tables: it will be decided.
		return s.answerPending(c, id)
	}
	return s.answerOutcome(c, &fact, outcome, given, success, show)
}

// commandID is the Idempotency-Key if one was sent, else a new id.
func commandID(r *http.Request) (id epro.UUID, given bool, err error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return epro.NewUUID(), false, nil
	}
	id, err = epro.ParseUUID(values[0])
	if err != nil || id.IsZero() || len(values) > 1 {
		return id, false, invalidCommand(fieldProblem("Idempotency-Key", "must be one UUID, not the nil UUID, made once per command"))
	}
	return id, true, nil
}

type commandView struct {
	CommandID epro.UUID `json:"commandId"`
	Status    string    `json:"status"` // applied, rejected or pending
	Kind      string    `json:"kind,omitempty"`
	TrialID   string    `json:"trialId,omitempty"`
	Version   uint64    `json:"version,omitempty"`
	Code      string    `json:"code,omitempty"`
	Reason    string    `json:"reason,omitempty"`
}

func (s *Server) answerPending(c *gin.Context, id epro.UUID) error {
	c.Writer.Header()["Location"] = []string{"/v1/commands/" + id.String()}
	c.Writer.Header()["Retry-After"] = []string{"1"}
	return answerJSON(c, http.StatusAccepted, commandView{CommandID: id, Status: "pending"})
}

// answerOutcome answers a command that was decided. given says that the client
// chose the id, which then may be that of another command.
func (s *Server) answerOutcome(c *gin.Context, fact *epro.Fact, o store.Outcome, given bool, success int, show func(context.Context) (string, any, error)) error {
	ctx := c.Request.Context()
	if given {
		env, err := s.envelopeAt(ctx, o)
		if err != nil {
			return err
		}
		if env.Kind != fact.Kind || env.Meaning != fact.Meaning || env.Actor != fact.Actor {
			return &problem{
				status: http.StatusConflict, code: codeConflict, accepted: acceptedFalse,
				detail: "This Idempotency-Key was used for another command. Make a new one for each command.",
				fields: fieldProblem("Idempotency-Key", "was used for another command"),
			}
		}
	}
	if !o.Applied {
		return rejection(o)
	}
	answer := map[string]any{"commandId": o.CommandID, "status": "applied", "version": o.Version}
	name, entity, err := show(ctx)
	switch {
	case err == nil && name != "":
		answer[name] = entity
	case err != nil && !errors.Is(err, store.ErrNotFound):
		// It is applied: not being able to show it is no reason to say otherwise.
		s.log.Warn("a command was applied, but what it changed could not be read", "kind", o.Kind.String(), "error", err)
	}
	return answerJSON(c, success, answer)
}

// rejection maps the projector's word on a command.
func rejection(o store.Outcome) error {
	p := &problem{
		status: http.StatusConflict, code: o.Code, detail: o.Reason, accepted: acceptedFalse, commandID: o.CommandID, version: o.Version,
	}
	switch o.Code {
	case "not-found":
		p.status = http.StatusNotFound
	case "invalid":
		p.status, p.code = http.StatusUnprocessableEntity, codeUnprocessable
	case "conflict", "exists", "forbidden-transition":
	default:
		p.code = codeConflict
	}
	return p
}

// envelopeAt reads the envelope of the fact that an outcome is about.
func (s *Server) envelopeAt(ctx context.Context, o store.Outcome) (epro.Envelope, error) {
	shard := uint32(0)
	if o.TrialID != "" {
		t, err := s.reader.Trial(ctx, o.TrialID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return epro.Envelope{}, err
		}
		shard = t.Shard
	}
	frame, _, err := s.frameAt(ctx, shard, o.Ref.Position)
	if err != nil {
		return epro.Envelope{}, err
	}
	if int(o.Ref.Index) >= len(frame.Entries) {
		return epro.Envelope{}, errors.New("the tables name a fact that its frame does not have: run `tidegate rebuild`")
	}
	return epro.DecodeEnvelope(frame.Entries[o.Ref.Index].Envelope)
}

// getCommand says what became of a command, to whoever gave it and to those who
// read the audit of its trial.
func (s *Server) getCommand(c *gin.Context, p *auth.Principal) error {
	id, err := epro.ParseUUID(c.Param("commandId"))
	if err != nil {
		return notFound("There is no such command: a command id is a UUID.")
	}
	unknown := &problem{
		status: http.StatusNotFound, code: codeNotFound, retryAfter: time.Second,
		detail: "There is no such command of yours, or it was sent a moment ago and is not decided yet.",
	}
	o, err := s.reader.Outcome(c.Request.Context(), id)
	if errors.Is(err, store.ErrNotFound) {
		return unknown
	}
	if err != nil {
		return err
	}
	env, err := s.envelopeAt(c.Request.Context(), o)
	if err != nil {
		return err
	}
	if env.Actor != p.Actor() && !p.May(auth.ActionAuditRead, o.TrialID, "") {
		return unknown
	}
	v := commandView{CommandID: id, Status: "applied", Kind: o.Kind.String(), TrialID: o.TrialID, Version: o.Version}
	if !o.Applied {
		v.Status, v.Code, v.Reason = "rejected", o.Code, o.Reason
	}
	return answerJSON(c, http.StatusOK, v)
}
