package load_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

// sameBytes checks that every phone sent one body, whatever its tries, and
// that no two phones sent the same.
func (r *rig) sameBytes() (tries int) {
	r.t.Helper()
	bodies := map[[32]byte]bool{}
	for who, all := range r.tries {
		tries += len(all)
		for _, s := range all {
			if s.body != all[0].body {
				r.t.Errorf("a phone sent other bytes at a later try: token …%s", who[len(who)-6:])
			}
		}
		if bodies[all[0].body] {
			r.t.Error("two phones sent the same bytes")
		}
		bodies[all[0].body] = true
	}
	return tries
}

func TestEveryPhoneIsAcknowledgedOnce(t *testing.T) {
	r := newRig(t, nil)
	var told atomic.Int64
	opts := r.options(300)
	opts.Over, opts.Progress = 1200*time.Millisecond, func(p load.Progress) { told.Add(1); _ = p.String() }
	s := r.run(opts)
	if !s.Clean() || s.Acknowledged != 300 || s.Tries != 300 || s.Retries != 0 || s.Latency.Count != 300 {
		t.Errorf("%s", s.String())
	}
	if n := r.readAcks(); n != 300 {
		t.Errorf("%d lines of acknowledgements", n)
	}
	if len(r.tries) != 300 || r.sameBytes() != 300 {
		t.Errorf("%d phones with a token of their own", len(r.tries))
	}
	if told.Load() == 0 {
		t.Error("no progress was told")
	}
}

