package trialrpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
	"github.com/tidegate/tidegate/internal/trialrpc"
	"github.com/tidegate/tidegate/internal/vault"
	"github.com/tidegate/tidegate/internal/vault/sqlitevault"
)

// world is what a Trial service stands on: a real journal with its intake, real
// tables with their projector, a real vault.
type world struct {
	t       testing.TB
	keys    *auth.Keys
	journal journal.Journal
	intake  *intake.Intake
	tables  *sqlitestore.Store
	vault   vault.Vault
	project *projector.Projector
	log     *logBuffer
	logger  *slog.Logger
	reader  *reader // the tables, with switches

	pauseProjector, resumeProjector func()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, log: &logBuffer{}}
	w.logger = slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	w.keys, err = auth.InitKeys(filepath.Join(dir, "keys"))
	must(t, err)
	w.journal, err = sqlitejournal.Open(t.Context(), filepath.Join(dir, "journal.db"), sqlitejournal.Options{})
	must(t, err)
	w.intake, err = intake.New(t.Context(), w.journal, w.keys.Signer(), intake.Options{Config: intake.NewDefaultConfig(), Log: w.logger})
	must(t, err)
	w.tables, err = sqlitestore.Open(t.Context(), filepath.Join(dir, "store.db"))
	must(t, err)
	w.reader = &reader{Reader: w.tables}
	w.vault, err = sqlitevault.Open(t.Context(), filepath.Join(dir, "vault.db"), sqlitevault.Options{Create: true})
	must(t, err)
	w.project = projector.New(w.journal, w.tables, 0, projector.Options{Logger: w.logger})
	var running sync.WaitGroup
	stop := func() {}
	w.resumeProjector = func() {
		ctx, cancel := context.WithCancel(context.Background())
		stop = cancel
		running.Go(func() { _ = w.project.Run(ctx) })
	}
	w.pauseProjector = func() { stop(); running.Wait() }
	w.resumeProjector()
	t.Cleanup(func() {
		closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = w.intake.Close(closing)
		w.pauseProjector()
		for _, c := range []io.Closer{w.tables, w.vault, w.journal} {
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	w.seed()
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logBuffer keeps every log line.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// reader is the tables with switches.
type reader struct {
	store.Reader
	slow  atomic.Int64 // nanoseconds that a list of trials takes
	fail  atomic.Bool  // nothing can be read
	panic atomic.Pointer[string]
}

var errDown = errors.New("tables are down")

func (r *reader) Trials(ctx context.Context, p store.Page) ([]store.Trial, string, error) {
	if v := r.panic.Load(); v != nil {
		panic(*v)
	}
	if r.fail.Load() {
		return nil, "", errDown
	}
	if d := time.Duration(r.slow.Load()); d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
	return r.Reader.Trials(ctx, p)
}

func (r *reader) Staff(ctx context.Context, id string) (store.Staff, error) {
	if r.fail.Load() {
		return store.Staff{}, errDown
	}
	return r.Reader.Staff(ctx, id)
}

// seed writes two trials with two sites each; P-1 at S01 and P-3 at S02 of
// T001; P-2 at S01 of both.
func (w *world) seed() {
	w.t.Helper()
	w.command(epro.KindRulesActivated, epro.RulesActivated{RuleSet: projector.RuleSet, TZ: "2026a"})
	w.command(epro.KindTrialCreated, epro.TrialCreated{TrialID: "T001", Name: "A Phase III Study of DrugX", Status: epro.TrialRecruiting})
	w.command(epro.KindTrialCreated, epro.TrialCreated{TrialID: "T002", Name: "Observational Study of DiseaseY", Status: epro.TrialActive})
	for _, trial := range []string{"T001", "T002"} {
		w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: trial, SiteID: "S01", Name: "North"})
		w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: trial, SiteID: "S02", Name: "South"})
	}
	for _, e := range []epro.ParticipantEnrolled{
		{TrialID: "T001", SiteID: "S01", PatientID: "P-1"},
		{TrialID: "T001", SiteID: "S01", PatientID: "P-2"},
		{TrialID: "T001", SiteID: "S02", PatientID: "P-3"},
		{TrialID: "T002", SiteID: "S01", PatientID: "P-2"},
	} {
		w.command(epro.KindParticipantEnrolled, e)
	}
	w.settle()
}

// command appends a fact past the service.
func (w *world) command(kind epro.Kind, body any) {
	w.t.Helper()
	fact, err := registry.Fact(registry.Command{
		Kind: kind, ID: epro.NewUUID(), Actor: epro.Actor{Type: epro.ActorSystem, ID: "operator"}, Body: body,
	}, time.Now())
	must(w.t, err)
	_, err = w.intake.Submit(w.t.Context(), &fact)
	must(w.t, err)
}

