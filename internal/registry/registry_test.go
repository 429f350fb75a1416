package registry_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/registry"
)

var (
	now  = time.Date(2026, 3, 1, 8, 0, 0, 0, time.FixedZone("", 3600))
	anna = epro.Actor{Type: epro.ActorStaff, ID: "anna"}
)

func fields(list []epro.FieldProblem) []string {
	var names []string
	for _, p := range list {
		names = append(names, p.Field)
	}
	slices.Sort(names)
	return names
}

func TestDecodeNamesEveryBadField(t *testing.T) {
	long := strings.Repeat("x", 501)
	tests := []struct {
		name string
		kind epro.Kind
		body string
		want []string
	}{
		{"good", epro.KindSiteCreated, `{"trialId":"T1","siteId":"S1","name":"Köln"}`, nil},
		{"any order, white space", epro.KindSiteCreated, ` { "name":"x", "siteId":"S1" , "trialId":"T1" } `, nil},
		{"not JSON", epro.KindSiteCreated, `{`, []string{"body"}},
		{"not an object", epro.KindSiteCreated, `[]`, []string{"body"}},
		{"twice", epro.KindSiteCreated, `{"trialId":"T1","siteId":"S1","name":"x","name":"y"}`, []string{"body"}},
		{"trailing bytes", epro.KindSiteCreated, `{"trialId":"T1","siteId":"S1","name":"x"}{}`, []string{"body"}},
		{"all missing", epro.KindSiteCreated, `{}`, []string{"name", "siteId", "trialId"}},
		{"all bad", epro.KindSiteCreated, `{"trialId":"","siteId":"S 1","name":""}`, []string{"name", "siteId", "trialId"}},
		{"wrong types", epro.KindSiteCreated, `{"trialId":1,"siteId":null,"name":[]}`, []string{"name", "siteId", "trialId"}},
		{"wrong case", epro.KindSiteCreated, `{"TrialID":"T1","trialId":"T1","siteId":"S1","name":"x"}`, []string{"TrialID"}},
		{"unknown fields", epro.KindSiteCreated, `{"trialId":"T1","siteId":"S1","name":"x","b":1,"a":1,"felt sick":1}`, []string{"a", "b", "body"}},
		{"control character in a name", epro.KindSiteCreated, `{"trialId":"T1","siteId":"S1","name":"a\nb"}`, []string{"name"}},
		{"blank name", epro.KindSiteCreated, `{"trialId":"T1","siteId":"S1","name":"  "}`, []string{"name"}},
		{"name of 200", epro.KindSiteCreated, `{"trialId":"T1","siteId":"S1","name":"` + strings.Repeat("ü", 200) + `"}`, nil},
		{"name of 201", epro.KindSiteCreated, `{"trialId":"T1","siteId":"S1","name":"` + strings.Repeat("ü", 201) + `"}`, []string{"name"}},
		{"id of 64", epro.KindSiteCreated, `{"trialId":"T1","siteId":"` + strings.Repeat("S", 64) + `","name":"x"}`, nil},
		{"id of 65", epro.KindSiteCreated, `{"trialId":"T1","siteId":"` + strings.Repeat("S", 65) + `","name":"x"}`, []string{"siteId"}},
		{"new trial ends", epro.KindTrialCreated, `{"trialId":"T/1","name":"x","status":"Completed","shard":-1}`, []string{"shard", "status", "trialId"}},
		{"reason too long", epro.KindParticipantWithdrew, `{"trialId":"T1","patientId":"P","reason":"` + long + `","expect":1}`, []string{"reason"}},
		{"no reason", epro.KindParticipantWithdrew, `{"trialId":"T1","patientId":"P","reason":"","expect":1.5}`, []string{"expect", "reason"}},
		{"status", epro.KindTrialStatusChanged, `{"trialId":"T1","status":"active","reason":"x","expect":1}`, []string{"status"}},
		{"epoch", epro.KindTokensRevoked, `{"trialId":"T1","patientId":"P","minEpoch":0,"reason":"x","expect":1}`, []string{"minEpoch"}},
		{"epoch beyond 32 bits", epro.KindTokensRevoked, `{"trialId":"T1","patientId":"P","minEpoch":4294967296,"reason":"x","expect":1}`, []string{"minEpoch"}},
		{"resolution", epro.KindReportResolved, `{"trialId":"T1","patientId":"P","reportId":"x","version":0,"resolution":"maybe","reason":" ","expect":0}`, []string{"reason", "reportId", "resolution", "version"}},
		{"role", epro.KindStaffRoleGranted, `{"staffId":"anna","role":"boss"}`, []string{"role"}},
		{"role everywhere", epro.KindStaffRoleGranted, `{"staffId":"anna","role":"data-manager"}`, nil},
		{"site without trial", epro.KindStaffRoleGranted, `{"staffId":"anna","role":"monitor","siteId":"S1"}`, []string{"trialId"}},
		{"era", epro.KindEraOpened, `{"reason":"x","era":1,"anchorDigest":"AA","anchorFrames":1,"frames":0}`, []string{"anchorDigest", "era"}},
		{"report is no command", epro.KindReport, `{}`, []string{"body"}},
		{"key", epro.KindKeyAdded, `{"keyId":"a"}`, nil},
	}
	for _, test := range tests {
		body, problems := registry.Decode(test.kind, []byte(test.body))
		if got := fields(problems); !slices.Equal(got, test.want) || (body == nil) != (test.want != nil) {
			t.Errorf("%s: %v, want %v (%v)", test.name, problems, test.want, body)
		}
		for _, p := range problems {
			if strings.Contains(p.Problem+p.Field, "felt sick") {
				t.Errorf("%s: the problem repeats what was sent", test.name)
			}
		}
	}
}

