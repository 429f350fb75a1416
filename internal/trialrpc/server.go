package trialrpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/edge"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/server"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/svc"
)

// Bounds of a connection and of a message.
const (
	maxRequestBytes = 64 << 10 // a few short texts
	maxReplyBytes   = 4 << 20  // what gRPC's clients take: about 20,000 rows
	maxHeaderBytes  = 16 << 10
	streamsEach     = 256 // calls at once on one connection
	defaultStop     = 8 * time.Second
)

// Server is a Trial service.
type Server struct {
	o         Options
	intercept *interceptor
	options   []grpc.ServerOption
	announcer atomic.Pointer[announcer]
	serving   atomic.Bool
}

// NewServer checks the settings and makes a service that does not serve yet.
func NewServer(o Options) (*Server, error) {
	if err := o.Settings.CheckServer(); err != nil {
		return nil, err
	}
	if err := checkEtcd(o.Settings.Etcd); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.StopTimeout <= 0 {
		o.StopTimeout = defaultStop
	}
	logs.log.Store(o.Log)
	s := &Server{o: o, intercept: &interceptor{
		log: o.Log, trouble: edge.NewTrouble(o.Log), tracer: tracerOf(o.Tracing), metrics: newServerMetrics(o.Metrics), limits: newLimiter(&o.Settings),
		streams: make(chan struct{}, maxStreams), timeout: o.Settings.Timeout,
	}}
	s.options = []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.intercept.unary), grpc.ChainStreamInterceptor(s.intercept.stream),
		grpc.MaxRecvMsgSize(maxRequestBytes), grpc.MaxSendMsgSize(maxReplyBytes), grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(streamsEach), grpc.ConnectionTimeout(5 * time.Second),
		// A peer that is gone is noticed; one that pings more often than this is cut off.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 5 * time.Minute, Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if o.Settings.TLS.On() {
		files := tlsFiles(o.Settings.TLS)
		cfg, err := files.mutual()
		if err != nil {
			return nil, err
		}
		s.options = append(s.options, grpc.Creds(credentials.NewTLS(cfg)))
	}
	return s, nil
}

// Serve serves until ctx is done, then stops: the registration in etcd is taken
// back, directories are sent to other instances, calls in hand get their
// answers. It returns nil after a stop in which every call got one. It may be
// called again afterwards, with another listener.
//
// zRPC listens by itself, so the listener gives its address and is closed.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return fmt.Errorf("trial service: %w", err)
	}
	stopping := make(chan struct{})
	service := &svc.ServiceContext{
		Config: s.o.Settings,
		Edge: edge.New(edge.Options{
			Log: s.o.Log, Now: s.o.Now, Intake: s.o.Intake, Credentials: s.o.Credentials, Reader: s.o.Reader, Frames: s.o.Frames, Passed: s.o.Passed,
		}),
		Directory: s.o.Directory, Stopping: stopping,
	}
	// go-zero's own health service cannot say "not serving" before the stop.
	state := health.NewServer()
	hosted, err := servers.start(s.o.Settings.Server(address), s.options, func(g *grpc.Server) {
		trialv1.RegisterTrialServer(g, server.NewTrialServer(service))
		grpc_health_v1.RegisterHealthServer(g, state)
		if s.o.Settings.Reflection {
			reflection.Register(g)
		}
	})
	if err != nil {
		return err
	}
	state.SetServingStatus(trialv1.Trial_ServiceDesc.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	s.serving.Store(true)
	withdraw := s.announce(ctx, address)
	select {
	case <-ctx.Done():
		err = nil
	case <-hosted.ended:
		err = fmt.Errorf("trial service: the listener ended: %w", hosted.err)
	}
	s.serving.Store(false)
	state.Shutdown()
	withdraw()
	close(stopping)
	err = errors.Join(err, drain(hosted.grpc, s.o.StopTimeout))
	servers.release(hosted)
	return err
}

// drain waits for the calls in hand, and cuts off what is left after limit.
func drain(g *grpc.Server, limit time.Duration) error {
	done := make(chan struct{})
	go func() {
		g.GracefulStop()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		g.Stop()
		<-done
		return errors.New("trial service: some calls got no answer before the stop's time was over")
	}
}

// announce registers the instance in etcd, if there is one; withdraw takes it
// back and waits for that.
func (s *Server) announce(ctx context.Context, listens string) (withdraw func()) {
	if len(s.o.Settings.Etcd.Endpoints) == 0 {
		return func() {}
	}
	a := &announcer{etcd: s.o.Settings.Etcd, address: advertised(s.o.Settings, listens), log: s.o.Log}
	s.announcer.Store(a)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		a.run(ctx)
		close(done)
	}()
	return func() {
		cancel()
		<-done
	}
}

// advertised is what is written into etcd: what the operator says, or the
// address that is listened on, whose port may have been chosen by the system.
func advertised(c Settings, listens string) string {
	if c.Advertise != "" {
		return c.Advertise
	}
	host, _, _ := net.SplitHostPort(c.Listen) // checked in NewServer; it may be a name
	_, port, err := net.SplitHostPort(listens)
	if err != nil {
		return c.Listen
	}
	return net.JoinHostPort(host, port)
}

// State is what /status says of a service.
type State struct {
	Serving    bool
	Registered bool      // in etcd, as far as is known
	EtcdErr    error     // why etcd is of no use now; nil while it answers, and without it
	EtcdSince  time.Time // since when it is of none
}

// State says how the service is.
func (s *Server) State() State {
	st := State{Serving: s.serving.Load()}
	if a := s.announcer.Load(); a != nil {
		st.Registered = a.known.Load()
		if t := a.trouble.Load(); t != nil {
			st.EtcdErr, st.EtcdSince = t.err, t.since
		}
	}
	return st
}
