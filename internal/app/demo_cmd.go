package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/registry"
)

type demoCmd struct {
	Data         string `help:"Data folder; made if it does not exist. Default: data/demo." type:"path"`
	Participants int    `help:"Participants P-000001 and on, enrolled in T001; every second one in T002 too." default:"10000"`
	serveFlags
}

// Help shows an example.
func (demoCmd) Help() string {
	return help("Serves a demo registry from an embedded database and prints requests to paste into another terminal.\nThe folder is kept: run it again and it goes on where it was. Delete the folder to begin anew.", "tidegate demo --data data/demo")
}

// Run serves the demo until a signal comes.
func (c demoCmd) Run(ctx context.Context, con *console) error {
	if c.Participants < 1 || c.Participants > 1_000_000 {
		return usageError{fmt.Errorf("--participants must be between 1 and 1000000")}
	}
	cfg, err := c.config(con, c.Data)
	if err != nil {
		return err
	}
	if err := oneMachine(cfg); err != nil {
		return err
	}
	if cfg.Data == NewDefaultConfig().Data && c.Data == "" {
		cfg.Data = filepath.Join("data", "demo") // never beside real data
	}
	s, err := startServer(ctx, con, cfg, c.NoProjector)
	if err != nil {
		return err
	}
	if err := c.prepare(ctx, con, s); err != nil {
		_ = s.closeListeners()
		_ = s.node.close(context.WithoutCancel(ctx))
		return err
	}
	return s.serve(ctx)
}

// prepare writes the registry, as far as it is missing, and prints requests.
func (c demoCmd) prepare(ctx context.Context, con *console, s *server) error {
	start := time.Now()
	if err := seed(ctx, s.intake, demoCommands(c.Participants), func(done, total int) {
		con.progress("writing the demo registry: %d of %d facts", done, total)
	}); err != nil {
		return s.notSeeded(err)
	}
	con.progressDone()
	con.printf("\nDemo registry ready in %s: trials T001 and T002, %d participants, %d sites.\n", time.Since(start).Round(10*time.Millisecond), c.Participants, demoSites)
	return c.printRequests(ctx, con, s)
}

func (c demoCmd) printRequests(ctx context.Context, con *console, s *server) error {
	phone, err := s.keys.Mint(auth.Claims{
		Kind: auth.KindParticipant, Scope: auth.ScopeSubmit | auth.ScopeRead, Trial: demoTrial, Shard: shard, Participant: patientID(1),
		Device: "demo-phone", Epoch: 1, Expires: time.Now().Add(24 * time.Hour),
	})
	if err != nil {
		return err
	}
	var staff tokenAnswer
	if !c.NoProjector {
		wait, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if staff, err = s.staffToken(wait, staffTokenRequest{StaffID: "demo-coordinator", Name: "Demo coordinator", Role: "coordinator", Trial: demoTrial, Life: 24 * time.Hour}); err != nil {
			return err
		}
	}
	binary, data := filepath.Base(os.Args[0]), s.dir
	if len(os.Args) > 0 {
		binary = os.Args[0]
	}
	url := s.url()
	con.printf(`
Root key fingerprint (receipts are checked against it):
  %[5]s

Send a report as patient P-000001, from another terminal; the answer holds a receipt:
  curl -sS %[1]s/v1/patient/report \
    -H 'Authorization: Bearer %[2]s' \
    -H 'Content-Type: application/json' \
    -d '{"patientId":"P-000001","trialId":"T001","timestamp":"%[6]s","qolScore":7,"comments":"Slept well."}'

See what became of it, as the patient and as the site:
  curl -sS %[1]s/v1/patient/reports -H 'Authorization: Bearer %[2]s'
  curl -sS %[1]s/v1/trials/T001/books -H 'Authorization: Bearer %[7]s'

Check a receipt with no server (paste the receipt between the quotes):
  curl -sS %[1]s/v1/keys > keys.json
  echo 'RECEIPT' | %[3]s verify receipt - --keys keys.json --root %[5]s

Send a wave of 10,000 phones in a minute, then prove that nothing was lost:
  %[3]s load --target %[1]s --data %[4]s --phones 10000 --over 60s --retry --acks acks.ndjson
  %[3]s verify --data %[4]s --acks acks.ndjson

Status: http://%[8]s/status   Stop: Ctrl-C

`, url, phone, binary, data, s.keys.Fingerprint(), time.Now().Format(time.RFC3339), staff.Token, s.admin.Addr())
	return nil
}

type seedCmd struct {
	Data         string `help:"Data folder; made if it does not exist." default:"data" type:"path" env:"TIDEGATE_DATA"`
	Participants int    `help:"Participants to enrol." default:"10000"`
	JSON         bool   `help:"Print JSON."`
	configFlag
}

// Help shows an example.
func (seedCmd) Help() string {
	return help("Writes trials, sites and enrolments as facts. Safe to repeat: what is there is not written twice.", "tidegate seed --data data --participants 1000")
}

// Run writes the demo registry.
func (c seedCmd) Run(ctx context.Context, con *console) error {
	if c.Participants < 1 || c.Participants > 1_000_000 {
		return usageError{fmt.Errorf("--participants must be between 1 and 1000000")}
	}
	commands := demoCommands(c.Participants)
	cfg, err := c.load(con, c.Data)
	if err != nil {
		return err
	}
	return withNode(ctx, con, cfg, true, "seed", func(ctx context.Context, n *node) error {
		return writeAndWait(ctx, con, n, commands, c.JSON)
	})
}

// writeAndWait seeds and waits until the last command is decided.
func writeAndWait(ctx context.Context, con *console, n *node, commands []registry.Command, asJSON bool) error {
	err := seed(ctx, n.intake, commands, func(done, total int) { con.progress("written: %d of %d facts", done, total) })
	con.progressDone()
	if err != nil {
		return n.notSeeded(err)
	}
	if _, err := n.passed(ctx, commands[len(commands)-1].ID); err != nil {
		return err
	}
	if asJSON {
		return con.printJSON(map[string]any{"facts": len(commands), "data": n.dir})
	}
	where := n.dir
	if n.cfg.inPostgres() {
		where = postgres.Redact(n.cfg.Postgres.journalURL())
	}
	con.printf("%d facts are in the journal of %s and in its tables.\n", len(commands), where)
	return nil
}

// commandGrace is how long a command that is told to stop waits for what it has
// written.
const commandGrace = 5 * time.Second

// withNode runs f on the record path of a folder, without listeners.
func withNode(ctx context.Context, con *console, cfg Config, create bool, what string, f func(context.Context, *node) error) error {
	log := newLog(con.err, LogConfig{Format: "text", Level: "warn"})
	if pg := &cfg.Postgres; cfg.inPostgres() {
		defer con.tellWaits(ctx, pg, what, pg.journalURL(), pg.storeURL(), pg.vaultURL())()
	}
	n, err := openCommand(ctx, cfg, what, create, commandPath(cfg), (*node).check, log)
	if err != nil && cfg.inPostgres() && ctx.Err() != nil {
		return fmt.Errorf("stopped before it began: run this again, what is there by then is not made twice (%w)", context.Cause(ctx))
	}
	if err != nil {
		return err
	}
	err = f(ctx, n)
	closing := context.WithoutCancel(ctx)
	if ctx.Err() != nil { // a frame whose commit waits for a standby may wait for ever
		var cancel context.CancelFunc
		closing, cancel = context.WithTimeout(closing, commandGrace)
		defer cancel()
	}
	return errors.Join(err, n.close(closing))
}
