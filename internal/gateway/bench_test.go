package gateway_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/intake"
)

// instant answers every fact with the outcome of an earlier one, so that what
// is measured is the edge alone.
type instant struct {
	gateway.Intake
	committed intake.Committed
}

func (i *instant) Submit(context.Context, *epro.Fact) (intake.Committed, error) {
	return i.committed, nil
}

// discard is an http.ResponseWriter that allocates nothing.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// rewound is a request body that can be rewound.
type rewound struct{ *bytes.Reader }

func (rewound) Close() error { return nil }

// hex8 is n in eight hexadecimal digits, without allocating.
func hex8(n int) []byte {
	for i := range digits8 {
		digits8[i] = "0123456789abcdef"[n>>(28-4*i)&15]
	}
	return digits8[:]
}

var digits8 [8]byte

// edge is the handler with an intake that answers at once, and a request.
func edge(t testing.TB, whole bool) (h http.Handler, next func() (http.ResponseWriter, *http.Request)) {
	var fake *instant
	w := newWorld(t, setup{intake: func(c *intake.Config) { c.Burst = 0 }, options: func(o *gateway.Options) {
		if !whole {
			fake = &instant{Intake: o.Intake}
			o.Intake = fake
		}
	}})
	if !whole {
		fact := epro.Fact{Envelope: epro.Envelope{
			Kind: epro.KindReport, ID: epro.NewUUID(), Trial: "T001", Subject: "P-1", Actor: epro.Actor{Type: epro.ActorParticipant, ID: "P-1", Device: "phone-1"},
		}, Body: []byte("{}")}
		var err error
		fake.committed, err = w.intake.Submit(t.Context(), &fact)
		must(t, err)
	}
	text := []byte(report("T001", "P-1", epro.NewUUID(), 7))
	r := httptest.NewRequest("POST", submitPath, nil)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+w.participant("T001", "P-1", auth.ScopeSubmit))
	r.ContentLength = int64(len(text))
	reader := rewound{bytes.NewReader(text)}
	digits := bytes.Index(text, []byte(`"reportId":"`)) + len(`"reportId":"`)
	n := 0
	r.Body = reader
	out := &discard{h: http.Header{}}
	return w.gateway.Public(), func() (http.ResponseWriter, *http.Request) {
		_, _ = reader.Seek(0, io.SeekStart)
		n++ // another report each time
		copy(text[digits:], hex8(n))
		clear(out.h)
		return out, r
	}
}

// maxAllocations is the bar for the edge: from the router to the written
// answer, without intake.
const maxAllocations = 8

func TestTheEdgeAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget at random")
	}
	h, next := edge(t, false)
	n := testing.AllocsPerRun(2000, func() { h.ServeHTTP(next()) })
	t.Logf("%v allocations", n)
	if n > maxAllocations {
		t.Errorf("%v allocations a report, at most %d", n, maxAllocations)
	}
}

// BenchmarkReportEdge is a report from the router to the written answer, with
// an intake that answers at once.
func BenchmarkReportEdge(b *testing.B) {
	h, next := edge(b, false)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(next())
	}
}

// BenchmarkReportWhole is the same with the real intake on a journal in memory:
// one caller, so one frame a report.
func BenchmarkReportWhole(b *testing.B) {
	h, next := edge(b, true)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(next())
	}
}
