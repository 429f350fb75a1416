package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/load"
	"github.com/tidegate/tidegate/test/cluster"
	servers "github.com/tidegate/tidegate/test/services/run"
)

// shape is one way to run the product: its processes and its database's.
type shape struct {
	name     string
	gateways []*process
	tables   *process // whose /status says how far the tables are
	roles    []int    // pids of the product's processes
	servers  []int    // pids of postmasters
	keys     *auth.Keys
	tokens   []string

	product, database, rate, frameRate, p99 []float64 // µs a report, µs a report, reports/s, frames/s, ms: one a round
	frames, facts                           uint64
}

// shapeRounds is fewer than for the contenders: each round waits for the tables.
const shapeRounds = 4

// measureShapes drives one machine on SQLite and several processes on
// PostgreSQL, with one gateway and with two, in turn.
func measureShapes(ctx context.Context, o *options, dir string, out *strings.Builder) (err error) {
	// PostgreSQL does not run as root: its folder is passed through by another user.
	if err := passable(dir); err != nil {
		return err
	}
	alone, err := servers.NewPostgres(servers.PostgresConfig{Dir: filepath.Join(dir, "alone")})
	if servers.Missing(err) {
		fmt.Fprintf(out, "\nThe second shape was not measured: %v.\n", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.Stop()) }()
	primary, standby, err := replicated(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, primary.Stop(), standby.Stop()) }()

	one, stop, err := oneMachine(ctx, o, filepath.Join(dir, "sqlite"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	all := []*shape{one}
	for _, c := range []struct {
		name     string
		database *servers.Postgres
		servers  []int
		gateways int
	}{
		{"PostgreSQL, 1 gateway, 1 projector", alone, []int{alone.Pid()}, 1},
		{"PostgreSQL and a synchronous standby, 1 gateway, 1 projector", primary, []int{primary.Pid(), standby.Pid()}, 1},
		{"PostgreSQL and a synchronous standby, 2 gateways, 1 projector", primary, []int{primary.Pid(), standby.Pid()}, 2},
	} {
		s, stop, err := onPostgres(ctx, o, filepath.Join(dir, fmt.Sprintf("cluster-%d", len(all))), c.database, c.gateways)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		defer func() { err = errors.Join(err, stop()) }() //nolint:revive // all of them live until the end
		s.name, s.servers = c.name, c.servers
		all = append(all, s)
	}
	for round := range shapeRounds + 1 {
		for i := range all {
			s := all[(i+round)%len(all)]
			if err := s.round(ctx, o, round); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	shapeTable(o, all, out)
	fmt.Fprintf(out, "\nThe same %d phones in %s for each shape, open loop, latency from the moment a phone meant to send; one try each. Of two gateways the worse is shown.\n\n", o.phones, o.over)
	fmt.Fprintln(out, "| shape | acknowledged | P50 ms | P99 ms | P99.9 ms | most ms |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|")
	for _, s := range all {
		if err := s.wave(ctx, o, out); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func passable(dir string) error {
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o011 == 0o011 {
			return nil
		}
		if err := os.Chmod(d, info.Mode().Perm()|0o011); err != nil {
			return err
		}
	}
}

// replicated starts a server and its synchronous standby.
func replicated(ctx context.Context, dir string) (primary, standby *servers.Postgres, err error) {
	primary, err = servers.NewPostgres(servers.PostgresConfig{Dir: filepath.Join(dir, "primary")})
	if err != nil {
		return nil, nil, err
	}
	standby, err = primary.Standby(ctx, "standby", servers.PostgresConfig{Dir: filepath.Join(dir, "standby")})
	if err != nil {
		return nil, nil, errors.Join(err, primary.Stop())
	}
	if err := primary.SyncNames(ctx, "FIRST 1 (standby)"); err != nil {
		return nil, nil, errors.Join(err, primary.Stop(), standby.Stop())
	}
	return primary, standby, nil
}

// oneMachine starts the first shape.
func oneMachine(ctx context.Context, o *options, data string) (*shape, func() error, error) {
	if err := seed(ctx, o, data); err != nil {
		return nil, nil, err
	}
	p, err := startServer(ctx, o, data, nil)
	if err != nil {
		return nil, nil, err
	}
	s := &shape{name: "one process on SQLite", gateways: []*process{p}, tables: p, roles: []int{p.pid}}
	return s, p.stop, s.loadKeys(filepath.Join(data, "keys"))
}

// onPostgres starts gateways and a projector on a database of their own.
func onPostgres(ctx context.Context, o *options, dir string, server *servers.Postgres, gateways int) (*shape, func() error, error) {
	name := strings.ReplaceAll(filepath.Base(dir), "-", "_")
	if err := server.Exec(ctx, "postgres", "CREATE DATABASE "+name); err != nil {
		return nil, nil, err
	}
	cfg := cluster.Config{Dir: dir, Binary: o.binary, Journal: server.URL(name)}
	add := func(role, name string, http bool) (err error) {
		p := cluster.Process{Role: role, Name: name}
		if p.Admin, err = freeAddress(); err == nil && http {
			p.HTTP, err = freeAddress()
		}
		cfg.Processes = append(cfg.Processes, p)
		return err
	}
	err := add(cluster.Projector, "projector", false)
	for i := range gateways {
		err = errors.Join(err, add(cluster.Gateway, "gateway-"+strconv.Itoa(i+1), true))
	}
	if err != nil {
		return nil, nil, err
	}
	c, err := cluster.New(cfg)
	if err != nil {
		return nil, nil, err
	}
	for _, step := range []func() error{c.Migrate, c.StartAll, func() error { return c.Seed(participants) }} {
		if err := step(); err != nil {
			c.KillAll()
			return nil, nil, err
		}
	}
	s := &shape{}
	for _, r := range c.Of(cluster.Gateway) {
		s.gateways = append(s.gateways, &process{pid: r.Pid(), address: r.HTTP, admin: r.Admin})
		s.roles = append(s.roles, r.Pid())
	}
	r := c.Of(cluster.Projector)[0]
	s.tables = &process{pid: r.Pid(), admin: r.Admin}
	s.roles = append(s.roles, r.Pid())
	return s, c.StopAll, s.loadKeys(filepath.Join(c.Root(), "keys"))
}

func (s *shape) loadKeys(dir string) (err error) {
	if s.keys, err = auth.LoadKeys(dir); err == nil {
		s.tokens, err = tokens(s.keys)
	}
	return err
}

// cpu is what all processes have spent so far: the product's, the database's.
func (s *shape) cpu() (product, database time.Duration, err error) {
	for _, pid := range s.roles {
		d, err := (&process{pid: pid}).cpu()
		if err != nil {
			return 0, 0, err
		}
		product += d
	}
	for _, pid := range s.servers {
		d, err := treeCPU(pid)
		if err != nil {
			return 0, 0, err
		}
		database += d
	}
	return product, database, nil
}

func (s *shape) counts(ctx context.Context) (frames, facts uint64, err error) {
	for _, g := range s.gateways {
		st, err := g.status(ctx)
		if err != nil {
			return 0, 0, err
		}
		frames, facts = frames+st.Intake.Frames, facts+st.Intake.Facts
	}
	return frames, facts, nil
}

// round sends the requests, shared out among the gateways, and waits for the
// tables. Round 0 warms up and is not counted.
func (s *shape) round(ctx context.Context, o *options, round int) error {
	requests := buildRequests(o.requests, s.tokens)
	if round == 0 {
		requests = requests[:max(len(requests)/5, o.connections)]
	}
	frames, facts, err := s.counts(ctx)
	if err != nil {
		return err
	}
	product, database, err := s.cpu()
	if err != nil {
		return err
	}
	n := len(s.gateways)
	seen, errs := make([]*driven, n), make([]error, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i, g := range s.gateways {
		wg.Go(func() {
			seen[i], errs[i] = drive(ctx, g.address, requests[i*len(requests)/n:(i+1)*len(requests)/n], o.connections/n)
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := s.tables.projected(ctx); err != nil {
		return err
	}
	product2, database2, err := s.cpu()
	if err != nil {
		return err
	}
	acked := 0
	var latency load.Histogram
	for _, d := range seen {
		acked += d.acked
		latency.Add(&d.latency)
		if len(d.other) > 0 {
			return fmt.Errorf("answers other than 200: %v", d.other)
		}
	}
	frames2, facts2, err := s.counts(ctx)
	if err != nil || round == 0 {
		return err
	}
	micros := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(acked) }
	s.product, s.database = append(s.product, micros(product2-product)), append(s.database, micros(database2-database))
	s.rate = append(s.rate, float64(acked)/took.Seconds())
	s.frameRate = append(s.frameRate, float64(frames2-frames)/took.Seconds())
	s.p99 = append(s.p99, float64(latency.Quantile(0.99).Microseconds())/1000)
	s.frames, s.facts = s.frames+frames2-frames, s.facts+facts2-facts
	say("round %d  %-62s %6.1f + %5.1f µs  %6.0f/s", round, s.name, s.product[len(s.product)-1], s.database[len(s.database)-1], s.rate[len(s.rate)-1])
	return nil
}

// wave sends the open-loop wave, shared out among the gateways.
func (s *shape) wave(ctx context.Context, o *options, out *strings.Builder) error {
	say("wave of %d phones in %s: %s", o.phones, o.over, s.name)
	n := len(s.gateways)
	sums, errs := make([]load.Summary, n), make([]error, n)
	var wg sync.WaitGroup
	for i, g := range s.gateways {
		wg.Go(func() {
			sums[i], errs[i] = load.Run(ctx, load.Options{Target: "http://" + g.address, Keys: s.keys, Trial: trial, Phones: o.phones / n, Over: o.over})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	acked, offered := 0, 0
	worst := sums[0]
	for _, sum := range sums {
		acked, offered = acked+sum.Acknowledged, offered+sum.Offered
		if sum.Latency.P99 > worst.Latency.P99 {
			worst = sum
		}
	}
	fmt.Fprintf(out, "| %s | %d of %d | %.1f | %.1f | %.1f | %.1f |\n", s.name, acked, offered,
		worst.Latency.P50, worst.Latency.P99, worst.Latency.P999, worst.Latency.Max)
	return s.tables.projected(ctx)
}

func shapeTable(o *options, all []*shape, out *strings.Builder) {
	fmt.Fprintf(out, "\nBoth shapes: %d rounds of %d reports, %d connections, closed loop, until the tables hold them. CPU: user and system time of all of the product's processes, and of PostgreSQL's; median, least to most.\n\n",
		shapeRounds, o.requests, o.connections)
	fmt.Fprintln(out, "| shape | CPU µs a report: product | PostgreSQL | both × SQLite's | reports/s | frames/s | facts a frame | P99 ms |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|")
	for _, s := range all {
		ratios := make([]float64, len(s.product))
		for i := range ratios {
			ratios[i] = (s.product[i] + s.database[i]) / all[0].product[i]
		}
		fmt.Fprintf(out, "| %s | %.1f (%.1f to %.1f) | %.1f (%.1f to %.1f) | %.2f (%.2f to %.2f) | %.0f | %.0f | %.1f | %.1f |\n", s.name,
			median(s.product), slices.Min(s.product), slices.Max(s.product), median(s.database), slices.Min(s.database), slices.Max(s.database),
			median(ratios), slices.Min(ratios), slices.Max(ratios), median(s.rate), median(s.frameRate), float64(s.facts)/float64(max(s.frames, 1)), median(s.p99))
	}
}

// treeCPU is the time of a postmaster and its children, those that have ended
// included: their time is added to their parent's when it has waited for them.
func treeCPU(pid int) (time.Duration, error) {
	total, err := ticks(pid, true)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	for field := range strings.FieldsSeq(string(text)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		if d, err := ticks(child, false); err == nil { // it may have ended just now
			total += d
		}
	}
	return total, nil
}
