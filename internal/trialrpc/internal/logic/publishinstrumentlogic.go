package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
)

// PublishInstrumentLogic answers one call of publishInstrument.
type PublishInstrumentLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewPublishInstrumentLogic makes it.
func NewPublishInstrumentLogic(ctx context.Context, svcCtx *svc.ServiceContext) *PublishInstrumentLogic {
	return &PublishInstrumentLogic{ctx: ctx, svcCtx: svcCtx}
}

// PublishInstrument lets a version of an instrument be answered in a trial.
func (l *PublishInstrumentLogic) PublishInstrument(in *trialv1.PublishInstrumentRequest) (*trialv1.CommandResponse, error) {
	return answer(l.svcCtx.Edge.Command(l.ctx, in.GetCommandId(), epro.KindInstrumentPublished, epro.InstrumentPublished{
		TrialID: in.GetTrialId(), Instrument: in.GetInstrument(), Version: in.GetVersion(),
	}))
}
