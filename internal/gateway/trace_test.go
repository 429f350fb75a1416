package gateway_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/telemetry"
	"github.com/tidegate/tidegate/internal/telemetry/telemetrytest"
)

// traced is a world that sends its traces to a collector; flush waits until all
// are there.
func traced(t *testing.T, s setup) (w *world, c *telemetrytest.Collector, flush func()) {
	t.Helper()
	c = telemetrytest.New(t)
	stop, err := telemetry.Setup(t.Context(), telemetry.Config{Endpoint: c.URL, Ratio: 1, Service: "tidegate"})
	must(t, err)
	s.tracing = telemetry.Provider()
	flush = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		must(t, stop(ctx))
	})
	t.Cleanup(flush)
	return newWorld(t, s), c, flush
}

// arrive sends what has ended until there is enough.
func arrive(t *testing.T, enough func() bool) {
	t.Helper()
	flusher, ok := telemetry.Provider().(interface{ ForceFlush(context.Context) error })
	if !ok {
		t.Fatal("the provider cannot be flushed")
	}
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		must(t, flusher.ForceFlush(t.Context()))
		if enough() {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("the spans do not arrive")
		}
	}
}

const (
	phoneTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	phoneSpan  = "00f067aa0ba902b7"
)

var fromPhone = []header{{"Traceparent", "00-" + phoneTrace + "-" + phoneSpan + "-01"}, {"Tracestate", "vendor=canary-state"}}

// TestOneTraceFromThePhoneToTheTables: the request lies in the phone's trace,
// its wait in intake under it; commit and projection lie in the frame's trace,
// and the wait links to that.
func TestOneTraceFromThePhoneToTheTables(t *testing.T) {
	w, c, flush := traced(t, setup{})
	before := w.end()
	a := w.send("POST", submitPath, w.participant("T001", "P-1", auth.ScopeSubmit), []byte(report("T001", "P-1", epro.NewUUID(), 7)), fromPhone...)
	if a.status != 200 {
		t.Fatal(a)
	}
	w.settle()
	records, err := w.journal.Read(t.Context(), 0, before, 1)
	must(t, err)
	frame, err := journal.DecodeFrame(records[0].Bytes)
	must(t, err)
	id, place := journal.TraceOf(frame.Header.Run, frame.Header.N)
	frameTrace, framePlace := hex.EncodeToString(id[:]), hex.EncodeToString(place[:])
	// The projector tells of a frame right after its transaction.
	arrive(t, func() bool {
		return slices.ContainsFunc(c.Spans("projector.apply"), func(s telemetrytest.Span) bool { return s.Trace == frameTrace })
	})
	flush()

	request := only(t, c.Spans("POST "+submitPath))
	wait := underneath(t, c.Spans("intake.wait"), phoneTrace, request.ID)
	if request.Trace != phoneTrace || request.Parent != phoneSpan || request.Kind != 2 || request.Attributes["http.route"] != submitPath ||
		request.Attributes["http.response.status_code"] != "int_value:200" || request.State != "" {
		t.Errorf("the request is %+v", request)
	}
	if len(wait.Links) != 1 || wait.Links[0] != frameTrace+"/"+framePlace || wait.Status != 0 {
		t.Errorf("the wait is %+v, the frame's trace %s/%s", wait, frameTrace, framePlace)
	}
	commit := underneath(t, c.Spans("intake.commit"), frameTrace, framePlace)
	apply := underneath(t, c.Spans("projector.apply"), frameTrace, framePlace)
	if commit.Attributes["tidegate.facts"] != "int_value:1" || commit.Attributes["tidegate.durability"] != "demo" || commit.EndNanos < commit.StartNanos {
		t.Errorf("the commit is %+v", commit)
	}
	if apply.Attributes["tidegate.position"] != fmt.Sprintf("int_value:%d", records[0].Position) || apply.EndNanos < commit.EndNanos {
		t.Errorf("the projection is %+v", apply)
	}
}

func only(t *testing.T, list []telemetrytest.Span) telemetrytest.Span {
	t.Helper()
	if len(list) != 1 {
		t.Fatalf("%d spans, want one: %+v", len(list), list)
	}
	return list[0]
}

// underneath is the one span of a list in a trace, below a parent.
func underneath(t *testing.T, list []telemetrytest.Span, id, parent string) telemetrytest.Span {
	t.Helper()
	var found []telemetrytest.Span
	for _, s := range list {
		if s.Trace == id && s.Parent == parent {
			found = append(found, s)
		}
	}
	return only(t, found)
}

