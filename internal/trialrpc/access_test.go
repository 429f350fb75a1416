package trialrpc_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/registry"
)

// open are the methods for which a connection is enough. Every other one needs
// a staff token: a new method does until it is written here.
var open = []string{"getPatientTrials", "watchDirectory"}

// TestEveryMethodIsClosed calls every method of the contract with every kind of
// credential that must not be enough.
func TestEveryMethodIsClosed(t *testing.T) {
	w := newWorld(t)
	expired, cred, err := auth.NewStaffToken("gone", time.Now().Add(-2*time.Hour), time.Hour)
	must(t, err)
	must(t, w.vault.CreateCredential(t.Context(), cred))
	removed := w.staff("removed", epro.StaffRole{Role: registry.RoleAdmin})
	w.command(epro.KindStaffRemoved, epro.StaffRemoved{StaffID: "removed", Reason: "left"})
	participant, err := w.keys.Mint(auth.Claims{
		Kind: auth.KindParticipant, Scope: auth.ScopeSubmit | auth.ScopeRead, Trial: "T001", Participant: "P-1", Device: "phone", Expires: time.Now().Add(time.Hour),
	})
	must(t, err)
	unknown, _, err := auth.NewStaffToken("x", time.Now(), time.Hour)
	must(t, err)
	nobody, foreign := w.staff("nobody"), w.staff("foreign",
		epro.StaffRole{Role: registry.RoleAdmin, TrialID: "T002"}, epro.StaffRole{Role: registry.RoleSponsor, TrialID: "T002"},
		epro.StaffRole{Role: registry.RoleCoordinator, TrialID: "T002"}, epro.StaffRole{Role: registry.RoleDataManager, TrialID: "T002"})
	elsewhere := w.staff("elsewhere", epro.StaffRole{Role: registry.RoleCoordinator, TrialID: "T001", SiteID: "S02"})
	credentials := map[string]struct {
		values []string
		code   codes.Code
	}{
		"none":             {nil, codes.Unauthenticated},
		"another scheme":   {[]string{"Basic YTpi"}, codes.Unauthenticated},
		"two":              {[]string{"Bearer " + foreign, "Bearer " + nobody}, codes.Unauthenticated},
		"garbage":          {[]string{"Bearer tgs1_x"}, codes.Unauthenticated},
		"unknown":          {[]string{"Bearer " + unknown}, codes.Unauthenticated},
		"expired":          {[]string{"Bearer " + expired}, codes.Unauthenticated},
		"removed":          {[]string{"Bearer " + removed}, codes.Unauthenticated},
		"participant":      {[]string{"Bearer " + participant}, codes.PermissionDenied},
		"without a role":   {[]string{"Bearer " + nobody}, codes.PermissionDenied},
		"of another trial": {[]string{"Bearer " + foreign}, codes.PermissionDenied},
		"of another site":  {[]string{"Bearer " + elsewhere}, codes.PermissionDenied},
	}
	conn := connect(t, w.serve(nil).addr)
	methods := trialv1.File_trial_proto.Services().Get(0).Methods()
	for i := range methods.Len() {
		method := methods.Get(i)
		name := string(method.Name())
		if slices.Contains(open, name) {
			continue
		}
		for what, credential := range credentials {
			switch {
			case name == "listTrials" && (what == "of another trial" || what == "of another site"):
				continue // shows their own
			case (name == "getTrial" || name == "listSites" || name == "listParticipants") && what == "of another site":
				continue // of their own trial, and filtered
			case name == "getCommand" && credential.code == codes.PermissionDenied && what != "participant":
				credential.code = codes.NotFound // not one of theirs
			}
			ctx := t.Context()
			for _, v := range credential.values {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", v)
			}
			err := conn.Invoke(ctx, "/trial.Trial/"+name, request(method), dynamicpb.NewMessage(method.Output()))
			if f := failureOf(err); f.code != credential.code {
				t.Errorf("%s with a token that is %s: %v, want %v", name, what, err, credential.code)
			}
		}
	}
	// What is open is open.
	if _, err := trialv1.NewTrialClient(conn).GetPatientTrials(t.Context(), &trialv1.GetPatientTrialsRequest{PatientId: "P-1"}); err != nil {
		t.Error(err)
	}
}

// request is a request about T001, S01 and P-1 in which every field has a
// fitting value.
func request(method protoreflect.MethodDescriptor) proto.Message {
	values := map[protoreflect.Name]protoreflect.Value{
		"commandId": protoreflect.ValueOfString(newID()), "trialId": protoreflect.ValueOfString("T001"), "siteId": protoreflect.ValueOfString("S01"),
		"patientId": protoreflect.ValueOfString("P-1"), "name": protoreflect.ValueOfString("x"), "status": protoreflect.ValueOfString("Active"),
		"reason": protoreflect.ValueOfString("x"), "instrument": protoreflect.ValueOfString("qol"), "version": protoreflect.ValueOfUint32(1),
	}
	m := dynamicpb.NewMessage(method.Input())
	for fields, i := method.Input().Fields(), 0; i < fields.Len(); i++ {
		if v, known := values[fields.Get(i).Name()]; known {
			m.Set(fields.Get(i), v)
		}
	}
	return m
}

// TestVaultAway says nothing about a token while the vault cannot be asked.
func TestVaultAway(t *testing.T) {
	w := newWorld(t)
	token := w.everyone()
	c := dial(t, w.serve(nil).addr)
	must(t, w.vault.Close())
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	_, err := c.ListTrials(ctx, &trialv1.ListTrialsRequest{})
	if f := failureOf(err); f.code != codes.Unavailable || f.retry <= 0 {
		t.Errorf("%v, %+v", err, f)
	}
	if _, err := c.GetPatientTrials(t.Context(), &trialv1.GetPatientTrialsRequest{PatientId: "P-1"}); err != nil {
		t.Errorf("the original method needs the vault: %v", err)
	}
}
