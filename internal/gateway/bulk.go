package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/receipt"
)

// Bounds of one NDJSON request.
const (
	MaxBulkLines = 10_000
	MaxBulkBytes = 8 << 20
)

const typeNDJSON = "application/x-ndjson"

var headerNDJSON = []string{typeNDJSON}

// postReports takes many reports at once: POST /v1/patient/reports. Each line
// stands alone: one that is wrong does not hurt its neighbours.
//
// A request holds its body (8 MiB at most), the facts over it and their
// envelopes, about 24 MiB; Config.MaxBulks of them run at once.
func (s *Server) postReports(c *gin.Context) error {
	r := c.Request
	now := s.now()
	claims, err := s.claims(r, now)
	if err != nil {
		return err
	}
	if !maySubmit(&claims) {
		return problemScope
	}
	if err := checkType(r, typeNDJSON); err != nil {
		return err
	}
	select {
	case s.bulks <- struct{}{}:
		defer func() { <-s.bulks }()
	default:
		return &problem{
			status: http.StatusServiceUnavailable, code: codeRefused, accepted: acceptedFalse, retryAfter: spread(2 * time.Second), closing: true,
			detail: "Too many requests with many reports are under way. Nothing was recorded; send the same again after the time in Retry-After.",
		}
	}
	wire := http.NewResponseController(c.Writer)
	// Deadlines are a matter of the connection; a test's recorder has none.
	_ = wire.SetReadDeadline(time.Now().Add(s.cfg.BulkTimeout))
	_ = wire.SetWriteDeadline(time.Now().Add(2 * s.cfg.BulkTimeout))
	body, err := readGrowing(c.Writer, r, MaxBulkBytes)
	if err != nil {
		return err
	}
	lines, err := splitLines(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.BulkTimeout)
	defer cancel()
	outcomes := s.submitLines(ctx, &claims, lines)
	_ = wire.SetWriteDeadline(time.Now().Add(s.cfg.BulkTimeout))
	writeOutcomes(c, outcomes)
	return nil
}

// splitLines cuts the body at its line ends. A last line end ends the last
// line; an empty line in between is a line, and wrong.
func splitLines(body []byte) ([][]byte, error) {
	body = bytes.TrimSuffix(body, []byte("\n"))
	if len(body) == 0 {
		return nil, &problem{
			status: http.StatusBadRequest, code: codeInvalid, accepted: acceptedFalse,
			fields: fieldProblem("body", "is empty; send one report a line"),
			detail: "The body is empty; send one report a line.",
		}
	}
	n := bytes.Count(body, []byte("\n")) + 1
	if n > MaxBulkLines {
		return nil, tooLarge(MaxBulkBytes)
	}
	lines := make([][]byte, 0, n)
	for rest, more := body, true; more; {
		var line []byte
		line, rest, more = bytes.Cut(rest, []byte("\n"))
		lines = append(lines, line[:len(line):len(line)])
	}
	return lines, nil
}

// lineOutcome is what became of one line.
type lineOutcome struct {
	fact      *epro.Fact
	committed intake.Committed
	problem   *problem // nil when it is durable
}

// submitLines makes a fact of every line that is one, and waits for all.
func (s *Server) submitLines(ctx context.Context, claims *auth.Claims, lines [][]byte) []lineOutcome {
	outcomes := make([]lineOutcome, len(lines))
	facts := make([]*epro.Fact, 0, len(lines))
	at := make([]int, 0, len(lines))
	for i, line := range lines {
		if len(line) > epro.MaxBodyBytes {
			outcomes[i].problem = &problem{
				status: http.StatusRequestEntityTooLarge, code: codeTooLarge, accepted: acceptedFalse,
				detail: "The line is longer than 64 KiB.", fields: fieldProblem("body", "must be at most 64 KiB long"),
			}
			continue
		}
		fact, err := s.reportFact(claims, line, s.now())
		if err != nil {
			outcomes[i].problem = problemOf(err, true)
			continue
		}
		outcomes[i].fact = fact
		facts, at = append(facts, fact), append(at, i)
	}
	for j, o := range s.intake.SubmitAll(ctx, facts) {
		out := &outcomes[at[j]]
		if o.Err == nil {
			out.committed = o.Committed
			continue
		}
		if out.problem = refusalProblem(o.Err); out.problem == nil {
			out.problem = unknownProblem(o.Err)
		}
	}
	return outcomes
}

