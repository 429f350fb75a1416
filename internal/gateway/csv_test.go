package gateway_test

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
)

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
