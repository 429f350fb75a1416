package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/internal/elect"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/internal/telemetry"
)

// leader is the projector role: several processes may run it, one is active. etcd
// chooses which, to save work. What keeps two from writing at once is the
// tables' cursor: one that was overtaken is told so and follows again.
type leader struct {
	*process
	counters atomic.Pointer[projector.Counters] // of the active one
	elected  atomic.Pointer[elect.State]
	reading  *watch // of the journal

	mu    sync.Mutex
	state gateway.State
	loop  *receipt.AnchorLoop // nil while another is active
}

// stateActive is the word for the projector that moves the cursor.
const stateActive = "active"

// Pauses of a projector.
const (
	overtakenPause = time.Second      // before it looks whether the other one goes on
	stoppedPause   = 15 * time.Second // before it tries again what an operator has to mend
	lastCheckpoint = 4 * time.Second  // for the last one, at a stop
)

// startRoleProjector stands for election, and projects when it is this one's turn.
func startRoleProjector(_ context.Context, p *process) (func(context.Context) error, error) {
	l := &leader{process: p}
	l.elected.Store(&elect.State{})
	l.set(gateway.State{OK: true, State: "standby", Note: "another projector is active, or none is chosen yet"})
	p.lead = l
	l.reading = p.watchJournal()
	if err := p.prepareCopies(p.site.parts); err != nil {
		return nil, err
	}
	return p.inBackground(func(ctx context.Context) error {
		l.stand(ctx)
		return nil
	}), nil
}

// stand takes part in the election until ctx ends. Work that has to stop gives
// its place up: a newer version of this program may know how to go on.
func (l *leader) stand(ctx context.Context) {
	e := l.cfg.Etcd
	opts := elect.Options{
		Endpoints: e.Endpoints, Key: e.Election, Name: instanceName(), DialTimeout: e.DialTimeout,
		Cert: e.Cert, CertKey: e.CertKey, CA: e.CA, User: e.User, PasswordFile: e.PasswordFile, Log: l.log,
		Changed: func(s elect.State) { l.elected.Store(&s) },
	}
	var told string
	for ctx.Err() == nil {
		err := elect.Run(ctx, opts, l.active)
		if err == nil || ctx.Err() != nil {
			return
		}
		l.set(gateway.State{State: "stopped", Since: time.Now(), Note: err.Error()})
		if text := err.Error(); text != told {
			l.log.Error("the projector stopped: reports are taken, but not shown; it is tried again now and then", "error", err)
			told = text
		}
		rest(ctx, stoppedPause)
	}
}

// active projects until ctx ends or it must stop.
func (l *leader) active(ctx context.Context) error {
	// Apart from the tables: a copy is kept while they are away.
	stop := l.copiesInBackground()
	defer func() { stop() }()
	defer l.set(gateway.State{OK: true, State: "standby", Note: "another projector is active, or none is chosen yet"})
	told, last := false, "" // one line for each kind of trouble
	for {
		err := l.project(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrFenced):
			l.log.Warn("another projector has moved the cursor: this one stands aside, and follows again when that one stops")
			stop()
			l.standAside(ctx)
			stop = l.copiesInBackground()
		case mustStop(err):
			return err
		default: // a database that is away for a moment is no reason to stop
			l.set(gateway.State{State: "waiting", Since: time.Now(), Note: err.Error()})
			if kind := reasonKind(err); !told || kind != last {
				l.log.Warn("cannot project, it is tried again", "error", err)
				told, last = true, kind
			}
			rest(ctx, overtakenPause)
		}
	}
}

// mustStop says whether an operator, or another version of this program, has to
// do something before it can go on.
func mustStop(err error) bool {
	var stop *projector.StopError
	var below *receipt.BelowAnchorError
	return errors.As(err, &stop) || errors.As(err, &below) || errors.Is(err, errOtherTables) || isOtherInstallation(err) || errors.Is(err, receipt.ErrCheckpoint) ||
		errors.Is(err, store.ErrLayout) || errors.Is(err, journal.ErrClosed) || hopelessDatabase(err)
}

// standAside waits until whoever moved the cursor has left frames lying.
func (l *leader) standAside(ctx context.Context) {
	l.set(gateway.State{OK: true, State: "standing aside", Since: time.Now(), Note: "another projector moves the cursor"})
	last, since := l.projector.Position(), time.Now()
	for rest(ctx, overtakenPause) {
		lag, err := l.projector.Lag(ctx)
		if err != nil || lag.Applied != last || lag.Applied >= lag.End {
			last, since = lag.Applied, time.Now()
			continue
		}
		if time.Since(since) > 3*overtakenPause {
			return
		}
	}
}