// A phone that is refused waits as long as it was asked to, and then tries with
// the same id and bytes.
func TestRefusedPhonesHonourRetryAfter(t *testing.T) {
	r := newRig(t, func(try int, w http.ResponseWriter, _ *http.Request) bool {
		if try > 1 {
			return false
		}
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"accepted":false}`)
		return true
	})
	s := r.run(r.options(50))
	if !s.Clean() || s.Retries != 50 || s.Answers["503 refused"] != 50 || s.RefusedIn.Count != 50 {
		t.Errorf("%s", s.String())
	}
	if r.sameBytes() != 100 || r.readAcks() != 50 {
		t.Error("not two tries and one acknowledgement a phone")
	}
	for _, all := range r.tries {
		if wait := all[1].at.Sub(all[0].at); wait < time.Second || wait > 2*time.Second {
			t.Fatalf("tried again after %v", wait)
		}
	}
	// The wait is the patient's: it counts from the intended moment.
	if s.Latency.P50 < 1000 || s.FirstTry.P50 > 500 {
		t.Errorf("latency %+v, first try %+v", s.Latency, s.FirstTry)
	}
}

// Whatever leaves the outcome open is repeated: a hang, a reset before and after
// the report was taken, a 500, an answer that is no receipt or another's,
// or one for other bytes.
func TestUnknownOutcomesAreRepeated(t *testing.T) {
	var other atomic.Pointer[string] // some other phone's good answer
	r := &rig{}
	spoil := func(try int, w http.ResponseWriter, req *http.Request) bool {
		switch try {
		case 1: // hangs until the phone gives up
			<-req.Context().Done()
		case 2: // taken, but the answer is lost
			r.real.ServeHTTP(httptest.NewRecorder(), req)
			reset(w)
		case 3:
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"accepted":"unknown"}`)
		case 4:
			_, _ = io.WriteString(w, `{"status":"success"}`)
		case 5: // a good receipt of another report
			rec := httptest.NewRecorder()
			r.real.ServeHTTP(rec, req)
			mine := rec.Body.String()
			wrong := other.Swap(&mine)
			if wrong == nil {
				wrong = new(string)
			}
			_, _ = io.WriteString(w, *wrong)
		case 6: // cut in the middle
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"status"`)
		case 7: // something stands in between
			http.Redirect(w, req, "/elsewhere", http.StatusTemporaryRedirect)
		case 8: // other bytes than were sent, under the same ids
			body, _ := io.ReadAll(req.Body)
			req.Body = io.NopCloser(strings.NewReader(strings.Replace(string(body), `"timestamp":"20`, `"timestamp":"19`, 1)))
			return false
		default:
			return false
		}
		return true
	}
	*r = *newRig(t, func(try int, w http.ResponseWriter, req *http.Request) bool { return spoil(try, w, req) }) //nolint:govet // the lock is not in use yet
	opts := r.options(20)
	opts.Timeout = 300 * time.Millisecond
	s := r.run(opts)
	if s.Acknowledged != 20 || s.BadReceipts != 60 || s.BadReceipt == "" || s.Clean() {
		t.Errorf("%s", s.String())
	}
	for _, what := range []string{"time-out", "500 unknown", "307 unexpected"} {
		if s.Answers[what] != 20 {
			t.Errorf("%q: %d answers, want 20: %s", what, s.Answers[what], s.String())
		}
	}
	if s.Answers["connection lost"] != 40 || s.Answers["200 with a wrong receipt"] != 60 {
		t.Errorf("%s", s.String())
	}
	if r.sameBytes() != 180 || r.readAcks() != 20 {
		t.Error("not nine tries and one acknowledgement a phone")
	}
}

// reset ends the connection without an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// A 4xx is for good, but for those that ask to come again.
func TestFailedPhonesGiveUp(t *testing.T) {
	var n atomic.Int64
	r := newRig(t, func(try int, w http.ResponseWriter, _ *http.Request) bool {
		switch {
		case try == 1 && n.Add(1)%2 == 0:
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"accepted":false}`)
		case try == 1:
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"accepted":false}`)
		case try == 2:
			w.WriteHeader(http.StatusRequestTimeout)
		default:
			return false
		}
		return true
	})
	s := r.run(r.options(40))
	if s.Failed != 20 || s.FailedByStatus["403"] != 20 || s.Acknowledged != 20 || s.Tries != 20+3*20 || s.Clean() {
		t.Errorf("%s", s.String())
	}
}

// Without --retry there is one try, and the words for its outcome are exact.
func TestOneTryEach(t *testing.T) {
	for what, c := range map[string]struct {
		status int
		body   string
		count  func(load.Summary) int
	}{
		"refused":               {503, `{"accepted":false}`, func(s load.Summary) int { return s.Refused }},
		"unknown":               {503, `{"accepted":"unknown"}`, func(s load.Summary) int { return s.Unknown }},
		"503 of something else": {503, `<html>`, func(s load.Summary) int { return s.Unknown }},
		"reset":                 {0, "", func(s load.Summary) int { return s.Unknown }},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				if c.status == 0 {
					reset(w)
					return true
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
				return true
			})
			opts := r.options(10)
			opts.Retry = false
			if s := r.run(opts); c.count(s) != 10 || s.Tries != 10 || s.Latency.Count != 0 {
				t.Errorf("%s", s.String())
			}
		})
	}
}

// A server that is not there is waited for; a phone that never reached one
// knows that nothing was recorded.
func TestServerThatIsAway(t *testing.T) {
	r := newRig(t, nil)
	address := r.server.Listener.Addr().String()
	r.server.CloseClientConnections()
	r.server.Close()
	opts := r.options(20)
	opts.Retry = false
	if s := r.run(opts); s.Unreached != 20 {
		t.Errorf("%s", s.String())
	}
	opts.Retry, opts.Grace = true, 300*time.Millisecond
	if s := r.run(opts); s.Unreached != 20 || s.Retries == 0 || s.ElapsedSec > 3 {
		t.Errorf("%s", s.String())
	}
	opts.Grace = 20 * time.Second
	back := make(chan *httptest.Server, 1)
	time.AfterFunc(500*time.Millisecond, func() {
		l, err := listenAt(address)
		if err != nil {
			t.Error(err)
		}
		s := &httptest.Server{Listener: l, Config: &http.Server{Handler: r.handler(nil)}}
		s.Start()
		back <- s
	})
	defer func() { r.server = <-back }()
	if s := r.run(opts); !s.Clean() || s.Answers["no connection"] == 0 {
		t.Errorf("%s", s.String())
	}
}

// While the server stalls, phones go on meaning to send. A closed loop would
// show one slow request; here the stall is in the figures of all that it met.
func TestStallShowsInTheLatenciesOfLaterPhones(t *testing.T) {
	var start atomic.Int64
	r := newRig(t, func(_ int, _ http.ResponseWriter, _ *http.Request) bool {
		start.CompareAndSwap(0, time.Now().UnixNano())
		since := time.Since(time.Unix(0, start.Load()))
		if since > 300*time.Millisecond && since < 1300*time.Millisecond {
			time.Sleep(1300*time.Millisecond - since)
		}
		return false
	})
	opts := r.options(400)
	opts.Over = 2 * time.Second
	opts.Connections = 8 // so few that most phones of the stall cannot even send
	s := r.run(opts)
	if !s.Clean() {
		t.Fatalf("%s", s.String())
	}
	// Half of the phones meant to send during the stall and waited half a second
	// on the average, though at most eight requests were ever slow.
	if s.Latency.P99 < 800 || s.Latency.P50 < 5 || !s.Behind || s.ConnectionsFull == 0 {
		t.Errorf("the stall of 1 s does not show: %s", s.String())
	}
	if !strings.Contains(s.String(), "fell behind") || !strings.Contains(s.String(), "waited for a free connection") {
		t.Errorf("the summary does not say that the generator was late: %s", s.String())
	}
	// With connections enough nothing is late but the answers.
	start.Store(0)
	opts.Connections, opts.Seed = 0, 8
	if s := r.run(opts); !s.Clean() || s.Latency.P99 < 800 || s.ConnectionsFull != 0 {
		t.Errorf("%s", s.String())
	}
}

func TestRelaySendsManyInOneRequest(t *testing.T) {
	r := &rig{}
	*r = *newRig(t, func(try int, w http.ResponseWriter, req *http.Request) bool { //nolint:govet // the lock is not in use yet
		switch try {
		case 1: // taken, but the answer is lost
			r.real.ServeHTTP(httptest.NewRecorder(), req)
			reset(w)
		case 2: // one line is refused, the others have no answer
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, `{"line":1,"status":"refused","accepted":false,"retryAfter":1}`+"\n"+`{"line":2,"status":"acc`)
		case 3: // one line is wrong for good
			_, _ = io.WriteString(w, `{"line":7,"status":"rejected","accepted":false}`+"\n")
		default:
			return false
		}
		return true
	})
	opts := r.options(250)
	opts.Bulk, opts.Over = 100, 50*time.Millisecond
	s := r.run(opts)
	if s.Acknowledged != 249 || s.Failed != 1 || s.Answers[`line "refused"`] != 1 || s.Answers[`line "accepted"`] != 249 {
		t.Errorf("%s", s.String())
	}
	if n := r.readAcks(); n != 249 {
		t.Errorf("%d lines of acknowledgements", n)
	}
}
