package crash_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// inHand is a request that the server has begun to handle: its handler waits
// for the body, which the answer to Expect: 100-continue shows.
type inHand struct {
	conn net.Conn
	in   *bufio.Reader
	rep  report
}

// begin sends a request up to its body and waits until the handler asks for it.
func (w *world) begin(url string, r choices) (*inHand, error) {
	addr := strings.TrimPrefix(url, "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	rep := w.crowd.report(r.Rand, w.phones[r.IntN(len(w.phones))])
	_, err = fmt.Fprintf(conn, "POST /v1/patient/report HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		addr, rep.token, len(rep.body))
	if err != nil {
		return nil, err
	}
	h := &inHand{conn, bufio.NewReader(conn), rep}
	line, err := h.in.ReadString('\n')
	if err != nil || !strings.Contains(line, " 100 ") {
		return nil, fmt.Errorf("no 100 Continue: %q, %w", line, err)
	}
	_, err = h.in.ReadString('\n')
	return h, err
}

// finish sends the body and reads the answer.
func (h *inHand) finish() (status int, a answer, err error) {
	if _, err := h.conn.Write(h.rep.body); err != nil {
		return 0, a, err
	}
	resp, err := http.ReadResponse(h.in, nil)
	if err != nil {
		return 0, a, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, a, err
	}
	return resp.StatusCode, a, json.NewDecoder(bytes.NewReader(b)).Decode(&a)
}

// TestStopUnderLoad stops a loaded server with requests in every handler: each
// gets a definite answer, and the process ends with 0 within 10 s.
func TestStopUnderLoad(t *testing.T) {
	const requests = 150
	w := newWorld(t, "")
	r := random(t)
	s := w.start()
	w.crowd.start(24)
	var hand []*inHand
	for range requests {
		h, err := w.begin(s.URL, r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.conn.Close() })
		hand = append(hand, h)
	}
	began := time.Now()
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[string]int{}
	var all sync.WaitGroup
	for i, h := range hand {
		pause := time.Duration(i) * 10 * time.Millisecond // the last bodies come 1.5 s after the signal
		all.Go(func() {
			time.Sleep(pause)
			status, a, err := h.finish()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				t.Errorf("a request in hand got no answer: %v", err)
			case status == http.StatusOK && a.ReportID == h.rep.id && a.Receipt != "":
				got["200"]++
				if _, err := fmt.Fprintf(w.crowd.acks, "%s%q}\n", h.rep.ack, a.Receipt); err != nil {
					t.Error(err)
				}
			case status == http.StatusServiceUnavailable && (a.Accepted == false || a.Accepted == "unknown"):
				got[fmt.Sprintf("503 accepted %v", a.Accepted)]++
			default:
				t.Errorf("a request in hand got %d, accepted %v", status, a.Accepted)
			}
		})
	}
	all.Wait()
	answered := time.Since(began)
	select {
	case <-s.Ended():
	case <-time.After(10*time.Second - answered):
		t.Errorf("the server runs on 10 s after SIGTERM\n%s", tail(s.Output()))
		s.Kill()
	}
	took := time.Since(began)
	if s.ExitCode() != 0 {
		t.Errorf("exit %d\n%s", s.ExitCode(), tail(s.Output()))
	}
	w.crowd.at("")
	t.Logf("SIGTERM with %d requests in hand and %d phones more: %v, last answer after %s, ended after %s with %d",
		requests, 24, got, answered.Round(time.Millisecond), took.Round(time.Millisecond), s.ExitCode())
	w.crowd.offered.Add(int64(got["200"]))
	w.crowd.acked.Add(int64(got["200"]))
	w.end()
}

// TestStopWithAStalledPhone stops a server while a phone has sent half of its
// request and never goes on: the stop is bounded all the same.
func TestStopWithAStalledPhone(t *testing.T) {
	onlyLong(t)
	w := newWorld(t, "")
	s := w.start()
	h, err := w.begin(s.URL, random(t))
	if err != nil {
		t.Fatal(err)
	}
	defer h.conn.Close() //nolint:errcheck // only closed
	began := time.Now()
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(h.in)
	select {
	case <-s.Ended():
		if s.ExitCode() != 0 {
			t.Errorf("one stalled phone made the stop fail: exit %d\n%s", s.ExitCode(), tail(s.Output()))
		}
		t.Logf("ended after %s with %d; the stalled phone got %d bytes (%v)", time.Since(began).Round(time.Millisecond), s.ExitCode(), len(b), err)
	case <-time.After(11 * time.Second):
		t.Errorf("the server runs on 11 s after SIGTERM\n%s", tail(s.Output()))
	}
	w.end()
}
