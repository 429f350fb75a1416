// Package logic has one file for each method of the Trial service, in goctl's
// layout. They translate, and no more: who may ask, and what is answered, is in
// edge, and the rules are the registry's.
package logic

import (
	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/edge"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/wire"
)

// answer is the message of a command that was applied.
func answer(c edge.Changed, err error) (*trialv1.CommandResponse, error) {
	if err != nil {
		return nil, err
	}
	m := &trialv1.CommandResponse{CommandId: c.Command.String(), Version: c.Version}
	switch {
	case c.Trial != nil:
		m.Changed = &trialv1.CommandResponse_Trial{Trial: wire.Trial(c.Trial)}
	case c.Site != nil:
		m.Changed = &trialv1.CommandResponse_Site{Site: wire.Site(c.Site)}
	case c.Enrollment != nil:
		m.Changed = &trialv1.CommandResponse_Participant{Participant: wire.Enrollment(c.Enrollment)}
	}
	return m, nil
}
