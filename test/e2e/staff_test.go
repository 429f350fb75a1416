package e2e_test

import (
	"encoding/csv"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

// study is a trial made by staff over the API, and who works in it.
type study struct {
	t                                            *testing.T
	g                                            ground
	s                                            *server.Server
	admin, coordinator, investigator, manager    user
	trial                                        string
	recorded, duplicates, conflicts, quarantined uint64
}

// newStudy makes trial X1 with one site and its instrument.
func newStudy(t *testing.T, g ground) *study {
	t.Helper()
	s := g.start(0)
	y := &study{t: t, g: g, s: s, trial: "X1", admin: user{t, s, s.Staff("admin", "ada")}}
	// A token for a trial that is still to come is fine: the role waits for it.
	y.coordinator = user{t, s, s.Staff("coordinator", "cora", "--trial", "X1")}
	y.investigator = user{t, s, s.Staff("investigator", "ines", "--trial", "X1")}
	y.manager = user{t, s, s.Staff("data-manager", "dana", "--trial", "X1")}
	y.admin.post("/v1/trials", http.StatusCreated, object{"trialId": "X1", "name": "Study of X", "status": "Recruiting"})
	y.admin.post(y.path("/sites"), http.StatusCreated, object{"siteId": "S01", "name": "Clinic"})
	y.manager.post(y.path("/instruments"), http.StatusCreated, object{"instrument": "qol", "version": 1})
	return y
}

func (y *study) path(rest string) string { return "/v1/trials/" + y.trial + rest }

func (y *study) enroll(patient string) user {
	y.t.Helper()
	y.coordinator.post(y.path("/participants"), http.StatusCreated, object{"patientId": patient, "siteId": "S01"})
	return y.phone(patient)
}

func (y *study) phone(patient string, args ...string) user {
	y.t.Helper()
	out := must(y.t, append([]string{"token", "participant", "--data", y.s.Data, "--patient", patient, "--trial", y.trial}, args...)...)
	return user{y.t, y.s, strings.TrimSpace(out)}
}

// balance checks the books against what the test has sent.
func (y *study) balance() {
	y.t.Helper()
	want := books{
		Accepted: y.recorded + y.duplicates + y.conflicts + y.quarantined,
		Recorded: y.recorded, Duplicates: y.duplicates, Conflicts: y.conflicts, Quarantined: y.quarantined,
	}
	if got := y.admin.books(y.trial); got != want {
		y.t.Fatalf("books: %+v, want %+v", got, want)
	}
}

// send sends a report, which is always answered 200, and checks what became of
// it: "recorded", or the reason for its quarantine.
func (y *study) send(phone user, patient, outcome string, extra object) string {
	y.t.Helper()
	answer := phone.post("/v1/patient/report", http.StatusOK, reportBody(patient, y.trial, 5, extra))
	if answer.text("receipt") == "" {
		y.t.Fatalf("no receipt: %v", answer)
	}
	id := answer.text("reportId")
	if outcome == "recorded" {
		y.recorded++
	} else {
		y.quarantined++
	}
	y.balance()
	rows := y.coordinator.all(y.path("/reports"))
	i := slices.IndexFunc(rows, func(r report) bool { return r.ReportID == id && r.PatientID == patient })
	switch {
	case i < 0:
		y.t.Fatalf("the report is not listed")
	case outcome == "recorded":
		if rows[i].Disposition != "recorded" || rows[i].Reasons != nil {
			y.t.Fatalf("want recorded: %+v", rows[i])
		}
	case rows[i].Disposition != "quarantined" || !slices.Equal(rows[i].Reasons, []string{outcome}):
		y.t.Fatalf("want quarantined for %s: %+v", outcome, rows[i])
	}
	if outcome == "token-revoked" {
		phone.get("/v1/patient/reports/"+id, http.StatusUnauthorized, nil) // it may still tell, but is shown nothing
		return id
	}
	var own struct{ Disposition string }
	phone.get("/v1/patient/reports/"+id, http.StatusOK, &own)
	if own.Disposition != rows[i].Disposition {
		y.t.Fatalf("the participant sees %s, staff see %s", own.Disposition, rows[i].Disposition)
	}
	return id
}

// Every reason for which a report is set aside: each is caused by what staff
// or a phone did, none refuses the report, and the books balance at each step.
func TestEveryReasonForQuarantine(t *testing.T) { inBothShapes(t, everyReasonForQuarantine) }

func everyReasonForQuarantine(t *testing.T, g ground) {
	y := newStudy(t, g)
	p1, p2 := y.enroll("P-1"), y.enroll("P-2")
	y.balance()
	y.send(p1, "P-1", "recorded", nil)
	y.send(p1, "P-1", "recorded", object{"qolScore": 0})
	y.send(p1, "P-1", "recorded", object{"qolScore": 10})

	y.send(p1, "P-1", "instrument-version-unknown", object{"instrument": "qol@2"})
	y.send(p1, "P-1", "instrument-version-unknown", object{"instrument": "mood@1", "qolScore": nil, "answers": object{"q1": 3}})
	y.send(p1, "P-1", "recorded", object{"timestamp": time.Now().Add(9 * time.Minute).Format(time.RFC3339)})
	y.send(p1, "P-1", "device-clock-ahead", object{"timestamp": time.Now().Add(11 * time.Minute).Format(time.RFC3339)})
	y.send(y.phone("P-9"), "P-9", "participant-not-enrolled", nil)

	// Tokens below the new epoch are set aside, new ones are not.
	var who struct {
		Version  uint64
		MinEpoch uint32
		Status   string
	}
	y.coordinator.get(y.path("/participants/P-1"), http.StatusOK, &who)
	y.coordinator.post(y.path("/participants/P-1/revoke-tokens"), http.StatusOK, object{"minEpoch": 2, "reason": "phone lost", "expect": who.Version})
	y.send(p1, "P-1", "token-revoked", nil)
	y.send(y.phone("P-1", "--epoch", "2"), "P-1", "recorded", nil)

	// A command that expects what is no longer so changes nothing, and is kept.
	answer := y.coordinator.post(y.path("/participants/P-1/withdraw"), http.StatusConflict, object{"reason": "moved away", "expect": who.Version})
	if !strings.Contains(answer.text("detail"), "version 2, not 1") || answer.text("commandId") == "" {
		t.Fatalf("a rejection names the version that is true: %v", answer)
	}
	y.coordinator.get(y.path("/participants/P-1"), http.StatusOK, &who)
	if who.MinEpoch != 2 || who.Status != "Enrolled" {
		t.Fatalf("after revoking and a rejected withdrawal: %+v", who)
	}
	y.coordinator.post(y.path("/participants/P-1/withdraw"), http.StatusOK, object{"reason": "moved away", "expect": who.Version})
	y.send(y.phone("P-1", "--epoch", "2"), "P-1", "participant-withdrawn", nil)

	// A trial that is suspended takes reports, sets them aside, and goes on.
	var trial struct{ Version uint64 }
	y.admin.get(y.path(""), http.StatusOK, &trial)
	y.admin.post(y.path("/status"), http.StatusOK, object{"status": "Suspended", "reason": "board's advice", "expect": trial.Version})
	y.send(p2, "P-2", "trial-not-open", nil)
	y.admin.post(y.path("/status"), http.StatusConflict, object{"status": "Active", "reason": "go on", "expect": trial.Version})
	y.admin.post(y.path("/status"), http.StatusOK, object{"status": "Active", "reason": "go on", "expect": trial.Version + 1})
	y.send(p2, "P-2", "recorded", nil)

	// The work list is those reports and no others.
	if n := len(y.coordinator.all(y.path("/quarantine"))); uint64(n) != y.quarantined {
		t.Fatalf("%d on the work list, %d were set aside", n, y.quarantined)
	}
	y.audited(t)
	y.resolve(t)
	y.exported(t)
	y.s.Stop()
	cleanAt(t, g.flags())
}

// resolve decides about two of the reports on the work list.
func (y *study) resolve(t *testing.T) {
	t.Helper()
	list := y.coordinator.all(y.path("/quarantine"))
	at := func(r report) string { return y.path("/reports/" + r.PatientID + "/" + r.ReportID + "/resolutions") }
	y.coordinator.post(at(list[0]), http.StatusOK, object{"version": 1, "resolution": "accept", "reason": "the patient called", "expect": 0})
	y.investigator.post(at(list[1]), http.StatusOK, object{"version": 1, "resolution": "void", "reason": "sent in error", "expect": 0})
	// Two people at once: the second decision does not replace the first unseen.
	y.investigator.post(at(list[0]), http.StatusConflict, object{"version": 1, "resolution": "void", "reason": "no", "expect": 0})
	y.investigator.post(at(list[0]), http.StatusBadRequest, object{"version": 1, "resolution": "maybe", "reason": "", "expect": 1})
	y.investigator.post(at(list[2]), http.StatusNotFound, object{"version": 7, "resolution": "void", "reason": "there is none", "expect": 0})

	after := y.coordinator.all(y.path("/quarantine"))
	if after[0].Resolution != "accept" || after[0].ResolvedBy != "cora" || after[0].ResolutionReason != "the patient called" || after[0].ResolutionCount != 1 {
		t.Fatalf("accepted: %+v", after[0])
	}
	if after[1].Resolution != "void" || after[1].ResolvedBy != "ines" || after[1].Disposition != "quarantined" {
		t.Fatalf("a resolution does not change the disposition: %+v", after[1])
	}
	var waiting struct{ Reports []report }
	y.coordinator.get(y.path("/quarantine?unresolved=true"), http.StatusOK, &waiting)
	if len(waiting.Reports) != len(after)-2 {
		t.Fatalf("%d of %d still wait", len(waiting.Reports), len(after))
	}
	y.balance()
}

// audited looks for every staff action in the audit: who, what, why, outcome.
func (y *study) audited(t *testing.T) {
	t.Helper()
	type entry struct {
		Kind, PatientID, Reason, Outcome, Summary string
		Actor                                     struct{ Type, ID string }
	}
	var page struct {
		Audit []entry
		Next  string
	}
	y.investigator.get(y.path("/audit?limit=1000"), http.StatusOK, &page)
	if page.Next != "" {
		t.Fatal("more than a page")
	}
	for _, want := range []entry{
		{Kind: "trial.created", Actor: struct{ Type, ID string }{"staff", "ada"}, Outcome: "applied"},
		{Kind: "site.created", Actor: struct{ Type, ID string }{"staff", "ada"}, Outcome: "applied"},
		{Kind: "instrument.published", Actor: struct{ Type, ID string }{"staff", "dana"}, Outcome: "applied"},
		{Kind: "participant.enrolled", PatientID: "P-1", Actor: struct{ Type, ID string }{"staff", "cora"}, Outcome: "applied"},
		{Kind: "participant.tokens-revoked", PatientID: "P-1", Actor: struct{ Type, ID string }{"staff", "cora"}, Reason: "phone lost", Outcome: "applied"},
		{Kind: "participant.withdrawn", PatientID: "P-1", Actor: struct{ Type, ID string }{"staff", "cora"}, Reason: "moved away", Outcome: "applied"},
		{Kind: "participant.withdrawn", PatientID: "P-1", Actor: struct{ Type, ID string }{"staff", "cora"}, Reason: "moved away", Outcome: "rejected"},
		{Kind: "trial.status-changed", Actor: struct{ Type, ID string }{"staff", "ada"}, Reason: "board's advice", Outcome: "applied"},
		{Kind: "report", PatientID: "P-2", Actor: struct{ Type, ID string }{"participant", "P-2"}, Outcome: "recorded"},
		{Kind: "report", PatientID: "P-2", Actor: struct{ Type, ID string }{"participant", "P-2"}, Outcome: "quarantined"},
	} {
		if !slices.ContainsFunc(page.Audit, func(e entry) bool {
			return strings.HasPrefix(e.Kind, want.Kind) && e.Actor == want.Actor && e.Reason == want.Reason &&
				strings.HasPrefix(e.Outcome, want.Outcome) && (want.PatientID == "" || e.PatientID == want.PatientID)
		}) {
			t.Errorf("the audit does not show %+v", want)
		}
	}
	if t.Failed() {
		t.Logf("%+v", page.Audit)
	}
}

// exported compares the CSV export with the list, row by row.
func (y *study) exported(t *testing.T) {
	t.Helper()
	code, body := y.s.Get(y.path("/reports.csv"), y.coordinator.token)
	if code != http.StatusOK {
		t.Fatalf("export: %d %s", code, body)
	}
	rows, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	var got, want [][]string
	for _, row := range rows[1:] {
		var line []string
		for _, name := range []string{"patientId", "reportId", "version", "disposition", "reasons", "qolScore", "comments", "resolution", "resolvedBy"} {
			line = append(line, row[column[name]])
		}
		got = append(got, line)
	}
	for _, r := range y.coordinator.all(y.path("/reports")) {
		score, comments := "", ""
		if r.Score != nil {
			score = strconv.Itoa(*r.Score)
		}
		if r.Comments != nil {
			comments = *r.Comments
		}
		want = append(want, []string{r.PatientID, r.ReportID, strconv.Itoa(r.Version), r.Disposition, strings.Join(r.Reasons, " "), score, comments, r.Resolution, r.ResolvedBy})
	}
	order := func(a, b []string) int { return slices.Compare(a, b) }
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Fatalf("export and list differ:\n%q\n%q", got, want)
	}
}

