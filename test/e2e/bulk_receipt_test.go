package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Every line of an answer to many reports has its receipt, and the tool that
// checks receipts finds it.
func TestReceiptOfOneLine(t *testing.T) { inBothShapes(t, receiptOfOneLine) }

func receiptOfOneLine(t *testing.T, g ground) {
	s := g.start(20)
	token := s.Token("P-000001", "T001")
	var lines []string
	for i := range 6 {
		b, err := json.Marshal(reportBody("P-000001", "T001", i, object{"reportId": uuid(i)}))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(b))
	}
	send := func(lines ...string) string {
		t.Helper()
		code, _, answer := s.Do(http.MethodPost, "/v1/patient/reports", token, "application/x-ndjson", strings.Join(lines, "\n")+"\n")
		if code != http.StatusOK {
			t.Fatalf("%d %s", code, answer)
		}
		return answer
	}
	send(lines[4]) // in a frame of its own, so that the answer below has several
	request := append([]string{lines[0], lines[1], "no report"}, lines[2:]...)
	answer := send(request...)
	if n := strings.Count(answer, `"proof":`); n < 2 {
		t.Fatalf("%d frames in one answer, this proves little:\n%s", n, answer)
	}

	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ring := keysAt(t, g.flags())
	keys := []string{"--keys", write("keys.json", ring.json), "--root", ring.root}
	file, sent := write("answer.ndjson", answer), write("request.ndjson", strings.Join(request, "\n")+"\n")
	check := func(args ...string) []string {
		return append(append([]string{"verify", "receipt"}, args...), keys...)
	}
	for i, line := range request {
		if line == "no report" {
			refusal{t: t, code: 1, says: `report 3 has no receipt: its answer was "rejected"`}.of(check(file, "--line", "3")...)
			continue
		}
		n := strconv.Itoa(i + 1)
		var o struct {
			Valid, ReportMatches bool
			ReportID             string
		}
		var body struct{ ReportID string }
		if err := json.Unmarshal([]byte(must(t, check(file, "--line", n, "--report", sent, "--json")...)), &o); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(line), &body); err != nil {
			t.Fatal(err)
		}
		if !o.Valid || !o.ReportMatches || o.ReportID != body.ReportID {
			t.Errorf("line %s: %+v, want report %s", n, o, body.ReportID)
		}
		must(t, check(file, "--line", n, "--report", write("one.json", line))...)
	}
	if out := must(t, check(file, "--line", "1")...); !strings.Contains(out, "valid: a certified key signed") || !strings.Contains(out, "P-000001") {
		t.Error(out)
	}
	refusal{t: t, code: 1, says: "--line N"}.of(check(file)...)
	refusal{t: t, code: 1, says: "no line for report 99"}.of(check(file, "--line", "99")...)
	refusal{t: t, code: 2, says: "from 1 on"}.of(check(file, "--line=-1")...)
	refusal{t: t, code: 1, says: "was not given for these bytes"}.of(check(file, "--line", "1", "--report", write("other.json", lines[1]))...)
	// A neighbour that is missing or changed makes the proof fail.
	all := strings.SplitAfter(answer, "\n")
	refusal{t: t, code: 1, says: "not in the signed frame"}.of(check(write("cut", all[0]+strings.Join(all[2:], "")), "--line", "2")...)
	single := (user{t, s, token}).post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", 9, nil)).text("receipt")
	refusal{t: t, code: 1, says: "leave it out"}.of(check(write("single", single), "--line", "1")...)
}
