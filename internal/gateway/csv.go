package gateway

import (
	"encoding/csv"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

var csvHeader = []string{
	"patientId", "siteId", "reportId", "version", "disposition", "reasons", "instrument", "qolScore", "comments", "timestamp",
	"receivedAt", "committedAt", "actorType", "actorId", "device", "clockApart", "erased", "resolution", "resolutionReason",
	"resolvedBy", "resolvedAt",
}

// exportRows is how many rows go out between two looks at the clock.
const exportRows = 500

// exportReports streams the reports of a trial: GET …/reports.csv. It reads in
// short transactions and holds one page of rows. A client that goes away, or
// reads slower than WriteTimeout allows for 500 rows, ends it. An error in the
// middle cuts the connection, so that half a file is not taken for a whole one.
func (s *Server) exportReports(c *gin.Context, p *auth.Principal, trial string) error {
	q := parseParams(c.Request, "disposition", "patientId", "unresolved")
	filter := store.ReportFilter{
		PatientID: q.id("patientId"), Disposition: epro.Disposition(q.oneOf("disposition", dispositions...)),
		Unresolved: q.oneOf("unresolved", "true", "false") == "true",
	}
	if err := q.err(); err != nil {
		return err
	}
	var err error
	if filter.Sites, err = sitesOf(p, auth.ActionReportExport, trial); err != nil {
		return err
	}
	ctx := c.Request.Context()
	if err := s.known(ctx, trial); err != nil {
		return err
	}
	select {
	case s.exports <- struct{}{}:
		defer func() { <-s.exports }()
	default:
		return &problem{
			status: http.StatusServiceUnavailable, code: codeRefused, retryAfter: spread(10 * time.Second),
			detail: "Too many exports are under way. Try again after the time in Retry-After.",
		}
	}
	h := c.Writer.Header()
	h["Content-Type"] = []string{"text/csv; charset=utf-8; header=present"}
	h["Content-Disposition"] = []string{`attachment; filename="` + fileName(trial) + `-reports.csv"`}
	wire := http.NewResponseController(c.Writer)
	w := csv.NewWriter(c.Writer)
	_ = w.Write(csvHeader) // told by w.Error below
	rows, paced := 0, pace{s: s, since: time.Now()}
	var record []string
	err = s.reader.EachReport(ctx, trial, filter, func(r *store.Report) error {
		record = appendRecord(record[:0], r)
		_ = w.Write(record) // as above
		if rows++; rows%paceRows != 0 {
			return nil
		}
		if err := paced.rest(ctx); err != nil || rows%exportRows != 0 {
			return err
		}
		select {
		case <-s.stopped:
			return problemStopping // the connection is cut: half an export is none
		default:
		}
		_ = wire.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout)) // a test's recorder has none
		w.Flush()
		return w.Error()
	})
	if err != nil {
		return err
	}
	w.Flush()
	return w.Error()
}

// fileName is a trial's id as a file name.
func fileName(trial string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, trial)
}

func appendRecord(record []string, r *store.Report) []string {
	reasons := make([]string, len(r.Reasons))
	for i, reason := range r.Reasons {
		reasons[i] = string(reason)
	}
	score, comments := "", ""
	if r.Score != nil {
		score = strconv.Itoa(*r.Score)
	}
	if r.Comments != nil {
		comments = *r.Comments
	}
	return append(record,
		cell(r.PatientID), cell(r.SiteID), r.ReportID.String(), strconv.Itoa(r.Version), string(r.Disposition),
		strings.Join(reasons, " "), cell(r.Instrument), score, cell(comments), r.CompletedAt.Format(time.RFC3339Nano),
		csvTime(r.ReceivedAt), csvTime(r.CommittedAt), r.Actor.Type.String(), cell(r.Actor.ID), cell(r.Actor.Device),
		strconv.FormatBool(r.ClockApart), strconv.FormatBool(r.Erased), string(r.Resolution), cell(r.ResolutionReason),
		cell(r.ResolvedBy), csvTime(r.ResolvedAt))
}

func csvTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// cell keeps a spreadsheet from running text as a formula: a cell that begins
// like one gets an apostrophe in front.
func cell(s string) string {
	if s != "" && strings.IndexByte("=+-@\t\r\n|%", s[0]) >= 0 {
		return "'" + s
	}
	return s
}
