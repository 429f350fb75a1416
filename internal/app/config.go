package app

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/intake"
)

// Config is the operator's configuration. Its doc tags are the manual:
// `tidegate config doc` prints them. Values come from the defaults, then the
// file, then the environment, then flags. Secrets are files it names.
type Config struct {
	Data  string `yaml:"data" doc:"Data folder: keys/ and LOCK, and on one machine journal.db, store.db and vault.db."`
	HTTP  string `yaml:"http" doc:"Address of the public API."`
	Admin string `yaml:"admin" doc:"Address of the admin listener: health, metrics, status, profiles. Keep it off the internet."`
	RPC   string `yaml:"rpc" doc:"Address of the Trial service (gRPC), for other services of the site. 'none': it is not served."`

	Anchors []string `yaml:"anchors" doc:"Where checkpoints are written, outside the data folder: file paths or http(s) URLs. Empty: one file beside the data folder. 'none': no anchor, and a cut tail of the journal goes unseen."`

	TLS     TLSConfig     `yaml:"tls"`
	Intake  IntakeConfig  `yaml:"intake"`
	Limits  LimitsConfig  `yaml:"limits"`
	Durable DurableConfig `yaml:"durability"`
	Log     LogConfig     `yaml:"log"`

	Postgres PostgresConfig `yaml:"postgres"`
	Etcd     EtcdConfig     `yaml:"etcd"`
	Trial    TrialConfig    `yaml:"trial"`
	RPCTLS   RPCTLSConfig   `yaml:"rpcTLS"`
	Tracing  TracingConfig  `yaml:"tracing"`
	Ship     ShipConfig     `yaml:"ship"`
}

// TLSConfig is how phones reach the public listener.
type TLSConfig struct {
	Cert       string `yaml:"cert" doc:"PEM file with the certificate chain. Empty: plain HTTP, for a proxy on this machine or for loopback."`
	Key        string `yaml:"key" doc:"PEM file with the private key, mode 0600."`
	MinVersion string `yaml:"minVersion" doc:"1.3, or 1.2 for old phones."`
}

// IntakeConfig bounds what is taken at once.
type IntakeConfig struct {
	MaxFacts    int           `yaml:"maxFacts" doc:"Facts in one frame."`
	MaxBytes    int           `yaml:"maxBytes" doc:"Bytes of one frame."`
	MaxAge      time.Duration `yaml:"maxAge" doc:"While the oldest waiter is older than this, new reports get a 503."`
	WaitLimit   time.Duration `yaml:"waitLimit" doc:"A phone waits at most this long; then its outcome is called unknown."`
	Remember    int           `yaml:"remember" doc:"Recent reports whose retry gets the original receipt."`
	Burst       int           `yaml:"burst" doc:"Reports one participant may send at once; sized for a phone that was off line for a week. 0: no limit."`
	Refill      time.Duration `yaml:"refill" doc:"Time in which a participant may send one more."`
	DiskFloorMB int           `yaml:"diskFloorMB" doc:"Free megabytes under which nothing is taken."`
}

// LimitsConfig bounds connections and bulk requests.
type LimitsConfig struct {
	Connections    int    `yaml:"connections" doc:"Open connections to the public listener; more are closed at once."`
	Handshakes     int    `yaml:"handshakes" doc:"TLS handshakes at once; more wait."`
	Bulk           int    `yaml:"bulk" doc:"Bulk requests (NDJSON) at once, up to 8 MiB each; more get a 503."`
	TrustedProxies string `yaml:"trustedProxies" doc:"Comma-separated networks whose X-Forwarded-For is believed. Empty: none."`
}

// DurableConfig is what an acknowledgement must at least survive.
type DurableConfig struct {
	Require string `yaml:"require" doc:"Refuse to start on a journal of a weaker class: demo, local-fsync, or sync-replica for PostgreSQL with a synchronous standby."`
}

// LogConfig is the form of the log.
type LogConfig struct {
	Format string `yaml:"format" doc:"text or json."`
	Level  string `yaml:"level" doc:"debug, info, warn or error."`
}

// NewDefaultConfig returns the defaults.
func NewDefaultConfig() Config {
	in, gate := intake.NewDefaultConfig(), gateway.NewDefaultConfig()
	return Config{
		Data: "data", HTTP: "127.0.0.1:8080", Admin: "127.0.0.1:8082", RPC: "127.0.0.1:8081",
		TLS: TLSConfig{MinVersion: "1.3"},
		Intake: IntakeConfig{
			MaxFacts: in.MaxFacts, MaxBytes: in.MaxBytes, MaxAge: in.MaxAge, WaitLimit: in.WaitLimit, Remember: in.Remember,
			Burst: in.Burst, Refill: in.Refill, DiskFloorMB: int(in.DiskFloor >> 20), //nolint:gosec // 256
		},
		Limits:  LimitsConfig{Connections: gate.MaxConnections, Handshakes: gate.MaxHandshakes, Bulk: gate.MaxBulks},
		Durable: DurableConfig{Require: "local-fsync"},
		Log:     LogConfig{Format: "text", Level: "info"},

		Postgres: PostgresConfig{Connections: 8, ConnectTimeout: 5 * time.Second, StatementTimeout: 10 * time.Second},
		Etcd:     EtcdConfig{Key: "tidegate/trial.rpc", Election: "tidegate/projector", DialTimeout: 5 * time.Second},
		Trial:    TrialConfig{Timeout: 2 * time.Second, MaxConcurrent: 256, Rate: 1000, Burst: 1000},
		Tracing:  TracingConfig{Ratio: 1},
	}
}

