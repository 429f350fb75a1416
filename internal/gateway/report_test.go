package gateway_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/receipt"
)

func TestAReportIsAnsweredWithAReceiptThatHolds(t *testing.T) {
	for _, sqlite := range []bool{false, true} {
		t.Run(fmt.Sprintf("sqlite=%v", sqlite), func(t *testing.T) {
			w := newWorld(t, setup{sqlite: sqlite})
			token := w.participant("T001", "P-1", auth.ScopeSubmit)
			for _, score := range []int{0, 10} {
				id := epro.NewUUID()
				body := report("T001", "P-1", id, score)
				a := w.post(submitPath, token, body)
				if a.status != 200 || a.header.Get("Content-Type") != "application/json" {
					t.Fatalf("score %d: %s", score, a)
				}
				m := a.json(t)
				if m["status"] != "success" || m["message"] != "Report for patient P-1 received." || m["reportId"] != id.String() {
					t.Errorf("score %d: %v", score, m)
				}
				r, err := receipt.Parse(m["receipt"].(string))
				must(t, err)
				must(t, r.Check(w.keySet()))
				if !r.MatchesBody([]byte(body)) {
					t.Error("the receipt is not for the bytes that were sent")
				}
				env, err := r.Fact()
				must(t, err)
				if m["committedAt"] != r.Header.CommittedAt().Format(time.RFC3339Nano) || m["receivedAt"] != env.ReceivedAt.Format(time.RFC3339Nano) ||
					m["durability"] != r.Class.String() {
					t.Errorf("the answer and its receipt differ: %v", m)
				}
				if env.Actor != (epro.Actor{Type: epro.ActorParticipant, ID: "P-1", Device: "phone-1"}) || env.TokenKey == 0 {
					t.Errorf("actor %v, token key %d", env.Actor, env.TokenKey)
				}
			}
		})
	}
}

const good = `"patientId":"P-1","trialId":"T001","timestamp":"2026-03-01T08:30:00+08:00"`

