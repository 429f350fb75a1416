package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/load"
)

// stored is how many reports lie in the tables before the wave, so that an
// export of them takes a while.
const stored = 50_000

// measureWave sends the open-loop wave while a staff member exports all reports
// of the trial, again and again.
func measureWave(ctx context.Context, o *options, dir string, out *strings.Builder) (err error) {
	data := filepath.Join(dir, "data")
	if err := seed(ctx, o, data); err != nil {
		return err
	}
	keys, err := auth.LoadKeys(filepath.Join(data, "keys"))
	if err != nil {
		return err
	}
	tokens, err := tokens(keys)
	if err != nil {
		return err
	}
	p, err := startServer(ctx, o, data, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	say("storing %d reports", stored)
	if _, err := drive(ctx, p.address, buildRequests(stored, tokens), o.connections); err != nil {
		return err
	}
	if err := p.projected(ctx); err != nil {
		return err
	}
	var said bytes.Buffer
	staff := exec.CommandContext(ctx, o.binary, "token", "staff", "--data", data, "--role", "data-manager", "--name", "bench", "--trial", trial)
	staff.Stderr = &said
	token, err := staff.Output()
	if err != nil {
		return fmt.Errorf("token for the export: %w: %s", err, said.String())
	}
	fmt.Fprintf(out, "\n%d phones in %s, open loop, latency from the moment a phone meant to send; one try each; %d reports in the tables before.\n\n",
		o.phones, o.over, stored)
	fmt.Fprintln(out, "| beside the wave | acknowledged | P50 ms | P99 ms | P99.9 ms | most ms | generator's lag P99 ms | exports (rows) | server CPU s | RSS MiB (peak) |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|")
	for _, exporting := range []bool{false, true} {
		if err := wave(ctx, o, p, keys, strings.TrimSpace(string(token)), exporting, out); err != nil {
			return err
		}
	}
	return nil
}

// wave sends one wave and writes its line.
func wave(ctx context.Context, o *options, p *process, keys *auth.Keys, token string, exporting bool, out *strings.Builder) error {
	name := "nothing"
	if exporting {
		name = "CSV export, without pause"
	}
	say("wave of %d phones in %s beside: %s", o.phones, o.over, name)
	exportCtx, stop := context.WithCancel(ctx)
	defer stop()
	var exports exporter
	var wg sync.WaitGroup
	if exporting {
		wg.Add(1)
		go func() {
			defer wg.Done()
			exports.loop(exportCtx, "http://"+p.address+"/v1/trials/"+trial+"/reports.csv", token)
		}()
	}
	began, err := p.cpu()
	if err != nil {
		return err
	}
	s, err := load.Run(ctx, load.Options{Target: "http://" + p.address, Keys: keys, Trial: trial, Phones: o.phones, Over: o.over})
	ended, cpuErr := p.cpu()
	stop()
	wg.Wait()
	if err = errors.Join(err, cpuErr, exports.err); err != nil {
		return err
	}
	say("%s", s.String())
	fmt.Fprintf(out, "| %s | %d of %d | %.1f | %.1f | %.1f | %.1f | %.1f | %d (%d) | %.1f | %.0f (%.0f) |\n",
		name, s.Acknowledged, s.Offered, s.Latency.P50, s.Latency.P99, s.Latency.P999, s.Latency.Max, s.SendLag.P99,
		exports.whole, exports.rows, (ended - began).Seconds(), p.memory("VmRSS"), p.memory("VmHWM"))
	return nil
}

// exporter reads an export again and again.
type exporter struct {
	whole int
	rows  int // of the last whole one
	err   error
}

func (e *exporter) loop(ctx context.Context, url, token string) {
	for ctx.Err() == nil {
		rows, err := export(ctx, url, token)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			e.err = fmt.Errorf("export: %w", err)
			return
		}
		e.whole, e.rows = e.whole+1, rows
	}
}

func export(ctx context.Context, url, token string) (rows int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, errors.New(resp.Status)
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := resp.Body.Read(buf)
		rows += bytes.Count(buf[:n], []byte("\n"))
		if errors.Is(err, io.EOF) {
			return rows - 1, nil // without the heading
		}
		if err != nil {
			return 0, err
		}
	}
}
