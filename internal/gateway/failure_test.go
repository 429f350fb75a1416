package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// dial opens a connection and writes to it.
func (w *world) dial(text string) net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	must(w.t, err)
	_, err = io.WriteString(c, text)
	must(w.t, err)
	must(w.t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// reply reads one response from a connection.
func (w *world) reply(c net.Conn) *answer {
	w.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	must(w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(w.t, err)
	if resp.Close { // the header itself is taken out by ReadResponse
		resp.Header.Set("Connection", "close")
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: body}
}

func head(token string, more ...string) string {
	return "POST " + submitPath + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + token + "\r\n" +
		strings.Join(more, "")
}

func TestALongBodyIsRefusedByItsHeaderAlone(t *testing.T) {
	w := newWorld(t, setup{})
	end := w.end()
	c := w.dial(head(w.participant("T001", "P-1", auth.ScopeSubmit), "Content-Length: 1000000000\r\n\r\n"))
	a := w.reply(c) // not a byte of the body was sent
	w.isProblem(t, a, 413, "too-large")
	if a.header.Get("Connection") != "close" || a.json(t)["accepted"] != false {
		t.Errorf("%s %v", a, a.header)
	}
	if w.end() != end {
		t.Error("something was stored")
	}
}

func TestAChunkedBodyIsBounded(t *testing.T) {
	w := newWorld(t, setup{})
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	end := w.end()
	c := w.dial(head(token, "Transfer-Encoding: chunked\r\n\r\n"))
	go func() {
		chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<10, strings.Repeat(" ", 1<<10))
		for range 1 << 10 {
			if _, err := io.WriteString(c, chunk); err != nil {
				return
			}
		}
	}()
	w.isProblem(t, w.reply(c), 413, "too-large")
	if w.end() != end {
		t.Error("something was stored")
	}
	// One within the bound is taken.
	body := report("T001", "P-1", epro.NewUUID(), 0)
	whole := w.dial(head(token, fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)))
	if a := w.reply(whole); a.status != 200 {
		t.Error(a)
	}
}

