package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/load"
)

// slowOver is the time over which phones send, at an even rate, in each case.
const slowOver = 10 * time.Second

// measureSlow shows what phones meet when the journal is slow: strace holds up
// every sync of the unmodified binary.
func measureSlow(ctx context.Context, o *options, dir string, out *strings.Builder) error {
	if _, err := exec.LookPath("strace"); err != nil {
		fmt.Fprintln(out, "\nThe slowed journal was not measured: it needs strace, which holds up every sync of the server.")
		return nil
	}
	data := filepath.Join(dir, "data")
	if err := seed(ctx, o, data); err != nil {
		return err
	}
	keys, err := auth.LoadKeys(filepath.Join(data, "keys"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nThe journal slowed: %s at an even rate, open loop, one try each. strace holds up every sync of the unmodified server.\n\n", slowOver)
	fmt.Fprintln(out, "| case | offered/s | acknowledged | refused, 503 | anything else | P50 ms | P99 ms | refusals' P99 ms | RSS MiB (peak) |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|")
	cases := []slowSync{
		{name: "each sync as it is, but under strace", phones: 5_000},
		{name: "each sync ten times as long (+10 ms), default limits", delay: 10 * time.Millisecond, phones: 5_000},
		{name: "a tenth of what is offered: frames of 128 facts, +500 ms", delay: 500 * time.Millisecond, maxFacts: 128, phones: 20_000},
	}
	for i := range cases {
		if err := cases[i].measure(ctx, o, data, keys, out); err != nil {
			return err
		}
	}
	return nil
}

func (c *slowSync) measure(ctx context.Context, o *options, data string, keys *auth.Keys, out *strings.Builder) (err error) {
	say("slowed journal: %s", c.name)
	before := []string{"strace", "-f", "--seccomp-bpf", "-qq", "-o", os.DevNull, "-e", "trace=fsync,fdatasync", "-e", "signal=none"}
	if c.delay > 0 {
		before = append(before, "-e", fmt.Sprintf("inject=fsync,fdatasync:delay_exit=%d", c.delay.Microseconds()))
	}
	var args []string
	if c.maxFacts > 0 {
		config := data + ".yaml"
		if err := os.WriteFile(config, fmt.Appendf(nil, "intake:\n  maxFacts: %d\n", c.maxFacts), 0o600); err != nil {
			return err
		}
		args = []string{"--config", config}
	}
	p, err := startServer(ctx, o, data, before, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	s, err := load.Run(ctx, load.Options{
		Target: "http://" + p.address, Keys: keys, Trial: trial, Phones: c.phones, Over: slowOver, Shape: load.ShapeUniform,
	})
	if err != nil {
		return err
	}
	say("%s", s.String())
	other := maps.Clone(s.Answers)
	delete(other, "200")
	delete(other, "503 refused")
	rest := "none"
	if len(other) > 0 {
		parts := []string{}
		for _, name := range slices.Sorted(maps.Keys(other)) {
			parts = append(parts, fmt.Sprintf("%s: %d", name, other[name]))
		}
		rest = strings.Join(parts, ", ")
	}
	fmt.Fprintf(out, "| %s | %.0f | %d | %d | %s | %.1f | %.1f | %.1f | %.0f (%.0f) |\n",
		c.name, float64(c.phones)/slowOver.Seconds(), s.Acknowledged, s.Answers["503 refused"], rest,
		s.Latency.P50, s.Latency.P99, s.RefusedIn.P99, p.memory("VmRSS"), p.memory("VmHWM"))
	return nil
}

// slowSync is a journal in which every sync takes this much longer.
type slowSync struct {
	name     string
	delay    time.Duration
	maxFacts int // of a frame; 0: the default
	phones   int
}
