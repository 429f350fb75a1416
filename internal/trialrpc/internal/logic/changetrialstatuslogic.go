package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
)

// ChangeTrialStatusLogic answers one call of changeTrialStatus.
type ChangeTrialStatusLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewChangeTrialStatusLogic makes it.
func NewChangeTrialStatusLogic(ctx context.Context, svcCtx *svc.ServiceContext) *ChangeTrialStatusLogic {
	return &ChangeTrialStatusLogic{ctx: ctx, svcCtx: svcCtx}
}

// ChangeTrialStatus moves a trial to another status.
func (l *ChangeTrialStatusLogic) ChangeTrialStatus(in *trialv1.ChangeTrialStatusRequest) (*trialv1.CommandResponse, error) {
	return answer(l.svcCtx.Edge.Command(l.ctx, in.GetCommandId(), epro.KindTrialStatusChanged, epro.TrialStatusChanged{
		TrialID: in.GetTrialId(), Status: epro.TrialStatus(in.GetStatus()), Reason: in.GetReason(), Expect: in.GetExpect(),
	}))
}
