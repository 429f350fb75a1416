// Package registry holds the rules of trials, sites, participants, instruments
// and staff: what a command must look like, and what becomes of it. It has no
// transport and no storage: an edge checks a command with it before it becomes
// a fact, and the projector decides it with the same rules, in order.
package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
)

// Command is what someone asks for. It becomes a fact, and the projector
// decides what becomes of it.
type Command struct {
	Kind    epro.Kind
	ID      epro.UUID // made by the caller: the same command again has the same id
	Trial   string    // may be left empty: it is the body's trial
	Subject string    // may be left empty: it is the body's participant
	Actor   epro.Actor
	Body    any // the kind's struct of epro, or its JSON as json.RawMessage
}

// InvalidError says what is wrong with a command, field by field.
type InvalidError struct {
	Kind     epro.Kind
	Problems []epro.FieldProblem
}

// Error lists the fields. It holds no value that was sent.
func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		parts[i] = p.Field + " " + p.Problem
	}
	return e.Kind.String() + ": " + strings.Join(parts, "; ")
}

// bodyTypes are the bodies of the commands. Bodies of key.added and
// key.retired belong to the receipts' keys and are any JSON object here.
var bodyTypes = map[epro.Kind]reflect.Type{
	epro.KindTrialCreated:        reflect.TypeFor[epro.TrialCreated](),
	epro.KindTrialStatusChanged:  reflect.TypeFor[epro.TrialStatusChanged](),
	epro.KindSiteCreated:         reflect.TypeFor[epro.SiteCreated](),
	epro.KindParticipantEnrolled: reflect.TypeFor[epro.ParticipantEnrolled](),
	epro.KindParticipantWithdrew: reflect.TypeFor[epro.ParticipantWithdrawn](),
	epro.KindTokensRevoked:       reflect.TypeFor[epro.TokensRevoked](),
	epro.KindInstrumentPublished: reflect.TypeFor[epro.InstrumentPublished](),
	epro.KindReportResolved:      reflect.TypeFor[epro.ReportResolved](),
	epro.KindStaffAdded:          reflect.TypeFor[epro.StaffAdded](),
	epro.KindStaffRoleGranted:    reflect.TypeFor[epro.StaffRole](),
	epro.KindStaffRoleRevoked:    reflect.TypeFor[epro.StaffRole](),
	epro.KindStaffRemoved:        reflect.TypeFor[epro.StaffRemoved](),
	epro.KindKeyAdded:            reflect.TypeFor[json.RawMessage](),
	epro.KindKeyRetired:          reflect.TypeFor[json.RawMessage](),
	epro.KindRulesActivated:      reflect.TypeFor[epro.RulesActivated](),
	epro.KindEraOpened:           reflect.TypeFor[epro.EraOpened](),
	epro.KindErased:              reflect.TypeFor[epro.Erased](),
}

// Body is the canonical JSON of a command's body.
func Body(v any) ([]byte, error) {
	raw, ok := v.(json.RawMessage)
	if !ok {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return nil, fmt.Errorf("encode a command's body: %w", err)
		}
		raw = b.Bytes()
	}
	canonical, err := epro.CanonicalJSON(nil, raw)
	if err != nil {
		return nil, fmt.Errorf("encode a command's body: %w", err)
	}
	return canonical, nil
}

// Fact makes the fact of a command, checked by every rule that needs no state:
// the error is then an [*InvalidError]. Both clocks of the fact are now.
func Fact(c Command, now time.Time) (epro.Fact, error) {
	if c.ID.IsZero() {
		return epro.Fact{}, errors.New("a command needs an id")
	}
	raw, err := Body(c.Body)
	if err != nil {
		return epro.Fact{}, err
	}
	if len(raw) > epro.MaxBodyBytes {
		return epro.Fact{}, &InvalidError{c.Kind, []epro.FieldProblem{{Field: "body", Problem: "is longer than a fact may be"}}}
	}
	body, problems := Decode(c.Kind, raw)
	if problems != nil {
		return epro.Fact{}, &InvalidError{c.Kind, problems}
	}
	trial, subject := About(body)
	if c.Trial != "" && c.Trial != trial || c.Subject != "" && c.Subject != subject {
		return epro.Fact{}, &InvalidError{c.Kind, []epro.FieldProblem{{Field: "body", Problem: "names another trial or participant than the command"}}}
	}
	if c.Actor.ID == "" || c.Actor.Type < epro.ActorParticipant || c.Actor.Type > epro.ActorSystem {
		return epro.Fact{}, errors.New("a command needs an actor")
	}
	now = now.UTC()
	salt := epro.NewSalt()
	return epro.Fact{
		Envelope: epro.Envelope{
			Kind: c.Kind, ID: c.ID, Trial: trial, Subject: subject, Actor: c.Actor, OccurredAt: now, ReceivedAt: now,
			BodyDigest: epro.BodyDigest(salt, raw), Meaning: epro.PlainMeaning(raw),
		},
		Salt: salt, Body: raw,
	}, nil
}

// About is the trial and the participant that a body is about, "" for none.
func About(body any) (trial, subject string) {
	switch b := body.(type) {
	case epro.TrialCreated:
		return b.TrialID, ""
	case epro.TrialStatusChanged:
		return b.TrialID, ""
	case epro.SiteCreated:
		return b.TrialID, ""
	case epro.ParticipantEnrolled:
		return b.TrialID, b.PatientID
	case epro.ParticipantWithdrawn:
		return b.TrialID, b.PatientID
	case epro.TokensRevoked:
		return b.TrialID, b.PatientID
	case epro.InstrumentPublished:
		return b.TrialID, ""
	case epro.ReportResolved:
		return b.TrialID, b.PatientID
	case epro.StaffRole:
		return b.TrialID, ""
	case epro.Erased:
		return b.TrialID, b.PatientID
	}
	return "", ""
}
