package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/wire"
)

// ListSitesLogic answers one call of listSites.
type ListSitesLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewListSitesLogic makes it.
func NewListSitesLogic(ctx context.Context, svcCtx *svc.ServiceContext) *ListSitesLogic {
	return &ListSitesLogic{ctx: ctx, svcCtx: svcCtx}
}

// ListSites lists the sites of a trial.
func (l *ListSitesLogic) ListSites(in *trialv1.ListSitesRequest) (*trialv1.ListSitesResponse, error) {
	list, next, err := l.svcCtx.Edge.Sites(l.ctx, in.GetTrialId(), in.GetLimit(), in.GetCursor())
	if err != nil {
		return nil, err
	}
	return &trialv1.ListSitesResponse{Sites: wire.Each(list, wire.Site), Next: next}, nil
}
