package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/wire"
)

// ListParticipantsLogic answers one call of listParticipants.
type ListParticipantsLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewListParticipantsLogic makes it.
func NewListParticipantsLogic(ctx context.Context, svcCtx *svc.ServiceContext) *ListParticipantsLogic {
	return &ListParticipantsLogic{ctx: ctx, svcCtx: svcCtx}
}

// ListParticipants lists the participants of a trial.
func (l *ListParticipantsLogic) ListParticipants(in *trialv1.ListParticipantsRequest) (*trialv1.ListParticipantsResponse, error) {
	list, next, err := l.svcCtx.Edge.Participants(l.ctx, in.GetTrialId(), in.GetLimit(), in.GetCursor())
	if err != nil {
		return nil, err
	}
	return &trialv1.ListParticipantsResponse{Participants: wire.Each(list, wire.Enrollment), Next: next}, nil
}
