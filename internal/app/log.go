package app

import (
	"io"
	"log/slog"

	"github.com/tidegate/tidegate/internal/telemetry"
)

func logLevel(s string) (slog.Level, error) {
	var l slog.Level
	err := l.UnmarshalText([]byte(s))
	return l, err
}

// newLog returns the process's one logger: a line for each change of state or
// failure, none for a report, and no health data in any.
func newLog(w io.Writer, c LogConfig) *slog.Logger {
	level, _ := logLevel(c.Level) // checked by Validate
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(telemetry.LogHandler(slog.NewJSONHandler(w, opts)))
	}
	return slog.New(telemetry.LogHandler(slog.NewTextHandler(w, opts)))
}