// settle waits until the tables have all that the journal has.
func (w *world) settle() {
	w.t.Helper()
	end, err := w.journal.End(w.t.Context(), 0)
	must(w.t, err)
	w.eventually("the tables follow the journal", func() bool {
		c, err := w.tables.Cursor(context.Background(), 0)
		return err == nil && c.Position >= end.Position
	})
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for limit := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			w.t.Fatalf("never: %s; log:\n%s", what, w.log)
		}
	}
}

// staff makes a staff member with grants and returns a token.
func (w *world) staff(id string, grants ...epro.StaffRole) string {
	w.t.Helper()
	w.command(epro.KindStaffAdded, epro.StaffAdded{StaffID: id, Name: "Staff " + id})
	for _, g := range grants {
		g.StaffID = id
		w.command(epro.KindStaffRoleGranted, g)
	}
	token, cred, err := auth.NewStaffToken(id, time.Now(), time.Hour)
	must(w.t, err)
	must(w.t, w.vault.CreateCredential(w.t.Context(), cred))
	w.settle()
	return token
}

// everyone may do everything that the service offers.
func (w *world) everyone() string {
	return w.staff("all",
		epro.StaffRole{Role: registry.RoleAdmin}, epro.StaffRole{Role: registry.RoleSponsor},
		epro.StaffRole{Role: registry.RoleCoordinator}, epro.StaffRole{Role: registry.RoleDataManager})
}

func settings() trialrpc.Settings {
	return trialrpc.Settings{Listen: "127.0.0.1:0", Timeout: 5 * time.Second}
}

func (w *world) options() trialrpc.Options {
	return trialrpc.Options{
		Settings: settings(), Log: w.logger, Intake: w.intake, Credentials: w.vault, Reader: w.reader, Frames: w.journal, Passed: w.project.Passed,
		Directory: directory.NewFeed(w.journal, w.tables, w.logger), Metrics: prometheus.NewRegistry(),
	}
}

// service is a Trial service at work.
type service struct {
	w      *world
	addr   string
	server *trialrpc.Server
	stop   context.CancelFunc
	ended  chan error
}

// serve starts a service. It stops with the test, or before.
func (w *world) serve(change func(*trialrpc.Options)) *service {
	w.t.Helper()
	o := w.options()
	if change != nil {
		change(&o)
	}
	s, err := trialrpc.NewServer(o)
	must(w.t, err)
	l, err := net.Listen("tcp", o.Settings.Listen)
	must(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &service{w: w, addr: l.Addr().String(), server: s, stop: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- s.Serve(ctx, l) }()
	w.eventually("the service serves", func() bool {
		select {
		case err := <-r.ended:
			w.t.Fatalf("the service ended: %v", err)
		default:
		}
		return s.State().Serving
	})
	w.t.Cleanup(func() {
		if err := r.end(); err != nil {
			w.t.Errorf("stop: %v", err)
		}
	})
	return r
}

// end stops the service and says how that went; the first time only.
func (s *service) end() error {
	s.stop()
	select {
	case err, first := <-s.ended:
		if first {
			close(s.ended)
		}
		return err
	case <-time.After(30 * time.Second):
		return errors.New("the service did not stop")
	}
}

// dial is an ordinary gRPC client.
func dial(t testing.TB, addr string, options ...grpc.DialOption) trialv1.TrialClient {
	t.Helper()
	return trialv1.NewTrialClient(connect(t, addr, options...))
}

func connect(t testing.TB, addr string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if len(options) == 0 {
		options = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	c, err := grpc.NewClient("passthrough:///"+addr, options...)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// client is Tidegate's own client.
func (w *world) client(change func(*trialrpc.ClientOptions)) *trialrpc.Client {
	w.t.Helper()
	o := trialrpc.ClientOptions{Settings: settings(), Log: w.logger, Metrics: prometheus.NewRegistry()}
	change(&o)
	c, err := trialrpc.NewClient(o)
	must(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// failure is a status with its details.
type failure struct {
	code   codes.Code
	reason string
	info   map[string]string
	fields []string
	retry  time.Duration
}

func failureOf(err error) failure {
	s := status.Convert(err)
	f := failure{code: s.Code()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			f.reason, f.info = d.GetReason(), d.GetMetadata()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				f.fields = append(f.fields, v.GetField())
			}
		case *errdetails.RetryInfo:
			f.retry = d.GetRetryDelay().AsDuration()
		}
	}
	return f
}
