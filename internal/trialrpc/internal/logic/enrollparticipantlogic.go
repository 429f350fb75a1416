package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
)

// EnrollParticipantLogic answers one call of enrollParticipant.
type EnrollParticipantLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewEnrollParticipantLogic makes it.
func NewEnrollParticipantLogic(ctx context.Context, svcCtx *svc.ServiceContext) *EnrollParticipantLogic {
	return &EnrollParticipantLogic{ctx: ctx, svcCtx: svcCtx}
}

// EnrollParticipant enrols a participant in a trial.
func (l *EnrollParticipantLogic) EnrollParticipant(in *trialv1.EnrollParticipantRequest) (*trialv1.CommandResponse, error) {
	return answer(l.svcCtx.Edge.Command(l.ctx, in.GetCommandId(), epro.KindParticipantEnrolled, epro.ParticipantEnrolled{
		TrialID: in.GetTrialId(), SiteID: in.GetSiteId(), PatientID: in.GetPatientId(), Expect: in.GetExpect(),
	}))
}
