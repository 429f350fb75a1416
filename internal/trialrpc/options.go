package trialrpc

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/config"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/edge"
)

// Settings are the operator's part, for service and clients alike. They have no
// defaults of their own: Tidegate's configuration says them, and
// [LoadYAML] reads those of etc/trial.yaml over them.
type Settings = config.Config

// Etcd is where instances are registered and found.
type Etcd = config.Etcd

// TLS names the PEM files of mutual TLS.
type TLS = config.TLS

// LoadYAML reads a go-zero file, etc/trial.yaml, over settings that are there
// already: a key that the file does not name stays as it was. A key that is not
// known is an error, and so is one that Tidegate's own configuration says.
func LoadYAML(path string, over Settings) (Settings, error) { return config.Load(path, over) }

// Intake takes facts and answers when they are durable. *intake.Intake is one.
type Intake = edge.Intake

// Options are the programmer's part of a service. Every field without "nil" in
// its comment is required.
type Options struct {
	Settings Settings
	Log      *slog.Logger
	Now      func() time.Time // nil for time.Now

	Intake Intake
	// Credentials is the part of the vault that staff tokens are checked with.
	Credentials auth.Credentials
	Reader      store.Reader
	Frames      registry.Frames
	// Passed waits until the projector has passed a command and says what became
	// of it, or returns ctx's error.
	Passed func(ctx context.Context, command epro.UUID) (store.Outcome, error)
	// Directory is what watchDirectory tells.
	Directory directory.Source

	Metrics     prometheus.Registerer // nil: nothing is counted
	Tracing     trace.TracerProvider  // nil: OpenTelemetry's global one
	StopTimeout time.Duration         // from the stop to the last answer; 0 for 8 s
}

// ClientOptions are the programmer's part of a client.
type ClientOptions struct {
	Settings Settings
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil: nothing is counted
	Tracing  trace.TracerProvider  // nil: OpenTelemetry's global one
}

func tracerOf(p trace.TracerProvider) trace.Tracer {
	if p == nil {
		p = otel.GetTracerProvider()
	}
	return p.Tracer("github.com/tidegate/tidegate/internal/trialrpc")
}
