package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/trialrpc"
	"github.com/tidegate/tidegate/internal/vault"
)

// roleAlone is a role that runs as a process of its own, in the second shape.
// Its parts start in order and stop in the reverse order.
type roleAlone struct {
	name  string
	parts []part
}

// Names of the roles of the second shape.
const (
	roleGateway   = "gateway"   // takes reports and answers screens
	roleTrial     = "trial"     // serves the Trial service
	roleProjector = "projector" // makes the tables and signs checkpoints
)

// rolesToCome are named in the design and not part of this version.
var rolesToCome = []string{"outlet", "analysis", "notifier"}

// rolesAlone are the roles of the second shape, in order.
func rolesAlone() []roleAlone {
	return []roleAlone{
		{roleGateway, []part{
			{"traces", startRoleTraces},
			{"journal", openRoleJournal},
			{"journal's owner", checkOwner},
			{"tables", openRoleTables(readTables)},
			{"own key", watchOwnKey},
			{"vault", openRoleVault},
			{"anchors", compareFirst},
			{"intake", startRoleIntake},
			{"directory", startRoleDirectory},
			{"public listener", startPublic},
		}},
		{roleTrial, []part{
			{"traces", startRoleTraces},
			{"journal", openRoleJournal},
			{"journal's owner", checkOwner},
			{"tables", openRoleTables(readTables)},
			{"own key", watchOwnKey},
			{"vault", openRoleVault},
			{"anchors", compareFirst},
			{"intake", startRoleIntake},
			{"Trial service", startRoleRPC},
		}},
		{roleProjector, []part{
			{"traces", startRoleTraces},
			{"journal", openRoleJournal},
			{"journal's owner", checkOwner},
			{"tables", openRoleTables(writeTables)},
			{"own key", watchOwnKey},
			{"projector", startRoleProjector},
		}},
	}
}

func roleNamed(name string) *roleAlone {
	for _, r := range rolesAlone() {
		if r.name == name {
			return &r
		}
	}
	return nil
}

func roleNames() []string {
	var names []string
	for _, r := range rolesAlone() {
		names = append(names, r.name)
	}
	return names
}

// oneMachine refuses the storage of the second shape where all roles run in one
// process: there is never a third shape.
func oneMachine(cfg Config) error {
	if !cfg.inPostgres() {
		return nil
	}
	return usageError{fmt.Errorf("this configuration names PostgreSQL, where each role is a process of its own: tidegate serve %s. Leave postgres.url away to run all roles in this process on SQLite", strings.Join(roleNames(), "|"))}
}

// process is a role that runs alone.
type process struct {
	*node
	role    string
	version string
	site    *site
	tables  *late[store.Store]
	secrets *late[vault.Vault]
	lead    *leader // of the projector role

	registry *directory.Directory // of the gateway role
	client   *trialrpc.Client     // of the gateway role, nil without a Trial service
	rpc      *trialrpc.Server     // of the trial role
	rpcEtcd  bool                 // it is registered in etcd
	trial    trialFlags           // of the trial role

	seen       timelines
	projecting *watch // how far the tables are
	reading    *watch // of the journal, in roles that append
	listens    []any  // attributes for the log: where it listens beside the admin address

	waiting atomic.Pointer[string] // why it is not ready; nil once all parts have started
	leaves  []string               // what it could not close when it stopped
}

// part is a part of a process.
type part struct {
	name  string
	start func(context.Context, *process) (stop func(context.Context) error, err error)
}

// serveRole runs a role until ctx ends or it cannot go on.
func serveRole(ctx context.Context, con *console, cfg Config, r roleAlone, trial trialFlags) error {
	if !cfg.inPostgres() {
		return usageError{fmt.Errorf("the role %s on its own needs a journal in PostgreSQL, which several processes can reach, and none is configured, so the data folder would be SQLite: set postgres.url (in --config, or TIDEGATE_POSTGRES_URL), or run `tidegate serve` without a role for all of them in one process on one machine", r.name)}
	}
	if err := errors.Join(cfg.CheckFiles(), trial.check(r.name, &cfg)); err != nil {
		return err
	}
	log := newLog(con.err, cfg.Log).With("role", r.name)
	for _, w := range cfg.Warnings() {
		log.Warn("an unwise setting", "warning", w)
	}
	f, err := prepareRoleFolder(ctx, cfg.Data, r.name, log)
	if err != nil {
		return stoppedEarly(ctx, log, err)
	}
	admin, err := listen(cfg.Admin, "admin", "--admin")
	if err != nil {
		return errors.Join(err, f.close())
	}
	if err := f.lock.describe(lockFile{PID: os.Getpid(), Admin: admin.Addr().String(), What: "serve " + r.name}); err != nil {
		return errors.Join(err, admin.Close(), f.close())
	}
	p := &process{node: &node{folder: f, cfg: cfg, failed: make(chan error, 1)}, role: r.name, version: con.version, trial: trial}
	p.wait("starting")
	if err := p.findAnchors(); err != nil {
		return errors.Join(err, admin.Close(), f.close())
	}
	p.site = newSite(p)
	return p.run(ctx, r, admin)
}