// TestEveryCommandKindHasABody walks the kinds that the domain knows.
func TestEveryCommandKindHasABody(t *testing.T) {
	bodies := map[epro.Kind]any{
		epro.KindTrialCreated:        epro.TrialCreated{TrialID: "T1", Name: "A <trial> & more", Status: epro.TrialPlanned},
		epro.KindTrialStatusChanged:  epro.TrialStatusChanged{TrialID: "T1", Status: epro.TrialActive, Reason: "x"},
		epro.KindSiteCreated:         epro.SiteCreated{TrialID: "T1", SiteID: "S", Name: "x"},
		epro.KindParticipantEnrolled: epro.ParticipantEnrolled{TrialID: "T1", SiteID: "S", PatientID: "P"},
		epro.KindParticipantWithdrew: epro.ParticipantWithdrawn{TrialID: "T1", PatientID: "P", Reason: "x"},
		epro.KindTokensRevoked:       epro.TokensRevoked{TrialID: "T1", PatientID: "P", MinEpoch: 1, Reason: "x"},
		epro.KindInstrumentPublished: epro.InstrumentPublished{TrialID: "T1", Instrument: "qol", Version: 1},
		epro.KindReportResolved:      epro.ReportResolved{TrialID: "T1", PatientID: "P", ReportID: epro.UUID{1}, Version: 1, Resolution: epro.ResolutionAccept, Reason: "x"},
		epro.KindStaffAdded:          epro.StaffAdded{StaffID: "anna", Name: "Anna"},
		epro.KindStaffRoleGranted:    epro.StaffRole{StaffID: "anna", Role: registry.RoleMonitor, TrialID: "T1", SiteID: "S"},
		epro.KindStaffRoleRevoked:    epro.StaffRole{StaffID: "anna", Role: registry.RoleMonitor},
		epro.KindStaffRemoved:        epro.StaffRemoved{StaffID: "anna", Reason: "x"},
		epro.KindKeyAdded:            json.RawMessage(`{"keyId" : "a"}`),
		epro.KindKeyRetired:          json.RawMessage(`{}`),
		epro.KindRulesActivated:      epro.RulesActivated{RuleSet: "2026.1", TZ: "2026a"},
		epro.KindEraOpened:           epro.EraOpened{Reason: "x", Era: 2, AnchorDigest: strings.Repeat("0", 64)},
		epro.KindErased:              epro.Erased{TrialID: "T1", PatientID: "P", FactID: epro.UUID{1}, Leaf: strings.Repeat("0", 64), Version: 1, Disposition: epro.Recorded, Reason: "x"},
	}
	for kind, body := range bodies {
		f, err := registry.Fact(registry.Command{Kind: kind, ID: epro.UUID{7}, Actor: anna, Body: body}, now)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		again, problems := registry.Decode(kind, f.Body)
		if problems != nil {
			t.Errorf("%s: its own body is not read: %v", kind, problems)
		}
		canonical, err := registry.Body(again)
		if err != nil || string(canonical) != string(f.Body) {
			t.Errorf("%s: the body changes on the way: %s, %s", kind, f.Body, canonical)
		}
		trial, subject := registry.About(again)
		if f.Trial != trial || f.Subject != subject || f.Meaning != epro.PlainMeaning(f.Body) || f.BodyDigest != epro.BodyDigest(f.Salt, f.Body) || f.Salt == (epro.Salt{}) ||
			!f.OccurredAt.Equal(now) || f.ReceivedAt.Location() != time.UTC || f.Kind != kind || f.Actor != anna {
			t.Errorf("%s: the fact is %+v", kind, f.Envelope)
		}
		if _, err := f.AppendBinary(nil); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestFactRefuses(t *testing.T) {
	site := epro.SiteCreated{TrialID: "T1", SiteID: "S", Name: "x"}
	tests := map[string]registry.Command{
		"no id":               {Kind: epro.KindSiteCreated, Actor: anna, Body: site},
		"no actor":            {Kind: epro.KindSiteCreated, ID: epro.UUID{1}, Body: site},
		"another trial":       {Kind: epro.KindSiteCreated, ID: epro.UUID{1}, Actor: anna, Trial: "T2", Body: site},
		"another participant": {Kind: epro.KindSiteCreated, ID: epro.UUID{1}, Actor: anna, Subject: "P", Body: site},
		"another kind's body": {Kind: epro.KindStaffAdded, ID: epro.UUID{1}, Actor: anna, Body: site},
		"no command":          {Kind: epro.KindReport, ID: epro.UUID{1}, Actor: anna, Body: json.RawMessage(`{}`)},
		"too long":            {Kind: epro.KindKeyAdded, ID: epro.UUID{1}, Actor: anna, Body: json.RawMessage(`{"a":"` + strings.Repeat("x", epro.MaxBodyBytes) + `"}`)},
	}
	for name, c := range tests {
		if _, err := registry.Fact(c, now); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	_, err := registry.Fact(registry.Command{Kind: epro.KindSiteCreated, ID: epro.UUID{1}, Actor: anna, Body: epro.SiteCreated{}}, now)
	var invalid *registry.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Problems) != 3 {
		t.Errorf("problems are %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("site.created", []byte(`{"trialId":"T1","siteId":"S","name":"x"}`))
	f.Add("report.resolved", []byte(`{"reportId":"7b0c1f6e-3a5d-4c1e-9d5b-0a4f6f2f9a11","version":1}`))
	f.Add("key.added", []byte(`{"a":{"b":[1e400]}}`))
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		kind := epro.Kind{Name: name, Version: 1}
		v, problems := registry.Decode(kind, body)
		if (v == nil) == (problems == nil) {
			t.Fatalf("value %v with problems %v", v, problems)
		}
		if v == nil {
			return
		}
		canonical, err := registry.Body(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, problems := registry.Decode(kind, canonical); problems != nil {
			t.Fatalf("the canonical form is refused: %v", problems)
		}
	})
}
