package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/wire"
)

// GetTrialLogic answers one call of getTrial.
type GetTrialLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewGetTrialLogic makes it.
func NewGetTrialLogic(ctx context.Context, svcCtx *svc.ServiceContext) *GetTrialLogic {
	return &GetTrialLogic{ctx: ctx, svcCtx: svcCtx}
}

// GetTrial shows one trial.
func (l *GetTrialLogic) GetTrial(in *trialv1.GetTrialRequest) (*trialv1.GetTrialResponse, error) {
	t, err := l.svcCtx.Edge.Trial(l.ctx, in.GetTrialId())
	if err != nil {
		return nil, err
	}
	return &trialv1.GetTrialResponse{Trial: wire.Trial(&t)}, nil
}
