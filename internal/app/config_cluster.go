package app

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/postgres"
)

// The settings of the second shape, where roles run as processes of their own,
// and of what the one machine shares with it: Trial service, traces, shipping.

// PostgresConfig is where journal, tables and vault lie in the second shape.
type PostgresConfig struct {
	URL              string        `yaml:"url" doc:"Database of journal, tables and vault for tidegate serve gateway|trial|projector: postgres://user@host:5432/tidegate?sslmode=verify-full. Without a password: see passwordFile. Empty: the data folder is SQLite, for tidegate serve."`
	PasswordFile     string        `yaml:"passwordFile" doc:"File with the password, read anew for each connection. Empty: none, or as pg_hba.conf says."`
	JournalURL       string        `yaml:"journalURL" doc:"Another database for the journal."`
	StoreURL         string        `yaml:"storeURL" doc:"Another database for the tables."`
	VaultURL         string        `yaml:"vaultURL" doc:"Another database for the vault."`
	Connections      int           `yaml:"connections" doc:"Connections of a process to each of the three, at most."`
	ConnectTimeout   time.Duration `yaml:"connectTimeout" doc:"A connection is made within this time, or is not."`
	StatementTimeout time.Duration `yaml:"statementTimeout" doc:"The server ends a statement of tables and vault after this time. Appends to the journal have no such limit, the waiting phone has: intake.waitLimit."`
}

// EtcdConfig is where roles find one another.
type EtcdConfig struct {
	Endpoints    []string      `yaml:"endpoints" doc:"Addresses of etcd: host:port, or https://host:port. Empty: no etcd; gateways then need trial.endpoints."`
	Key          string        `yaml:"key" doc:"Key under which instances of the Trial service are found."`
	Election     string        `yaml:"election" doc:"Key prefix under which projectors choose the active one."`
	Cert         string        `yaml:"cert" doc:"PEM file with this process's certificate for etcd."`
	CertKey      string        `yaml:"certKey" doc:"PEM file with its private key, mode 0600."`
	CA           string        `yaml:"ca" doc:"PEM file of the authority that signed etcd's certificate."`
	User         string        `yaml:"user" doc:"User of etcd, if it asks for one."`
	PasswordFile string        `yaml:"passwordFile" doc:"File with that user's password."`
	DialTimeout  time.Duration `yaml:"dialTimeout" doc:"A connection to etcd is made within this time, or is not."`
}

// TrialConfig is how the Trial service is served and called.
type TrialConfig struct {
	Endpoints     []string      `yaml:"endpoints" doc:"Instances of the Trial service as host:port, instead of etcd."`
	Timeout       time.Duration `yaml:"timeout" doc:"Time of one call, at the caller and at the service."`
	Advertise     string        `yaml:"advertise" doc:"Address that other machines reach this instance at, written into etcd. Empty: the one in rpc."`
	MaxConcurrent int           `yaml:"maxConcurrent" doc:"Calls served at once; more get ResourceExhausted. 0: no limit."`
	Rate          int           `yaml:"rate" doc:"Calls a second, over all callers of an instance; more get ResourceExhausted. 0: no limit."`
	Burst         int           `yaml:"burst" doc:"Calls above the rate that are served at once after a quiet time."`
	Shedding      bool          `yaml:"shedding" doc:"Refuse calls while the machine's CPUs are busy and calls pile up. On few cores a burst fills them although every call is in time."`
}

// RPCTLSConfig is how roles prove to each other who they are.
type RPCTLSConfig struct {
	Cert string `yaml:"cert" doc:"PEM file with the certificate chain of this process. Without it the Trial service is served and called on loopback only."`
	Key  string `yaml:"key" doc:"PEM file with its private key, mode 0600."`
	CA   string `yaml:"ca" doc:"PEM file of the authority that signed the certificates of the others: both sides are checked."`
}

// TracingConfig is where traces go.
type TracingConfig struct {
	Endpoint    string  `yaml:"endpoint" doc:"OTLP/HTTP URL, such as http://127.0.0.1:4318. Empty: no traces, and no cost."`
	Ratio       float64 `yaml:"ratio" doc:"Part of the traces that begin here and are kept, 0 to 1. A caller that sends traceparent decides for its own."`
	HeadersFile string  `yaml:"headersFile" doc:"File with headers for the endpoint, one 'Name: value' a line; they may be secret."`
}

