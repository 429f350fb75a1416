package gateway_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/journal"
)

// routes are those of staff, each with a body that is good enough to get past
// the check of roles, and the action they are for.
type staffRoute struct {
	method, path, body string
	action             auth.Action
	trial              bool // the path names T001
}

var staffRoutes = []staffRoute{
	{"GET", "/v1/trials/T001", "", auth.ActionTrialList, true},
	{"POST", "/v1/trials", `{"trialId":"T9","name":"N","status":"Planned"}`, auth.ActionTrialCreate, false},
	{"POST", "/v1/trials/T001/status", `{"status":"Active","reason":"r","expect":99}`, auth.ActionTrialStatus, true},
	{"GET", "/v1/trials/T001/sites", "", auth.ActionSiteList, true},
	{"POST", "/v1/trials/T001/sites", `{"siteId":"S01","name":"N"}`, auth.ActionSiteCreate, true},
	{"GET", "/v1/trials/T001/participants", "", auth.ActionParticipantList, true},
	{"POST", "/v1/trials/T001/participants", `{"siteId":"S01","patientId":"P-1"}`, auth.ActionParticipantEnroll, true},
	{"GET", "/v1/trials/T001/participants/P-1", "", auth.ActionParticipantList, true},
	{"POST", "/v1/trials/T001/participants/P-1/withdraw", `{"reason":"r","expect":99}`, auth.ActionParticipantWithdraw, true},
	{"POST", "/v1/trials/T001/participants/P-1/revoke-tokens", `{"minEpoch":1,"reason":"r","expect":99}`, auth.ActionParticipantRevokeTokens, true},
	{"POST", "/v1/trials/T001/instruments", `{"instrument":"qol","version":1}`, auth.ActionInstrumentPublish, true},
	{"GET", "/v1/trials/T001/reports", "", auth.ActionReportList, true},
	{"GET", "/v1/trials/T001/reports.csv", "", auth.ActionReportExport, true},
	{"GET", "/v1/trials/T001/quarantine", "", auth.ActionQuarantineList, true},
	{"GET", "/v1/trials/T001/conflicts", "", auth.ActionConflictList, true},
	{"POST", "/v1/trials/T001/reports/P-1/{report}/resolutions", `{"version":1,"resolution":"accept","reason":"r","expect":99}`, auth.ActionReportResolve, true},
	{"GET", "/v1/trials/T001/books", "", auth.ActionBooksRead, true},
	{"GET", "/v1/trials/T001/audit", "", auth.ActionAuditRead, true},
	{"GET", "/v1/audit", "", auth.ActionAuditRead, false},
	{"GET", "/v1/staff", "", auth.ActionStaffManage, false},
	{"POST", "/v1/staff", `{"staffId":"s-1","name":"N"}`, auth.ActionStaffManage, false},
	{"POST", "/v1/staff/s-1/remove", `{"reason":"r"}`, auth.ActionStaffManage, false},
	{"POST", "/v1/staff/s-1/roles", `{"role":"monitor"}`, auth.ActionStaffManage, false},
	{"POST", "/v1/staff/s-1/roles/revoke", `{"role":"monitor"}`, auth.ActionStaffManage, false},
}

