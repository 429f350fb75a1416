package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
)

// Config is the operator's part: limits of the two listeners.
type Config struct {
	ReadHeaderTimeout time.Duration // also bounds a TLS handshake
	ReadTimeout       time.Duration // of a whole request; bulk requests get BulkTimeout
	WriteTimeout      time.Duration // of an answer from the request's header on; streams extend it as they go
	IdleTimeout       time.Duration // of a connection between requests
	MaxHeaderBytes    int
	MaxConnections    int           // open at once on the public listener; more are closed unanswered
	MaxHandshakes     int           // TLS handshakes computed at once
	MaxBulks          int           // NDJSON requests at once: each holds at most about 24 MiB
	BulkTimeout       time.Duration // for sending an NDJSON request, and again for its outcome
	MaxExports        int           // CSV streams at once
	CommandWait       time.Duration // how long a command waits for the projector before it is answered 202
	StopTimeout       time.Duration // from the stop to the last answer; requests still waiting get accepted:"unknown"

	TLSCertFile, TLSKeyFile string   // PEM; both or none
	TLSAllow12              bool     // take TLS 1.2 too, for old phones
	TrustedProxies          []string // whose X-Forwarded-For is believed; none by default
}

// NewDefaultConfig returns the defaults.
func NewDefaultConfig() Config {
	return Config{
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second, // 64 KiB in 15 s is a phone at 35 kbit/s
		WriteTimeout:      30 * time.Second, // above intake's longest wait
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		MaxConnections:    20000, // 10,000 phones in a wave, and their retries; about 40 KB each
		MaxHandshakes:     64,
		MaxBulks:          4,
		BulkTimeout:       60 * time.Second,
		MaxExports:        4,
		CommandWait:       5 * time.Second,
		StopTimeout:       8 * time.Second, // within the 10 s in which the process ends
	}
}

// Check says what is wrong with the configuration.
func (c *Config) Check() error {
	switch {
	case c.ReadHeaderTimeout <= 0 || c.ReadTimeout <= 0 || c.WriteTimeout <= 0 || c.IdleTimeout <= 0 || c.BulkTimeout <= 0:
		return errors.New("gateway: every time-out must be positive: without one a silent client holds a connection for ever")
	case c.MaxHeaderBytes < 1<<10:
		return errors.New("gateway: maxHeaderBytes must be at least 1024")
	case c.MaxConnections < 1 || c.MaxHandshakes < 1 || c.MaxBulks < 1 || c.MaxExports < 1:
		return errors.New("gateway: maxConnections, maxHandshakes, maxBulks and maxExports must be at least 1")
	case c.CommandWait < 0 || c.StopTimeout <= 0:
		return errors.New("gateway: commandWait must not be negative and stopTimeout must be positive")
	case (c.TLSCertFile == "") != (c.TLSKeyFile == ""):
		return errors.New("gateway: tlsCertFile and tlsKeyFile go together: give both, or none to serve plain HTTP behind a proxy")
	}
	return nil
}

// Intake takes facts and answers when they are durable. *intake.Intake is one.
type Intake interface {
	Submit(ctx context.Context, f *epro.Fact) (intake.Committed, error)
	SubmitAll(ctx context.Context, facts []*epro.Fact) []intake.Outcome
	Holds(trial, subject string, id epro.UUID) bool
	Stats() intake.Stats
}

// Frames reads frames back, for receipts that are issued anew. Every
// journal.Journal is one.
type Frames interface {
	Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error)
	Properties() journal.Properties
}

// Options are the programmer's part. Every field without "nil" in its comment
// is required.
type Options struct {
	Config Config
	Log    *slog.Logger
	Now    func() time.Time // nil for time.Now

	Intake Intake
	Tokens Tokens
	// Credentials is the part of the vault that staff tokens are checked with.
	Credentials auth.Credentials
	// MeaningKey is the key of a trial's meaning digests.
	MeaningKey func(trial string) epro.MeaningKey
	Reader     store.Reader
	Frames     Frames
	// Signer is the current signing key.
	Signer func() *receipt.Signer
	Root   ed25519.PublicKey
	// Certificates are those of the keys folder, for keys whose facts are not in
	// the tables yet. nil: only the facts count.
	Certificates func() []receipt.Certificate
	// Passed waits until the projector has passed a command and says what became
	// of it, or returns ctx's error.
	Passed func(ctx context.Context, command epro.UUID) (store.Outcome, error)
	// Pending counts the report facts above a position, by trial.
	Pending func(ctx context.Context, shard uint32, after journal.Position) (map[string]uint64, error)

	// Directory is this process's copy of the registry. nil: participants are
	// told that it is empty.
	Directory Directory

	// Tracing gets a span for each request. nil: nothing is traced, and nothing is
	// paid for it.
	Tracing trace.TracerProvider

	// Control is mounted under /control/ of the admin listener. nil: nothing is.
	Control http.Handler
	// Dependencies are asked by /status and /metrics; each name once. The
	// directory is added to them.
	Dependencies []Dependency
	// Metrics are shown by /metrics beside the gateway's own. nil: none are.
	Metrics prometheus.Gatherer
	// Lag says how far the tables are behind. nil: not shown.
	Lag     func(ctx context.Context) (Lag, error)
	Version string // of the binary, for /status
	Role    string // of the process, for /status and tidegate_ready; "" for all in one
}
