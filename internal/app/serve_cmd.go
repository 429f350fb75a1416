package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/telemetry"
	"github.com/tidegate/tidegate/internal/trialrpc"
)

// serveFlags are the settings that are flags too: few, the rest is in the file.
type serveFlags struct {
	HTTP   string   `help:"Public address. Default: 127.0.0.1:8080." name:"http"`
	Admin  string   `help:"Admin address: health, metrics, status. Default: 127.0.0.1:8082."`
	RPC    string   `help:"Address of the Trial service (gRPC). Default: 127.0.0.1:8081. 'none': it is not served." name:"rpc"`
	Anchor []string `help:"Where checkpoints go, outside the data folder: a path or URL; may be repeated. 'none' for no anchor."`
	Config string   `help:"Configuration file; see tidegate config doc." type:"path"`

	NoProjector bool `help:"Take reports only; another run projects them. For measurements." hidden:""`
}

func (f serveFlags) config(con *console, data string) (Config, error) {
	cfg, err := LoadConfig(f.Config, con.environ)
	if err != nil {
		return cfg, err
	}
	set := func(to *string, v string) {
		if v != "" {
			*to = v
		}
	}
	set(&cfg.Data, data)
	set(&cfg.HTTP, f.HTTP)
	set(&cfg.Admin, f.Admin)
	set(&cfg.RPC, f.RPC)
	if len(f.Anchor) > 0 {
		cfg.Anchors = f.Anchor
	}
	return cfg, cfg.Validate()
}

type serveCmd struct {
	Role string `arg:"" optional:"" help:"gateway, trial or projector: one role alone, on PostgreSQL. Without it all roles run in this process, on SQLite."`
	Data string `help:"Data folder. Without a role it is made if it does not exist; a role's is the one that keys were issued to. Default: data." type:"path"`
	File string `help:"The trial role's settings as go-zero spells them, etc/trial.yaml; what it does not say is as configured." short:"f" type:"path"`
	serveFlags
}

// Help shows an example.
func (serveCmd) Help() string {
	return help("Stop with SIGTERM: requests in hand get their answers. kill -9 loses nothing acknowledged either.", "tidegate serve --data /var/lib/tidegate --anchor /mnt/other/tidegate.anchor")
}

// Run serves until a signal comes.
func (c serveCmd) Run(ctx context.Context, con *console) error {
	if c.Role != "" && roleNamed(c.Role) == nil {
		if slices.Contains(rolesToCome, c.Role) {
			return usageError{fmt.Errorf("the role %s is not part of this version. On PostgreSQL there are: %s", c.Role, strings.Join(roleNames(), ", "))}
		}
		return usageError{fmt.Errorf("there is no role %q: %s, or none for all of them", c.Role, strings.Join(roleNames(), ", "))}
	}
	cfg, err := c.config(con, c.Data)
	if err != nil {
		return err
	}
	if r := roleNamed(c.Role); r != nil {
		if c.File != "" && c.Role != roleTrial {
			return usageError{errors.New("-f is for the trial role; every other setting is in --config")}
		}
		return serveRole(ctx, con, cfg, *r, trialFlags{file: c.File, listen: c.RPC})
	}
	if c.File != "" {
		return usageError{errors.New("-f is for the trial role: tidegate serve trial -f FILE")}
	}
	if err := oneMachine(cfg); err != nil {
		return err
	}
	s, err := startServer(ctx, con, cfg, c.NoProjector)
	if err != nil {
		return err
	}
	return s.serve(ctx)
}

// server is a node with its listeners.
type server struct {
	*node
	noProjector   bool
	public, admin net.Listener
	rpc           net.Listener // nil when the Trial service is off
	gateway       *gateway.Server
	vaultState    *watch

	trials   *trialrpc.Server // nil when it is off
	registry *directory.Directory
	metrics  *prometheus.Registry // of the Trial service
}