// TestEveryRouteRoleAndTrial: each route, as each role for every trial, for this
// trial, for this trial's site, for another site, for another trial, and as
// those who are no staff. What the matrix does not allow is a 403, and a foreign
// trial looks the same whether it exists or not.
func TestEveryRouteRoleAndTrial(t *testing.T) {
	w := newWorld(t, setup{})
	id := epro.NewUUID()
	if a := w.post(submitPath, w.participant("T001", "P-1", auth.ScopeSubmit), report("T001", "P-1", id, 5)); a.status != 200 {
		t.Fatal(a)
	}
	w.settle()
	reaches := []struct {
		name        string
		trial, site string
	}{{"all", "", ""}, {"trial", "T001", ""}, {"site", "T001", "S01"}, {"other-site", "T001", "S02"}, {"other-trial", "T002", ""}}
	tried, allowed := 0, 0
	for _, role := range auth.Roles() {
		for _, reach := range reaches {
			name := string(role) + "-" + reach.name
			token := w.staff(name, epro.StaffRole{Role: string(role), TrialID: reach.trial, SiteID: reach.site})
			p := auth.StaffPrincipal(name, []auth.Grant{{Role: role, Trial: reach.trial, Site: reach.site}})
			for _, r := range staffRoutes {
				path := strings.Replace(r.path, "{report}", id.String(), 1)
				may := p.May(r.action, "", "")
				if r.trial {
					// What belongs to P-1 belongs to S01; a list is cut to the sites one sees;
					// the audit is whole or not at all.
					may = p.May(r.action, "T001", "S01")
					switch {
					case r.action == auth.ActionAuditRead:
						may = p.May(r.action, "T001", "")
					case r.method == "GET" && !strings.HasSuffix(path, "P-1"):
						may = !p.Sites(r.action, "T001").Empty() || p.May(r.action, "T001", "")
					}
				}
				a := w.send(r.method, path, token, body(r.body))
				tried++
				if may {
					allowed++
				}
				if refused := a.status == 403; refused == may || a.status == 401 || a.status >= 500 {
					t.Errorf("%s %s as %s: %s", r.method, path, name, a)
				}
				if !r.trial || reach.trial == "" {
					continue
				}
				// A foreign trial: the same answer whether there is one or not.
				other, nowhere := "T002", "T404"
				if reach.trial == "T002" {
					other = "T001"
				}
				x := w.send(r.method, strings.Replace(path, "T001", other, 1), token, body(r.body))
				y := w.send(r.method, strings.Replace(path, "T001", nowhere, 1), token, body(r.body))
				if x.status != 403 || x.String() != y.String() {
					t.Errorf("%s %s as %s: foreign %s, none %s", r.method, path, name, x, y)
				}
			}
		}
	}
	t.Logf("%d requests, %d allowed", tried, allowed)
	if allowed == 0 || allowed == tried {
		t.Error("the table shows nothing")
	}
	for name, token := range map[string]string{
		"nobody": "", "participant": w.participant("T001", "P-1", auth.ScopeRead|auth.ScopeSubmit), "relay": w.relay("T001"),
		"no roles": w.staff("none"), "operator": w.keys.MintOperator(time.Now()),
	} {
		for _, r := range staffRoutes {
			a := w.send(r.method, strings.Replace(r.path, "{report}", id.String(), 1), token, body(r.body))
			want := 403
			if name == "nobody" || name == "operator" {
				want = 401
			}
			if a.status != want {
				t.Errorf("%s %s as %s: %s", r.method, r.path, name, a)
			}
		}
	}
}

