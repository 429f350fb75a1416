package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/internal/auth"
)

// contestant is one line of the table.
type contestant struct {
	name      string
	p         *process
	projected bool // its work ends when the tables hold all

	cpu, rate, p99 []float64 // µs a report, reports a second, ms: one a round
	frames, facts  uint64
}

// measureCost drives all servers in turn.
func measureCost(ctx context.Context, o *options, dir string, out *strings.Builder) (err error) {
	with, without := filepath.Join(dir, "with"), filepath.Join(dir, "without")
	say("writing a registry of %d participants", participants)
	if err := seed(ctx, o, with); err != nil {
		return err
	}
	// The same keys, so that both take the same bytes.
	if err := copyFolder(without, with); err != nil {
		return err
	}
	keys, err := auth.LoadKeys(filepath.Join(with, "keys"))
	if err != nil {
		return err
	}
	tokens, err := tokens(keys)
	if err != nil {
		return err
	}
	all := []*contestant{
		{name: "Tidegate: durable, receipted; no projector"},
		{name: "Tidegate: the same and projected", projected: true},
		{name: "bare handler: Gin, bind, answer"},
		{name: "original design: Gin's log, bind with rules, log line, answer"},
	}
	start := []func() (*process, error){
		func() (*process, error) { return startServer(ctx, o, without, nil, "--no-projector") },
		func() (*process, error) { return startServer(ctx, o, with, nil) },
		func() (*process, error) { return startContender("bare", dir) },
		func() (*process, error) { return startContender("original", dir) },
	}
	for i, c := range all {
		if c.p, err = start[i](); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.p.stop()) }() //nolint:revive // all of them live until the end
	}
	// Round 0 warms up and is not counted.
	for round := range o.rounds + 1 {
		requests := buildRequests(o.requests, tokens)
		if round == 0 {
			requests = requests[:max(len(requests)/5, o.connections)]
		}
		for i := range all {
			// Another one begins in each round, and every second round goes backwards.
			c := all[(i+round)%len(all)]
			if round%2 == 1 {
				c = all[(len(all)-1-i+round)%len(all)]
			}
			if err := c.round(ctx, o, round, requests); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	if o.profile != "" {
		if err := profile(ctx, o, all[0].p, tokens); err != nil {
			return err
		}
	}
	costTable(o, all, out)
	return nil
}

// copyFolder copies a data folder that no process has open. The server refuses
// keys that others could read.
func copyFolder(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		if d.IsDir() {
			mode = 0o700
		}
		return os.Chmod(path, mode)
	})
}

// seed writes the demo registry into a new data folder.
func seed(ctx context.Context, o *options, data string) error {
	text, err := exec.CommandContext(ctx, o.binary, "seed", "--data", data, "--participants", strconv.Itoa(participants)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("seed: %w: %s", err, text)
	}
	return nil
}

// round drives one server once.
func (c *contestant) round(ctx context.Context, o *options, round int, requests [][]byte) error {
	before, err := c.p.status(ctx)
	if err != nil {
		return err
	}
	began, err := c.p.cpu()
	if err != nil {
		return err
	}
	d, err := drive(ctx, c.p.address, requests, o.connections)
	if err != nil {
		return err
	}
	if c.projected {
		if err := c.p.projected(ctx); err != nil {
			return err
		}
	}
	ended, err := c.p.cpu()
	if err != nil {
		return err
	}
	if d.acked != len(requests) {
		return fmt.Errorf("%d of %d acknowledged, the others: %v", d.acked, len(requests), d.other)
	}
	after, err := c.p.status(ctx)
	if err != nil || round == 0 {
		return err
	}
	c.cpu = append(c.cpu, float64((ended-began).Microseconds())/float64(d.acked))
	c.rate = append(c.rate, float64(d.acked)/d.took.Seconds())
	c.p99 = append(c.p99, float64(d.latency.Quantile(0.99).Microseconds())/1000)
	c.frames += after.Intake.Frames - before.Intake.Frames
	c.facts += after.Intake.Facts - before.Intake.Facts
	say("round %d  %-62s %6.1f µs  %6.0f/s", round, c.name, c.cpu[len(c.cpu)-1], c.rate[len(c.rate)-1])
	return nil
}

// profile takes a CPU profile while the server is driven.
func profile(ctx context.Context, o *options, p *process, tokens []string) error {
	say("taking a CPU profile")
	batches := make([][][]byte, 4)
	for i := range batches {
		batches[i] = buildRequests(o.requests, tokens)
	}
	var text []byte
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		text, failed = p.get(ctx, "/debug/pprof/profile?seconds=4")
	}()
	for _, requests := range batches {
		if _, err := drive(ctx, p.address, requests, o.connections); err != nil {
			return err
		}
	}
	<-done
	if failed != nil {
		return failed
	}
	return os.WriteFile(o.profile, text, 0o600)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func costTable(o *options, all []*contestant, out *strings.Builder) {
	original := all[len(all)-1]
	fmt.Fprintf(out, "\n%d rounds of %d reports for each server, %d connections, closed loop. CPU: user and system time of the server process; median, least to most.\n\n",
		o.rounds, o.requests, o.connections)
	fmt.Fprintln(out, "| server | CPU µs a report | × original | reports/s | P99 ms | RSS MiB (peak) | facts a frame |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|")
	for _, c := range all {
		perFrame := "–"
		if c.frames > 0 {
			perFrame = fmt.Sprintf("%.1f", float64(c.facts)/float64(c.frames))
		}
		// The ratio of neighbours in time, round by round, is steadier than that of the medians.
		ratios := make([]float64, len(c.cpu))
		for i := range ratios {
			ratios[i] = c.cpu[i] / original.cpu[i]
		}
		fmt.Fprintf(out, "| %s | %.1f (%.1f to %.1f) | %.2f (%.2f to %.2f) | %.0f | %.1f | %.0f (%.0f) | %s |\n",
			c.name, median(c.cpu), slices.Min(c.cpu), slices.Max(c.cpu), median(ratios), slices.Min(ratios), slices.Max(ratios),
			median(c.rate), median(c.p99), c.p.memory("VmRSS"), c.p.memory("VmHWM"), perFrame)
	}
}
