package gateway_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
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

// body is a request body that can be rewound.
type rewound struct{ *strings.Reader }

func (rewound) Close() error { return nil }

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
	text := report("T001", "P-1", epro.NewUUID(), 7)
	r := httptest.NewRequest("POST", submitPath, nil)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+w.participant("T001", "P-1", auth.ScopeSubmit))
	r.ContentLength = int64(len(text))
	reader := rewound{strings.NewReader(text)}
	r.Body = reader
	out := &discard{h: http.Header{}}
	return w.gateway.Public(), func() (http.ResponseWriter, *http.Request) {
		_, _ = reader.Seek(0, io.SeekStart)
		clear(out.h)
		return out, r
	}
}

// maxAllocations is the bar for the edge: from the router to the written
// answer, without intake.
const maxAllocations = 12

func TestTheEdgeAllocatesLittle(t *testing.T) {
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