func body(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// TestListsShowWhatARoleSees walks all pages of each list, as somebody who sees
// one site and as somebody who sees all.
func TestListsShowWhatARoleSees(t *testing.T) {
	w := newWorld(t, setup{})
	for i, patient := range []string{"P-1", "P-2", "P-3", "P-1"} {
		if a := w.post(submitPath, w.participant("T001", patient, auth.ScopeSubmit), report("T001", patient, epro.NewUUID(), i)); a.status != 200 {
			t.Fatal(a)
		}
	}
	// Not enrolled: taken, and set aside.
	if a := w.post(submitPath, w.participant("T001", "P-9", auth.ScopeSubmit), report("T001", "P-9", epro.NewUUID(), 1)); a.status != 200 {
		t.Fatal(a)
	}
	w.settle()
	all := w.staff("all", epro.StaffRole{Role: "investigator"})
	north := w.staff("north", epro.StaffRole{Role: "investigator", TrialID: "T001", SiteID: "S01"})
	for _, c := range []struct {
		path, list string
		all, atS01 int
	}{
		{"/v1/trials", "trials", 2, 1},
		{"/v1/trials/T001/sites", "sites", 2, 1},
		{"/v1/trials/T001/participants", "participants", 3, 2},
		{"/v1/trials/T001/reports", "reports", 5, 3},
		{"/v1/trials/T001/reports?patientId=P-1", "reports", 2, 2},
		{"/v1/trials/T001/reports?disposition=quarantined", "reports", 1, 0},
		{"/v1/trials/T001/quarantine", "reports", 1, 0},
		{"/v1/trials/T001/quarantine?unresolved=true", "reports", 1, 0},
		{"/v1/trials/T001/conflicts", "reports", 0, 0},
	} {
		for who, token := range map[string]string{"all": all, "north": north} {
			want := c.all
			if who == "north" {
				want = c.atS01
			}
			if got := len(w.walk(t, c.path, c.list, token)); got != want {
				t.Errorf("%s as %s: %d rows, want %d", c.path, who, got, want)
			}
		}
	}
	w.isProblem(t, w.get("/v1/trials/T001/participants/P-3", north), 403, "forbidden")
	w.isProblem(t, w.get("/v1/trials/T001/participants/P-404", north), 403, "forbidden")
	w.isProblem(t, w.get("/v1/trials/T001/participants/P-404", all), 404, "not-found")
	w.isProblem(t, w.get("/v1/trials/T404/reports", all), 404, "not-found")
	for path, fields := range map[string]string{
		"?limit=0": "limit", "?limit=1001": "limit", "?limit=x": "limit", "?cursor=nonsense": "cursor", "?Disposition=x": "query",
		"?disposition=duplicate&limit=-1": "disposition limit", "?limit=1&limit=2": "limit", "?patientId=%07": "patientId", "?%zz": "query",
	} {
		a := w.get("/v1/trials/T001/reports"+path, all)
		if a.status != 400 || a.fields(t) != fields {
			t.Errorf("%s: %s", path, a)
		}
	}
}

// walk reads a list a row a page.
func (w *world) walk(t *testing.T, path, list, token string) []any {
	t.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	var rows []any
	for next := ""; ; {
		p := path + sep + "limit=1"
		if next != "" {
			p += "&cursor=" + next
		}
		a := w.get(p, token)
		if a.status != 200 {
			t.Fatalf("%s: %s", p, a)
		}
		m := a.json(t)
		rows = append(rows, m[list].([]any)...)
		if m["next"] == nil {
			return rows
		}
		next = m["next"].(string)
		if len(rows) > 100 {
			t.Fatalf("%s: no last page", path)
		}
	}
}

func TestBooksCountWhatIsPendingAboveTheCursor(t *testing.T) {
	var asked journal.Position
	w := newWorld(t, setup{options: func(o *gateway.Options) {
		o.Pending = func(_ context.Context, _ uint32, after journal.Position) (map[string]uint64, error) {
			asked = after
			return map[string]uint64{"T001": 7, "T002": 5}, nil
		}
	}})
	dm := w.staff("dm", epro.StaffRole{Role: "data-manager"})
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	id := epro.NewUUID()
	for i, text := range []string{report("T001", "P-1", id, 1), report("T001", "P-1", id, 2), report("T001", "P-1", epro.NewUUID(), 3)} {
		if a := w.post(submitPath, token, text); a.status != 200 {
			t.Fatal(i, a)
		}
	}
	w.settle()
	m := w.get("/v1/trials/T001/books", dm).json(t)
	if m["accepted"] != 10.0 || m["recorded"] != 2.0 || m["conflicts"] != 1.0 || m["pending"] != 7.0 || m["position"] != float64(w.end()) {
		t.Errorf("%v", m)
	}
	if asked != w.end() {
		t.Errorf("counted above %d, the tables are at %d", asked, w.end())
	}
}
