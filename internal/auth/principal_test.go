package auth_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
)

// allowed is the matrix, written a second time: a role's letter stands in an
// action's line if the role may do it. A change of rights is made twice.
//
//	C coordinator, I investigator, M monitor, D data manager, S sponsor, A admin, U unblinded
var allowed = map[auth.Action]struct{ roles, reach string }{
	auth.ActionTrialList:               {"CIMDSAU", "part"},
	auth.ActionTrialCreate:             {"A", "all"},
	auth.ActionTrialStatus:             {"SA", "trial"},
	auth.ActionSiteList:                {"CIMDSAU", "site"},
	auth.ActionSiteCreate:              {"A", "trial"},
	auth.ActionParticipantList:         {"CIMDSU", "site"},
	auth.ActionParticipantEnroll:       {"CI", "site"},
	auth.ActionParticipantWithdraw:     {"CI", "site"},
	auth.ActionParticipantRevokeTokens: {"CI", "site"},
	auth.ActionInstrumentPublish:       {"D", "trial"},
	auth.ActionReportList:              {"CIMDU", "site"},
	auth.ActionReportExport:            {"CID", "site"},
	auth.ActionQuarantineList:          {"CIMDU", "site"},
	auth.ActionConflictList:            {"CIMDU", "site"},
	auth.ActionReportResolve:           {"CID", "site"},
	auth.ActionBooksRead:               {"CIMDSAU", "trial"},
	auth.ActionAuditRead:               {"IMDAU", "site"},
	auth.ActionStaffManage:             {"A", "trial"},
	auth.ActionKeysRead:                {"CIMDSAU", "public"},
}

var letters = map[auth.Role]string{
	auth.RoleCoordinator: "C", auth.RoleInvestigator: "I", auth.RoleMonitor: "M", auth.RoleDataManager: "D",
	auth.RoleSponsor: "S", auth.RoleAdmin: "A", auth.RoleUnblinded: "U",
}

// reachCells says, for each reach, where a grant is wide enough. Rows are the
// grant (T own trial, t another; S own site, s another; * every), columns what
// is asked for.
var (
	asked = [][2]string{{"T", "S"}, {"T", "s"}, {"T", ""}, {"t", "S"}, {"t", ""}, {"", ""}, {"", "S"}}

	reachCells = map[string]map[auth.Grant]string{
		//                                         TS Ts T* tS t* ** *S
		"site": {
			{Trial: "T", Site: "S"}: "y......",
			{Trial: "T"}:            "yyy....",
			{}:                      "yyyyyyy",
			{Site: "S"}:             ".......",
		},
		"part": {
			{Trial: "T", Site: "S"}: "yyy....",
			{Trial: "T"}:            "yyy....",
			{}:                      "yyyyyyy",
			{Site: "S"}:             ".......",
		},
		"trial": {
			{Trial: "T", Site: "S"}: ".......",
			{Trial: "T"}:            "yyy....",
			{}:                      "yyyyyyy",
			{Site: "S"}:             ".......",
		},
		"all": {
			{Trial: "T", Site: "S"}: ".......",
			{Trial: "T"}:            ".......",
			{}:                      "yyyyyyy",
			{Site: "S"}:             ".......",
		},
		"public": {
			{Trial: "T", Site: "S"}: "yyyyyyy",
			{Trial: "T"}:            "yyyyyyy",
			{}:                      "yyyyyyy",
			{Site: "S"}:             ".......",
		},
	}
)

func TestMatrix(t *testing.T) {
	if len(allowed) != len(auth.Actions()) || len(letters) != len(auth.Roles()) {
		t.Fatalf("%d actions and %d roles here, %d and %d there", len(allowed), len(letters), len(auth.Actions()), len(auth.Roles()))
	}
	cells := 0
	for _, role := range auth.Roles() {
		for _, action := range auth.Actions() {
			row, ok := allowed[action]
			if !ok {
				t.Fatalf("%s is not in this test", action)
			}
			for grant, want := range reachCells[row.reach] {
				grant.Role = role
				p := auth.StaffPrincipal("anna", []auth.Grant{grant})
				for i, at := range asked {
					cells++
					want := want[i] == 'y' && strings.Contains(row.roles, letters[role])
					if got := p.May(action, at[0], at[1]); got != want {
						t.Errorf("%+v %s in trial %q at site %q: %v, want %v", grant, action, at[0], at[1], got, want)
					}
				}
			}
		}
	}
	if want := 7 * 19 * 4 * 7; cells != want {
		t.Errorf("%d cells, want %d", cells, want)
	}
}

