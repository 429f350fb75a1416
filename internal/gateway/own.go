package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
)

// own wraps a handler that shows a participant's own data: the token's, never
// another's.
func (s *Server) own(h func(*gin.Context, *auth.Claims) error) func(*gin.Context) error {
	return func(c *gin.Context) error {
		claims, err := s.claims(c.Request, s.now())
		if err != nil {
			return err
		}
		if claims.Kind != auth.KindParticipant || !claims.Scope.Has(auth.ScopeRead) {
			return problemScope
		}
		if err := s.notRevoked(c.Request.Context(), &claims); err != nil {
			return err
		}
		return h(c, &claims)
	}
}

// notRevoked refuses to show data to a token of a revoked epoch. Sending is
// another matter: what comes under such a token is taken and set aside.
func (s *Server) notRevoked(ctx context.Context, claims *auth.Claims) error {
	e, err := s.reader.Participant(ctx, claims.Trial, claims.Participant)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err == nil && claims.Epoch < e.MinEpoch:
		return problemRevoked
	}
	return err
}

type ownReportList struct {
	Reports []ownReportView `json:"reports"`
	Next    string          `json:"next,omitempty"`
}

func (s *Server) listOwnReports(c *gin.Context, claims *auth.Claims) error {
	q := parseParams(c.Request, "limit", "cursor")
	page := q.page()
	if err := q.err(); err != nil {
		return err
	}
	list, next, err := s.reader.OwnReports(c.Request.Context(), claims.Trial, claims.Participant, page)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, ownReportList{Reports: mapped(list, viewOwnReport), Next: next})
}

// ownReport is what became of a report: of the content sent last under its id,
// and of each.
type ownReport struct {
	ReportID    epro.UUID        `json:"reportId"`
	Disposition epro.Disposition `json:"disposition"`
	Versions    []ownReportView  `json:"versions"`
}

// pendingDisposition is said of a report that is taken but not in the tables.
const pendingDisposition epro.Disposition = "pending"

func (s *Server) getOwnReport(c *gin.Context, claims *auth.Claims) error {
	id, list, err := s.ownVersions(c, claims)
	if err != nil {
		return err
	}
	answer := ownReport{ReportID: id, Disposition: pendingDisposition, Versions: mapped(list, viewOwnReport)}
	if len(list) > 0 {
		answer.Disposition = list[len(list)-1].Disposition
	}
	return answerJSON(c, http.StatusOK, answer)
}

// ownVersions reads the contents under an id. None, without an error, means
// that the report is taken but not in the tables yet.
func (s *Server) ownVersions(c *gin.Context, claims *auth.Claims) (epro.UUID, []store.Report, error) {
	id, err := epro.ParseUUID(c.Param("reportId"))
	if err != nil {
		return id, nil, notFound("There is no such report: a report id is a UUID.")
	}
	list, err := s.reader.ReportVersions(c.Request.Context(), claims.Trial, claims.Participant, id)
	if errors.Is(err, store.ErrNotFound) {
		if s.intake.Holds(claims.Trial, claims.Participant, id) {
			return id, nil, nil
		}
		return id, nil, &problem{
			status: http.StatusNotFound, code: codeNotFound, retryAfter: 2 * time.Second,
			detail: "There is no such report of yours, or it was sent a moment ago and cannot be shown yet.",
		}
	}
	return id, list, err
}

type receiptView struct {
	ReportID   epro.UUID `json:"reportId"`
	Version    int       `json:"version"`
	Durability string    `json:"durability"`
	Receipt    string    `json:"receipt"`
}

// getOwnReceipt issues a report's receipt anew, from the journal, under the key
// that signs now. Of several contents under an id it is the first one's, or
// that of ?version=.
func (s *Server) getOwnReceipt(c *gin.Context, claims *auth.Claims) error {
	q := parseParams(c.Request, "version")
	version := 1
	if q.values.Has("version") {
		n, err := strconv.Atoi(q.values.Get("version"))
		if err != nil || n < 1 {
			q.bad("version", "must be a whole number from 1 on")
		}
		version = n
	}
	if err := q.err(); err != nil {
		return err
	}
	id, list, err := s.ownVersions(c, claims)
	if err != nil {
		return err
	}
	for i := range list {
		if list[i].Version != version {
			continue
		}
		r, err := s.receiptOf(c.Request.Context(), claims, list[i].Ref)
		if err != nil {
			return err
		}
		if strings.HasPrefix(c.Request.Header.Get("Accept"), "text/plain") {
			c.Writer.Header()["Content-Type"] = []string{"text/plain; charset=utf-8"}
			c.Writer.WriteHeader(http.StatusOK)
			_, _ = c.Writer.WriteString(r.String() + "\n") // an error means that the client went away
			return nil
		}
		return answerJSON(c, http.StatusOK, receiptView{ReportID: id, Version: version, Durability: r.Class.String(), Receipt: r.String()})
	}
	return &problem{
		status: http.StatusNotFound, code: codeNotFound, retryAfter: 2 * time.Second,
		detail: "There is no such version of this report, or it was sent a moment ago and cannot be shown yet.",
	}
}

// receiptOf makes the receipt of the fact at a place.
func (s *Server) receiptOf(ctx context.Context, claims *auth.Claims, ref store.Ref) (*receipt.Receipt, error) {
	frame, class, err := s.frameAt(ctx, claims.Shard, ref.Position)
	if err != nil {
		return nil, err
	}
	leaves := make([]epro.Digest, len(frame.Entries))
	for i := range frame.Entries {
		leaves[i] = epro.Leaf(frame.Entries[i].Envelope)
	}
	tree := journal.NewTree(leaves)
	if tree.Root() != frame.Header.Root || int(ref.Index) >= len(frame.Entries) {
		return nil, fmt.Errorf("frame %d is damaged: no receipt is signed for it: run `tidegate verify`", ref.Position)
	}
	entry := &frame.Entries[ref.Index]
	env, err := epro.DecodeEnvelope(entry.Envelope)
	if err != nil {
		return nil, fmt.Errorf("frame %d, fact %d: %w", ref.Position, ref.Index, err)
	}
	if env.Trial != claims.Trial || env.Subject != claims.Participant {
		return nil, fmt.Errorf("frame %d, fact %d is not what the tables say: run `tidegate rebuild`", ref.Position, ref.Index)
	}
	signer := s.signer()
	signed := &receipt.Signed{
		Header: frame.Header, Class: class, KeyID: signer.KeyID(), Signature: signer.Sign(frame.Header.Hash(), class), Tree: tree,
	}
	return signed.Receipt(int(ref.Index), entry.Envelope, entry.Salt), nil
}

// frameAt reads one frame of the journal, and what that frame survives.
func (s *Server) frameAt(ctx context.Context, shard uint32, at journal.Position) (journal.Frame, journal.Class, error) {
	if at == 0 {
		return journal.Frame{}, 0, errors.New("read a frame: there is none before the first")
	}
	records, err := s.frames.Read(ctx, shard, at-1, 1)
	if err != nil {
		return journal.Frame{}, 0, fmt.Errorf("read frame %d: %w", at, err)
	}
	if len(records) == 0 || records[0].Position != at {
		return journal.Frame{}, 0, fmt.Errorf("read frame %d: the journal does not have it: run `tidegate verify`", at)
	}
	frame, err := journal.DecodeFrame(records[0].Bytes)
	if err != nil {
		return journal.Frame{}, 0, fmt.Errorf("read frame %d: %w", at, err)
	}
	class := records[0].Class
	if class == 0 {
		class = s.frames.Properties().Class
	}
	return frame, class, nil
}
