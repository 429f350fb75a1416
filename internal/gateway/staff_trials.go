package gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/store"
)

type trialList struct {
	Trials []trialView `json:"trials"`
	Next   string      `json:"next,omitempty"`
}

func (s *Server) listTrials(c *gin.Context, p *auth.Principal) error {
	q := parseParams(c.Request, "limit", "cursor")
	page := q.page()
	if err := q.err(); err != nil {
		return err
	}
	extent := p.Trials(auth.ActionTrialList)
	if extent.Empty() {
		return forbidden(auth.ActionTrialList)
	}
	list, next, err := s.trialsOf(c.Request.Context(), extent, page)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, trialList{Trials: mapped(list, viewTrial), Next: next})
}

// trialsOf lists trials of an extent. A person with some trials has few: they
// are read one by one, and no page has holes where foreign trials would be.
func (s *Server) trialsOf(ctx context.Context, extent auth.Extent, page store.Page) ([]store.Trial, string, error) {
	if extent.All {
		return s.reader.Trials(ctx, page)
	}
	after, err := base64.RawURLEncoding.DecodeString(page.After)
	if err != nil {
		return nil, "", store.ErrCursor
	}
	from := 0
	if len(after) > 0 {
		i, found := slices.BinarySearch(extent.IDs, string(after))
		if from = i; found {
			from++
		}
	}
	var list []store.Trial
	for i := from; i < len(extent.IDs); i++ {
		if len(list) == page.Limit {
			return list, base64.RawURLEncoding.EncodeToString([]byte(extent.IDs[i-1])), nil
		}
		trial, err := s.reader.Trial(ctx, extent.IDs[i])
		if errors.Is(err, store.ErrNotFound) {
			continue // granted before it was created
		}
		if err != nil {
			return nil, "", err
		}
		list = append(list, trial)
	}
	return list, "", nil
}

func (s *Server) getTrial(c *gin.Context, _ *auth.Principal, id string) error {
	trial, err := s.reader.Trial(c.Request.Context(), id)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, viewTrial(&trial))
}

type siteList struct {
	Sites []siteView `json:"sites"`
	Next  string     `json:"next,omitempty"`
}

// listSites lists the sites at which the principal may see something. Trials
// have some hundred sites at most, so a page is filtered after reading it.
func (s *Server) listSites(c *gin.Context, p *auth.Principal, trial string) error {
	q := parseParams(c.Request, "limit", "cursor")
	page := q.page()
	if err := q.err(); err != nil {
		return err
	}
	if err := s.known(c.Request.Context(), trial); err != nil {
		return err
	}
	extent := p.Sites(auth.ActionSiteList, trial)
	list, next, err := s.reader.Sites(c.Request.Context(), trial, page)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(site store.Site) bool { return !extent.Has(site.ID) })
	return answerJSON(c, http.StatusOK, siteList{Sites: mapped(list, viewSite), Next: next})
}

// known says whether the trial exists.
func (s *Server) known(ctx context.Context, trial string) error {
	_, err := s.reader.Trial(ctx, trial)
	if errors.Is(err, store.ErrNotFound) {
		return notFound("There is no such trial.")
	}
	return err
}

type participantList struct {
	Participants []participantView `json:"participants"`
	Next         string            `json:"next,omitempty"`
}

func (s *Server) listParticipants(c *gin.Context, p *auth.Principal, trial string) error {
	q := parseParams(c.Request, "limit", "cursor")
	page := q.page()
	if err := q.err(); err != nil {
		return err
	}
	sites, err := sitesOf(p, auth.ActionParticipantList, trial)
	if err != nil {
		return err
	}
	if err := s.known(c.Request.Context(), trial); err != nil {
		return err
	}
	list, next, err := s.reader.Participants(c.Request.Context(), trial, sites, page)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, participantList{Participants: mapped(list, viewParticipant), Next: next})
}

func (s *Server) getParticipant(c *gin.Context, p *auth.Principal, trial string) error {
	e, err := s.enrollment(c.Request.Context(), p, auth.ActionParticipantList, trial, c.Param("patientId"))
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, viewParticipant(&e))
}

type staffList struct {
	Staff []staffView `json:"staff"`
	Next  string      `json:"next,omitempty"`
}

func (s *Server) listStaff(c *gin.Context, p *auth.Principal) error {
	q := parseParams(c.Request, "limit", "cursor")
	page := q.page()
	if err := q.err(); err != nil {
		return err
	}
	if !p.May(auth.ActionStaffManage, "", "") {
		return forbidden(auth.ActionStaffManage)
	}
	list, next, err := s.reader.StaffList(c.Request.Context(), page)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, staffList{Staff: mapped(list, viewStaff), Next: next})
}
