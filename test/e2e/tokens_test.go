package e2e_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// Tokens of every kind are made beside a running server and without one, and
// work; nothing but the token is printed.
func TestTokensBesideAServerAndWithoutOne(t *testing.T) {
	inBothShapes(t, tokensBesideAServerAndWithoutOne)
}

func tokensBesideAServerAndWithoutOne(t *testing.T, g ground) {
	seed := append([]string{"seed", "--participants", "6"}, g.flags()...)
	must(t, seed...)
	// A seed twice writes nothing twice.
	must(t, seed...)
	one := func(args ...string) string {
		t.Helper()
		where := g.flags()
		if args[1] != "staff" { // the others need keys only
			where = where[:2]
		}
		out, errs, code := tidegate(t, append(args, where...)...)
		if code != 0 || !regexp.MustCompile(`^tg[pls]1_[A-Za-z0-9_-]+\n$`).MatchString(out) {
			t.Fatalf("%v: exit %d, prints %q\n%s", args, code, out, errs)
		}
		return strings.TrimSpace(out)
	}
	phone := []string{"token", "participant", "--patient", "P-000001", "--trial", "T001"}
	staff := []string{"token", "staff", "--role", "coordinator", "--name", "anna", "--trial", "T001"}
	relay := []string{"token", "relay", "--name", "bulk", "--trial", "T001"}
	tokens := map[string][]string{}
	for range 2 {
		tokens["phone"] = append(tokens["phone"], one(phone...))
		tokens["staff"] = append(tokens["staff"], one(staff...))
		tokens["relay"] = append(tokens["relay"], one(relay...))
	}
	s := g.start(0)
	tokens["phone"] = append(tokens["phone"], one(phone...))
	tokens["staff"] = append(tokens["staff"], one(staff...), one(append(staff, "--site", "S02")...))
	tokens["relay"] = append(tokens["relay"], one(relay...))
	for _, token := range tokens["phone"] {
		(user{t, s, token}).post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", 3, nil))
		(user{t, s, token}).get("/v1/trials/T001/reports", http.StatusForbidden, nil)
	}
	for _, token := range tokens["relay"] {
		(user{t, s, token}).post("/v1/patient/report", http.StatusOK, reportBody("P-000002", "T001", 3, nil))
		(user{t, s, token}).post("/v1/patient/report", http.StatusForbidden, reportBody("P-000002", "T002", 3, nil))
	}
	for _, token := range tokens["staff"] {
		u := user{t, s, token}
		u.get("/v1/trials/T001/reports", http.StatusOK, nil)
		u.get("/v1/trials/T002/reports", http.StatusForbidden, nil)
		u.post("/v1/patient/report", http.StatusForbidden, reportBody("P-000001", "T001", 3, nil))
	}
	// Scopes, and an end of life.
	submit := user{t, s, one(append(phone, "--scope", "submit")...)}
	submit.post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", 3, nil))
	submit.get("/v1/patient/reports", http.StatusForbidden, nil)
	read := user{t, s, one(append(phone, "--scope", "read")...)}
	read.get("/v1/patient/reports", http.StatusOK, nil)
	read.post("/v1/patient/report", http.StatusForbidden, reportBody("P-000001", "T001", 3, nil))

	for _, wrong := range [][]string{
		append(phone, "--ttl", "-1h"), append(phone, "--scope", "write"), append(phone, "--ttl", "soon"),
		{"token", "participant", "--trial", "T001"},
		{"token", "participant", "--patient", "P\x01", "--trial", "T001"},
	} {
		refusal{t: t, code: 2}.of(append(wrong, "--data", s.Data)...)
	}
	refusal{t: t, code: 2, says: "role"}.of(append([]string{"token", "staff", "--role", "boss", "--name", "anna"}, g.flags()...)...)
	refusal{t: t, code: 2, says: "trial"}.of(append([]string{"token", "staff", "--role", "monitor", "--name", "anna", "--site", "S01"}, g.flags()...)...)

	// Everything that wrote did so through the server, and into the audit.
	admin := user{t, s, s.Staff("admin", "ada")}
	var staffList struct {
		Staff []struct {
			StaffID string
			Roles   []struct{ Role, TrialID, SiteID string }
		}
	}
	admin.get("/v1/staff", http.StatusOK, &staffList)
	if len(staffList.Staff) != 2 || staffList.Staff[1].StaffID != "anna" || len(staffList.Staff[1].Roles) != 2 {
		t.Fatalf("two staff, anna with two roles: %+v", staffList)
	}
	if b := admin.books("T001"); b.Quarantined != 0 || b.Conflicts != 0 || b.Accepted != uint64(len(tokens["phone"])+len(tokens["relay"])+1) {
		t.Fatalf("books: %+v", b)
	}
	var version struct{ Version string }
	if err := json.Unmarshal([]byte(must(t, "version", "--json")), &version); err != nil || version.Version == "" {
		t.Fatalf("version: %+v %v", version, err)
	}
	s.Stop()
	cleanAt(t, g.flags())
}

// Many reports in one request: a bad line does not hurt its neighbours, with a
// participant's and with a relay's token.
func TestManyReportsAtOnce(t *testing.T) { inBothShapes(t, manyReportsAtOnce) }