// ShipConfig is where verified copies of the journal go.
type ShipConfig struct {
	To []string `yaml:"to" doc:"Second copies of the journal, kept up to date and checked frame by frame: folders on another host's disk, or postgres:// URLs."`
}

// rpcOff is the word for no Trial service.
const rpcOff = "none"

// servesRPC says whether the Trial service has an address.
func (c *Config) servesRPC() bool { return c.RPC != "" && c.RPC != rpcOff }

// inPostgres says whether the configuration names the second shape's storage.
func (c *Config) inPostgres() bool {
	return c.Postgres.URL != "" || c.Postgres.JournalURL != "" || c.Postgres.StoreURL != "" || c.Postgres.VaultURL != ""
}

// journalURL, storeURL and vaultURL are where each of the three lies.
func (c *PostgresConfig) journalURL() string { return either(c.JournalURL, c.URL) }
func (c *PostgresConfig) storeURL() string   { return either(c.StoreURL, c.URL) }
func (c *PostgresConfig) vaultURL() string   { return either(c.VaultURL, c.URL) }

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// options are those of a pool on one of the databases. name is what the
// server's lists of connections show.
func (c *PostgresConfig) options(url, name string) postgres.Options {
	return postgres.Options{
		URL: url, PasswordFile: c.PasswordFile, Name: "tidegate-" + name, MaxConns: c.Connections,
		ConnectTimeout: c.ConnectTimeout, StatementTimeout: c.StatementTimeout, Timeline: new(postgres.Timeline),
	}
}

// named are the URLs that are set, by key.
func (c *PostgresConfig) named() map[string]string {
	out := map[string]string{}
	for key, v := range map[string]string{"url": c.URL, "journalURL": c.JournalURL, "storeURL": c.StoreURL, "vaultURL": c.VaultURL} {
		if v != "" {
			out["postgres."+key] = v
		}
	}
	return out
}

// validateCluster names what cannot work among the settings of this file.
func (c *Config) validateCluster(bad func(key, format string, args ...any)) {
	hostPort := func(key, addr string) {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			bad(key, "must be host:port, such as 127.0.0.1:8081")
		}
	}
	c.validatePostgres(bad)
	if c.servesRPC() {
		hostPort("rpc", c.RPC)
		if !localAddress(c.RPC) && c.RPCTLS.Cert == "" {
			bad("rpc", "other machines reach %s, and without certificates anybody may call: set rpcTLS, or keep it on loopback", c.RPC)
		}
	}
	for _, e := range c.Trial.Endpoints {
		hostPort("trial.endpoints", e)
		if !localAddress(e) && c.RPCTLS.Cert == "" {
			bad("trial.endpoints", "%s is on another machine: set rpcTLS", e)
		}
	}
	if c.Trial.Advertise != "" {
		hostPort("trial.advertise", c.Trial.Advertise)
	}
	if c.Trial.Timeout <= 0 {
		bad("trial.timeout", "must be more than 0")
	}
	if c.Trial.MaxConcurrent < 0 || c.Trial.Rate < 0 || c.Trial.Burst < 0 {
		bad("trial", "maxConcurrent, rate and burst must not be negative")
	}
	if t := c.RPCTLS; (t.Cert == "") != (t.Key == "") || (t.Cert == "") != (t.CA == "") {
		bad("rpcTLS", "cert, key and ca belong together: set all or none")
	}
	if (c.Etcd.Cert == "") != (c.Etcd.CertKey == "") {
		bad("etcd", "cert and certKey belong together: set both or neither")
	}
	if (c.Etcd.User == "") != (c.Etcd.PasswordFile == "") {
		bad("etcd", "user and passwordFile belong together: set both or neither")
	}
	if c.Etcd.DialTimeout <= 0 {
		bad("etcd.dialTimeout", "must be more than 0")
	}
	if len(c.Etcd.Endpoints) > 0 && (c.Etcd.Key == "" || c.Etcd.Election == "") {
		bad("etcd", "key and election must not be empty")
	}
	for _, e := range c.Etcd.Endpoints {
		if _, _, err := net.SplitHostPort(etcdHost(e)); err != nil {
			bad("etcd.endpoints", "must be host:port or https://host:port each")
		}
	}
	if u, err := url.Parse(c.Tracing.Endpoint); c.Tracing.Endpoint != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		bad("tracing.endpoint", "must be a URL, such as http://127.0.0.1:4318")
	}
	if !(c.Tracing.Ratio >= 0 && c.Tracing.Ratio <= 1) { // not a number is neither
		bad("tracing.ratio", "must be between 0 and 1")
	}
}

