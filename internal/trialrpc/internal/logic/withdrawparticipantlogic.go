package logic

import (
	"context"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
)

// WithdrawParticipantLogic answers one call of withdrawParticipant.
type WithdrawParticipantLogic struct {
	ctx    context.Context
	svcCtx *svc.ServiceContext
}

// NewWithdrawParticipantLogic makes it.
func NewWithdrawParticipantLogic(ctx context.Context, svcCtx *svc.ServiceContext) *WithdrawParticipantLogic {
	return &WithdrawParticipantLogic{ctx: ctx, svcCtx: svcCtx}
}

// WithdrawParticipant withdraws a participant from a trial.
func (l *WithdrawParticipantLogic) WithdrawParticipant(in *trialv1.WithdrawParticipantRequest) (*trialv1.CommandResponse, error) {
	return answer(l.svcCtx.Edge.Command(l.ctx, in.GetCommandId(), epro.KindParticipantWithdrew, epro.ParticipantWithdrawn{
		TrialID: in.GetTrialId(), PatientID: in.GetPatientId(), Reason: in.GetReason(), Expect: in.GetExpect(),
	}))
}