func manyReportsAtOnce(t *testing.T, g ground) {
	s := g.start(20)
	type outcome struct {
		Line     int
		Status   string
		Accepted any
		Error    string
		Fields   []struct{ Field, Problem string }
		ReportID string
		Frame    int
		Salt     string
		Proof    map[string]any
	}
	send := func(token, body string) (proofs int, lines []outcome) {
		t.Helper()
		code, _, answer := s.Do(http.MethodPost, "/v1/patient/reports", token, "application/x-ndjson", body)
		if code != http.StatusOK {
			t.Fatalf("%d %s", code, answer)
		}
		for text := range strings.Lines(answer) {
			var o outcome
			if err := json.Unmarshal([]byte(text), &o); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if o.Line == 0 {
				proofs++
				continue
			}
			if o.Line != len(lines)+1 {
				t.Fatalf("line %d comes after %d", o.Line, len(lines))
			}
			lines = append(lines, o)
		}
		return proofs, lines
	}
	text := func(o object) string { b, _ := json.Marshal(o); return string(b) }
	check := func(lines []outcome, want ...string) {
		t.Helper()
		if len(lines) != len(want) {
			t.Fatalf("%d outcomes for %d lines: %+v", len(lines), len(want), lines)
		}
		for i, w := range want {
			field, bad := strings.CutPrefix(w, "rejected ")
			switch o := lines[i]; {
			case !bad && (o.Status != w || o.Accepted != true || o.ReportID == "" || o.Salt == ""):
				t.Errorf("line %d: %+v, want %s", i+1, o, w)
			case bad && (o.Status != "rejected" || o.Accepted != false || len(o.Fields) == 0 || o.Fields[0].Field != field):
				t.Errorf("line %d: %+v, want %s", i+1, o, w)
			}
		}
	}
	own := strings.Join([]string{
		text(reportBody("P-000001", "T001", 1, object{"reportId": uuid(1)})),
		`{"patientId":"P-000001"`,
		text(reportBody("P-000001", "T001", 11, nil)),
		text(reportBody("P-000001", "T001", 2, object{"reportId": uuid(2)})),
		text(reportBody("P-000002", "T001", 2, nil)),
		``,
		text(reportBody("P-000001", "T001", 3, object{"reportId": uuid(3), "mood": 1})),
		text(reportBody("P-000001", "T001", 0, object{"reportId": uuid(4)})),
	}, "\n") + "\n"
	token := s.Token("P-000001", "T001")
	proofs, lines := send(token, own)
	check(lines, "accepted", "rejected body", "rejected qolScore", "accepted", "rejected patientId", "rejected body", "rejected mood", "accepted")
	if proofs == 0 {
		t.Error("no proof for the lines that were taken")
	}

	relay := strings.TrimSpace(must(t, "token", "relay", "--data", s.Data, "--name", "site-box", "--trial", "T001"))
	_, lines = send(relay, strings.Join([]string{
		text(reportBody("P-000003", "T001", 1, nil)),
		text(reportBody("P-000004", "T002", 1, nil)),
		`[]`,
		text(reportBody("P-000005", "T001", 1, object{"timestamp": "2026-11-24T08:00:00"})),
		text(reportBody("P-000006", "T001", 10, nil)),
		text(reportBody("P-777777", "T001", 10, nil)),
	}, "\n"))
	check(lines, "accepted", "rejected trialId", "rejected body", "rejected timestamp", "accepted", "accepted")

	admin := user{t, s, s.Staff("admin", "ada")}
	// Nobody is enrolled as P-777777: kept, and set aside.
	if b := admin.books("T001"); b != (books{Accepted: 6, Recorded: 5, Quarantined: 1}) {
		t.Fatalf("books: %+v", b)
	}
	coordinator := user{t, s, s.Staff("coordinator", "cora")}
	for _, r := range coordinator.all("/v1/trials/T001/reports") {
		want := "participant"
		if r.PatientID != "P-000001" {
			want = "relay"
		}
		if r.Actor.Type != want || want == "relay" && r.Actor.ID != "site-box" {
			t.Errorf("%s was sent by %+v", r.PatientID, r.Actor)
		}
	}
	// A receipt of a line can be had alone, later.
	var single struct{ Receipt string }
	(user{t, s, token}).get("/v1/patient/reports/"+uuid(4)+"/receipt", http.StatusOK, &single)
	if single.Receipt == "" {
		t.Error("no receipt for a line")
	}
	for _, wrong := range []struct {
		token, kind, body string
		want              int
	}{
		{token, "application/json", own, http.StatusUnsupportedMediaType},
		{"", "application/x-ndjson", own, http.StatusUnauthorized},
		{token, "application/x-ndjson", "", http.StatusBadRequest},
		{token, "application/x-ndjson", strings.Repeat("\n", 10_001), http.StatusRequestEntityTooLarge},
	} {
		if code, _, answer := s.Do(http.MethodPost, "/v1/patient/reports", wrong.token, wrong.kind, wrong.body); code != wrong.want {
			t.Errorf("%d, want %d: %s", code, wrong.want, answer)
		}
	}
	s.Stop()
	cleanAt(t, g.flags())
}