// TestSilentClientsAreCutAndHarmNobody: one that sends its header slowly, one
// that sends its body slowly, and one that says nothing.
func TestSilentClientsAreCutAndHarmNobody(t *testing.T) {
	w := newWorld(t, setup{config: func(c *gateway.Config) {
		c.ReadHeaderTimeout, c.ReadTimeout, c.IdleTimeout = 300*time.Millisecond, 3*time.Second, 400*time.Millisecond
	}})
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	end := w.end()
	body := w.dial(head(token, "Content-Length: 200\r\n\r\n{\"patientId\""))
	slowHeader := w.dial("POST " + submitPath + " HTTP/1.1\r\nHost: x\r\n")
	silent := w.dial("")
	stop := make(chan struct{})
	var drips sync.WaitGroup
	drips.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				_, _ = fmt.Fprintf(slowHeader, "X-%d: 1\r\n", i)
			}
		}
	})
	began := time.Now()
	for name, c := range map[string]net.Conn{"slow header": slowHeader, "silent": silent} {
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Errorf("%s: not cut", name)
		}
	}
	if d := time.Since(began); d > 2500*time.Millisecond {
		t.Errorf("slow headers were cut only after %v", d)
	}
	a := w.reply(body)
	w.isProblem(t, a, 408, "too-slow")
	if a.json(t)["accepted"] != false {
		t.Error(a)
	}
	close(stop)
	drips.Wait()
	if w.end() != end {
		t.Error("something was stored")
	}
	if a := w.post(submitPath, token, report("T001", "P-1", epro.NewUUID(), 1)); a.status != 200 {
		t.Errorf("another client beside them: %s", a)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestConnectionsOverTheCapAreClosed(t *testing.T) {
	w := newWorld(t, setup{config: func(c *gateway.Config) { c.MaxConnections = 2 }})
	w.client.CloseIdleConnections()
	time.Sleep(50 * time.Millisecond)
	a, b := w.dial(""), w.dial("")
	time.Sleep(50 * time.Millisecond)
	over := w.dial("")
	if n, err := io.Copy(io.Discard, over); n != 0 || isTimeout(err) {
		t.Errorf("the third connection was kept (%d bytes, %v)", n, err)
	}
	_ = a.Close()
	_ = b.Close()
	for range 100 { // places come back
		if r, err := w.try("GET", "/v1/keys", "", nil); err == nil && r.status == 200 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("no place came back")
}

func TestEachOutcomeOfIntakeHasItsAnswer(t *testing.T) {
	w := newWorld(t, setup{intake: func(c *intake.Config) { c.WaitLimit = 100 * time.Millisecond; c.MaxAge = 50 * time.Millisecond }})
	token := w.participant("T001", "P-1", auth.ScopeSubmit)
	id := epro.NewUUID()
	body := report("T001", "P-1", id, 5)

	w.mem.FailBefore(journal.ErrNotAppended)
	a := w.post(submitPath, token, body)
	w.isProblem(t, a, 503, "not-kept")
	if a.json(t)["accepted"] != false {
		t.Error(a)
	}

	release := w.mem.Hold()
	defer release()
	a = w.post(submitPath, token, body)
	w.isProblem(t, a, 503, "outcome-unknown")
	if a.json(t)["accepted"] != "unknown" {
		t.Error(a)
	}
	// The oldest waiter is over its age: refused before it is taken.
	a = w.post(submitPath, token, report("T001", "P-1", epro.NewUUID(), 6))
	w.isProblem(t, a, 503, "refused-now")
	if a.json(t)["accepted"] != false {
		t.Error(a)
	}
	release()
	// The frame whose waiter was told "unknown" was kept: the same again gets it.
	var again *answer
	for range 100 {
		if again = w.post(submitPath, token, body); again.status == 200 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if again.status != 200 {
		t.Fatal(again)
	}
	w.settle()
	books, err := w.tables.Books(t.Context(), "T001")
	must(t, err)
	if books.Recorded != 1 || books.Duplicates != 0 {
		t.Errorf("books %+v", books)
	}
}

// panicking is an intake that panics with what it was given.
type panicking struct{ gateway.Intake }

func (panicking) Submit(_ context.Context, f *epro.Fact) (intake.Committed, error) {
	panic(fmt.Sprintf("cannot take %s for %s", f.Body, f.Subject))
}

func TestAPanicIsAnsweredUnknownAndTellsNothing(t *testing.T) {
	const canary = "CANARY-7c1b"
	tables := &reader{panic: canary}
	w := newWorld(t, setup{options: func(o *gateway.Options) {
		o.Intake = panicking{o.Intake}
		tables.Reader = o.Reader
		o.Reader = tables
	}})
	token := w.participant("T001", "P-1", auth.ScopeSubmit|auth.ScopeRead)
	body := `{` + good + `,"qolScore":7,"comments":"` + canary + `"}`
	a := w.post(submitPath, token, body, header{"X-Canary", canary})
	w.isProblem(t, a, 500, "internal")
	if a.json(t)["accepted"] != "unknown" {
		t.Error(a)
	}
	a = w.get("/v1/patient/reports?cursor="+canary, token)
	w.isProblem(t, a, 500, "internal")
	if _, said := a.json(t)["accepted"]; said {
		t.Errorf("a read says something was accepted: %s", a)
	}
	logged := w.log.String()
	if strings.Count(logged, "ended in a panic") != 2 {
		t.Errorf("not logged once each: %s", logged)
	}
	for _, secret := range []string{canary, token, "P-1"} {
		if strings.Contains(logged, secret) || strings.Contains(string(a.body), canary) {
			t.Errorf("%q got out: %s", secret, logged)
		}
	}
	if !strings.Contains(logged, "failure_test.go") {
		t.Errorf("the place is not logged: %s", logged)
	}
	// The process goes on.
	if a := w.get("/v1/keys", ""); a.status != 200 {
		t.Error(a)
	}
}

func TestTablesThatAreDownAreNever4xx(t *testing.T) {
	tables := &reader{fail: errDown}
	w := newWorld(t, setup{options: func(o *gateway.Options) { tables.Reader = o.Reader; o.Reader = tables }})
	token := w.participant("T001", "P-1", auth.ScopeSubmit|auth.ScopeRead)
	w.isProblem(t, w.get("/v1/patient/reports", token), 503, "unavailable")
	if !strings.Contains(w.log.String(), errDown.Error()) {
		t.Error("the cause was not logged")
	}
	if a := w.post(submitPath, token, report("T001", "P-1", epro.NewUUID(), 1)); a.status != 200 {
		t.Errorf("a report needs no tables: %s", a)
	}
}

// An outage is told when it begins, when it is over, and now and then between;
// each request that failed is counted.
func TestAnOutageIsToldOnce(t *testing.T) {
	tables, ahead := &reader{fail: errDown}, &atomic.Int64{}
	w := newWorld(t, setup{options: func(o *gateway.Options) {
		tables.Reader = o.Reader
		o.Reader, o.Now = tables, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}})
	token := w.participant("T001", "P-1", auth.ScopeSubmit|auth.ScopeRead)
	asks := func(n int, what int, later time.Duration) {
		t.Helper()
		ahead.Add(int64(later))
		for range n {
			if a := w.get("/v1/patient/reports", token); a.status != what {
				t.Fatalf("%s, want %d", a, what)
			}
		}
	}
	told := func(begun, lasting, over int) {
		t.Helper()
		logged := w.log.String()
		for text, want := range map[string]int{"a request could not be served": begun, "can still not be served": lasting, "are served again": over} {
			if got := strings.Count(logged, text); got != want {
				t.Errorf("%q is in the log %d times, want %d:\n%s", text, got, want, logged)
			}
		}
	}
	asks(20, 503, 0)
	told(1, 0, 0)
	for range 8 { // within the quiet time of each other
		asks(1, 503, 45*time.Second)
	}
	told(1, 1, 0)
	tables.fail = nil
	asks(1, 200, time.Second) // too early to say
	told(1, 1, 0)
	asks(3, 200, 10*time.Second)
	told(1, 1, 1)
	if _, text := w.admin("/metrics"); !strings.Contains(text, `tidegate_http_requests_total{method="GET",route="/v1/patient/reports",status="5xx"} 28`) {
		t.Error("not every failure was counted")
	}
	tables.fail = errDown
	asks(1, 503, 0)
	asks(1, 503, 2*time.Minute) // nothing was asked meanwhile: it may be another one
	told(3, 1, 1)
}

// TestAStopAnswersEverybody: requests in hand get a definite answer, those whose
// frame does not become durable in time are told so.
func TestAStopAnswersEverybody(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		t.Run(fmt.Sprintf("stuck=%v", stuck), func(t *testing.T) {
			w := newWorld(t, setup{config: func(c *gateway.Config) { c.StopTimeout = time.Second }})
			release := w.mem.Hold()
			defer release()
			const n = 50
			answers := make([]*answer, n)
			var sent sync.WaitGroup
			for i := range n {
				token := w.participant("T001", fmt.Sprintf("Q-%d", i), auth.ScopeSubmit)
				sent.Go(func() {
					a, err := w.try("POST", submitPath, token, []byte(report("T001", fmt.Sprintf("Q-%d", i), epro.NewUUID(), 5)))
					if err != nil {
						t.Errorf("no answer: %v", err)
						return
					}
					answers[i] = a
				})
			}
			for s := w.intake.Stats(); s.Open+s.Committing < n; s = w.intake.Stats() {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(20 * time.Millisecond)
			began := time.Now()
			w.stop()
			if !stuck {
				time.AfterFunc(100*time.Millisecond, release)
			}
			err := <-w.stopped
			w.stopped <- err
			if err != nil || time.Since(began) > 5*time.Second {
				t.Errorf("stop: %v after %v", err, time.Since(began))
			}
			sent.Wait()
			for i, a := range answers {
				switch {
				case a == nil:
				case stuck:
					w.isProblem(t, a, 503, "outcome-unknown")
				case a.status != 200:
					t.Errorf("%d: %s", i, a)
				}
			}
			if _, err := net.Dial("tcp", w.addr); err == nil {
				t.Error("the listener is still open")
			}
		})
	}
}

// TestAStopDoesNotWaitForSlowSenders: neither for one in the middle of its body
// nor for connections that say nothing.
func TestAStopDoesNotWaitForSlowSenders(t *testing.T) {
	w := newWorld(t, setup{config: func(c *gateway.Config) { c.StopTimeout = time.Second }})
	slow := w.dial(head(w.participant("T001", "P-1", auth.ScopeSubmit), "Content-Length: 200\r\n\r\n{"))
	w.dial("")
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	w.stop()
	a := w.reply(slow)
	w.isProblem(t, a, 408, "too-slow")
	if a.json(t)["accepted"] != false {
		t.Error(a)
	}
	err := <-w.stopped
	w.stopped <- err
	if err != nil || time.Since(began) > 2*time.Second {
		t.Errorf("stop: %v after %v", err, time.Since(began))
	}
}

// TestHalfAnExportIsCut: an error in the middle of a stream must not look like
// its end.
func TestHalfAnExportIsCut(t *testing.T) {
	tables := &reader{}
	w := newWorld(t, setup{options: func(o *gateway.Options) { tables.Reader = o.Reader; o.Reader = tables }})
	tables.rows = 2000
	_, err := w.try("GET", "/v1/trials/T001/reports.csv", w.staff("dm", epro.StaffRole{Role: "data-manager"}), nil)
	if err == nil {
		t.Error("half an export ended like a whole one")
	}
}

func TestAStoppedIntakeSaysSo(t *testing.T) {
	w := newWorld(t, setup{})
	must(t, w.intake.Close(t.Context()))
	a := w.post(submitPath, w.participant("T001", "P-1", auth.ScopeSubmit), report("T001", "P-1", epro.NewUUID(), 5))
	w.isProblem(t, a, 503, "stopping")
	if a.json(t)["accepted"] != false {
		t.Error(a)
	}
}

var _ store.Reader = (*reader)(nil)
