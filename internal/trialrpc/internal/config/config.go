// Package config is what the Trial service and its clients are told: the same
// settings, whether Tidegate's own configuration says them or go-zero's
// etc/trial.yaml. It has no defaults: those are Tidegate's.
package config

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/core/service"
	"github.com/zeromicro/go-zero/core/trace"
	"github.com/zeromicro/go-zero/zrpc"
)

// Name is the service's name in go-zero.
const Name = "trial.rpc"

// Config is the settings of a Trial service and of its clients.
type Config struct {
	Listen        string        // of the service: host:port
	Advertise     string        // what is written into etcd for others; "": Listen
	Endpoints     []string      // for a client: instances as host:port, instead of etcd
	Timeout       time.Duration // of one call, at the caller and at the service
	MaxConcurrent int           // calls served at once; 0: no limit
	Rate          int           // calls a second; 0: no limit
	Burst         int           // calls above the rate after a quiet time
	Shedding      bool          // refuse calls while the CPUs are busy and calls pile up
	Reflection    bool          // tell whoever may connect what methods there are

	Etcd Etcd
	TLS  TLS
}

// Etcd is where instances are registered and found.
type Etcd struct {
	Endpoints         []string // host:port or http(s)://host:port; none: no etcd
	Key               string   // an instance is at Key/LEASE, where go-zero's clients look
	Cert, CertKey, CA string   // PEM files
	User              string
	PasswordFile      string
	DialTimeout       time.Duration
}

// TLS names PEM files by which service and client prove to each other who they
// are: all three or none.
type TLS struct{ Cert, Key, CA string }

// On says whether there is TLS.
func (t TLS) On() bool { return t.Cert != "" || t.Key != "" || t.CA != "" }

// Loopback says whether a host is this machine for itself alone.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Check says what of the settings cannot work at all; Server and Client add
// what each needs.
func (c *Config) Check() error {
	if c.Timeout <= 0 {
		return errors.New("trial.timeout must be more than 0: a call without an end holds its caller for ever")
	}
	if c.MaxConcurrent < 0 || c.Rate < 0 || c.Burst < 0 {
		return errors.New("trial.maxConcurrent, trial.rate and trial.burst must not be negative")
	}
	if c.TLS.On() && (c.TLS.Cert == "" || c.TLS.Key == "" || c.TLS.CA == "") {
		return errors.New("rpcTLS: cert, key and ca belong together: both sides prove who they are, or neither does")
	}
	if len(c.Etcd.Endpoints) > 0 && c.Etcd.Key == "" {
		return errors.New("etcd.key must say under which key the Trial service is found")
	}
	if len(c.Etcd.Endpoints) > 0 && c.Etcd.DialTimeout <= 0 {
		return errors.New("etcd.dialTimeout must be more than 0: without an end, a stop would wait for an etcd that is away")
	}
	return nil
}

// CheckServer says what a service cannot do with the settings.
func (c *Config) CheckServer() error {
	if err := c.Check(); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("rpc: %q must be host:port, such as 127.0.0.1:8081", c.Listen)
	}
	if !c.TLS.On() && !Loopback(host) {
		return fmt.Errorf("rpc: %s is reached from other machines, and without TLS anybody there could read whom a trial studies: "+
			"set rpcTLS.cert, rpcTLS.key and rpcTLS.ca, or listen on 127.0.0.1", c.Listen)
	}
	if len(c.Etcd.Endpoints) == 0 {
		return nil
	}
	// go-zero would publish the first address of the machine's interfaces: on a
	// host with several networks that is a guess.
	advertised, _, err := net.SplitHostPort(c.Advertised())
	if err != nil {
		return fmt.Errorf("trial.advertise: %q must be host:port", c.Advertised())
	}
	if ip := net.ParseIP(advertised); advertised == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("trial.advertise: rpc listens on every address of this machine (%s): say which one others reach it at", c.Listen)
	}
	return nil
}

// Advertised is the address that is written into etcd.
func (c *Config) Advertised() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	return c.Listen
}

// CheckClient says what a client cannot do with the settings.
func (c *Config) CheckClient() error {
	if err := c.Check(); err != nil {
		return err
	}
	if len(c.Endpoints) == 0 && len(c.Etcd.Endpoints) == 0 {
		return errors.New("the Trial service cannot be found: set etcd.endpoints, or trial.endpoints")
	}
	for _, e := range c.Endpoints {
		host, _, err := net.SplitHostPort(e)
		if err != nil {
			return fmt.Errorf("trial.endpoints: %q must be host:port", e)
		}
		if !c.TLS.On() && !Loopback(host) {
			return fmt.Errorf("trial.endpoints: %s is on another machine: set rpcTLS.cert, rpcTLS.key and rpcTLS.ca", e)
		}
	}
	return nil
}

// Server is the settings as go-zero takes them. It is made here and not loaded
// by go-zero, because a loaded one is full of defaults: a DevServer with
// profiles on port 6060, a Stat middleware that logs the content of requests, a
// telemetry agent that replaces the tracer provider, CPU shedding.
//
// Discovery, time-outs, shedding, counting, traces and recovery are Tidegate's
// (docs/adr/009): etcd may be away at any time, an answer says when to come
// again, and no id of a person may reach a log or a trace.
func (c *Config) Server(listen string) zrpc.RpcServerConf {
	return zrpc.RpcServerConf{
		ServiceConf: service.ServiceConf{
			Name: Name, Mode: service.ProMode,
			Log:       logx.LogConf{Mode: "console", Encoding: "json", Level: "info"},
			Telemetry: trace.Config{Disabled: true},
		},
		ListenOn: listen,
	}
}

// Client is the settings as go-zero takes them: its balancer, its breaker, its
// time-out. Its Duration middleware logs the content of failed and slow
// requests, so it is off.
func (c *Config) Client(target string) zrpc.RpcClientConf {
	return zrpc.RpcClientConf{
		Target: target, NonBlock: true, Timeout: max(1, c.Timeout.Milliseconds()), BalancerName: "p2c_ewma",
		Middlewares: zrpc.ClientMiddlewaresConf{Breaker: true, Timeout: true},
	}
}