func TestDenyByDefault(t *testing.T) {
	everything := auth.Claims{Scope: 255, Trial: "T", Participant: "P"}
	for name, p := range map[string]auth.Principal{
		"nobody":          {},
		"nobody's grant":  {Roles: []auth.Grant{{Role: auth.RoleAdmin}}},
		"no grant":        auth.StaffPrincipal("anna", nil),
		"unknown role":    auth.StaffPrincipal("anna", []auth.Grant{{Role: "root"}, {Role: ""}, {Role: "Admin"}}),
		"participant":     {Kind: auth.KindParticipant, Claims: everything, Roles: []auth.Grant{{Role: auth.RoleAdmin}}},
		"relay":           {Kind: auth.KindRelay, Claims: everything, Roles: []auth.Grant{{Role: auth.RoleAdmin}}},
		"kind to come":    {Kind: 99, Roles: []auth.Grant{{Role: auth.RoleAdmin}}},
		"site, no trial":  auth.StaffPrincipal("anna", []auth.Grant{{Role: auth.RoleAdmin, Site: "S"}}),
		"granted nothing": auth.StaffPrincipal("anna", []auth.Grant{{}}),
	} {
		for _, action := range auth.Actions() {
			for _, at := range asked {
				if p.May(action, at[0], at[1]) {
					t.Errorf("%s may %s in %q at %q", name, action, at[0], at[1])
				}
			}
			if !p.Trials(action).Empty() || !p.Sites(action, "T").Empty() {
				t.Errorf("%s may %s somewhere", name, action)
			}
		}
	}
	admin := auth.StaffPrincipal("anna", []auth.Grant{{Role: auth.RoleAdmin}})
	for _, action := range []auth.Action{"", "trial", "trial.delete", "TRIAL.LIST", "*"} {
		if admin.May(action, "T", "") || !admin.Trials(action).Empty() || !admin.Sites(action, "T").Empty() {
			t.Errorf("an admin may %q", action)
		}
	}
	if admin.Has(auth.ScopeSubmit) || admin.Has(auth.ScopeRead) {
		t.Error("staff have the scope of a token")
	}
}

