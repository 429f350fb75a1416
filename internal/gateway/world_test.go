package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/memjournal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
	"github.com/tidegate/tidegate/internal/vault"
	"github.com/tidegate/tidegate/internal/vault/sqlitevault"
)

// world is a whole gateway on a loopback listener: real intake, real journal,
// real tables and projector, real vault.
type world struct {
	t       testing.TB
	keys    *auth.Keys
	journal journal.Journal
	mem     *memjournal.Journal // nil with SQLite
	intake  *intake.Intake
	tables  *sqlitestore.Store
	vault   vault.Vault
	gateway *gateway.Server
	log     *logBuffer
	url     string
	addr    string
	client  *http.Client
	spec    *contract

	stop    context.CancelFunc // of the public listener
	stopped chan error
	project func() // starts the projector, once
}

type setup struct {
	sqlite      bool
	noProjector bool
	noSeed      bool
	intake      func(*intake.Config)
	config      func(*gateway.Config)
	options     func(*gateway.Options)
	tracing     trace.TracerProvider
}

func newWorld(t testing.TB, s setup) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, log: &logBuffer{}, stopped: make(chan error, 1), spec: loadContract(t)}
	log := slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	w.keys, err = auth.InitKeys(filepath.Join(dir, "keys"))
	must(t, err)
	if s.sqlite {
		j, err := sqlitejournal.Open(t.Context(), filepath.Join(dir, "journal.db"), sqlitejournal.Options{})
		must(t, err)
		w.journal = j
	} else {
		w.mem = memjournal.New(memjournal.Options{Stride: 3})
		w.journal = w.mem
	}
	cfg := intake.NewDefaultConfig()
	if s.intake != nil {
		s.intake(&cfg)
	}
	w.intake, err = intake.New(t.Context(), w.journal, w.keys.Signer(), intake.Options{Config: cfg, Log: log, Tracing: s.tracing})
	must(t, err)
	w.tables, err = sqlitestore.Open(t.Context(), filepath.Join(dir, "store.db"))
	must(t, err)
	w.vault, err = sqlitevault.Open(t.Context(), filepath.Join(dir, "vault.db"), sqlitevault.Options{Create: true})
	must(t, err)
	p := projector.New(w.journal, w.tables, 0, projector.Options{Logger: log, Tracing: s.tracing})
	projecting, stopProjecting := context.WithCancel(context.Background())
	var projected sync.WaitGroup
	w.project = sync.OnceFunc(func() { projected.Go(func() { _ = p.Run(projecting) }) })
	if !s.noProjector {
		w.project()
	}

	config := gateway.NewDefaultConfig()
	if s.config != nil {
		s.config(&config)
	}
	opts := gateway.Options{
		Config: config, Log: log, Intake: w.intake, Tokens: w.keys, Credentials: w.vault, MeaningKey: w.keys.MeaningKey,
		Reader: w.tables, Frames: w.journal, Signer: w.keys.Signer, Root: w.keys.RootPublic(), Certificates: w.keys.Certificates,
		Passed: p.Passed, Tracing: s.tracing,
		Pending: func(ctx context.Context, shard uint32, after journal.Position) (map[string]uint64, error) {
			return projector.PendingReports(ctx, w.journal, shard, after)
		},
		Lag: func(ctx context.Context) (gateway.Lag, error) {
			l, err := p.Lag(ctx)
			return gateway.Lag{Applied: l.Applied, End: l.End, Age: l.Age}, err
		},
	}
	if s.options != nil {
		s.options(&opts)
	}
	w.gateway, err = gateway.New(opts)
	must(t, err)
	w.gateway.SetReady(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w.addr = l.Addr().String()
	scheme := "http://"
	if config.TLSCertFile != "" {
		scheme = "https://"
	}
	w.url = scheme + w.addr
	w.client = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	go func() { w.stopped <- w.gateway.ServePublic(ctx, l) }()
	t.Cleanup(func() {
		stop()
		w.client.CloseIdleConnections()
		select {
		case err := <-w.stopped:
			if err != nil {
				t.Errorf("stop: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the listener did not stop")
		}
		closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = w.intake.Close(closing)
		stopProjecting()
		projected.Wait()
		for _, c := range []io.Closer{w.tables, w.vault, w.journal} {
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	if !s.noSeed {
		w.seed()
	}
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

var operator = epro.Actor{Type: epro.ActorSystem, ID: "operator"}

// seed writes a small registry: two trials, two sites each, P-1 and P-2 at S01,
// P-3 at S02 of T001; P-1 at S01 of T002.
func (w *world) seed() {
	w.t.Helper()
	do := func(kind epro.Kind, body any) { w.command(kind, body) }
	do(epro.KindRulesActivated, epro.RulesActivated{RuleSet: projector.RuleSet, TZ: "2026a"})
	for _, cert := range w.keys.Certificates() {
		raw, err := json.Marshal(cert)
		must(w.t, err)
		do(epro.KindKeyAdded, json.RawMessage(raw))
	}
	do(epro.KindTrialCreated, epro.TrialCreated{TrialID: "T001", Name: "A Phase III Study of DrugX", Status: epro.TrialRecruiting})
	do(epro.KindTrialCreated, epro.TrialCreated{TrialID: "T002", Name: "Observational Study of DiseaseY", Status: epro.TrialActive})
	for _, trial := range []string{"T001", "T002"} {
		do(epro.KindInstrumentPublished, epro.InstrumentPublished{TrialID: trial, Instrument: "qol", Version: 1})
		do(epro.KindSiteCreated, epro.SiteCreated{TrialID: trial, SiteID: "S01", Name: "North"})
		do(epro.KindSiteCreated, epro.SiteCreated{TrialID: trial, SiteID: "S02", Name: "South"})
	}
	for _, e := range []epro.ParticipantEnrolled{
		{TrialID: "T001", SiteID: "S01", PatientID: "P-1"},
		{TrialID: "T001", SiteID: "S01", PatientID: "P-2"},
		{TrialID: "T001", SiteID: "S02", PatientID: "P-3"},
		{TrialID: "T002", SiteID: "S01", PatientID: "P-1"},
	} {
		do(epro.KindParticipantEnrolled, e)
	}
	w.settle()
}

// command appends a fact past HTTP.
func (w *world) command(kind epro.Kind, body any) {
	w.t.Helper()
	fact, err := registry.Fact(registry.Command{Kind: kind, ID: epro.NewUUID(), Actor: operator, Body: body}, time.Now())
	must(w.t, err)
	_, err = w.intake.Submit(w.t.Context(), &fact)
	must(w.t, err)
}

// settle waits until the tables have all that the journal has.
func (w *world) settle() {
	w.t.Helper()
	end := w.end()
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := w.tables.Cursor(context.Background(), 0)
		if err == nil && c.Position >= end {
			return
		}
		if time.Now().After(limit) {
			w.t.Fatalf("the tables are at %d, the journal at %d (%v): %s", c.Position, end, err, w.log)
		}
	}
}

func (w *world) end() journal.Position {
	w.t.Helper()
	end, err := w.journal.End(context.Background(), 0)
	must(w.t, err)
	return end.Position
}

// participant mints a token of a participant.
func (w *world) participant(trial, patient string, scope auth.Scope) string {
	return w.mint(auth.Claims{Kind: auth.KindParticipant, Scope: scope, Trial: trial, Participant: patient, Device: "phone-1", Expires: time.Now().Add(time.Hour)})
}

func (w *world) relay(trial string, sites ...string) string {
	return w.mint(auth.Claims{Kind: auth.KindRelay, Scope: auth.ScopeRelay, Trial: trial, Relay: "relay-1", Sites: sites, Expires: time.Now().Add(time.Hour)})
}

func (w *world) mint(c auth.Claims) string {
	w.t.Helper()
	token, err := w.keys.Mint(c)
	must(w.t, err)
	return token
}

// staff makes a staff member with one grant and returns a token.
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

// keySet is what GET /v1/keys gives, checked against the root.
func (w *world) keySet() *receipt.KeySet {
	w.t.Helper()
	a := w.get("/v1/keys", "")
	if a.status != 200 {
		w.t.Fatalf("keys: %s", a)
	}
	set, err := receipt.ParseKeys(a.body, w.keys.Fingerprint())
	must(w.t, err)
	return set
}

// reader is the tables with switches.
type reader struct {
	store.Reader
	fail  error
	panic string
	rows  int // EachReport gives so many rows, then fails
}

func (r *reader) EachReport(ctx context.Context, trial string, f store.ReportFilter, fn func(*store.Report) error) error {
	if r.rows == 0 {
		return r.Reader.EachReport(ctx, trial, f, fn)
	}
	for range r.rows {
		if err := fn(&store.Report{PatientID: "P-1", CompletedAt: time.Now()}); err != nil {
			return err
		}
	}
	return errDown
}

func (r *reader) OwnReports(ctx context.Context, trial, patient string, p store.Page) ([]store.Report, string, error) {
	if r.panic != "" {
		panic(r.panic)
	}
	if r.fail != nil {
		return nil, "", r.fail
	}
	return r.Reader.OwnReports(ctx, trial, patient, p)
}

var errDown = errors.New("tables are down")
