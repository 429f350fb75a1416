package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/internal/telemetry"
)

// lastTraces bounds the sending of what is left at the stop.
const lastTraces = 2 * time.Second

// startTraces begins to send traces, if the configuration says where to. What it
// returns stops that; traces that are lost then are no failure of the process.
func startTraces(ctx context.Context, cfg TracingConfig, service, version string, metrics prometheus.Registerer, log *slog.Logger) (func(context.Context) error, error) {
	if cfg.Endpoint == "" {
		return nil, nil //nolint:nilnil // nothing to stop
	}
	stats := &telemetry.Stats{}
	shutdown, err := telemetry.Setup(ctx, telemetry.Config{
		Endpoint: cfg.Endpoint, Ratio: cfg.Ratio, HeadersFile: cfg.HeadersFile,
		Service: "tidegate-" + service, Version: version, Instance: instanceName(), Log: log, Stats: stats,
	})
	if err != nil {
		return nil, err
	}
	if err := metrics.Register(stats); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, lastTraces)
		defer cancel()
		if err := shutdown(ctx); err != nil {
			log.Warn("the last traces were lost", "error", err)
		}
		return nil
	}, nil
}

// startRoleTraces is the first part of every role, and so the last to stop.
func startRoleTraces(ctx context.Context, p *process) (func(context.Context) error, error) {
	return startTraces(ctx, p.cfg.Tracing, p.role, p.version, p.site.parts, p.log)
}

// instanceName tells processes apart for people: in traces and in etcd.
func instanceName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}
