package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/telemetry"
	"github.com/tidegate/tidegate/internal/trialrpc"
)

// The Trial service, and the directory that follows it.

// fileDirectory keeps a gateway's directory over restarts.
const fileDirectory = "directory"

// rpcSettings are the Trial service's settings, as the configuration says them.
func (c *Config) rpcSettings() trialrpc.Settings {
	return trialrpc.Settings{
		Listen: c.RPC, Advertise: c.Trial.Advertise, Endpoints: c.Trial.Endpoints, Timeout: c.Trial.Timeout,
		MaxConcurrent: c.Trial.MaxConcurrent, Rate: c.Trial.Rate, Burst: c.Trial.Burst, Shedding: c.Trial.Shedding,
		Etcd: trialrpc.Etcd{
			Endpoints: c.Etcd.Endpoints, Key: c.Etcd.Key, Cert: c.Etcd.Cert, CertKey: c.Etcd.CertKey, CA: c.Etcd.CA,
			User: c.Etcd.User, PasswordFile: c.Etcd.PasswordFile, DialTimeout: c.Etcd.DialTimeout,
		},
		TLS: trialrpc.TLS{Cert: c.RPCTLS.Cert, Key: c.RPCTLS.Key, CA: c.RPCTLS.CA},
	}
}

// trialService makes the service on top of the record path. Metrics go to r.
func (n *node) trialService(settings trialrpc.Settings, creds auth.Credentials, r prometheus.Registerer) (*trialrpc.Server, error) {
	return trialrpc.NewServer(trialrpc.Options{
		Settings: settings, Log: n.log, Intake: n.intake, Credentials: creds, Reader: n.store, Frames: n.journal,
		Passed: n.projector.Passed, Directory: directory.NewFeed(n.journal, n.store, n.log), Metrics: r, Tracing: telemetry.Provider(),
	})
}

// trialFlags are what the command line says to the trial role alone.
type trialFlags struct {
	file   string // etc/trial.yaml
	listen string // the address, which as a flag goes before the file
}

// settings of the trial role: the configuration, then go-zero's file, then flags.
func (t trialFlags) settings(cfg *Config) (s trialrpc.Settings, err error) {
	s = cfg.rpcSettings()
	if t.file != "" {
		if s, err = trialrpc.LoadYAML(t.file, s); err != nil {
			return s, err
		}
	}
	if t.listen != "" {
		s.Listen = t.listen
	}
	if s.Listen == "" || s.Listen == rpcOff {
		return s, errors.New("rpc: the trial role needs an address to listen on, such as 127.0.0.1:8081")
	}
	return s, nil
}

// check says what a role cannot do with its settings, before it waits for
// anything.
func (t trialFlags) check(role string, cfg *Config) error {
	switch role {
	case roleTrial:
		s, err := t.settings(cfg)
		if err == nil {
			err = s.CheckServer()
		}
		return err
	case roleGateway:
		if followsService(cfg) {
			s := cfg.rpcSettings()
			return s.CheckClient()
		}
	}
	return nil
}

// followsService says whether a Trial service is configured that gateways find.
func followsService(cfg *Config) bool {
	return len(cfg.Trial.Endpoints) > 0 || len(cfg.Etcd.Endpoints) > 0
}

// startRoleRPC is the trial role's listener.
func startRoleRPC(ctx context.Context, p *process) (func(context.Context) error, error) {
	p.projecting = p.watchProjector()
	settings, err := p.trial.settings(&p.cfg)
	if err != nil {
		return nil, err
	}
	s, err := p.trialService(settings, lateCredentials{p.secrets}, p.site.parts)
	if err != nil {
		return nil, err
	}
	l, err := listen(settings.Listen, "rpc", "--rpc")
	if err != nil {
		return nil, err
	}
	p.rpc, p.rpcEtcd = s, len(settings.Etcd.Endpoints) > 0
	p.listens = []any{"rpc", l.Addr().String()}
	return p.serveRPC(ctx, s, l), nil
}

// serveRPC serves until the returned stop is called, and fails the process when
// the listener ends by itself.
func (n *node) serveRPC(ctx context.Context, s *trialrpc.Server, l net.Listener) func(context.Context) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() {
		err := s.Serve(serving, l)
		if serving.Err() == nil {
			n.fail(errors.Join(errors.New("the Trial service ended"), err))
		}
		done <- err
	}()
	return func(limit context.Context) error {
		stop()
		return inTime(limit, func() error { return <-done })
	}
}

// stateOfRPC is how the service of this process is.
func stateOfRPC(s *trialrpc.Server, etcd bool) gateway.State {
	st := s.State()
	switch {
	case !st.Serving:
		return gateway.State{State: "stopped", Note: "the Trial service does not serve: see the log"}
	case etcd && !st.Registered:
		return gateway.State{State: "not registered", Note: "etcd does not hold this instance, so gateways that start now do not find it; it is tried again"}
	}
	return gateway.State{OK: true, State: "serving"}
}

// etcdOfRPC is how the etcd is that holds the registration of a service.
func etcdOfRPC(s *trialrpc.Server) gateway.State {
	st := s.State()
	switch {
	case st.EtcdErr != nil:
		return gateway.State{State: "failing", Since: st.EtcdSince, Note: fmt.Sprintf("this instance cannot register (%v): gateways that know it go on, those that start now do not find it; it is tried again", st.EtcdErr)}
	case !st.Registered:
		return gateway.State{State: "waiting", Note: "this instance is not registered yet"}
	}
	return gateway.State{OK: true, State: "registered"}
}

// startRoleDirectory keeps this gateway's copy of the registry: from the Trial
// service, or, where none is configured, from the tables.
func startRoleDirectory(_ context.Context, p *process) (func(context.Context) error, error) {
	p.registry = directory.New(directory.Options{Path: p.path(fileDirectory), Identity: p.keys.Fingerprint(), Log: p.log})
	var source directory.Source = directory.NewFeed(p.journal, p.store, p.log)
	closing := func() error { return nil }
	if followsService(&p.cfg) {
		c, err := trialrpc.NewClient(trialrpc.ClientOptions{Settings: p.cfg.rpcSettings(), Log: p.log, Metrics: p.site.parts, Tracing: telemetry.Provider()})
		if err != nil {
			return nil, err
		}
		p.client, source, closing = c, c, c.Close
	}
	stop := p.inBackground(func(ctx context.Context) error {
		p.registry.Run(ctx, source)
		return nil
	})
	return func(ctx context.Context) error { return errors.Join(stop(ctx), closing()) }, nil
}

// clientStates are how the gateway's way to the Trial service is.
func (p *process) clientStates() []gateway.Dependency {
	deps := []gateway.Dependency{{Name: "trial service", Check: func() gateway.State {
		st := p.client.State()
		switch {
		case st.Connected:
			return gateway.State{OK: true, State: "serving", Note: "instances: " + strings.Join(st.Instances, ", ")}
		case len(st.Instances) == 0:
			return gateway.State{State: "not found", Note: "no instance is known; reports are taken, and participants see what the directory knew last"}
		}
		return gateway.State{State: "not connected", Note: "reports are taken, and participants see what the directory knew last"}
	}}}
	if len(p.cfg.Trial.Endpoints) == 0 {
		deps = append(deps, gateway.Dependency{Name: "etcd", Check: func() gateway.State {
			if err := p.client.State().Err; err != nil {
				return gateway.State{State: "failing", Note: fmt.Sprintf("instances of the Trial service are those last known (%v)", err)}
			}
			return gateway.State{OK: true, State: "serving"}
		}})
	}
	return deps
}
