package gateway

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
)

// postReport takes one report: POST /v1/patient/report. It is the path of the
// wave: no table, no vault, no log line, few allocations.
func (s *Server) postReport(c *gin.Context) error {
	r := c.Request
	now := s.now()
	s.lastReport.Store(now.UnixNano())
	claims, err := s.claims(r, now)
	if err != nil {
		return err
	}
	if !maySubmit(&claims) {
		return problemScope
	}
	if err := checkType(r, "application/json"); err != nil {
		return err
	}
	body, err := readBody(c.Writer, r, epro.MaxBodyBytes)
	if err != nil {
		return err
	}
	fact, err := s.reportFact(&claims, body, now)
	if err != nil {
		return err
	}
	committed, err := s.submit(r.Context(), fact)
	if err != nil {
		return err
	}
	received := fact.ReceivedAt
	if committed.Remembered {
		original, err := committed.Fact()
		if err != nil {
			return err
		}
		received = original.ReceivedAt
	}
	answerReport(c, fact, received, &committed)
	return nil
}

// submit waits for a fact to be durable. Intake bounds the wait, so ctx needs
// no deadline of its own; it ends when the client goes away or the server stops.
func (s *Server) submit(ctx context.Context, fact *epro.Fact) (intake.Committed, error) {
	committed, err := s.intake.Submit(ctx, fact)
	if err == nil {
		return committed, nil
	}
	if p := refusalProblem(err); p != nil {
		return intake.Committed{}, p
	}
	return intake.Committed{}, unknownProblem(err)
}

// reportFact makes the fact of a report, or says what is wrong with the body.
// The fact keeps body.
func (s *Server) reportFact(claims *auth.Claims, body []byte, now time.Time) (*epro.Fact, error) {
	report, problems := epro.ParseReport(body)
	if problems != nil {
		return nil, &problem{
			status: http.StatusBadRequest, code: codeInvalid, accepted: acceptedFalse, fields: problems,
			detail: "The report is not valid; every field that is wrong is listed in fields. Nothing was recorded.",
		}
	}
	if fields := notYours(claims, &report); fields != nil {
		return nil, &problem{
			status: http.StatusForbidden, code: codeNotYours, accepted: acceptedFalse, fields: fields,
			detail: "The report names another participant or trial than the token does. Nothing was recorded.",
		}
	}
	principal := auth.TokenPrincipal(*claims)
	fact := &epro.Fact{
		Envelope: epro.Envelope{
			Kind: epro.KindReport, ID: report.ReportID, Trial: report.TrialID, Subject: report.PatientID,
			Actor: principal.Actor(), TokenKey: claims.KeyID, Epoch: claims.Epoch,
			OccurredAt: report.Timestamp, ReceivedAt: now.UTC(),
		},
		Body: body,
	}
	if !report.HasReportID {
		report.ReportID = report.ID()
		fact.ID = report.ReportID
		fact.Flags |= epro.FlagDerivedID
	}
	scratch := getBuffer()
	scratch.b = report.AppendMeaning(scratch.b)
	fact.Meaning = epro.ReportMeaning(s.meaningKey(report.TrialID), scratch.b)
	clear(scratch.b) // what a patient wrote does not lie about until the next use
	putBuffer(scratch)
	return fact, nil
}

// notYours names the fields that speak of somebody else than the token. A relay
// may name any participant of its trial; whether the participant is of its
// sites (they stand in the fact's actor) is decided by the projector: nothing
// on this path reads a table.
func notYours(claims *auth.Claims, report *epro.Report) []epro.FieldProblem {
	var fields []epro.FieldProblem
	if claims.Kind != auth.KindRelay && report.PatientID != claims.Participant {
		fields = append(fields, epro.FieldProblem{Field: "patientId", Problem: "is not the participant of the token"})
	}
	if report.TrialID != claims.Trial {
		fields = append(fields, epro.FieldProblem{Field: "trialId", Problem: "is not the trial of the token"})
	}
	return fields
}

// answerReport writes the answer of the original contract, with what was added.
func answerReport(c *gin.Context, fact *epro.Fact, received time.Time, committed *intake.Committed) {
	buf := getBuffer()
	b := append(buf.b, `{"status":"success","message":"Report for patient `...)
	b = appendInString(b, fact.Subject)
	b = append(b, ` received.","reportId":"`...)
	b, _ = fact.ID.AppendText(b)
	b = append(b, `","receivedAt":"`...)
	b = received.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","committedAt":"`...)
	b = committed.Signed.Header.CommittedAt().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","durability":"`...)
	b = append(b, committed.Signed.Class.String()...)
	b = append(b, `","receipt":"`...)
	b = committed.Receipt().AppendText(b)
	b = append(b, '"', '}', '\n')
	h := c.Writer.Header()
	h["Content-Type"] = headerJSON
	if len(b) > 2000 {
		// Below that the server knows the length by itself.
		h["Content-Length"] = []string{strconv.Itoa(len(b))}
	}
	c.Writer.WriteHeader(http.StatusOK)
	_, _ = c.Writer.Write(b) // an error means that the client went away; it will ask again
	buf.b = b
	putBuffer(buf)
}

// appendInString appends s as the inside of a JSON string.
func appendInString(b []byte, s string) []byte {
	from := len(b)
	b = appendString(b, s)
	copy(b[from:], b[from+1:])
	return b[:len(b)-2]
}
