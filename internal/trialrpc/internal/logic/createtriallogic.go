package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
)

// CreateTrialLogic answers one call of createTrial.
type CreateTrialLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewCreateTrialLogic makes it.
func NewCreateTrialLogic(ctx context.Context, svcCtx *svc.ServiceContext) *CreateTrialLogic {
	return &CreateTrialLogic{ctx: ctx, svcCtx: svcCtx}
}

// CreateTrial makes a trial.
func (l *CreateTrialLogic) CreateTrial(in *trialv1.CreateTrialRequest) (*trialv1.CommandResponse, error) {
	return answer(l.svcCtx.Edge.Command(l.ctx, in.GetCommandId(), epro.KindTrialCreated, epro.TrialCreated{
		TrialID: in.GetTrialId(), Name: in.GetName(), Status: epro.TrialStatus(in.GetStatus()), // shard 0: the only one yet
	}))
}