// TestNoTraceNamesAnybody sends every kind of request with canaries wherever a
// caller can put something, and looks at every byte a collector gets.
func TestNoTraceNamesAnybody(t *testing.T) {
	w, c, flush := traced(t, setup{})
	id := epro.NewUUID()
	token := w.participant("T001", "P-1", auth.ScopeSubmit|auth.ScopeRead)
	staff := w.staff("anna", epro.StaffRole{Role: "coordinator", TrialID: "T001"})
	extra := append([]header{{"User-Agent", "canary-agent"}, {"X-Forwarded-For", "203.0.113.7"}, {"Baggage", "canary=baggage"}}, fromPhone...)
	body := strings.Replace(report("T001", "P-1", id, 7), "fine", "canary-comment", 1)
	for _, r := range []struct{ method, path, token, body string }{
		{"POST", submitPath, token, body},
		{"POST", submitPath, token, body[:len(body)-3]},
		{"POST", submitPath, token, report("T001", "P-3", id, 7)},
		{"POST", submitPath, "tgp1_canary-token", body},
		{"GET", "/v1/patient/reports/" + id.String(), token, ""},
		{"GET", "/v1/patient/reports/canary-path", token, ""},
		{"GET", "/v1/trials/T001/participants/P-1", staff, ""},
		{"GET", "/v1/trials/T001/reports?patientId=P-1&x=canary-query", staff, ""},
		{"POST", "/v1/trials/T001/participants", staff, `{"siteId":"S01","patientId":"canary-patient"}`},
		{"GET", "/canary-nowhere", "", ""},
		{"CANARYMETHOD", submitPath, token, body},
	} {
		var sent []byte
		if r.body != "" {
			sent = []byte(r.body)
		}
		w.send(r.method, r.path, r.token, sent, extra...)
	}
	bulk := append([]header{ndjson}, extra...)
	w.send("POST", bulkPath, token, []byte(body+"\n"+body[:20]), bulk...)
	w.settle()
	arrive(t, func() bool { return len(c.Spans("projector.apply")) == len(c.Spans("intake.commit")) })
	flush()
	raw := string(c.Raw())
	if len(c.Spans("")) < 30 {
		t.Fatalf("%d spans: this test sees nothing", len(c.Spans("")))
	}
	for _, canary := range []string{"canary", "CANARY", "P-1", "P-3", "T001", "S01", "anna", "phone-1", id.String(), token, staff, "203.0.113.7", "127.0.0.1", w.addr} {
		if strings.Contains(raw, canary) {
			t.Errorf("%q is in what the collector got", canary)
		}
	}
	if !strings.Contains(raw, "/v1/trials/:trialId/participants/:patientId") {
		t.Error("not even the routes are there")
	}
	for _, s := range c.Spans("") {
		if s.Service != "tidegate" || s.Scope == "" {
			t.Errorf("%+v", s)
		}
	}
}

func TestTracesOfManyAndOfRefusals(t *testing.T) {
	w, c, flush := traced(t, setup{intake: func(c *intake.Config) { c.MaxFacts = 8 }})
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	var lines []string
	for range 30 {
		lines = append(lines, report("T001", "P-1", epro.NewUUID(), 1))
	}
	if a := w.post(bulkPath, token, strings.Join(lines, "\n"), ndjson); a.status != 200 {
		t.Fatal(a)
	}
	must(t, w.intake.Close(t.Context()))
	refused := w.send("POST", submitPath, token, []byte(lines[0]), header{"Traceparent", "00-" + strings.Repeat("ab", 16) + "-" + phoneSpan + "-01"})
	w.isProblem(t, refused, 503, "stopping")
	flush()
	many := only(t, c.Spans("POST "+bulkPath))
	wait := underneath(t, c.Spans("intake.wait"), many.Trace, many.ID)
	if wait.Attributes["tidegate.facts"] != "int_value:30" || len(wait.Links) < 2 || len(wait.Links) > 8 {
		t.Errorf("%+v", wait)
	}
	one := only(t, c.Spans("POST "+submitPath))
	if one.Status != 2 || one.Trace != strings.Repeat("ab", 16) {
		t.Errorf("%+v", one)
	}
	if wait := underneath(t, c.Spans("intake.wait"), one.Trace, one.ID); wait.Status != 2 || wait.StatusText != "stopped" || len(wait.Links) != 0 {
		t.Errorf("%+v", wait)
	}
}

// TestASilentCollectorIsNotWaitedFor: reports are answered, and the listener
// stops, while the collector says nothing.
func TestASilentCollectorIsNotWaitedFor(t *testing.T) {
	w, c, _ := traced(t, setup{})
	c.Hold()
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	for range 100 {
		if a := w.post(submitPath, token, report("T001", "P-1", epro.NewUUID(), 1)); a.status != 200 {
			t.Fatal(a)
		}
	}
	w.settle()
	if n := len(c.Spans("")); n != 0 {
		t.Fatalf("%d spans: the collector is not silent", n)
	}
	c.Release()
}

// TestBrokenTraceparents are as if there were none.
func TestBrokenTraceparents(t *testing.T) {
	w, c, flush := traced(t, setup{noSeed: true})
	bad := []string{"", "00", "00-" + phoneTrace + "-" + phoneSpan, "ff-" + phoneTrace + "-" + phoneSpan + "-01", "00-" + strings.Repeat("0", 32) + "-" + phoneSpan + "-01", strings.Repeat("x", 5000)}
	for _, v := range bad {
		if a := w.send("GET", "/v1/keys", "", nil, header{"Traceparent", v}); a.status != 200 {
			t.Error(a)
		}
	}
	flush()
	spans := c.Spans("GET /v1/keys")
	if len(spans) != len(bad) {
		t.Errorf("%d spans", len(spans))
	}
	for _, s := range spans {
		if s.Parent != "" || s.Trace == phoneTrace {
			t.Errorf("%+v", s)
		}
	}
}
