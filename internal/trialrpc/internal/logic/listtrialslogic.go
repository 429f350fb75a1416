package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/wire"
)

// ListTrialsLogic answers one call of listTrials.
type ListTrialsLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewListTrialsLogic makes it.
func NewListTrialsLogic(ctx context.Context, svcCtx *svc.ServiceContext) *ListTrialsLogic {
	return &ListTrialsLogic{ctx: ctx, svcCtx: svcCtx}
}

// ListTrials lists the trials that the caller may see.
func (l *ListTrialsLogic) ListTrials(in *trialv1.ListTrialsRequest) (*trialv1.ListTrialsResponse, error) {
	list, next, err := l.svcCtx.Edge.Trials(l.ctx, in.GetLimit(), in.GetCursor())
	if err != nil {
		return nil, err
	}
	return &trialv1.ListTrialsResponse{Trials: wire.Each(list, wire.Trial), Next: next}, nil
}
