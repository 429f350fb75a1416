package services

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// ProxyServer stands on a loopback port between clients and a server and breaks
// the network between them.
type ProxyServer struct {
	t testing.TB
	p *toxiproxy.Proxy
}

// Proxy starts one in front of host:port; it ends with the test.
func Proxy(t testing.TB, upstream string) *ProxyServer {
	t.Helper()
	s := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := toxiproxy.NewProxy(s, "proxy", fmt.Sprintf("127.0.0.1:%d", FreePort(t)), upstream)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return &ProxyServer{t, p}
}

// Addr is where clients connect.
func (p *ProxyServer) Addr() string { return p.p.Listen }

// Cut closes every connection and refuses new ones.
func (p *ProxyServer) Cut() { p.p.Stop() }

// Slow delays every byte by so much, there and back alike.
func (p *ProxyServer) Slow(by time.Duration) {
	p.t.Helper()
	for _, way := range []string{"upstream", "downstream"} {
		p.toxic(fmt.Sprintf(`{"name":"slow-%s","type":"latency","stream":"%s","attributes":{"latency":%d}}`, way, way, (by / 2).Milliseconds()))
	}
}

// Blackhole lets nothing through and closes nothing: a cable is out, and
// neither side is told.
func (p *ProxyServer) Blackhole() {
	p.t.Helper()
	for _, way := range []string{"upstream", "downstream"} {
		p.toxic(fmt.Sprintf(`{"name":"hole-%s","type":"timeout","stream":"%s","attributes":{"timeout":0}}`, way, way))
	}
}

func (p *ProxyServer) toxic(text string) {
	p.t.Helper()
	if _, err := p.p.Toxics.AddToxicJson(strings.NewReader(text)); err != nil {
		p.t.Fatal(err)
	}
}

// Heal undoes all of the above. Connections that were in a black hole are
// closed: what they swallowed cannot come back.
func (p *ProxyServer) Heal() {
	p.t.Helper()
	p.p.Toxics.ResetToxics(context.Background())
	if err := p.p.Start(); err != nil && !errors.Is(err, toxiproxy.ErrProxyAlreadyStarted) {
		p.t.Fatal(err)
	}
}

// Switch closes every connection and leads new ones to another server.
func (p *ProxyServer) Switch(upstream string) {
	p.t.Helper()
	p.p.Stop()
	if err := p.p.Update(&toxiproxy.Proxy{Listen: p.p.Listen, Upstream: upstream, Enabled: true}); err != nil {
		p.t.Fatal(err)
	}
}
