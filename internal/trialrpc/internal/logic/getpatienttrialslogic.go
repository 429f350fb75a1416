package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/wire"
)

// GetPatientTrialsLogic answers one call of getPatientTrials.
type GetPatientTrialsLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewGetPatientTrialsLogic makes it.
func NewGetPatientTrialsLogic(ctx context.Context, svcCtx *svc.ServiceContext) *GetPatientTrialsLogic {
	return &GetPatientTrialsLogic{ctx: ctx, svcCtx: svcCtx}
}

// GetPatientTrials lists the trials a participant is enrolled in now.
func (l *GetPatientTrialsLogic) GetPatientTrials(in *trialv1.GetPatientTrialsRequest) (*trialv1.GetPatientTrialsResponse, error) {
	trials, err := l.svcCtx.Edge.PatientTrials(l.ctx, in.GetPatientId())
	if err != nil {
		return nil, err
	}
	return &trialv1.GetPatientTrialsResponse{Trials: wire.Each(trials, wire.Info)}, nil
}
