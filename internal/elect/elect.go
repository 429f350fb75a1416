// Package elect chooses, by etcd, which of several processes does work that
// one can do. It saves double work and nothing else: two leaders may overlap
// for a moment, and with etcd away every candidate leads after a pause, so the
// work itself must be fenced (the projector's is, by its cursor).
package elect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Options of a candidate. Without Endpoints it leads at once.
type Options struct {
	Endpoints []string // of etcd: host:port, http://… or https://…
	Key       string   // prefix under which the candidates stand; the same for all of them
	Name      string   // of this candidate, for people who look into etcd and for logs

	// TTL is how long a leader that died keeps its place, in whole seconds; 5 s
	// when 0. etcd's own shortest is a little over its election time-out.
	TTL time.Duration
	// Patience is for how long etcd may be away until a candidate leads without
	// it; 10 s when 0.
	Patience time.Duration
	// DialTimeout bounds a connection to etcd, and a request; 5 s when 0.
	DialTimeout time.Duration

	Cert, CertKey string // PEM files of this process's certificate for etcd
	CA            string // PEM file of the authority that signed etcd's
	User          string
	PasswordFile  string // read anew for each connection

	// Changed is told each change of state, in order, and must not block; nil for
	// nobody.
	Changed func(State)
	Log     *slog.Logger // nil for none
}

// State is what a candidate knows of itself.
type State struct {
	Leads   bool
	Elected bool  // etcd says so; a leader that is not leads without etcd
	Err     error // why etcd cannot be asked; nil while it answers
}

const (
	defaultTTL         = 5 * time.Second
	defaultPatience    = 10 * time.Second
	defaultDialTimeout = 5 * time.Second
	// retryAfter is the pause between two tries to reach etcd.
	retryAfter = time.Second
	// settleAfter is how long a campaign may go without an error until it counts as
	// an answer of etcd.
	settleAfter = 500 * time.Millisecond
	// resignWithin bounds the farewell to an etcd that may be away.
	resignWithin = time.Second
)

// Run takes part in the election until ctx ends, and runs lead whenever this
// process is the leader: with a context that ends when the place is lost, and
// again when it is won again. It returns nil when ctx has ended, and what lead
// returned when lead ended by itself; lead has always returned by then, and the
// place is given up only after that, so that a successor begins at once and no
// sooner.
//
// An etcd that cannot be reached, or refuses, delays and never prevents: after
// Patience lead runs all the same. Whatever is wrong with it is logged once and
// tried again for ever.
func Run(ctx context.Context, o Options, lead func(context.Context) error) error {
	o.TTL, o.Patience = or(o.TTL, defaultTTL), or(o.Patience, defaultPatience)
	o.DialTimeout = or(o.DialTimeout, defaultDialTimeout)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &candidate{o: o, log: o.Log, lead: lead}
	if len(o.Endpoints) == 0 {
		c.log.InfoContext(ctx, "leads: no etcd is configured", slog.String("name", o.Name))
		c.begin(ctx)
		return c.finish()
	}
	return c.run(ctx)
}

func or(v, otherwise time.Duration) time.Duration {
	if v == 0 {
		return otherwise
	}
	return v
}

// client makes one of etcd. It connects in the background, except that a user
// and password are checked at once.
func (o *Options) client(ctx context.Context) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints: o.Endpoints, Context: ctx, DialTimeout: o.DialTimeout, Username: o.User,
		// A frozen etcd and a dead line are noticed within a lease.
		DialKeepAliveTime: o.TTL, DialKeepAliveTimeout: o.TTL, PermitWithoutStream: true,
		Logger: zap.NewNop(), // its errors come back to the caller, who has one way to log
	}
	if o.PasswordFile != "" {
		b, err := os.ReadFile(filepath.Clean(o.PasswordFile))
		if err != nil {
			return nil, fmt.Errorf("the password file of etcd: %w", err)
		}
		cfg.Password = strings.TrimRight(string(b), "\r\n")
	}
	var err error
	if cfg.TLS, err = o.tls(); err != nil {
		return nil, err
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return client, nil
}

// tls reads the files anew each time: certificates are renewed while we run.
func (o *Options) tls() (*tls.Config, error) {
	secure := o.Cert != "" || o.CA != ""
	for _, e := range o.Endpoints {
		secure = secure || strings.HasPrefix(e, "https://")
	}
	if !secure {
		return nil, nil // no TLS
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.CertKey)
		if err != nil {
			return nil, fmt.Errorf("the certificate for etcd: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if o.CA != "" {
		pem, err := os.ReadFile(filepath.Clean(o.CA))
		if err != nil {
			return nil, fmt.Errorf("the authority of etcd's certificate: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("the authority of etcd's certificate: no certificate in " + o.CA)
		}
	}
	return cfg, nil
}
