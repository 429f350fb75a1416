package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ServePublic serves the public listener until ctx is done, then stops it:
// nothing new is accepted, requests in hand get their answers. Two seconds
// before StopTimeout is over, those that still wait are answered
// accepted:"unknown", and those whose body is still being sent, 408. It returns
// nil after a stop in which every request got its answer.
//
// Intake must be running until ServePublic has returned.
func (s *Server) ServePublic(ctx context.Context, l net.Listener) error {
	capped := &cappedListener{
		Listener: l, limit: s.cfg.MaxConnections, open: map[*cappedConn]struct{}{}, gauge: s.metrics.connections, over: s.metrics.connectionsOver,
	}
	srv := s.newHTTPServer(s.public)
	serve := srv.Serve
	if s.cfg.TLSCertFile != "" {
		tlsConfig, err := s.tlsConfig()
		if err != nil {
			return err
		}
		srv.TLSConfig = tlsConfig
		serve = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
	}
	return s.run(ctx, srv, func() error { return serve(capped) }, s.cfg.StopTimeout, capped.hurry)
}

// ServeAdmin serves the admin listener until ctx is done.
func (s *Server) ServeAdmin(ctx context.Context, l net.Listener) error {
	srv := s.newHTTPServer(s.admin)
	srv.WriteTimeout = 0 // a CPU profile takes as long as it was asked to
	return s.run(ctx, srv, func() error { return srv.Serve(l) }, time.Second, func() {})
}

func (s *Server) newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: s.cfg.ReadHeaderTimeout,
		ReadTimeout:       s.cfg.ReadTimeout,
		WriteTimeout:      s.cfg.WriteTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    s.cfg.MaxHeaderBytes,
		ErrorLog:          log.New(&errorLog{log: s.log, handshakes: s.metrics.handshakesFailed}, "", 0),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReadFrameSize: 64 << 10},
	}
}

func (s *Server) tlsConfig() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(s.cfg.TLSCertFile, s.cfg.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("gateway: TLS certificate %s with key %s: %w: give a PEM chain and its key", s.cfg.TLSCertFile, s.cfg.TLSKeyFile, err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	if s.cfg.TLSAllow12 {
		cfg.MinVersion = tls.VersionTLS12
	}
	s.capHandshakes(cfg, s.cfg.MaxHandshakes)
	return cfg, nil
}

// lastAnswers is the end of the stop time in which requests that still wait
// are told that their outcome is unknown.
const lastAnswers = 2 * time.Second

// run serves until ctx is done, then drains.
func (s *Server) run(ctx context.Context, srv *http.Server, serve func() error, limit time.Duration, hurry func()) error {
	base, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	srv.BaseContext = func(net.Listener) context.Context { return base }
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	select {
	case err := <-ended:
		return fmt.Errorf("gateway: the listener ended: %w", err)
	case <-ctx.Done():
	}
	if srv.Handler == http.Handler(s.public) {
		s.SetReady(false)
		s.stop.Do(func() { close(s.stopped) })
	}
	// Cancelling the requests' context ends every wait for a commit with
	// "unknown"; the commits themselves go on.
	timer := time.AfterFunc(max(limit-lastAnswers, limit/2), func() {
		giveUp()
		hurry()
	})
	defer timer.Stop()
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	err := srv.Shutdown(within)
	if err != nil {
		err = errors.Join(fmt.Errorf("gateway: some requests got no answer before the stop's time was over: %w", err), srv.Close())
	}
	if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// errorLog takes what net/http wants to say. It never repeats the value of a
// panic, which may hold what a patient wrote.
type errorLog struct {
	log        *slog.Logger
	handshakes prometheus.Counter
}

// Write implements io.Writer.
func (e *errorLog) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("http: panic")) {
		e.log.Error("a connection ended in a panic; the server goes on")
		return len(p), nil
	}
	if bytes.HasPrefix(p, []byte("http: TLS handshake error")) {
		e.handshakes.Inc() // anybody can cause these: a count, no line each
		return len(p), nil
	}
	line, _, _ := bytes.Cut(p, []byte("\n"))
	e.log.Warn("http server", "said", string(line[:min(len(line), 300)]))
	return len(p), nil
}
