package gateway_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/receipt"
)

const bulkPath = "/v1/patient/reports"

var ndjson = header{"Content-Type", "application/x-ndjson"}

// bulkLine is a line of the answer.
type bulkLine struct {
	Line       int
	Status     string
	Accepted   any
	ReportID   epro.UUID
	Frame      int
	Index      int
	Salt       string
	Envelope   string
	ReceivedAt time.Time
	Fields     []epro.FieldProblem
	RetryAfter int
	Proof      *receipt.Batch
}

func parseBulk(t *testing.T, body []byte) (lines []bulkLine, receipts map[int]*receipt.Receipt) {
	t.Helper()
	batches := map[int]*receipt.Batch{}
	parts := map[int][]receipt.Line{}
	numbers := map[int][]int{}
	for text := range bytes.Lines(body) {
		var l bulkLine
		must(t, json.Unmarshal(text, &l))
		if l.Proof != nil {
			batches[l.Frame] = l.Proof
			continue
		}
		lines = append(lines, l)
		if l.Line != len(lines) {
			t.Fatalf("line %d is answered in place %d", l.Line, len(lines))
		}
		if l.Status != "accepted" {
			continue
		}
		env, err := base64.RawURLEncoding.DecodeString(l.Envelope)
		must(t, err)
		salt, err := base64.RawURLEncoding.DecodeString(l.Salt)
		must(t, err)
		if batches[l.Frame] == nil {
			t.Fatalf("line %d: its frame comes later", l.Line)
		}
		parts[l.Frame] = append(parts[l.Frame], receipt.Line{Envelope: env, Salt: epro.Salt(salt)})
		numbers[l.Frame] = append(numbers[l.Frame], l.Line)
	}
	receipts = map[int]*receipt.Receipt{}
	for frame, b := range batches {
		list, err := b.Receipts(parts[frame])
		must(t, err)
		for i, r := range list {
			receipts[numbers[frame][i]] = r
		}
	}
	return lines, receipts
}

func TestManyReportsAtOnce(t *testing.T) {
	w := newWorld(t, setup{})
	token := w.relay("T001")
	repeated := report("T001", "P-1", epro.NewUUID(), 5)
	if a := w.post(submitPath, w.participant("T001", "P-1", auth.ScopeSubmit), repeated); a.status != 200 {
		t.Fatal(a)
	}
	var bodies []string
	for i := range 200 {
		switch i {
		case 7:
			bodies = append(bodies, `{"patientId":"P-1","trialId":"T001","timestamp":"2026-03-01T08:30:00Z","qolScore":11,"x":1}`)
		case 8:
			bodies = append(bodies, `not JSON`)
		case 9:
			bodies = append(bodies, report("T002", "P-1", epro.NewUUID(), 5))
		case 10:
			bodies = append(bodies, repeated)
		case 11:
			bodies = append(bodies, "")
		case 12:
			bodies = append(bodies, strings.Repeat(" ", 70_000))
		default:
			bodies = append(bodies, report("T001", fmt.Sprintf("P-%d", i), epro.NewUUID(), i%11))
		}
	}
	a := w.post(bulkPath, token, strings.Join(bodies, "\n")+"\n", ndjson)
	if a.status != 200 || a.header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatal(a)
	}
	lines, receipts := parseBulk(t, a.body)
	if len(lines) != len(bodies) {
		t.Fatalf("%d lines for %d", len(lines), len(bodies))
	}
	keys := w.keySet()
	for i, l := range lines {
		wantFields := map[int]string{7: "qolScore x", 8: "body", 9: "trialId", 11: "body", 12: "body"}
		if want, bad := wantFields[i]; bad {
			var names []string
			for _, f := range l.Fields {
				names = append(names, f.Field)
			}
			if l.Status != "rejected" || l.Accepted != false || strings.Join(names, " ") != want {
				t.Errorf("line %d: %+v", i+1, l)
			}
			continue
		}
		r := receipts[i+1]
		if l.Status != "accepted" || r == nil {
			t.Fatalf("line %d: %+v", i+1, l)
		}
		must(t, r.Check(keys))
		if !r.MatchesBody([]byte(bodies[i])) || int(r.Index) != l.Index {
			t.Errorf("line %d: the receipt is another's", i+1)
		}
		env, err := r.Fact()
		must(t, err)
		if env.ID != l.ReportID || !env.ReceivedAt.Equal(l.ReceivedAt) {
			t.Errorf("line %d: %+v", i+1, l)
		}
	}
	w.settle()
	m := w.get("/v1/trials/T001/books", w.staff("dm", epro.StaffRole{Role: "data-manager"})).json(t)
	if m["accepted"] != 195.0 || m["duplicates"] != 0.0 {
		t.Errorf("books %v", m)
	}
}