// The same report again, other content under the same id, and two participants
// with the same id.
func TestDuplicatesConflictsAndSharedIDs(t *testing.T) {
	inBothShapes(t, duplicatesConflictsAndSharedIDs)
}

func duplicatesConflictsAndSharedIDs(t *testing.T, g ground) {
	y := newStudy(t, g)
	p1, p2 := y.enroll("P-1"), y.enroll("P-2")
	body := reportBody("P-1", "X1", 4, object{"reportId": uuid(1), "comments": "first"})
	first := p1.post("/v1/patient/report", http.StatusOK, body)
	y.recorded++

	// A retry that the gateway remembers gets the receipt it had; nothing is appended.
	if again := p1.post("/v1/patient/report", http.StatusOK, body); again.text("receipt") != first.text("receipt") {
		t.Fatal("a retry got another receipt")
	}
	y.balance()

	// A gateway that has forgotten takes it again; the tables count it once.
	y.s.Kill()
	y.s = g.again()
	for _, u := range []*user{&p1, &p2, &y.admin, &y.coordinator, &y.investigator, &y.manager} {
		u.s = y.s
	}
	second := p1.post("/v1/patient/report", http.StatusOK, body)
	if second.text("receipt") == first.text("receipt") || second.text("receipt") == "" {
		t.Fatal("a fact of its own has a receipt of its own")
	}
	y.duplicates++
	y.balance()

	// Other content under the id: both are kept, and the second waits for the site.
	other := reportBody("P-1", "X1", 9, object{"reportId": uuid(1), "timestamp": body["timestamp"], "comments": "second"})
	p1.post("/v1/patient/report", http.StatusOK, other)
	y.conflicts++
	y.balance()
	conflicts := y.coordinator.all(y.path("/conflicts"))
	if len(conflicts) != 1 || conflicts[0].ReportID != uuid(1) || conflicts[0].Version != 2 || *conflicts[0].Comments != "second" {
		t.Fatalf("conflicts: %+v", conflicts)
	}
	var own struct {
		Versions []report
	}
	p1.get("/v1/patient/reports/"+uuid(1), http.StatusOK, &own)
	if len(own.Versions) != 2 || *own.Versions[0].Score != 4 || *own.Versions[1].Score != 9 {
		t.Fatalf("both versions: %+v", own)
	}
	y.coordinator.post(y.path("/reports/P-1/"+uuid(1)+"/resolutions"), http.StatusOK, object{"version": 2, "resolution": "accept", "reason": "corrected on the phone", "expect": 0})

	// Another participant with the same id: nothing to do with the first.
	theirs := p2.post("/v1/patient/report", http.StatusOK, reportBody("P-2", "X1", 4, object{"reportId": uuid(1), "timestamp": body["timestamp"], "comments": "first"}))
	y.recorded++
	y.balance()
	var mine, yours struct{ Receipt string }
	p1.get("/v1/patient/reports/"+uuid(1)+"/receipt", http.StatusOK, &mine)
	p2.get("/v1/patient/reports/"+uuid(1)+"/receipt", http.StatusOK, &yours)
	if mine.Receipt != first.text("receipt") || yours.Receipt != theirs.text("receipt") || mine.Receipt == yours.Receipt {
		t.Fatal("each participant has the receipt of their own report")
	}
	p2.get("/v1/patient/reports/"+uuid(2)+"/receipt", http.StatusNotFound, nil)

	// Each receipt is for the bytes that were sent, and for no others.
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ring := keysAt(t, g.flags())
	keys, root := write("keys.json", ring.json), ring.root
	exact := `{"patientId":"P-2","trialId":"X1","timestamp":"2026-11-24T08:00:00+08:00","qolScore":3 }`
	got := p2.postText("/v1/patient/report", http.StatusOK, exact)
	y.recorded++
	y.balance()
	receipt := write("receipt.txt", got.text("receipt"))
	out := must(t, "verify", "receipt", receipt, "--keys", keys, "--root", root, "--report", write("report.json", exact))
	if !strings.Contains(out, "these are the bytes that were received") {
		t.Fatalf("the bytes were not compared:\n%s", out)
	}
	_, errs, code := tidegate(t, "verify", "receipt", receipt, "--keys", keys, "--root", root, "--report", write("other.json", strings.Replace(exact, "3 ", "4 ", 1)))
	if code != 1 || !strings.Contains(errs, "not given for these bytes") {
		t.Fatalf("other bytes: exit %d\n%s", code, errs)
	}
	_, errs, code = tidegate(t, "verify", "receipt", receipt, "--keys", keys, "--root", strings.Repeat("0", 64))
	if code != 1 || strings.Count(errs, "\n") != 1 {
		t.Fatalf("another root: exit %d\n%s", code, errs)
	}
	y.s.Stop()
	cleanAt(t, g.flags())
}