// startServer does all that comes before the first request, in the order in
// which it must be durable: folder and lock, keys, listeners, storage, roles.
func startServer(ctx context.Context, con *console, cfg Config, noProjector bool) (*server, error) {
	if err := cfg.CheckFiles(); err != nil {
		return nil, err
	}
	log := newLog(con.err, cfg.Log)
	for _, w := range cfg.Warnings() {
		log.Warn("an unwise setting", "warning", w)
	}
	f, err := prepareFolder(cfg.Data, "serve", true, log)
	if err != nil {
		return nil, err
	}
	s := &server{noProjector: noProjector, metrics: prometheus.NewRegistry()}
	if s.public, err = listen(cfg.HTTP, "http", "--http"); err != nil {
		return nil, errors.Join(err, f.close())
	}
	if s.admin, err = listen(cfg.Admin, "admin", "--admin"); err != nil {
		return nil, errors.Join(err, s.public.Close(), f.close())
	}
	if s.rpc, err = listenRPC(cfg, log); err != nil {
		return nil, errors.Join(err, s.closeListeners(), f.close())
	}
	if err := f.lock.describe(lockFile{PID: os.Getpid(), Admin: s.admin.Addr().String(), What: "serve"}); err != nil {
		return nil, errors.Join(err, s.closeListeners(), f.close())
	}
	roles := recordPath
	if noProjector {
		roles = recordPath[1:2]
	}
	stopTraces, err := startTraces(ctx, cfg.Tracing, "serve", con.version, s.metrics, log)
	if err != nil {
		return nil, errors.Join(err, s.closeListeners(), f.close())
	}
	if s.node, err = openNode(ctx, f, cfg, roles, (*node).check, log); err != nil {
		return nil, errors.Join(err, s.closeListeners())
	}
	if stopTraces != nil { // the first to start is the last to stop
		s.stops = slices.Insert(s.stops, 0, step{"traces", stopTraces})
	}
	s.vaultState = s.watchVault()
	s.followRegistry()
	if err = s.prepareCopies(s.metrics); err == nil && len(s.shipments) > 0 {
		s.stops = append(s.stops, step{"the copies", s.inBackground(func(ctx context.Context) error { s.keepCopies(ctx); return nil })})
	}
	if err == nil && s.rpc != nil {
		s.trials, err = s.trialService(cfg.rpcSettings(), s.vault, s.metrics)
	}
	if err != nil {
		return nil, errors.Join(err, s.closeListeners(), s.node.close(context.WithoutCancel(ctx)))
	}
	if s.gateway, err = gateway.New(s.options(con.version)); err != nil {
		return nil, errors.Join(err, s.closeListeners(), s.node.close(context.WithoutCancel(ctx)))
	}
	log.Info("root key", "fingerprint", f.keys.Fingerprint(), "new", f.fresh)
	return s, nil
}

func listen(addr, what, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: another program listens on %s already: stop it, or choose another address with %s", what, addr, flag)
	case err != nil:
		return nil, fmt.Errorf("%s: cannot listen on %s: %w", what, addr, err)
	}
	return l, nil
}

// listenRPC listens for the Trial service. It is no reason not to take reports
// that somebody else has the port which nobody asked for.
func listenRPC(cfg Config, log *slog.Logger) (net.Listener, error) {
	if !cfg.servesRPC() {
		return nil, nil //nolint:nilnil // it is off
	}
	l, err := listen(cfg.RPC, "rpc", "--rpc")
	if err != nil && cfg.RPC == NewDefaultConfig().RPC {
		log.Warn("the Trial service is not served", "error", err)
		return nil, nil //nolint:nilnil // as if it was off
	}
	return l, err
}

// followRegistry keeps the directory that participants' own trials are read
// from, as every gateway has one.
func (s *server) followRegistry() {
	s.registry = directory.New(directory.Options{Identity: s.keys.Fingerprint(), Log: slog.New(slog.DiscardHandler)})
	feed := directory.NewFeed(s.journal, s.store, slog.New(slog.DiscardHandler))
	stop := s.inBackground(func(ctx context.Context) error {
		s.registry.Run(ctx, feed)
		return nil
	})
	s.stops = append(s.stops, step{"the directory", stop})
}

func (s *server) closeListeners() error {
	err := errors.Join(s.public.Close(), s.admin.Close())
	if s.rpc != nil {
		err = errors.Join(err, s.rpc.Close())
	}
	return err
}

// options hands the gateway what it needs.
func (s *server) options(version string) gateway.Options {
	o := s.gatewayOptions(version)
	o.Credentials, o.Control, o.Dependencies = s.vault, s.control(), s.dependencies()
	o.Directory, o.Metrics = s.registry, s.metrics
	return o
}

// gatewayOptions are what every gateway needs, on one machine and on many.
func (n *node) gatewayOptions(version string) gateway.Options {
	c := gateway.NewDefaultConfig()
	c.MaxConnections, c.MaxHandshakes, c.MaxBulks = n.cfg.Limits.Connections, n.cfg.Limits.Handshakes, n.cfg.Limits.Bulk
	c.TLSCertFile, c.TLSKeyFile, c.TLSAllow12 = n.cfg.TLS.Cert, n.cfg.TLS.Key, n.cfg.TLS.MinVersion == "1.2"
	if n.cfg.Limits.TrustedProxies != "" {
		c.TrustedProxies = strings.Split(n.cfg.Limits.TrustedProxies, ",")
	}
	return gateway.Options{
		Config: c, Log: n.log, Intake: n.intake, Tokens: n.keys, MeaningKey: n.keys.MeaningKey,
		Reader: n.store, Frames: n.journal, Signer: n.keys.Signer, Root: n.keys.RootPublic(),
		Certificates: n.keys.Certificates, Passed: n.projector.Passed,
		Pending: func(ctx context.Context, shard uint32, after journal.Position) (map[string]uint64, error) {
			return projector.PendingReports(ctx, n.journal, shard, after)
		},
		Lag: func(ctx context.Context) (gateway.Lag, error) {
			l, err := n.projector.Lag(ctx)
			return gateway.Lag(l), err
		},
		Tracing: telemetry.Provider(), Version: version,
	}
}

