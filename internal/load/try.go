package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/internal/receipt"
)

// maxAnswer bounds an answer to one report that is read: its receipt is below 2 KB.
const maxAnswer = 64 << 10

// exchange sends one request and reads the answer's head. reached is false when
// no connection came about, so that the server surely saw nothing.
func (r *run) exchange(ctx context.Context, path, kind, token string, body []byte) (resp *http.Response, reached bool, err error) {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.opts.Target+path, bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	req.Header["Content-Type"] = []string{kind}
	req.Header["Authorization"] = []string{"Bearer " + token}
	req.Header["User-Agent"] = []string{"tidegate-load"}
	// The transport itself, not a client: a redirect is an answer to show, not to follow.
	resp, err = r.way.RoundTrip(req)
	return resp, connected.Load(), err
}

// lost is the answer of a try that got none, or not all of it.
func lost(err error, reached bool) answer {
	switch {
	case !reached:
		return answer{result: resultUnreached, what: "no connection"}
	case errors.Is(err, context.DeadlineExceeded):
		return answer{result: resultUnknown, what: "time-out"}
	case errors.Is(err, context.Canceled):
		return answer{result: resultUnknown, what: "stopped"}
	}
	return answer{result: resultUnknown, what: "connection lost"}
}

// tryOne sends one phone's report. The error ends the run.
func (r *run) tryOne(ctx context.Context, i int) (answer, error) {
	token, err := r.phones.token(i)
	if err != nil {
		return answer{}, err
	}
	rep := r.phones.report(i)
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	start := time.Now()
	resp, reached, err := r.exchange(ctx, "/v1/patient/report", "application/json", token, rep.body)
	if err != nil {
		return lost(err, reached).after(start), nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return lost(err, true).after(start), nil
	}
	took := time.Since(start)
	if resp.StatusCode != http.StatusOK {
		a := classify(resp.StatusCode, resp.Header, body)
		a.took = took
		return a, nil
	}
	a := answer{result: resultAcked, status: resp.StatusCode, what: "200", took: took}
	var s said
	proof, err := &receipt.Receipt{}, json.Unmarshal(body, &s)
	if err == nil {
		proof, err = receipt.Parse(s.Receipt)
	}
	if err == nil && s.ReportID != rep.id.String() {
		err = errOtherReceipt
	}
	if err == nil {
		err = r.check.check(ctx, proof, &rep)
	}
	if err != nil {
		a.result, a.what = resultUnknown, wrongReceipt
		r.noteReceipt(err)
		return a, nil
	}
	return a, r.acks.write(rep.appendAck(make([]byte, 0, 2<<10), r.opts.Trial, s.Receipt))
}

// wrongReceipt is the word for a success whose receipt proves nothing.
const wrongReceipt = "200 with a wrong receipt"

func (a answer) after(start time.Time) answer {
	a.took = time.Since(start)
	return a
}

// tryMany sends the reports of the phones [from, to) that are not settled, in
// one request of a relay, and tells settle what became of each.
func (r *run) tryMany(ctx context.Context, from, to int, settle func(i int, a answer)) error {
	token, err := r.phones.relayToken()
	if err != nil {
		return err
	}
	var body []byte
	var which []int
	for i := from; i < to; i++ {
		if r.settled(i) {
			continue
		}
		rep := r.phones.report(i)
		body = append(append(body, rep.body...), '\n')
		which = append(which, i)
	}
	all := func(a answer) {
		for _, i := range which {
			settle(i, a)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	start := time.Now()
	resp, reached, err := r.exchange(ctx, "/v1/patient/reports", "application/x-ndjson", token, body)
	if err != nil {
		all(lost(err, reached).after(start))
		return nil
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		a := lost(err, true)
		if err == nil {
			a = classify(resp.StatusCode, resp.Header, text)
		}
		all(a.after(start))
		return nil
	}
	lines := bulkLines{run: r, which: which, answers: make([]answer, len(which))}
	if err := lines.read(ctx, resp.Body); err != nil {
		return err
	}
	for k, i := range which {
		a := lines.answers[k]
		if a.what == "" {
			a = answer{result: resultUnknown, what: "line without an answer"}
		}
		settle(i, a.after(start))
	}
	return nil
}

// lineStatus is the word of a line's answer in the table of answers.
func lineStatus(s string) string { return "line " + strconv.Quote(s) }

// noteReceipt keeps the first reason for which a receipt was wrong: it names no
// content.
func (r *run) noteReceipt(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.badReceipts++
	if r.stats.badReceipt == "" {
		r.stats.badReceipt = fmt.Sprint(err)
	}
}
