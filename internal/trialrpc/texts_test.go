package trialrpc_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/trialrpc"
)

// What people are told: which role may, and of what could have recorded
// something, and of nothing else, that it did not.
func TestTexts(t *testing.T) {
	w := newWorld(t)
	c := dial(t, w.serve(nil).addr)
	as := trialrpc.WithToken(w.staff("only-admin", epro.StaffRole{Role: registry.RoleAdmin}))
	const recorded = "Nothing was recorded"
	_, err := c.EnrollParticipant(t.Context(), &trialv1.EnrollParticipantRequest{CommandId: newID(), TrialId: "T001", SiteId: "S01", PatientId: "P-9"}, as)
	if s := status.Convert(err); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), "coordinator or investigator") {
		t.Errorf("an enrolment by an administrator: %v", err)
	}
	_, err = c.CreateTrial(t.Context(), &trialv1.CreateTrialRequest{CommandId: newID(), Name: "x"}, as)
	if s := status.Convert(err); s.Code() != codes.InvalidArgument || !strings.Contains(s.Message(), recorded) {
		t.Errorf("a command without an id: %v", err)
	}
	_, err = c.GetTrial(t.Context(), &trialv1.GetTrialRequest{}, as)
	if s := status.Convert(err); s.Code() != codes.InvalidArgument || strings.Contains(s.Message(), recorded) {
		t.Errorf("a read without an id: %v", err)
	}
	_, err = c.GetPatientTrials(t.Context(), &trialv1.GetPatientTrialsRequest{})
	if s := status.Convert(err); s.Code() != codes.InvalidArgument || strings.Contains(s.Message(), recorded) {
		t.Errorf("a read without an id: %v", err)
	}
}
