package gateway

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
)

// Server is the HTTP edge: one handler for the public listener, one for the
// admin listener. It is safe for concurrent use.
type Server struct {
	cfg    Config
	log    *slog.Logger
	now    func() time.Time
	opts   Options
	intake Intake
	tokens Tokens
	creds  auth.Credentials
	reader store.Reader
	frames Frames
	root   ed25519.PublicKey

	meaningKey func(trial string) epro.MeaningKey
	signer     func() *receipt.Signer

	metrics *metrics
	tracer  trace.Tracer  // nil: nothing is traced
	bulks   chan struct{} // a token for each NDJSON request under way
	exports chan struct{} // a token for each CSV stream under way
	ready   atomic.Bool
	// lastReport is when a report came in last, ns since 1970, for [pace].
	lastReport atomic.Int64
	stopped    chan struct{} // closed when the public listener begins to stop
	stop       sync.Once
	public     *gin.Engine
	admin      http.Handler
	routes     []route
}

// New returns a server that is not ready yet: call [Server.SetReady].
func New(opts Options) (*Server, error) {
	if err := opts.Config.Check(); err != nil {
		return nil, err
	}
	for name, missing := range map[string]bool{
		"Intake": opts.Intake == nil, "Tokens": opts.Tokens == nil, "Credentials": opts.Credentials == nil, "MeaningKey": opts.MeaningKey == nil,
		"Reader": opts.Reader == nil, "Frames": opts.Frames == nil, "Signer": opts.Signer == nil, "Root": opts.Root == nil,
		"Passed": opts.Passed == nil, "Pending": opts.Pending == nil,
	} {
		if missing {
			return nil, fmt.Errorf("gateway: Options.%s is required", name)
		}
	}
	s := &Server{
		cfg: opts.Config, log: opts.Log, now: opts.Now, opts: opts, intake: opts.Intake, tokens: opts.Tokens, creds: opts.Credentials,
		reader: opts.Reader, frames: opts.Frames, root: opts.Root, meaningKey: opts.MeaningKey, signer: opts.Signer,
		bulks: make(chan struct{}, opts.Config.MaxBulks), exports: make(chan struct{}, opts.Config.MaxExports),
		stopped: make(chan struct{}), tracer: newTracer(opts.Tracing),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if opts.Directory != nil {
		s.opts.Dependencies = append(slices.Clone(opts.Dependencies), directoryDependency(opts.Directory))
	}
	s.metrics = newMetrics(s)
	s.routes = s.table()
	engine, err := s.newEngine()
	if err != nil {
		return nil, err
	}
	s.public = engine
	s.admin = s.newAdmin()
	return s, nil
}

// Public is the handler of the public listener.
func (s *Server) Public() http.Handler { return s.public }

// Admin is the handler of the admin listener.
func (s *Server) Admin() http.Handler { return s.admin }

// SetReady says whether /readyz may say so. Requests are served either way.
func (s *Server) SetReady(ready bool) { s.ready.Store(ready) }

// route is one line of the public API.
type route struct {
	method, path string
	writes       bool // it may record something, so every refusal says whether it did
	handle       func(*gin.Context) error
}

// table is the whole public API; api/openapi.yaml describes the same, and a
// test holds the two together.
func (s *Server) table() []route {
	const write, read = true, false
	const trial = "/v1/trials/:trialId"
	return []route{
		{http.MethodPost, "/v1/patient/report", write, s.postReport},
		{http.MethodPost, "/v1/patient/reports", write, s.postReports},
		{http.MethodGet, "/v1/patient/reports", read, s.own(s.listOwnReports)},
		{http.MethodGet, "/v1/patient/reports/:reportId", read, s.own(s.getOwnReport)},
		{http.MethodGet, "/v1/patient/reports/:reportId/receipt", read, s.own(s.getOwnReceipt)},
		{http.MethodGet, "/v1/patient/trials", read, s.listOwnTrials},

		{http.MethodGet, "/v1/keys", read, s.getKeys},

		{http.MethodGet, "/v1/trials", read, s.staff(s.listTrials)},
		{http.MethodPost, "/v1/trials", write, s.staff(s.createTrial)},
		{http.MethodGet, trial, read, s.inTrial(auth.ActionTrialList, s.getTrial)},
		{http.MethodPost, trial + "/status", write, s.inTrial(auth.ActionTrialStatus, s.changeStatus)},
		{http.MethodGet, trial + "/sites", read, s.inTrial(auth.ActionSiteList, s.listSites)},
		{http.MethodPost, trial + "/sites", write, s.inTrial(auth.ActionSiteCreate, s.createSite)},
		{http.MethodGet, trial + "/participants", read, s.inTrial(auth.ActionParticipantList, s.listParticipants)},
		{http.MethodPost, trial + "/participants", write, s.inTrial(auth.ActionParticipantEnroll, s.enroll)},
		{http.MethodGet, trial + "/participants/:patientId", read, s.inTrial(auth.ActionParticipantList, s.getParticipant)},
		{http.MethodPost, trial + "/participants/:patientId/withdraw", write, s.inTrial(auth.ActionParticipantWithdraw,
			s.changeParticipant(auth.ActionParticipantWithdraw, epro.KindParticipantWithdrew))},
		{http.MethodPost, trial + "/participants/:patientId/revoke-tokens", write, s.inTrial(auth.ActionParticipantRevokeTokens,
			s.changeParticipant(auth.ActionParticipantRevokeTokens, epro.KindTokensRevoked))},
		{http.MethodPost, trial + "/instruments", write, s.inTrial(auth.ActionInstrumentPublish, s.publishInstrument)},
		{http.MethodGet, trial + "/reports", read, s.inTrial(auth.ActionReportList, s.listReports)},
		{http.MethodGet, trial + "/reports.csv", read, s.inTrial(auth.ActionReportExport, s.exportReports)},
		{http.MethodGet, trial + "/quarantine", read, s.inTrial(auth.ActionQuarantineList, s.listAside(auth.ActionQuarantineList, epro.Quarantined))},
		{http.MethodGet, trial + "/conflicts", read, s.inTrial(auth.ActionConflictList, s.listAside(auth.ActionConflictList, epro.Conflict))},
		{http.MethodPost, trial + "/reports/:patientId/:reportId/resolutions", write, s.inTrial(auth.ActionReportResolve, s.resolveReport)},
		{http.MethodGet, trial + "/books", read, s.inTrial(auth.ActionBooksRead, s.getBooks)},
		{http.MethodGet, trial + "/audit", read, s.inTrial(auth.ActionAuditRead, s.listAudit)},

		{http.MethodGet, "/v1/audit", read, s.staff(s.listGlobalAudit)},
		{http.MethodGet, "/v1/commands/:commandId", read, s.staff(s.getCommand)},
		{http.MethodGet, "/v1/staff", read, s.staff(s.listStaff)},
		{http.MethodPost, "/v1/staff", write, s.staff(s.addStaff)},
		{http.MethodPost, "/v1/staff/:staffId/remove", write, s.staff(s.removeStaff)},
		{http.MethodPost, "/v1/staff/:staffId/roles", write, s.staff(s.changeRole(epro.KindStaffRoleGranted, http.StatusCreated))},
		{http.MethodPost, "/v1/staff/:staffId/roles/revoke", write, s.staff(s.changeRole(epro.KindStaffRoleRevoked, http.StatusOK))},
	}
}

// releaseMode keeps gin from writing to standard output. It is a setting of the
// whole process.
var releaseMode = sync.OnceFunc(func() { gin.SetMode(gin.ReleaseMode) })

func (s *Server) newEngine() (*gin.Engine, error) {
	releaseMode()
	e := gin.New() // no gin.Logger and no gin.Recovery: both would write what was sent
	if err := e.SetTrustedProxies(s.cfg.TrustedProxies); err != nil {
		return nil, fmt.Errorf("gateway: trusted proxies: %w", err)
	}
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false // a redirected POST is a lost report
	e.UseEscapedPath = true         // an id may hold a slash, sent as %2F
	for _, r := range s.routes {
		e.Handle(r.method, r.path, s.serve(r))
	}
	e.NoRoute(s.serve(route{method: "any", path: "none", handle: func(*gin.Context) error { return problemNoRoute }}))
	e.NoMethod(s.serve(route{method: "any", path: "other", handle: func(*gin.Context) error { return problemMethod }}))
	return e, nil
}

// serve wraps a handler: it counts, maps the error, and outlives a panic.
func (s *Server) serve(r route) gin.HandlerFunc {
	m := s.metrics.route(r.method, r.path)
	out := &outage{log: s.log.With("route", r.path, "method", r.method)}
	return func(c *gin.Context) {
		start := time.Now()
		h := c.Writer.Header()
		h["Cache-Control"] = headerNoStore
		h["X-Content-Type-Options"] = headerNoSniff
		var span trace.Span
		if s.tracer != nil {
			span = s.started(c, &r)
		}
		defer func() {
			if span != nil {
				defer func() { ended(span, c.Writer.Status()) }() // also of a stream that is cut
			}
			if v := recover(); v != nil {
				s.recovered(c, &r, v)
			}
			m.observe(c.Writer.Status(), time.Since(start))
		}()
		if err := r.handle(c); err != nil {
			s.fail(c, &r, out, err)
		} else if out.on.Load() {
			out.served(c.Request.Context(), s.now())
		}
	}
}

// fail answers an error, once.
func (s *Server) fail(c *gin.Context, r *route, out *outage, err error) {
	writes := r.writes || (r.method == "any" && c.Request.Method != http.MethodGet && c.Request.Method != http.MethodHead)
	p := problemOf(err, writes)
	gone := c.Request.Context().Err() != nil
	if p.cause != nil && !gone {
		out.fails(c.Request.Context(), s.now(), p.cause)
	}
	if c.Writer.Written() {
		// Too late for another answer: cut the stream, so that nobody takes it for whole.
		panic(http.ErrAbortHandler)
	}
	c.Writer.Header().Del("Content-Disposition") // of a stream that did not begin
	p.write(c)
}