// LoadConfig reads defaults, then the file (if path is not empty), then the
// environment. An unknown key in the file is an error that names it.
func LoadConfig(path string, environ []string) (Config, error) {
	c := NewDefaultConfig()
	if path != "" {
		b, err := os.ReadFile(filepath.Clean(path))
		if err != nil {
			return c, fmt.Errorf("config file: %w", err)
		}
		if err := yaml.UnmarshalWithOptions(b, &c, yaml.Strict()); err != nil {
			return c, fmt.Errorf("config file %s: %s\nThe keys and their meaning: tidegate config doc", path, yaml.FormatError(err, false, false))
		}
	}
	if err := overlayEnvironment(&c, environ); err != nil {
		return c, err
	}
	return c, nil
}

// Validate names every setting that cannot work, in one sentence, and on a
// second line where settings are explained.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.Data == "" {
		bad("data", "must name a folder")
	}
	for key, addr := range map[string]string{"http": c.HTTP, "admin": c.Admin} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			bad(key, "must be host:port, such as 127.0.0.1:8080")
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		bad("tls", "cert and key belong together: set both or neither")
	}
	if c.TLS.MinVersion != "1.2" && c.TLS.MinVersion != "1.3" {
		bad("tls.minVersion", "must be 1.2 or 1.3")
	}
	positive := map[string]int64{
		"intake.maxFacts": int64(c.Intake.MaxFacts), "intake.maxBytes": int64(c.Intake.MaxBytes), "intake.maxAge": int64(c.Intake.MaxAge),
		"intake.waitLimit": int64(c.Intake.WaitLimit), "intake.refill": int64(c.Intake.Refill), "limits.connections": int64(c.Limits.Connections),
		"limits.handshakes": int64(c.Limits.Handshakes), "limits.bulk": int64(c.Limits.Bulk),
	}
	for key, v := range positive {
		if v <= 0 {
			bad(key, "must be more than 0")
		}
	}
	if c.Intake.MaxFacts > 1<<16 {
		bad("intake.maxFacts", "at most 65536 facts fit a frame")
	}
	if c.Intake.MaxBytes < 128<<10 {
		bad("intake.maxBytes", "must be at least 131072, so that any report fits")
	}
	if c.Intake.Burst < 0 || c.Intake.Remember < 0 || c.Intake.DiskFloorMB < 0 {
		bad("intake", "burst, remember and diskFloorMB must not be negative")
	}
	if _, ok := durabilityRank[c.Durable.Require]; !ok {
		bad("durability.require", "must be demo, local-fsync, quorum-memory, quorum-fsync or sync-replica")
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		bad("log.format", "must be text or json")
	}
	if _, err := logLevel(c.Log.Level); err != nil {
		bad("log.level", "must be debug, info, warn or error")
	}
	c.validateCluster(bad)
	if errs == nil {
		return nil
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	slices.Sort(texts)
	return fmt.Errorf("this configuration cannot work: %s\nEvery setting is explained by: tidegate config doc", strings.Join(texts, "; "))
}

// CheckFiles reads the files that the configuration names and a listener
// needs, so that a wrong one is told before anything is made.
func (c *Config) CheckFiles() error {
	for name, pair := range map[string][2]string{
		"tls": {c.TLS.Cert, c.TLS.Key}, "rpcTLS": {c.RPCTLS.Cert, c.RPCTLS.Key}, "etcd": {c.Etcd.Cert, c.Etcd.CertKey},
	} {
		if pair[0] == "" && pair[1] == "" {
			continue
		}
		if _, err := tls.LoadX509KeyPair(pair[0], pair[1]); err != nil {
			return fmt.Errorf("%s: the certificate %s and the key %s cannot be used: %w; give a PEM chain and the key it was made for", name, pair[0], pair[1], err)
		}
	}
	return c.checkClusterFiles()
}

// Warnings are legal settings that an operator may not want, with the reason.
func (c *Config) Warnings() []string {
	var w []string
	if host, _, err := net.SplitHostPort(c.HTTP); err == nil && c.TLS.Cert == "" && !loopback(host) {
		w = append(w, "http: "+c.HTTP+" is reached from other machines without TLS: tokens and reports travel in the clear unless a proxy on a trusted network ends TLS")
	}
	if host, _, err := net.SplitHostPort(c.Admin); err == nil && !loopback(host) {
		w = append(w, "admin: "+c.Admin+" shows metrics and profiles to other machines: keep it on loopback or a management network")
	}
	for _, a := range c.Anchors {
		if a == "none" {
			w = append(w, "anchors: none: a journal whose tail was cut, or an old backup put back, cannot be told from a whole one")
		}
	}
	if c.Durable.Require == "demo" {
		w = append(w, "durability.require: demo accepts journals that may lose acknowledged reports: not for patients")
	}
	if c.Intake.Burst == 0 {
		w = append(w, "intake.burst: 0 lets a stolen token send without limit")
	}
	if c.Intake.WaitLimit > 25*time.Second {
		w = append(w, "intake.waitLimit: over 25s the HTTP server's own write time-out comes first and the phone gets no answer at all")
	}
	return append(w, c.clusterWarnings()...)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// durabilityRank orders the classes by what they survive.
var durabilityRank = map[string]int{"demo": 0, "quorum-memory": 1, "local-fsync": 2, "quorum-fsync": 3, "sync-replica": 3}

func (c *IntakeConfig) options() intake.Config {
	return intake.Config{
		MaxFacts: c.MaxFacts, MaxBytes: c.MaxBytes, MaxAge: c.MaxAge, WaitLimit: c.WaitLimit, Remember: c.Remember,
		Burst: c.Burst, Refill: c.Refill, DiskFloor: uint64(c.DiskFloorMB) << 20, //nolint:gosec // checked not negative
	}
}