// writeOutcomes writes the answer: a line for each line, and before the first
// of the lines that lie side by side in one frame, what their receipts share.
func writeOutcomes(c *gin.Context, outcomes []lineOutcome) {
	c.Writer.Header()["Content-Type"] = headerNDJSON
	c.Writer.WriteHeader(http.StatusOK)
	buf := getBuffer()
	defer putBuffer(buf)
	frames := 0
	var last *lineOutcome // the last durable line
	for i := range outcomes {
		o := &outcomes[i]
		if o.problem == nil {
			if !follows(last, o) {
				frames++
				buf.b = appendFrame(buf.b, frames, o.committed.Signed.Batch(o.committed.Index, endOfRun(outcomes[i:])))
			}
			last = o
		}
		buf.b = o.appendJSON(buf.b, i+1, frames)
		if len(buf.b) >= keptBuffer/2 {
			if _, err := c.Writer.Write(buf.b); err != nil {
				return // the client went away; it will ask again
			}
			buf.b = buf.b[:0]
		}
	}
	_, _ = c.Writer.Write(buf.b) // as above
}

// follows says whether two durable lines lie side by side in one frame.
func follows(before, o *lineOutcome) bool {
	return before != nil && o.committed.Signed == before.committed.Signed && o.committed.Index == before.committed.Index+1
}

// endOfRun is the index behind the last fact that lies side by side with the
// first outcome's.
func endOfRun(outcomes []lineOutcome) int {
	last := &outcomes[0]
	for i := range outcomes[1:] {
		o := &outcomes[1+i]
		if o.problem != nil {
			continue
		}
		if !follows(last, o) {
			break
		}
		last = o
	}
	return last.committed.Index + 1
}

func appendFrame(b []byte, frame int, batch receipt.Batch) []byte {
	b = append(b, `{"frame":`...)
	b = strconv.AppendInt(b, int64(frame), 10)
	b = append(b, `,"proof":{"header":"`...)
	b = append(b, batch.Header...)
	b = append(b, `","class":"`...)
	b = append(b, batch.Class...)
	b = append(b, `","keyId":"`...)
	b = append(b, batch.KeyID...)
	b = append(b, `","signature":"`...)
	b = append(b, batch.Signature...)
	b = append(b, `","from":`...)
	b = strconv.AppendInt(b, int64(batch.From), 10)
	b = append(b, `,"proof":[`...)
	for i, hash := range batch.Proof {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, hash...)
		b = append(b, '"')
	}
	return append(b, "]}}\n"...)
}

func (o *lineOutcome) appendJSON(b []byte, line, frame int) []byte {
	b = append(b, `{"line":`...)
	b = strconv.AppendInt(b, int64(line), 10)
	if o.problem != nil {
		return o.appendProblem(b)
	}
	received := o.fact.ReceivedAt
	if o.committed.Remembered {
		if original, err := o.committed.Fact(); err == nil {
			received = original.ReceivedAt
		}
	}
	b = append(b, `,"status":"accepted","accepted":true,"reportId":"`...)
	b, _ = o.fact.ID.AppendText(b)
	b = append(b, `","frame":`...)
	b = strconv.AppendInt(b, int64(frame), 10)
	b = append(b, `,"index":`...)
	b = strconv.AppendInt(b, int64(o.committed.Index), 10)
	b = append(b, `,"salt":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, o.committed.Salt[:])
	b = append(b, `","envelope":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, o.committed.Envelope)
	b = append(b, `","receivedAt":"`...)
	b = received.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","committedAt":"`...)
	b = o.committed.Signed.Header.CommittedAt().AppendFormat(b, time.RFC3339Nano)
	return append(b, "\"}\n"...)
}

// appendProblem says of a line what a whole answer would say by its status:
// "rejected" is wrong for good, "refused" and "unknown" are to be sent again.
func (o *lineOutcome) appendProblem(b []byte) []byte {
	p := o.problem
	status := "rejected"
	switch {
	case p.accepted == acceptedUnknown:
		status = "unknown"
	case p.status == http.StatusServiceUnavailable || p.status == http.StatusTooManyRequests:
		status = "refused"
	}
	b = append(b, `,"status":"`...)
	b = append(b, status...)
	b = append(b, `","code":"`...)
	b = append(b, p.code...)
	b = append(b, '"')
	b = p.appendAccepted(b)
	b = append(b, `,"error":`...)
	b = appendString(b, p.detail)
	if p.fields != nil {
		b = append(b, `,"fields":`...)
		b = appendFields(b, p.fields)
	}
	if p.retryAfter > 0 {
		b = append(b, `,"retryAfter":`...)
		b = strconv.AppendInt(b, wholeSeconds(p.retryAfter), 10)
	}
	return append(b, "}\n"...)
}

// unknownProblem is for an outcome that intake does not name: it says what is
// always safe to say.
func unknownProblem(err error) *problem {
	return &problem{
		status: http.StatusServiceUnavailable, code: codeUnknown, accepted: acceptedUnknown, retryAfter: spread(2 * time.Second), cause: err,
		detail: "Whether this was recorded is not known. Send the same again, with the same id, after the time in Retry-After.",
	}
}