// project opens the tables, checks that they and the anchors fit the journal,
// and follows it.
func (l *leader) project(ctx context.Context) error {
	l.set(gateway.State{State: "waiting", Since: time.Now(), Note: "for the tables"})
	if err := l.writable(ctx); err != nil {
		return err
	}
	if err := l.checkTables(ctx); err != nil {
		return err
	}
	if err := l.compare(ctx); err != nil {
		return err
	}
	// Before it signs a checkpoint, and not into a journal that the anchors have
	// something against.
	if err := l.tellCertificate(ctx); err != nil {
		return fmt.Errorf("tell the certificate of this projector's key: %w", err)
	}
	pr := projector.New(l.journal, l.store, shard, projector.Options{Logger: l.log, Tracing: telemetry.Provider()})
	l.counters.Store(pr.Counters())
	l.set(gateway.State{OK: true, State: stateActive, Since: time.Now()})
	l.log.Info("projecting")
	stop := l.anchor(pr)
	err := pr.Run(ctx)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCheckpoint)
	defer cancel()
	return errors.Join(err, stop(limit))
}

// writable waits for the tables. Those of another layout are made anew beside.
func (l *leader) writable(ctx context.Context) error {
	for {
		_, err := l.tables.get() // which tells the log when they are not there
		if err == nil {
			return nil
		}
		if errors.Is(err, store.ErrLayout) {
			l.log.Warn("the tables have another layout: they are made again from the journal")
			if err := l.rebuild(ctx); err != nil {
				return err
			}
		}
		l.set(gateway.State{State: "waiting", Since: time.Now(), Note: err.Error()})
		if !rest(ctx, firstLatePause) {
			return ctx.Err()
		}
	}
}

// rebuild makes the tables anew beside the old ones, and swaps them in.
func (l *leader) rebuild(ctx context.Context) error {
	opts := pgstore.Options{Postgres: l.database(l.cfg.Postgres.storeURL()), Logger: l.log}
	return pgstore.Build(ctx, opts, func(s store.Store) error {
		return projector.Rebuild(ctx, l.journal, s, shard, projector.Options{Logger: l.log}, nil)
	})
}

// compare refuses a journal that ends below its anchors. Tables that are new do
// not know yet who signed them: then the journal is asked.
func (l *leader) compare(ctx context.Context) error {
	err := l.checkAnchors(ctx)
	if !errors.Is(err, receipt.ErrCheckpoint) {
		return err
	}
	certs, scanErr := certificatesIn(ctx, l.journal, l.keys.RootPublic())
	if scanErr != nil {
		return scanErr
	}
	return l.checkAnchorsWith(ctx, certs.List())
}

// anchor signs checkpoints of what this process projects. What it returns stops
// that, after one last checkpoint.
func (l *leader) anchor(pr *projector.Projector) func(context.Context) error {
	if len(l.anchors) == 0 {
		return func(context.Context) error { return nil }
	}
	loop := receipt.NewAnchorLoop(receipt.AnchorLoopOptions{
		Source: l.checkpointOf(pr), Signer: l.keys.Signer, Anchors: l.anchors, Log: l.log,
	})
	l.setLoop(loop)
	stop := l.inBackground(loop.Run)
	return func(ctx context.Context) error {
		defer l.setLoop(nil)
		return stop(ctx)
	}
}

func (l *leader) set(s gateway.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
}

func (l *leader) setLoop(loop *receipt.AnchorLoop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loop = loop
}

// now is how this process's projector is.
func (l *leader) now() gateway.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// anchorState is how the i-th anchor is.
func (l *leader) anchorState(i int) gateway.State {
	l.mu.Lock()
	loop := l.loop
	l.mu.Unlock()
	if loop == nil {
		return gateway.State{OK: true, State: "standby", Note: "the active projector writes it"}
	}
	return stateOfAnchor(loop.Status()[i])
}

// etcd is how the election is.
func (l *leader) etcd() gateway.State {
	s := l.elected.Load()
	if s.Err != nil {
		return gateway.State{State: "failing", Note: fmt.Sprintf("who is active is settled by the tables' cursor alone until it is back (%v)", s.Err)}
	}
	return gateway.State{OK: true, State: "serving"}
}

// dependencies are what /status names of the projector role. Its journal is
// well while the lag can be read.
func (l *leader) dependencies() []gateway.Dependency {
	deps := []gateway.Dependency{
		{Name: "journal", Check: l.reading.now},
		{Name: "projector", Check: l.now},
	}
	if len(l.cfg.Etcd.Endpoints) > 0 {
		deps = append(deps, gateway.Dependency{Name: "etcd", Check: l.etcd})
	}
	for i, a := range l.anchors {
		deps = append(deps, gateway.Dependency{Name: "anchor " + a.String(), Check: func() gateway.State { return l.anchorState(i) }})
	}
	return append(deps, l.shipDependencies()...)
}