func TestAParticipantsQueueIsBoundedByItsBucket(t *testing.T) {
	w := newWorld(t, setup{intake: func(c *intake.Config) { c.Burst = 5 }})
	var bodies []string
	for i := range 8 {
		bodies = append(bodies, report("T001", "P-1", epro.NewUUID(), i))
	}
	a := w.post(bulkPath, w.participant("T001", "P-1", auth.ScopeSubmit), strings.Join(bodies, "\n"), ndjson)
	lines, receipts := parseBulk(t, a.body)
	for i, l := range lines {
		switch {
		case i < 5 && receipts[i+1] == nil:
			t.Errorf("line %d: %+v", i+1, l)
		case i >= 5 && (l.Status != "refused" || l.Accepted != false || l.RetryAfter < 1):
			t.Errorf("line %d: %+v", i+1, l)
		}
	}
}

func TestBoundsOfManyReports(t *testing.T) {
	w := newWorld(t, setup{config: func(c *gateway.Config) { c.MaxBulks = 1; c.BulkTimeout = 2 * time.Second }})
	token := w.relay("T001")
	end := w.end()
	w.isProblem(t, w.post(bulkPath, token, "{}"), 415, "content-type")
	w.isProblem(t, w.post(bulkPath, token, "", ndjson), 400, "invalid")
	w.isProblem(t, w.post(bulkPath, token, strings.Repeat("\n", gateway.MaxBulkLines+1), ndjson), 413, "too-large")
	w.isProblem(t, w.post(bulkPath, token, strings.Repeat(" ", gateway.MaxBulkBytes+1), ndjson), 413, "too-large")
	if w.end() != end {
		t.Error("something was stored")
	}
	// A second one while the first still sends.
	first := w.dial(strings.Replace(strings.Replace(head(token, "Content-Length: 100\r\n\r\n{"), submitPath, bulkPath, 1), "application/json", "application/x-ndjson", 1))
	time.Sleep(50 * time.Millisecond)
	a := w.post(bulkPath, token, report("T001", "P-1", epro.NewUUID(), 1), ndjson)
	w.isProblem(t, a, 503, "refused-now")
	_ = first.Close()
	for range 100 {
		if a = w.post(bulkPath, token, report("T001", "P-1", epro.NewUUID(), 1), ndjson); a.status == 200 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the place did not come back: %s", a)
}

func TestTheOutcomeOfALineMayBeUnknown(t *testing.T) {
	w := newWorld(t, setup{config: func(c *gateway.Config) { c.BulkTimeout = 200 * time.Millisecond }})
	release := w.mem.Hold()
	defer release()
	a := w.post(bulkPath, w.relay("T001"), report("T001", "P-1", epro.NewUUID(), 1)+"\n{}", ndjson)
	lines, _ := parseBulk(t, a.body)
	if len(lines) != 2 || lines[0].Status != "unknown" || lines[0].Accepted != "unknown" || lines[0].RetryAfter < 1 || lines[1].Status != "rejected" {
		t.Errorf("%+v", lines)
	}
}

// TestLinesThatAreRememberedInAnotherOrder: the same lines again, in another
// order, lie in one frame but not side by side.
func TestLinesThatAreRememberedInAnotherOrder(t *testing.T) {
	w := newWorld(t, setup{})
	var bodies []string
	for i := range 4 {
		bodies = append(bodies, report("T001", "P-1", epro.NewUUID(), i))
	}
	token := w.relay("T001")
	first := w.post(bulkPath, token, strings.Join(bodies, "\n"), ndjson)
	_, original := parseBulk(t, first.body)
	end := w.end()
	again := w.post(bulkPath, token, strings.Join([]string{bodies[3], bodies[0], bodies[1], bodies[1], bodies[2]}, "\n"), ndjson)
	lines, receipts := parseBulk(t, again.body)
	if len(lines) != 5 || len(receipts) != 5 || w.end() != end {
		t.Fatalf("%d lines, %d receipts, journal at %d after %d", len(lines), len(receipts), w.end(), end)
	}
	for i, from := range []int{4, 1, 2, 2, 3} {
		if receipts[i+1].String() != original[from].String() {
			t.Errorf("line %d: not the original receipt", i+1)
		}
	}
}
