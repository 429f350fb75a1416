// Bench measures, on this machine and in one run, what a durable and receipted
// answer costs beside two handlers that keep nothing: a bare one, and the one of
// the original design. Started by `make bench`.
//
// All servers are processes of their own on loopback. They are driven in turn, in
// several rounds, with the same bytes over the same number of connections, so
// that what else this machine does hits all of them alike. The first figure is
// CPU time of the server process for each acknowledged report: unlike a rate it
// does not depend on how much of two cores the generator leaves over.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type options struct {
	binary      string
	dir         string
	rounds      int
	requests    int // of each server in each round
	connections int
	phones      int           // of the open-loop wave
	over        time.Duration // of the wave
	only        string
	write       string
	profile     string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == contenderCommand {
		if err := serveContender(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.binary, "binary", "bin/tidegate", "the server to measure")
	flag.StringVar(&o.dir, "dir", "data", "folder for the servers' data, on the disk to measure (a temporary folder may lie in memory)")
	flag.IntVar(&o.rounds, "rounds", 6, "rounds; each drives every server once, in another order")
	flag.IntVar(&o.requests, "requests", 30_000, "reports for each server in each round")
	flag.IntVar(&o.connections, "connections", 128, "connections, each with one request under way")
	flag.IntVar(&o.phones, "phones", 10_000, "phones of the open-loop wave")
	flag.DurationVar(&o.over, "over", time.Minute, "time over which the wave's phones send")
	flag.StringVar(&o.only, "only", "cost,wave,slow,shapes", "parts to run: cost, wave, slow, shapes")
	flag.StringVar(&o.write, "write", "", "write the figures into this file, between its markers")
	flag.StringVar(&o.profile, "profile", "", "keep a CPU profile of the server (without projector) in this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // nothing is deferred that matters now: run has stopped its processes
	}
}

func run(ctx context.Context, o *options) error {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return errors.New("the servers' CPU time is read from /proc: run this on Linux")
	}
	if o.rounds < 1 || o.requests < o.connections || o.connections < 1 {
		return errors.New("there must be at least one round, one connection, and a request for each connection")
	}
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return err
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%w: run `make build` first", err)
	}
	o.binary = binary
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m, err := describeMachine(dir)
	if err != nil {
		return err
	}
	var out strings.Builder
	m.write(&out)
	parts := []struct {
		name string
		run  func(context.Context, *options, string, *strings.Builder) error
	}{{"cost", measureCost}, {"wave", measureWave}, {"slow", measureSlow}, {"shapes", measureShapes}}
	for _, part := range parts {
		if !strings.Contains(","+o.only+",", ","+part.name+",") {
			continue
		}
		sub := filepath.Join(dir, part.name)
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		if err := part.run(ctx, o, sub, &out); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	fmt.Fprintf(&out, "\nLoad average at the end: %s.\n", loadAverage())
	fmt.Print("\n" + out.String())
	if o.write != "" {
		return writeBetweenMarkers(o.write, out.String())
	}
	return nil
}

// say tells on standard error what goes on; the figures go to standard output.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
