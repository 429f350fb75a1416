package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

type reportList struct {
	Reports []reportView `json:"reports"`
	Next    string       `json:"next,omitempty"`
}

// dispositions are those of listed reports: duplicates are counted, not listed.
var dispositions = []string{string(epro.Recorded), string(epro.Conflict), string(epro.Quarantined)}

func (s *Server) listReports(c *gin.Context, p *auth.Principal, trial string) error {
	q := parseParams(c.Request, "limit", "cursor", "disposition", "patientId", "unresolved")
	filter := store.ReportFilter{
		PatientID: q.id("patientId"), Disposition: epro.Disposition(q.oneOf("disposition", dispositions...)),
		Unresolved: q.oneOf("unresolved", "true", "false") == "true",
	}
	return s.answerReports(c, p, auth.ActionReportList, trial, q, filter)
}

// listAside lists what waits for a person: quarantined reports, or conflicts.
func (s *Server) listAside(action auth.Action, d epro.Disposition) func(*gin.Context, *auth.Principal, string) error {
	return func(c *gin.Context, p *auth.Principal, trial string) error {
		q := parseParams(c.Request, "limit", "cursor", "patientId", "unresolved")
		filter := store.ReportFilter{
			PatientID: q.id("patientId"), Disposition: d, Unresolved: q.oneOf("unresolved", "true", "false") == "true",
		}
		return s.answerReports(c, p, action, trial, q, filter)
	}
}

func (s *Server) answerReports(c *gin.Context, p *auth.Principal, action auth.Action, trial string, q *params, f store.ReportFilter) error {
	page := q.page()
	if err := q.err(); err != nil {
		return err
	}
	var err error
	if f.Sites, err = sitesOf(p, action, trial); err != nil {
		return err
	}
	ctx := c.Request.Context()
	if err := s.known(ctx, trial); err != nil {
		return err
	}
	list, next, err := s.reader.Reports(ctx, trial, f, page)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, reportList{Reports: mapped(list, viewReport), Next: next})
}

type auditList struct {
	Audit []auditView `json:"audit"`
	Next  string      `json:"next,omitempty"`
}

// listAudit lists the facts about a trial, or about no single one. The audit of
// a trial is whole or not at all: it is for those who see every site.
func (s *Server) listAudit(c *gin.Context, p *auth.Principal, trial string) error {
	q := parseParams(c.Request, "limit", "cursor")
	page := q.page()
	if err := q.err(); err != nil {
		return err
	}
	if !p.May(auth.ActionAuditRead, trial, "") {
		return forbidden(auth.ActionAuditRead)
	}
	ctx := c.Request.Context()
	if trial != "" {
		if err := s.known(ctx, trial); err != nil {
			return err
		}
	}
	list, next, err := s.reader.Audit(ctx, trial, page)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, auditList{Audit: mapped(list, viewAudit), Next: next})
}

func (s *Server) listGlobalAudit(c *gin.Context, p *auth.Principal) error {
	return s.listAudit(c, p, "")
}

type booksView struct {
	TrialID     string `json:"trialId"`
	Accepted    uint64 `json:"accepted"`
	Recorded    uint64 `json:"recorded"`
	Duplicates  uint64 `json:"duplicates"`
	Conflicts   uint64 `json:"conflicts"`
	Quarantined uint64 `json:"quarantined"`
	Pending     uint64 `json:"pending"`
	Position    uint64 `json:"position"` // of the last frame in the tables
}

func (s *Server) getBooks(c *gin.Context, p *auth.Principal, trial string) error {
	if !p.May(auth.ActionBooksRead, trial, "") {
		return forbidden(auth.ActionBooksRead)
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), booksTime)
	defer cancel()
	t, err := s.reader.Trial(ctx, trial)
	if err != nil {
		return err
	}
	books, cursor, err := s.booksAtRest(ctx, t.Shard, trial)
	if err != nil {
		return err
	}
	above, err := s.opts.Pending(ctx, t.Shard, cursor.Position)
	if err != nil {
		return fmt.Errorf("count the reports that are not in the tables yet: %w", err)
	}
	pending := above[trial]
	return answerJSON(c, http.StatusOK, booksView{
		TrialID: trial, Accepted: books.Recorded + books.Duplicates + books.Conflicts + books.Quarantined + pending,
		Recorded: books.Recorded, Duplicates: books.Duplicates, Conflicts: books.Conflicts, Quarantined: books.Quarantined,
		Pending: pending, Position: uint64(cursor.Position),
	})
}

// booksTime bounds counting, which reads every frame that is not in the tables.
const booksTime = 20 * time.Second

// booksAtRest reads books and the cursor they are for: the cursor is the same
// before and after. A frame takes the projector longer than two small reads, so
// some tries are enough.
func (s *Server) booksAtRest(ctx context.Context, shard uint32, trial string) (store.Books, store.Cursor, error) {
	for range 50 {
		before, err := s.reader.Cursor(ctx, shard)
		if err != nil {
			return store.Books{}, store.Cursor{}, err
		}
		books, err := s.reader.Books(ctx, trial)
		if err != nil {
			return store.Books{}, store.Cursor{}, err
		}
		after, err := s.reader.Cursor(ctx, shard)
		if err != nil {
			return store.Books{}, store.Cursor{}, err
		}
		if before.Position == after.Position {
			return books, after, nil
		}
	}
	return store.Books{}, store.Cursor{}, errors.New("the tables move too fast to read the books of one moment")
}
