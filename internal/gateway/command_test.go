package gateway_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
)

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
	if a := w.post("/v1/trials/T001/instruments", admin, `{}`); a.status != 403 || !strings.Contains(a.json(t)["detail"].(string), "It takes the role data-manager,") {
		t.Errorf("the answer does not say which role may: %s", a)
	}
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
