package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// The commands of staff. Each checks first whether the person may ask for it,
// then the body; the projector decides.

func (s *Server) createTrial(c *gin.Context, p *auth.Principal) error {
	if !p.May(auth.ActionTrialCreate, "", "") {
		return forbidden(auth.ActionTrialCreate)
	}
	body, err := commandBody(c, nil, nil)
	if err != nil {
		return err
	}
	if _, sent := body["shard"]; sent {
		return invalidCommand(fieldProblem("shard", "is given by the server; leave it out"))
	}
	body["shard"] = json.RawMessage("0") // the only one on one machine
	trial := stringIn(body, "trialId")
	return s.command(c, p, epro.KindTrialCreated, body, http.StatusCreated, s.showTrial(trial))
}

func (s *Server) showTrial(trial string) func(context.Context) (string, any, error) {
	return func(ctx context.Context) (string, any, error) {
		t, err := s.reader.Trial(ctx, trial)
		return "trial", viewTrial(&t), err
	}
}

func (s *Server) showParticipant(trial, patient string) func(context.Context) (string, any, error) {
	return func(ctx context.Context) (string, any, error) {
		e, err := s.reader.Participant(ctx, trial, patient)
		return "participant", viewParticipant(&e), err
	}
}

func (s *Server) showStaff(id string) func(context.Context) (string, any, error) {
	return func(ctx context.Context) (string, any, error) {
		m, err := s.reader.Staff(ctx, id)
		return "staff", viewStaff(&m), err
	}
}

func (s *Server) changeStatus(c *gin.Context, p *auth.Principal, trial string) error {
	if !p.May(auth.ActionTrialStatus, trial, "") {
		return forbidden(auth.ActionTrialStatus)
	}
	body, err := commandBody(c, map[string]string{"trialId": trial}, nil)
	if err != nil {
		return err
	}
	return s.command(c, p, epro.KindTrialStatusChanged, body, http.StatusOK, s.showTrial(trial))
}

func (s *Server) createSite(c *gin.Context, p *auth.Principal, trial string) error {
	if !p.May(auth.ActionSiteCreate, trial, "") {
		return forbidden(auth.ActionSiteCreate)
	}
	body, err := commandBody(c, map[string]string{"trialId": trial}, nil)
	if err != nil {
		return err
	}
	site := map[string]string{"siteId": stringIn(body, "siteId"), "name": stringIn(body, "name")}
	return s.command(c, p, epro.KindSiteCreated, body, http.StatusCreated, func(context.Context) (string, any, error) {
		return "site", site, nil // as it was asked for: a site never changes
	})
}

func (s *Server) enroll(c *gin.Context, p *auth.Principal, trial string) error {
	body, err := commandBody(c, map[string]string{"trialId": trial}, map[string]string{"expect": "0"})
	if err != nil {
		return err
	}
	if !p.May(auth.ActionParticipantEnroll, trial, stringIn(body, "siteId")) {
		return forbidden(auth.ActionParticipantEnroll)
	}
	patient := stringIn(body, "patientId")
	return s.command(c, p, epro.KindParticipantEnrolled, body, http.StatusCreated, s.showParticipant(trial, patient))
}

// changeParticipant is a command about somebody who is enrolled.
func (s *Server) changeParticipant(action auth.Action, kind epro.Kind) func(*gin.Context, *auth.Principal, string) error {
	return func(c *gin.Context, p *auth.Principal, trial string) error {
		patient := c.Param("patientId")
		if _, err := s.enrollment(c.Request.Context(), p, action, trial, patient); err != nil {
			return err
		}
		body, err := commandBody(c, map[string]string{"trialId": trial, "patientId": patient}, nil)
		if err != nil {
			return err
		}
		return s.command(c, p, kind, body, http.StatusOK, s.showParticipant(trial, patient))
	}
}

func (s *Server) publishInstrument(c *gin.Context, p *auth.Principal, trial string) error {
	if !p.May(auth.ActionInstrumentPublish, trial, "") {
		return forbidden(auth.ActionInstrumentPublish)
	}
	body, err := commandBody(c, map[string]string{"trialId": trial}, nil)
	if err != nil {
		return err
	}
	return s.command(c, p, epro.KindInstrumentPublished, body, http.StatusCreated, s.showTrial(trial))
}

// resolveReport is what staff decide about a conflict or a quarantined report.
func (s *Server) resolveReport(c *gin.Context, p *auth.Principal, trial string) error {
	ctx, patient := c.Request.Context(), c.Param("patientId")
	id, err := epro.ParseUUID(c.Param("reportId"))
	if err != nil {
		return notFound("There is no such report: a report id is a UUID.")
	}
	list, err := s.reader.ReportVersions(ctx, trial, patient, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	body, bodyErr := commandBody(c, map[string]string{"trialId": trial, "patientId": patient, "reportId": id.String()}, nil)
	if bodyErr != nil && !p.May(auth.ActionReportResolve, trial, "") {
		return forbidden(auth.ActionReportResolve) // without the version the site is not known
	}
	if bodyErr != nil {
		return bodyErr
	}
	version, _ := strconv.Atoi(string(body["version"])) // what is wrong with it is said when the command is checked
	site := ""
	for i := range list {
		if list[i].Version == version {
			site = list[i].SiteID
		}
	}
	if !p.May(auth.ActionReportResolve, trial, site) {
		return forbidden(auth.ActionReportResolve)
	}
	return s.command(c, p, epro.KindReportResolved, body, http.StatusOK, func(ctx context.Context) (string, any, error) {
		list, err := s.reader.ReportVersions(ctx, trial, patient, id)
		for i := range list {
			if list[i].Version == version {
				return "report", viewReport(&list[i]), nil
			}
		}
		return "", nil, err
	})
}

func (s *Server) addStaff(c *gin.Context, p *auth.Principal) error {
	if !p.May(auth.ActionStaffManage, "", "") {
		return forbidden(auth.ActionStaffManage)
	}
	body, err := commandBody(c, nil, nil)
	if err != nil {
		return err
	}
	return s.command(c, p, epro.KindStaffAdded, body, http.StatusCreated, s.showStaff(stringIn(body, "staffId")))
}

func (s *Server) removeStaff(c *gin.Context, p *auth.Principal) error {
	if !p.May(auth.ActionStaffManage, "", "") {
		return forbidden(auth.ActionStaffManage)
	}
	id := c.Param("staffId")
	body, err := commandBody(c, map[string]string{"staffId": id}, nil)
	if err != nil {
		return err
	}
	return s.command(c, p, epro.KindStaffRemoved, body, http.StatusOK, s.showStaff(id))
}

// changeRole grants or revokes a role. Whoever manages the staff of one trial
// may do so there, and there only.
func (s *Server) changeRole(kind epro.Kind, success int) func(*gin.Context, *auth.Principal) error {
	return func(c *gin.Context, p *auth.Principal) error {
		if p.Trials(auth.ActionStaffManage).Empty() {
			return forbidden(auth.ActionStaffManage)
		}
		id := c.Param("staffId")
		body, err := commandBody(c, map[string]string{"staffId": id}, nil)
		if err != nil {
			return err
		}
		if !p.May(auth.ActionStaffManage, stringIn(body, "trialId"), "") {
			return forbidden(auth.ActionStaffManage)
		}
		return s.command(c, p, kind, body, success, s.showStaff(id))
	}
}