// What the lists say is what May says, for any grants.
func TestExtents(t *testing.T) {
	ids := []string{"", "A", "B", "C"}
	grant := rapid.Custom(func(t *rapid.T) auth.Grant {
		return auth.Grant{
			Role:  rapid.SampledFrom(auth.Roles()).Draw(t, "role"),
			Trial: rapid.SampledFrom(ids).Draw(t, "trial"), Site: rapid.SampledFrom(ids).Draw(t, "site"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		p := auth.StaffPrincipal("anna", rapid.SliceOfN(grant, 0, 5).Draw(t, "grants"))
		for _, action := range auth.Actions() {
			trials := p.Trials(action)
			if !slices.IsSorted(trials.IDs) || trials.All && trials.IDs != nil {
				t.Fatalf("%s: trials %+v", action, trials)
			}
			for _, trial := range []string{"A", "B", "C", "D"} {
				sites := p.Sites(action, trial)
				if !slices.IsSorted(sites.IDs) || sites.All && sites.IDs != nil {
					t.Fatalf("%s: sites %+v", action, sites)
				}
				somewhere := p.May(action, trial, "")
				for _, site := range []string{"A", "B", "C", "D"} {
					may := p.May(action, trial, site)
					somewhere = somewhere || may
					if allowed[action].reach == "site" && sites.Has(site) != may {
						t.Fatalf("%s in %s at %s: may %v, sites %+v", action, trial, site, may, sites)
					}
				}
				if trials.Has(trial) != somewhere || somewhere == sites.Empty() {
					t.Fatalf("%s in %s: may %v, trials %+v, sites %+v", action, trial, somewhere, trials, sites)
				}
				if allowed[action].reach == "site" && sites.All != p.May(action, trial, "") {
					t.Fatalf("%s in %s: all sites %v", action, trial, sites.All)
				}
			}
			if trials.Has("") && !trials.All || !p.Sites(action, "").Empty() {
				t.Fatalf("%s: no trial is a trial", action)
			}
		}
	})
}

func TestGrantsAdd(t *testing.T) {
	p := auth.StaffPrincipal("anna", []auth.Grant{
		{Role: auth.RoleCoordinator, Trial: "T1", Site: "S2"},
		{Role: auth.RoleCoordinator, Trial: "T1", Site: "S1"},
		{Role: auth.RoleMonitor, Trial: "T1", Site: "S2"},
		{Role: auth.RoleMonitor, Trial: "T2"},
	})
	if got := fmt.Sprint(p.Sites(auth.ActionReportList, "T1")); got != "{false [S1 S2]}" {
		t.Errorf("sites %s", got)
	}
	if got := fmt.Sprint(p.Trials(auth.ActionReportList)); got != "{false [T1 T2]}" {
		t.Errorf("trials %s", got)
	}
	if !p.Sites(auth.ActionReportList, "T2").All || !p.Sites(auth.ActionReportResolve, "T2").Empty() {
		t.Error("what a monitor of T2 may, or may not")
	}
	// Two sites are not the whole trial, and a role of one trial is none of another.
	if p.May(auth.ActionReportList, "T1", "") || p.May(auth.ActionReportResolve, "T2", "S1") || p.May(auth.ActionAuditRead, "T1", "S1") {
		t.Error("grants were mixed")
	}
}

func TestOperatorActsAsAdmin(t *testing.T) {
	p, admin := auth.OperatorPrincipal(), auth.StaffPrincipal("anna", []auth.Grant{{Role: auth.RoleAdmin}})
	for _, action := range auth.Actions() {
		if p.May(action, "T", "S") != admin.May(action, "T", "S") {
			t.Errorf("%s: operator %v", action, p.May(action, "T", "S"))
		}
	}
	if p.May(auth.ActionReportList, "T", "S") {
		t.Error("the operator is shown answers")
	}
}

func TestScopes(t *testing.T) {
	p, pPart := auth.TokenPrincipal(relayClaims()), auth.TokenPrincipal(participantClaims())
	if !pPart.Has(auth.ScopeSubmit) || pPart.Has(auth.ScopeRead) || pPart.Has(auth.ScopeSubmit|auth.ScopeRead) || pPart.Has(0) || !p.Has(auth.ScopeRelay) {
		t.Error("scopes")
	}
}

func TestActor(t *testing.T) {
	for want, p := range map[epro.Actor]auth.Principal{
		{Type: epro.ActorParticipant, ID: "P-000001", Device: "phone-1"}: auth.TokenPrincipal(participantClaims()),
		{Type: epro.ActorRelay, ID: "clinic", Device: "S01,S02"}:         auth.TokenPrincipal(relayClaims()),
		{Type: epro.ActorStaff, ID: "anna"}:                              auth.StaffPrincipal("anna", nil),
		{Type: epro.ActorSystem, ID: "operator"}:                         auth.OperatorPrincipal(),
		{}:                                                               {},
	} {
		if got := p.Actor(); got != want {
			t.Errorf("%v: %+v, want %+v", p.Kind, got, want)
		}
	}
}

func TestGrantValidate(t *testing.T) {
	for grant, ok := range map[auth.Grant]bool{
		{Role: auth.RoleAdmin}:                                true,
		{Role: auth.RoleMonitor, Trial: "T001"}:               true,
		{Role: auth.RoleMonitor, Trial: "T001", Site: "S01"}:  true,
		{Role: auth.RoleMonitor, Site: "S01"}:                 false,
		{Role: "root", Trial: "T001"}:                         false,
		{Trial: "T001"}:                                       false,
		{Role: auth.RoleMonitor, Trial: "T\n"}:                false,
		{Role: auth.RoleMonitor, Trial: "T001", Site: " S01"}: false,
	} {
		if err := grant.Validate(); (err == nil) != ok {
			t.Errorf("%+v: %v", grant, err)
		}
	}
}

// docs/roles.md says what the program does.
func TestRolesPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/roles.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"| action | reach |"}
	for _, role := range auth.Roles() {
		want[0] += " " + string(role) + " |"
	}
	for _, action := range auth.Actions() {
		line := fmt.Sprintf("| `%s` | %s |", action, allowed[action].reach)
		for _, role := range auth.Roles() {
			p := auth.StaffPrincipal("anna", []auth.Grant{{Role: role}})
			line += map[bool]string{true: " yes |", false: " – |"}[p.May(action, "T", "S")]
		}
		want = append(want, line)
	}
	var got []string
	for line := range strings.Lines(string(page)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "|--") {
			got = append(got, line)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/roles.md should have the table\n%s", strings.Join(want, "\n"))
	}
	if n := len(slices.Collect(maps.Keys(allowed))); len(got) != n+1 {
		t.Errorf("%d lines for %d actions", len(got), n)
	}
}
