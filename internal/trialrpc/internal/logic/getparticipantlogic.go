package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/wire"
)

// GetParticipantLogic answers one call of getParticipant.
type GetParticipantLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewGetParticipantLogic makes it.
func NewGetParticipantLogic(ctx context.Context, svcCtx *svc.ServiceContext) *GetParticipantLogic {
	return &GetParticipantLogic{ctx: ctx, svcCtx: svcCtx}
}

// GetParticipant shows one participant of a trial.
func (l *GetParticipantLogic) GetParticipant(in *trialv1.GetParticipantRequest) (*trialv1.GetParticipantResponse, error) {
	e, err := l.svcCtx.Edge.Participant(l.ctx, in.GetTrialId(), in.GetPatientId())
	if err != nil {
		return nil, err
	}
	return &trialv1.GetParticipantResponse{Participant: wire.Enrollment(&e)}, nil
}
