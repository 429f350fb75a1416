package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
)

// GetCommandLogic answers one call of getCommand.
type GetCommandLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewGetCommandLogic makes it.
func NewGetCommandLogic(ctx context.Context, svcCtx *svc.ServiceContext) *GetCommandLogic {
	return &GetCommandLogic{ctx: ctx, svcCtx: svcCtx}
}

// GetCommand says what became of a command.
func (l *GetCommandLogic) GetCommand(in *trialv1.GetCommandRequest) (*trialv1.GetCommandResponse, error) {
	o, err := l.svcCtx.Edge.Outcome(l.ctx, in.GetCommandId())
	if err != nil {
		return nil, err
	}
	state := "applied"
	if !o.Applied {
		state = "rejected"
	}
	return &trialv1.GetCommandResponse{
		CommandId: o.CommandID.String(), State: state, Kind: o.Kind.String(), TrialId: o.TrialID, Version: o.Version, Code: o.Code, Reason: o.Reason,
	}, nil
}