// run starts the parts, serves, and stops all in order.
func (p *process) run(ctx context.Context, r roleAlone, admin net.Listener) error {
	// The admin listener lives longest, so that start and stop can be watched.
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	adminDone := make(chan error, 1)
	go func() { adminDone <- p.site.serve(adminCtx, admin) }()
	p.log.Info("starting", "admin", admin.Addr().String(), "data", p.dir, "root", p.keys.Fingerprint())

	parts := make([]role, len(r.parts))
	for i, pt := range r.parts {
		parts[i] = role{pt.name, func(ctx context.Context, _ *node) (func(context.Context) error, error) { return pt.start(ctx, p) }}
	}
	cause := stoppedEarly(ctx, p.log, p.start(ctx, parts))
	var failed error // after the start
	if cause == nil && ctx.Err() == nil {
		deps := p.dependencies()
		p.site.shown.Store(&deps)
		p.waiting.Store(nil)
		p.log.Info("serving", append(p.listens, "admin", admin.Addr().String(), "data", p.dir)...)
		select {
		case <-ctx.Done():
			p.log.Info("stopping")
		case failed = <-p.failed:
			p.log.Error("stopping: a part of the process failed", "error", failed)
		}
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	p.wait("stopping")
	err := errors.Join(cause, p.stopAll(limit))
	if len(p.leaves) > 0 {
		p.log.Warn("connections did not close, for their server does not answer: they end with this process, and nothing waits for them", "of", strings.Join(p.leaves, ", "))
	}
	stopAdmin()
	err = errors.Join(err, <-adminDone, p.folder.close())
	return ended(p.log, failed, err)
}

// Shares of [stopGrace] on PostgreSQL: a server that hangs takes nothing from
// what comes after.
const (
	stopListener = 6 * time.Second        // until those who still wait are told that the outcome is unknown
	closingTime  = 2 * time.Second        // kept back for what comes after intake
	letGoTime    = 600 * time.Millisecond // of each pool
)

// letGo closes connections that nothing uses any more. Those to a server that
// hangs are left to the end of the process.
func (p *process) letGo(what string, closing func() error) error {
	done := make(chan error, 1)
	go func() { done <- closing() }()
	timer := time.NewTimer(letGoTime)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		p.leaves = append(p.leaves, what)
		return nil
	}
}

// ended is what a process returns that has stopped. What the log has told is not
// told again.
func ended(log *slog.Logger, failed, err error) error {
	switch {
	case failed != nil && err != nil:
		log.Error("the stop was not clean", "error", err)
		return errFindings
	case failed != nil:
		return errFindings
	case err == nil:
		log.Info("stopped cleanly")
	}
	return err
}

// findAnchors finds those that the projector writes, and that the others compare
// the journal with. The default one is beside the folder of whoever writes it.
func (p *process) findAnchors() error {
	writes := p.role == roleProjector
	if !writes && len(p.cfg.Anchors) == 0 {
		return nil
	}
	anchors, warnings, err := anchorsOf(p.cfg, p.dir, p.keys.Fingerprint())
	if err != nil {
		return err
	}
	p.anchors = anchors
	for _, w := range warnings {
		if writes {
			p.log.Warn("an unwise setting", "warning", w)
		}
	}
	return nil
}

// database are the options of a pool of this role's.
func (p *process) database(url string) postgres.Options {
	o := p.cfg.Postgres.options(url, p.role)
	o.Timeline = p.seen.of(url)
	return o
}

// wait notes why the process is not ready.
func (p *process) wait(why string) { p.waiting.Store(&why) }

// stoppedEarly is nil for the error of a start that was told to stop.
func stoppedEarly(ctx context.Context, log *slog.Logger, err error) error {
	if err != nil && ctx.Err() != nil {
		log.Info("stopped before the start was over")
		return nil
	}
	return err
}

// prepareRoleFolder waits for the keys in a role's folder, and takes the lock.
// Keys come from elsewhere, perhaps a moment later; damaged ones will not get
// better, nor does the name of a folder that is not there.
func prepareRoleFolder(ctx context.Context, dir, name string, log *slog.Logger) (*folder, error) {
	dir = filepath.Clean(dir)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is no folder: a role starts in the folder that its keys were issued to, or in one that is there and that they come into: tidegate keys issue --data ROOT --to %s --name NAME, or correct --data", dir, dir)
	}
	keys := filepath.Join(dir, folderKeys)
	_, err := until(ctx, log, "the keys", nil, func(context.Context) (struct{}, error) {
		if exists(keys) {
			return struct{}{}, nil
		}
		return struct{}{}, fmt.Errorf("%s is not there: tidegate keys issue --data ROOT --to %s --name NAME", keys, dir)
	})
	if err != nil {
		return nil, err
	}
	if exists(filepath.Join(dir, fileJournal)) {
		return nil, fmt.Errorf("%s is the data folder of one machine, with its journal in SQLite: give the role a folder of its own, or move that journal with `tidegate transfer`", dir)
	}
	return prepareFolder(dir, "serve "+name, false, log)
}
