package gateway_test

import (
	"context"
	"encoding/csv"
	"fmt"
	"net/http"
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

func TestACommandIsAppliedRejectedOrPending(t *testing.T) {
	w := newWorld(t, setup{config: func(c *gateway.Config) { c.CommandWait = 200 * time.Millisecond }})
	admin := w.staff("admin", epro.StaffRole{Role: "admin"}, epro.StaffRole{Role: "coordinator"})
	key := epro.NewUUID().String()
	a := w.post("/v1/trials", admin, `{"trialId":"T100","name":"New","status":"Planned"}`, header{"Idempotency-Key", key})
	m := a.json(t)
	if a.status != 201 || m["status"] != "applied" || m["commandId"] != key || m["trial"].(map[string]any)["trialId"] != "T100" {
		t.Fatal(a)
	}
	end := w.end()
	if b := w.post("/v1/trials", admin, `{"name":"New","trialId":"T100","status":"Planned"}`, header{"Idempotency-Key", key}); b.String() != a.String() {
		t.Errorf("the same again: %s", b)
	}
	b := w.post("/v1/trials", admin, `{"trialId":"T101","name":"New","status":"Planned"}`, header{"Idempotency-Key", key})
	w.isProblem(t, b, 409, "conflict")
	b = w.post("/v1/trials", w.staff("admin2", epro.StaffRole{Role: "admin"}), `{"trialId":"T100","name":"New","status":"Planned"}`, header{"Idempotency-Key", key})
	w.isProblem(t, b, 409, "conflict")
	if w.end() == end {
		t.Log("the tables answered; only the staff facts were appended")
	}
	m = w.get("/v1/commands/"+key, admin).json(t)
	if m["status"] != "applied" || m["kind"] != "trial.created@1" {
		t.Errorf("%v", m)
	}
	w.isProblem(t, w.get("/v1/commands/"+key, w.staff("nobody")), 404, "not-found")
	w.isProblem(t, w.get("/v1/commands/"+epro.NewUUID().String(), admin), 404, "not-found")

	version := w.get("/v1/trials/T001", admin).json(t)["version"]
	a = w.post("/v1/trials/T001/status", admin, fmt.Sprintf(`{"status":"Active","reason":"enough","expect":%v}`, version))
	if a.status != 200 || a.json(t)["trial"].(map[string]any)["status"] != "Active" {
		t.Error(a)
	}
	a = w.post("/v1/trials/T001/status", admin, fmt.Sprintf(`{"status":"Suspended","reason":"late","expect":%v}`, version))
	w.isProblem(t, a, 409, "conflict")
	a = w.post("/v1/trials/T001/status", admin, fmt.Sprintf(`{"status":"Planned","reason":"back","expect":%v}`, version.(float64)+1))
	w.isProblem(t, a, 409, "forbidden-transition")
	w.isProblem(t, w.post("/v1/trials", admin, `{"trialId":"T001","name":"Again","status":"Planned"}`), 409, "exists")
	w.isProblem(t, w.post("/v1/trials/T001/participants", admin, `{"siteId":"S99","patientId":"P-9"}`), 404, "not-found")
	if r := w.get("/v1/trials/T001/audit", admin); !strings.Contains(string(r.body), "rejected: ") {
		t.Error("a rejected command is not in the audit")
	}

	before := w.end()
	for _, c := range []struct{ path, body, fields string }{
		{"/v1/trials", `{"trialId":"T 1","status":"Closed","x":1}`, "name x trialId status"},
		{"/v1/trials", `{"trialId":"T1","trialId":"T2"}`, "body"},
		{"/v1/trials", `[]`, "body"},
		{"/v1/trials", `{"trialId":"T1","name":"n","status":"Planned","shard":3}`, "shard"},
		{"/v1/trials/T001/status", `{"trialId":"T002","status":"Active","reason":"r","expect":1}`, "trialId"},
		{"/v1/trials/T001/status", `{"status":"Active"}`, "reason expect"},
		{"/v1/trials/T001/participants/P-1/withdraw", `{"reason":"","expect":"1"}`, "expect reason"},
	} {
		a := w.post(c.path, admin, c.body)
		w.isProblem(t, a, 400, "invalid")
		if a.fields(t) != c.fields || a.json(t)["accepted"] != false {
			t.Errorf("%s %s: %s", c.path, c.body, a)
		}
	}
	w.isProblem(t, w.post("/v1/trials", admin, `{}`, header{"Idempotency-Key", "1"}), 400, "invalid")
	if w.end() != before {
		t.Error("something was stored")
	}
}

func TestACommandPastItsDeadlineIsPending(t *testing.T) {
	w := newWorld(t, setup{config: func(c *gateway.Config) { c.CommandWait = 0 }})
	admin := w.staff("admin", epro.StaffRole{Role: "admin"})
	a := w.post("/v1/trials", admin, `{"trialId":"T100","name":"New","status":"Planned"}`)
	m := a.json(t)
	if a.status != 202 || m["status"] != "pending" || a.header.Get("Location") != "/v1/commands/"+m["commandId"].(string) {
		t.Fatal(a)
	}
	w.settle()
	if m := w.get(a.header.Get("Location"), admin).json(t); m["status"] != "applied" {
		t.Errorf("%v", m)
	}
}

func TestStaffAreManaged(t *testing.T) {
	w := newWorld(t, setup{})
	admin := w.staff("admin", epro.StaffRole{Role: "admin"})
	local := w.staff("local", epro.StaffRole{Role: "admin", TrialID: "T002"})
	if a := w.post("/v1/staff", admin, `{"staffId":"anna","name":"Anna"}`); a.status != 201 {
		t.Fatal(a)
	}
	// An administrator of one trial gives roles there, and nowhere else.
	w.isProblem(t, w.post("/v1/staff/anna/roles", local, `{"role":"monitor","trialId":"T001"}`), 403, "forbidden")
	w.isProblem(t, w.post("/v1/staff/anna/roles", local, `{"role":"monitor"}`), 403, "forbidden")
	a := w.post("/v1/staff/anna/roles", local, `{"role":"monitor","trialId":"T002"}`)
	if a.status != 201 || len(a.json(t)["staff"].(map[string]any)["roles"].([]any)) != 1 {
		t.Fatal(a)
	}
	token, cred, err := auth.NewStaffToken("anna", time.Now(), time.Hour)
	must(t, err)
	must(t, w.vault.CreateCredential(t.Context(), cred))
	if a := w.get("/v1/trials", token); strings.Contains(string(a.body), "T001") || !strings.Contains(string(a.body), "T002") {
		t.Error(a)
	}
	if a := w.post("/v1/staff/anna/roles/revoke", local, `{"role":"monitor","trialId":"T002"}`); a.status != 200 {
		t.Error(a)
	}
	w.isProblem(t, w.get("/v1/trials", token), 403, "forbidden")
	if a := w.get("/v1/staff", admin); a.status != 200 || !strings.Contains(string(a.body), "anna") {
		t.Error(a)
	}
	if a := w.post("/v1/staff/anna/remove", admin, `{"reason":"left"}`); a.status != 200 {
		t.Error(a)
	}
	w.isProblem(t, w.get("/v1/trials", token), 401, "token-invalid")
	must(t, w.vault.RevokeCredential(t.Context(), cred.ID, time.Now()))
	w.isProblem(t, w.get("/v1/trials", token), 401, "token-invalid")
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

func TestAResolution(t *testing.T) {
	w := newWorld(t, setup{})
	id := epro.NewUUID()
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	for _, score := range []int{1, 2} {
		if a := w.post(submitPath, token, report("T001", "P-1", id, score)); a.status != 200 {
			t.Fatal(a)
		}
	}
	w.settle()
	north := w.staff("north", epro.StaffRole{Role: "coordinator", TrialID: "T001", SiteID: "S01"})
	path := "/v1/trials/T001/reports/P-1/" + id.String() + "/resolutions"
	a := w.post(path, north, `{"version":2,"resolution":"void","reason":"typed by mistake","expect":0}`)
	if a.status != 200 || a.json(t)["report"].(map[string]any)["resolution"] != "void" {
		t.Fatal(a)
	}
	w.isProblem(t, w.post(path, north, `{"version":2,"resolution":"accept","reason":"no","expect":0}`), 409, "conflict")
	w.isProblem(t, w.post(path, north, `{"version":7,"resolution":"accept","reason":"no","expect":0}`), 403, "forbidden")
	south := w.staff("south", epro.StaffRole{Role: "coordinator", TrialID: "T001", SiteID: "S02"})
	w.isProblem(t, w.post(path, south, `{"version":2,"resolution":"accept","reason":"no","expect":1}`), 403, "forbidden")
	if n := len(w.walk(t, "/v1/trials/T001/conflicts?unresolved=true", "reports", north)); n != 0 {
		t.Errorf("%d conflicts are still unresolved", n)
	}
}

func TestExportIsCSVThatRunsNothing(t *testing.T) {
	w := newWorld(t, setup{})
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	comments := []string{`=HYPERLINK("x")`, "+1", "-1", "@x", "\tx", `he said "no", twice` + "\nand left", "fine"}
	for i, c := range comments {
		text := fmt.Sprintf(`{"patientId":"P-1","trialId":"T001","timestamp":"2026-03-0%dT08:30:00+08:00","qolScore":%d,"comments":%q}`, i+1, i, c)
		if a := w.post(submitPath, token, text); a.status != 200 {
			t.Fatal(a)
		}
	}
	w.settle()
	dm := w.staff("dm", epro.StaffRole{Role: "data-manager", TrialID: "T001"})
	a := w.get("/v1/trials/T001/reports.csv", dm)
	if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/csv") {
		t.Fatal(a)
	}
	rows, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
	must(t, err)
	if len(rows) != len(comments)+1 || rows[0][8] != "comments" || rows[0][9] != "timestamp" {
		t.Fatalf("%d rows: %q", len(rows), rows)
	}
	for i, row := range rows[1:] {
		want := comments[i]
		if strings.ContainsAny(want[:1], "=+-@\t") {
			want = "'" + want
		}
		if row[8] != want || row[7] != fmt.Sprint(i) || row[9] != fmt.Sprintf("2026-03-0%dT08:30:00+08:00", i+1) {
			t.Errorf("row %d: %q", i, row)
		}
	}
	w.isProblem(t, w.get("/v1/trials/T001/reports.csv?limit=3", dm), 400, "invalid")
}

func TestAnExportEndsWithItsClientAndWithTheServer(t *testing.T) {
	w := newWorld(t, setup{config: func(c *gateway.Config) { c.MaxExports = 1; c.StopTimeout = 2 * time.Second }, sqlite: true})
	relay := w.relay("T001")
	var b strings.Builder
	for i := range 8000 {
		b.WriteString(report("T001", fmt.Sprintf("P-%d", i), epro.NewUUID(), i%11))
		b.WriteByte('\n')
	}
	if a := w.post(bulkPath, relay, b.String(), ndjson); a.status != 200 {
		t.Fatal(a)
	}
	w.settle()
	dm := w.staff("dm", epro.StaffRole{Role: "data-manager"})
	open := func() *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/v1/trials/T001/reports.csv", nil)
		must(t, err)
		r.Header.Set("Authorization", "Bearer "+dm)
		resp, err := w.client.Do(r)
		must(t, err)
		return resp
	}
	first := open() // and does not read
	busy := w.get("/v1/trials/T001/reports.csv", dm)
	if busy.status != 200 { // the whole may have fitted into the socket's buffers
		w.isProblem(t, busy, 503, "refused-now")
	}
	_ = first.Body.Close()
	for i := 0; ; i++ {
		resp := open()
		_ = resp.Body.Close()
		if resp.StatusCode == 200 {
			break
		}
		if i > 200 {
			t.Fatal("the place did not come back")
		}
		time.Sleep(10 * time.Millisecond)
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

func TestARevokedTokenShowsNothingAndStillSends(t *testing.T) {
	w := newWorld(t, setup{})
	token := w.participant("T001", "P-1", auth.ScopeSubmit|auth.ScopeRead)
	if a := w.get("/v1/patient/reports", token); a.status != 200 {
		t.Fatal(a)
	}
	north := w.staff("north", epro.StaffRole{Role: "coordinator", TrialID: "T001", SiteID: "S01"})
	a := w.post("/v1/trials/T001/participants/P-1/revoke-tokens", north, `{"minEpoch":1,"reason":"phone lost","expect":1}`)
	if a.status != 200 {
		t.Fatal(a)
	}
	w.isProblem(t, w.get("/v1/patient/reports", token), 401, "token-invalid")
	id := epro.NewUUID()
	if a := w.post(submitPath, token, report("T001", "P-1", id, 1)); a.status != 200 {
		t.Errorf("a patient's words were refused: %s", a)
	}
	w.settle()
	rows := w.walk(t, "/v1/trials/T001/quarantine", "reports", north)
	if len(rows) != 1 || fmt.Sprint(rows[0].(map[string]any)["reasons"]) != "[token-revoked]" {
		t.Errorf("%v", rows)
	}
}