// stopGrace bounds the whole stop, so that a supervisor's 10 s are not passed.
const stopGrace = 9500 * time.Millisecond

// serve answers until ctx is done or a role fails; then it stops everything,
// in order: listeners, intake with every waiter resolved, projector, storage.
func (s *server) serve(ctx context.Context) error {
	// The admin listener lives longest, so that a stop can be watched.
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	adminDone := make(chan error, 1)
	go func() { adminDone <- s.gateway.ServeAdmin(adminCtx, s.admin) }()
	publicCtx, stopPublic := context.WithCancel(ctx)
	publicDone := make(chan error, 1)
	go func() { publicDone <- s.gateway.ServePublic(publicCtx, s.public) }()
	listens := []any{"http", s.public.Addr().String(), "admin", s.admin.Addr().String()}
	stopRPC := func(context.Context) error { return nil }
	if s.trials != nil {
		listens = append(listens, "rpc", s.rpc.Addr().String())
		stopRPC = s.serveRPC(ctx, s.trials, s.rpc)
	}
	s.gateway.SetReady(true)
	s.log.Info("serving", append(listens, "data", s.dir)...)

	var cause, failed error
	select {
	case <-ctx.Done():
		s.log.Info("stopping: requests in hand get their answers")
	case failed = <-s.failed:
		s.log.Error("stopping: a part of the process failed", "error", failed)
	case cause = <-publicDone:
		publicDone <- nil
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	s.gateway.SetReady(false)
	stopPublic()
	rpcDone := make(chan error, 1)
	go func() { rpcDone <- stopRPC(limit) }() // it is a listener too: its callers wait for intake
	err := errors.Join(cause, <-publicDone, <-rpcDone, s.stopAll(limit))
	stopAdmin()
	err = errors.Join(err, <-adminDone, s.storage.close(), s.folder.close())
	return ended(s.log, failed, err)
}

// dependencies are what /status names.
func (s *server) dependencies() []gateway.Dependency {
	deps := []gateway.Dependency{
		{Name: "journal", Check: s.journalState},
		{Name: "projector", Check: func() gateway.State {
			if s.noProjector {
				return gateway.State{State: "off", Note: "started with --no-projector"}
			}
			if err := s.projector.Err(); err != nil {
				return gateway.State{State: "stopped", Note: err.Error()}
			}
			return gateway.State{OK: true, State: "serving"}
		}},
		{Name: "vault", Check: s.vaultState.now},
	}
	if s.trials != nil {
		deps = append(deps, gateway.Dependency{Name: "trial service", Check: func() gateway.State { return stateOfRPC(s.trials, len(s.cfg.Etcd.Endpoints) > 0) }})
	}
	for i, a := range s.anchors {
		deps = append(deps, gateway.Dependency{Name: "anchor " + a.String(), Check: func() gateway.State {
			if s.loop == nil {
				return gateway.State{OK: true, State: "waiting"}
			}
			return stateOfAnchor(s.loop.Status()[i])
		}})
	}
	return append(deps, s.shipDependencies()...)
}

// journalSlow is how long a frame may take to become durable before somebody
// should look, if intake.maxAge is not shorter.
const journalSlow = 5 * time.Second

// journalState is how the journal is, as far as intake knows.
func (n *node) journalState() gateway.State {
	st := n.intake.Stats()
	switch {
	case st.Unresolved:
		return gateway.State{State: "unknown", Note: "the outcome of a frame is unknown; it is repeated until it is known"}
	case st.Stopped:
		return gateway.State{State: "stopped", Note: "intake takes nothing: see the log"}
	case st.LowDisk:
		return gateway.State{State: "full", Note: "the disk has less free space than intake.diskFloorMB: reports are refused until there is room"}
	case st.Oldest > min(n.cfg.Intake.MaxAge, journalSlow):
		// The process stays ready: a balancer would move its phones to another
		// gateway, whose frames wait for the same database.
		note := fmt.Sprintf("the oldest frame has waited %s to become durable: look at the disk, or at PostgreSQL and its synchronous standby", st.Oldest.Round(100*time.Millisecond))
		if st.Oldest > n.cfg.Intake.MaxAge {
			note += "; new reports get a 503 until it is"
		}
		return gateway.State{State: "slow", Since: time.Now().Add(-st.Oldest).Truncate(time.Second), Note: note}
	}
	return gateway.State{OK: true, State: "serving"}
}

func stateOfAnchor(st receipt.AnchorStatus) gateway.State {
	if st.Err != "" {
		return gateway.State{State: "failing", Since: st.Failing, Note: st.Err}
	}
	return gateway.State{OK: true, State: "serving", Since: st.Written}
}

// url is where phones reach the server.
func (s *server) url() string {
	scheme := "http"
	if s.cfg.TLS.Cert != "" {
		scheme = "https"
	}
	return scheme + "://" + s.public.Addr().String()
}
