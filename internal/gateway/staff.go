package gateway

import (
	"context"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// principal resolves a staff token: the vault says whose it is, the tables say
// what that person may do now.
func (s *Server) principal(r *http.Request) (*auth.Principal, error) {
	token, err := bearer(r)
	if err != nil {
		return nil, err
	}
	now := s.now()
	switch auth.KindOf(token) {
	case auth.KindStaff:
	case auth.KindParticipant, auth.KindRelay:
		if _, err := s.claims(r, now); err != nil {
			return nil, err
		}
		return nil, problemScope
	default: // an operator's works on the admin listener only
		return nil, problemToken
	}
	id, err := auth.VerifyStaff(r.Context(), s.creds, token, now)
	if err != nil {
		return nil, tokenProblem(err)
	}
	member, err := s.reader.Staff(r.Context(), id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		// The credential is older than its facts in the tables: it may do nothing yet.
		p := auth.StaffPrincipal(id, nil)
		return &p, nil
	case err != nil:
		return nil, err
	case member.Removed:
		return nil, problemRevoked
	}
	grants := make([]auth.Grant, len(member.Grants))
	for i, g := range member.Grants {
		grants[i] = auth.Grant{Role: auth.Role(g.Role), Trial: g.TrialID, Site: g.SiteID}
	}
	p := auth.StaffPrincipal(id, grants)
	return &p, nil
}

// staff wraps a handler that is for staff.
func (s *Server) staff(h func(*gin.Context, *auth.Principal) error) func(*gin.Context) error {
	return func(c *gin.Context) error {
		p, err := s.principal(c.Request)
		if err != nil {
			return err
		}
		return h(c, p)
	}
}

// inTrial wraps a handler for one trial. Whoever may do the action nowhere in
// the trial is refused before anything is looked up, so a trial that exists and
// one that does not look the same from outside.
func (s *Server) inTrial(action auth.Action, h func(*gin.Context, *auth.Principal, string) error) func(*gin.Context) error {
	return s.staff(func(c *gin.Context, p *auth.Principal) error {
		trial := c.Param("trialId")
		if !p.Trials(action).Has(trial) {
			return forbidden(action)
		}
		if epro.ValidID(trial) != nil {
			return notFound("There is no such trial.")
		}
		return h(c, p, trial)
	})
}

func notFound(text string) error {
	return &problem{status: http.StatusNotFound, code: codeNotFound, detail: text}
}

// sitesOf is the filter of a list: the sites of the trial at which the
// principal may do the action, nil for all.
func sitesOf(p *auth.Principal, action auth.Action, trial string) ([]string, error) {
	e := p.Sites(action, trial)
	switch {
	case e.All:
		return nil, nil //nolint:nilnil // nil is the filter's word for all
	case e.Empty():
		return nil, forbidden(action)
	}
	return e.IDs, nil
}

// enrollment finds a participant for whom the principal may do the action. To
// those who see one site only, a participant of another and one who does not
// exist look the same.
func (s *Server) enrollment(ctx context.Context, p *auth.Principal, action auth.Action, trial, patient string) (store.Enrollment, error) {
	e, err := s.reader.Participant(ctx, trial, patient)
	switch {
	case err == nil && p.May(action, trial, e.SiteID):
		return e, nil
	case err == nil, errors.Is(err, store.ErrNotFound) && !p.May(action, trial, ""):
		return store.Enrollment{}, forbidden(action)
	case errors.Is(err, store.ErrNotFound):
		return store.Enrollment{}, notFound("There is no such participant in this trial.")
	}
	return store.Enrollment{}, err
}