func (c *Config) validatePostgres(bad func(key, format string, args ...any)) {
	p := &c.Postgres
	for key, v := range p.named() {
		if u, err := url.Parse(v); !postgres.IsURL(v) || err != nil || strings.Trim(u.Path, "/") == "" {
			bad(key, "must be a URL with a database, such as postgres://tidegate@db:5432/tidegate?sslmode=verify-full") // not repeated: it may hold a password
		}
	}
	if c.inPostgres() && (p.journalURL() == "" || p.storeURL() == "" || p.vaultURL() == "") {
		bad("postgres", "set url, or all of journalURL, storeURL and vaultURL")
	}
	if p.Connections < 2 {
		bad("postgres.connections", "must be at least 2")
	}
	if p.ConnectTimeout <= 0 {
		bad("postgres.connectTimeout", "must be more than 0")
	}
	if p.StatementTimeout <= 0 {
		bad("postgres.statementTimeout", "must be more than 0, so that no screen waits for ever")
	}
}

// clusterWarnings are legal settings of this file that may be unwise.
func (c *Config) clusterWarnings() []string {
	var w []string
	for key, v := range c.Postgres.named() {
		if u, err := url.Parse(v); err == nil {
			w = append(w, databaseWarnings(key, u)...)
		}
	}
	if c.inPostgres() && c.Postgres.StatementTimeout > 25*time.Second {
		w = append(w, "postgres.statementTimeout: over 25s the HTTP server's own write time-out comes first and whoever asked gets no answer at all")
	}
	plain := c.Etcd.CA == "" && c.Etcd.Cert == ""
	for _, e := range c.Etcd.Endpoints {
		if plain && !strings.HasPrefix(e, "https://") && !localAddress(etcdHost(e)) {
			w = append(w, "etcd.endpoints: "+e+" is reached without TLS: whoever is on that network can send calls of the Trial service elsewhere")
		}
	}
	if u, err := url.Parse(c.Tracing.Endpoint); err == nil && u.Scheme == "http" && !loopback(u.Hostname()) {
		w = append(w, "tracing.endpoint: traces travel in the clear; they name no patient, but times and trials of the service")
	}
	return w
}

func databaseWarnings(key string, u *url.URL) []string {
	var w []string
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		w = append(w, key+": holds a password: put it into the file that postgres.passwordFile names")
	}
	mode := u.Query().Get("sslmode")
	switch {
	case onThisMachine(u):
	case mode == "" || mode == "disable" || mode == "allow" || mode == "prefer":
		w = append(w, key+": reports and hashes may travel to the database in the clear: say sslmode=verify-full")
	case mode == "require":
		w = append(w, key+": sslmode=require does not check whom it speaks to: say sslmode=verify-full")
	}
	return w
}

// onThisMachine says whether every host of a database's URL is this machine, by
// a socket or by loopback. There may be several, separated by commas.
func onThisMachine(u *url.URL) bool {
	for h := range strings.SplitSeq(u.Host, ",") {
		if host := (&url.URL{Host: h}).Hostname(); host != "" && !loopback(host) {
			return false
		}
	}
	return true
}

// checkClusterFiles reads the secret files that are named, so that a wrong name
// is told at the start.
func (c *Config) checkClusterFiles() error {
	var errs []error
	for key, path := range map[string]string{
		"postgres.passwordFile": c.Postgres.PasswordFile, "etcd.passwordFile": c.Etcd.PasswordFile, "etcd.ca": c.Etcd.CA, "tracing.headersFile": c.Tracing.HeadersFile,
	} {
		if path == "" {
			continue
		}
		if b, err := os.ReadFile(filepath.Clean(path)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		} else if len(strings.TrimSpace(string(b))) == 0 {
			errs = append(errs, fmt.Errorf("%s: the file %s is empty", key, path))
		}
	}
	return errors.Join(errs...)
}

// etcdHost is the host:port of an endpoint, which may be a URL.
func etcdHost(endpoint string) string {
	_, after, found := strings.Cut(endpoint, "://")
	if !found {
		return endpoint
	}
	return strings.TrimSuffix(after, "/")
}

// localAddress says whether host:port is reached from this machine only.
func localAddress(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && loopback(host)
}