// TestBadInputIsNamedAndNotStored goes through everything that can be wrong
// with a report, over HTTP.
func TestBadInputIsNamedAndNotStored(t *testing.T) {
	w := newWorld(t, setup{})
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	expired := w.mint(auth.Claims{Kind: auth.KindParticipant, Scope: auth.ScopeSubmit, Trial: "T001", Participant: "P-1", Device: "d", Expires: time.Now().Add(-time.Second)})
	forged := token[:len(token)-2] + map[bool]string{true: "BA", false: "AA"}[strings.HasSuffix(token, "AA")]
	good := func(more string) string { return "{" + good + more + "}" }
	cases := []struct {
		name    string
		body    string
		fields  string
		status  int
		token   string
		headers []header
		code    string
	}{
		{name: "not JSON", body: `score: 7`, fields: "body"},
		{name: "empty", body: ``, fields: "body"},
		{name: "an array", body: `[]`, fields: "body"},
		{name: "trailing bytes", body: good(`,"qolScore":7`) + `{}`, fields: "body"},
		{name: "unknown field", body: good(`,"qolScore":7,"mood":3`), fields: "mood"},
		{name: "duplicate key", body: good(`,"qolScore":7,"qolScore":8`), fields: "qolScore"},
		{name: "wrong-case name", body: good(`,"QolScore":7`), fields: "QolScore"},
		{name: "wrong types", body: `{"patientId":1,"trialId":true,"timestamp":{},"qolScore":[]}`, fields: "patientId trialId timestamp qolScore"},
		{name: "null", body: good(`,"qolScore":null`), fields: "qolScore"},
		{name: "everything missing", body: `{}`, fields: "patientId trialId timestamp qolScore"},
		{name: "score -1", body: good(`,"qolScore":-1`), fields: "qolScore"},
		{name: "score 11", body: good(`,"qolScore":11`), fields: "qolScore"},
		{name: "score 7.5", body: good(`,"qolScore":7.5`), fields: "qolScore"},
		{name: `score "7"`, body: good(`,"qolScore":"7"`), fields: "qolScore"},
		{name: "no offset", body: `{"patientId":"P-1","trialId":"T001","timestamp":"2026-03-01T08:30:00","qolScore":7}`, fields: "timestamp"},
		{name: "impossible date", body: `{"patientId":"P-1","trialId":"T001","timestamp":"2026-02-30T08:30:00Z","qolScore":7}`, fields: "timestamp"},
		{name: "control character in an id", body: `{"patientId":"P\u00071","trialId":"T001","timestamp":"2026-03-01T08:30:00Z","qolScore":7}`, fields: "patientId"},
		{name: "letter beyond ASCII in an id", body: `{"patientId":"P-é","trialId":"T001","timestamp":"2026-03-01T08:30:00Z","qolScore":7}`, fields: "patientId"},
		{name: "long id", body: `{"patientId":"` + strings.Repeat("P", 65) + `","trialId":"T001","timestamp":"2026-03-01T08:30:00Z","qolScore":7}`, fields: "patientId"},
		{name: "long comments", body: good(`,"qolScore":7,"comments":"` + strings.Repeat("é", 4001) + `"`), fields: "comments"},
		{name: "comments not UTF-8", body: good(`,"qolScore":7,"comments":"` + "\xff" + `"`), fields: "comments"},
		{name: "deep nesting", body: good(`,"qolScore":7,"extensions":` + strings.Repeat(`{"a":`, 5000) + `1` + strings.Repeat(`}`, 5000)), fields: "extensions"},
		{name: "deep nesting of arrays", body: strings.Repeat(`[`, 20000), fields: "body"},
		{name: "bad report id", body: good(`,"qolScore":7,"reportId":"7"`), fields: "reportId"},
		{name: "many at once", body: `{"patientId":"","trialId":"T001","timestamp":"now","qolScore":70,"comments":5,"x":1}`, fields: "patientId timestamp qolScore comments x"},
		{name: "another patient", body: `{"patientId":"P-2","trialId":"T001","timestamp":"2026-03-01T08:30:00Z","qolScore":7}`, status: 403, fields: "patientId", code: "not-yours"},
		{name: "another trial", body: `{"patientId":"P-1","trialId":"T002","timestamp":"2026-03-01T08:30:00Z","qolScore":7}`, status: 403, fields: "trialId", code: "not-yours"},
		{name: "another of both", body: `{"patientId":"P-2","trialId":"T002","timestamp":"2026-03-01T08:30:00Z","qolScore":7}`, status: 403, fields: "patientId trialId", code: "not-yours"},
		{name: "too long", body: good(`,"qolScore":7,"comments":"` + strings.Repeat("x", 66000) + `"`), status: 413, code: "too-large"},
		{name: "content type", body: good(`,"qolScore":7`), status: 415, headers: []header{{"Content-Type", "text/plain"}}, code: "content-type"},
		{name: "charset", body: good(`,"qolScore":7`), status: 415, headers: []header{{"Content-Type", "application/json; charset=latin1"}}, code: "content-type"},
		{name: "content encoding", body: good(`,"qolScore":7`), status: 415, headers: []header{{"Content-Encoding", "gzip"}}, code: "content-type"},
		{name: "no token", body: good(`,"qolScore":7`), status: 401, token: "-", code: "token-missing"},
		{name: "another scheme", body: good(`,"qolScore":7`), status: 401, token: "-", headers: []header{{"Authorization", "Basic " + token}}, code: "token-missing"},
		{name: "malformed token", body: good(`,"qolScore":7`), status: 401, token: "tgp1_!!!", code: "token-invalid"},
		{name: "no token at all", body: good(`,"qolScore":7`), status: 401, token: "hello", code: "token-invalid"},
		{name: "expired token", body: good(`,"qolScore":7`), status: 401, token: expired, code: "token-expired"},
		{name: "forged token", body: good(`,"qolScore":7`), status: 401, token: forged, code: "token-invalid"},
		{name: "read scope", body: good(`,"qolScore":7`), status: 403, token: w.participant("T001", "P-1", auth.ScopeRead), code: "scope-missing"},
	}
	before := w.end()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tok := token
			switch c.token {
			case "":
			case "-":
				tok = ""
			default:
				tok = c.token
			}
			a := w.post(submitPath, tok, c.body, c.headers...)
			w.isProblem(t, a, cmpOr(c.status, 400), cmpOr(c.code, "invalid"))
			if m := a.json(t); m["accepted"] != false {
				t.Errorf("accepted is %v", m["accepted"])
			}
			if got := a.fields(t); got != c.fields {
				t.Errorf("fields %q, want %q: %s", got, c.fields, a)
			}
			if a.status == 401 && a.header.Get("WWW-Authenticate") == "" {
				t.Error("a 401 has no challenge")
			}
		})
	}
	if w.end() != before {
		t.Error("something was stored")
	}
	// After all that the same phone gets through.
	if a := w.post(submitPath, token, good(`,"qolScore":7`)); a.status != 200 {
		t.Errorf("a good report: %s", a)
	}
}

func cmpOr[T comparable](v, other T) T {
	var zero T
	if v != zero {
		return v
	}
	return other
}

// isProblem holds an answer to the form of problems.
func (w *world) isProblem(t *testing.T, a *answer, status int, code string) {
	t.Helper()
	if a.status != status || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("want a problem with status %d, got %s (%s)", status, a, a.header.Get("Content-Type"))
	}
	m := a.json(t)
	if m["type"] != "urn:tidegate:problem:"+code || m["status"] != float64(status) || m["error"] == "" || m["error"] != m["detail"] || m["title"] == "" {
		t.Errorf("want problem %s: %s", code, a)
	}
	if (status == 429 || status == 503) && (a.header.Get("Retry-After") == "" || m["retryAfter"] == nil) {
		t.Errorf("no Retry-After: %s", a)
	}
}

