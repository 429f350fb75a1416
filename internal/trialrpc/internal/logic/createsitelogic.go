package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
)

// CreateSiteLogic answers one call of createSite.
type CreateSiteLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewCreateSiteLogic makes it.
func NewCreateSiteLogic(ctx context.Context, svcCtx *svc.ServiceContext) *CreateSiteLogic {
	return &CreateSiteLogic{ctx: ctx, svcCtx: svcCtx}
}

// CreateSite adds a site to a trial.
func (l *CreateSiteLogic) CreateSite(in *trialv1.CreateSiteRequest) (*trialv1.CommandResponse, error) {
	return answer(l.svcCtx.Edge.Command(l.ctx, in.GetCommandId(), epro.KindSiteCreated, epro.SiteCreated{
		TrialID: in.GetTrialId(), SiteID: in.GetSiteId(), Name: in.GetName(),
	}))
}