func TestWrongMethodAndUnknownPath(t *testing.T) {
	w := newWorld(t, setup{})
	a := w.send("PUT", submitPath, "", []byte("{}"))
	w.isProblem(t, a, 405, "method-not-allowed")
	if a.header.Get("Allow") != "POST" || a.json(t)["accepted"] != false {
		t.Errorf("Allow %q: %s", a.header.Get("Allow"), a)
	}
	for _, path := range []string{"/", "/v1/patient/report/", "/v1/patient/nothing", "/V1/patient/report", "/v1//patient/report"} {
		w.isProblem(t, w.post(path, "", "{}"), 404, "no-such-path")
	}
}

func TestARetryGetsTheOriginalReceiptAndOtherContentANewOne(t *testing.T) {
	w := newWorld(t, setup{})
	id := epro.NewUUID()
	token := w.participant("T001", "P-1", auth.ScopeSubmit|auth.ScopeRead)
	body := report("T001", "P-1", id, 4)
	first := w.post(submitPath, token, body)
	if first.status != 200 {
		t.Fatal(first)
	}
	end := w.end()
	again := w.post(submitPath, token, body)
	if again.status != 200 || again.String() != first.String() {
		t.Errorf("the same again:\n%s\n%s", first, again)
	}
	if w.end() != end {
		t.Error("a retry appended something")
	}
	other := w.post(submitPath, token, report("T001", "P-1", id, 5))
	if other.status != 200 || other.json(t)["receipt"] == first.json(t)["receipt"] {
		t.Errorf("other content: %s", other)
	}
	w.settle()
	m := w.get("/v1/patient/reports/"+id.String(), token).json(t)
	if m["disposition"] != "conflict" || len(m["versions"].([]any)) != 2 {
		t.Errorf("the conflict is not visible: %v", m)
	}
	// Another participant may use the same id: both are recorded, and neither
	// sees the other's.
	second := w.participant("T001", "P-2", auth.ScopeSubmit|auth.ScopeRead)
	a := w.post(submitPath, second, report("T001", "P-2", id, 9))
	if a.status != 200 || a.json(t)["receipt"] == first.json(t)["receipt"] {
		t.Fatal(a)
	}
	w.settle()
	m = w.get("/v1/patient/reports/"+id.String(), second).json(t)
	if m["disposition"] != "recorded" || m["versions"].([]any)[0].(map[string]any)["qolScore"] != 9.0 {
		t.Errorf("the second participant's: %v", m)
	}
	text := w.get("/v1/patient/reports/"+id.String()+"/receipt", second).json(t)["receipt"].(string)
	r, err := receipt.Parse(text)
	must(t, err)
	must(t, r.Check(w.keySet()))
	if env, _ := r.Fact(); env.Subject != "P-2" {
		t.Errorf("the receipt is %s's", env.Subject)
	}
}

func TestAReportWithoutAnIDGetsOneThatHoldsForTheSameAgain(t *testing.T) {
	w := newWorld(t, setup{})
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	first := w.post(submitPath, token, "{"+good+`,"qolScore":3}`)
	again := w.post(submitPath, token, `{"qolScore": 3, `+good+`}`)
	if first.status != 200 || again.String() != first.String() {
		t.Errorf("%s\n%s", first, again)
	}
	r, err := receipt.Parse(first.json(t)["receipt"].(string))
	must(t, err)
	if env, _ := r.Fact(); env.Flags&epro.FlagDerivedID == 0 {
		t.Error("the envelope does not say that the id was derived")
	}
}

func TestTooFast(t *testing.T) {
	w := newWorld(t, setup{intake: func(c *intake.Config) { c.Burst, c.Refill = 2, 10*time.Second }})
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	for i := range 3 {
		a := w.post(submitPath, token, report("T001", "P-1", epro.NewUUID(), i))
		if i < 2 {
			if a.status != 200 {
				t.Fatal(a)
			}
			continue
		}
		w.isProblem(t, a, 429, "too-fast")
		if a.json(t)["accepted"] != false {
			t.Errorf("%s", a)
		}
	}
	// The bucket is the participant's, not everybody's.
	if a := w.post(submitPath, w.participant("T001", "P-2", auth.ScopeSubmit), report("T001", "P-2", epro.NewUUID(), 1)); a.status != 200 {
		t.Error(a)
	}
}

func TestARelayNamesParticipants(t *testing.T) {
	w := newWorld(t, setup{})
	token := w.relay("T001", "S01")
	a := w.post(submitPath, token, report("T001", "P-2", epro.NewUUID(), 6))
	if a.status != 200 {
		t.Fatal(a)
	}
	r, err := receipt.Parse(a.json(t)["receipt"].(string))
	must(t, err)
	relay := auth.TokenPrincipal(auth.Claims{Kind: auth.KindRelay, Relay: "relay-1", Sites: []string{"S01"}})
	if env, _ := r.Fact(); env.Actor != relay.Actor() || env.Actor.Type != epro.ActorRelay || env.Subject != "P-2" {
		t.Errorf("actor %v, subject %s", env.Actor, env.Subject)
	}
	a = w.post(submitPath, token, report("T002", "P-1", epro.NewUUID(), 6))
	w.isProblem(t, a, 403, "not-yours")
	if a.fields(t) != "trialId" {
		t.Error(a)
	}
	w.isProblem(t, w.get("/v1/patient/reports", token), 403, "scope-missing")
}
