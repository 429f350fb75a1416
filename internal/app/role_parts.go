package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/internal/vault"
	"github.com/tidegate/tidegate/internal/vault/pgvault"
)

// Parts that several roles have.

// fileTimeline keeps the highest timeline of the database that a role has seen.
const fileTimeline = "timeline"

// callLimit bounds a call to a database: a little above the time after which
// the server ends the statement itself, for a server that does nothing any more.
func (c *PostgresConfig) callLimit() time.Duration { return c.StatementTimeout + time.Second }

// openRoleJournal waits for the journal: the one thing no role can do without.
func openRoleJournal(ctx context.Context, p *process) (func(context.Context) error, error) {
	p.wait("waiting for the journal")
	pg := p.cfg.Postgres
	j, err := until(ctx, p.log, "the journal", hopelessDatabase, func(ctx context.Context) (*pgjournal.Journal, error) {
		ctx, cancel := context.WithTimeout(ctx, pg.ConnectTimeout+pg.callLimit())
		defer cancel()
		j, err := pgjournal.Open(ctx, pgjournal.Options{Postgres: p.database(pg.journalURL()), Logger: p.log, TimelineFile: p.path(fileTimeline)})
		return j, waitAdvice(err)
	})
	if err != nil {
		return nil, err
	}
	p.journal = boundedJournal{Journal: j, limit: pg.callLimit()}
	if err := p.strongEnough(); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	p.wait("starting")
	return func(context.Context) error { return p.letGo("the journal", j.Close) }, nil
}

// What a role does with the tables.
const (
	readTables  = false
	writeTables = true
)

// openRoleTables opens the tables in the background, to read or to write them.
func openRoleTables(write bool) func(context.Context, *process) (func(context.Context) error, error) {
	return func(_ context.Context, p *process) (func(context.Context) error, error) {
		pg := p.cfg.Postgres
		p.tables = newLate[store.Store]("the tables", "screens, lists and commands wait, reports are taken", pg.callLimit(), p.log)
		p.store = lateStore{p.tables}
		p.projector = projector.New(p.journal, p.store, shard, projector.Options{Logger: p.log})
		open := func(ctx context.Context) (store.Store, error) {
			s, err := pgstore.Open(ctx, pgstore.Options{Postgres: p.database(pg.storeURL()), ReadOnly: !write, Logger: p.log})
			if err != nil {
				return nil, err // and not a nil *Store in it
			}
			return s, nil
		}
		return background(p, p.tables, open, func(ctx context.Context, s store.Store) error {
			_, err := s.Cursor(ctx, shard)
			return err
		}), nil
	}
}

// openRoleVault opens the vault in the background.
func openRoleVault(_ context.Context, p *process) (func(context.Context) error, error) {
	pg := p.cfg.Postgres
	p.secrets = newLate[vault.Vault]("the vault", "staff cannot sign in, reports are taken", pg.callLimit(), p.log)
	open := func(ctx context.Context) (vault.Vault, error) {
		v, err := pgvault.Open(ctx, pgvault.Options{Postgres: p.database(pg.vaultURL())})
		if err != nil {
			return nil, err // and not a nil *Vault in it
		}
		return v, nil
	}
	return background(p, p.secrets, open, func(ctx context.Context, v vault.Vault) error {
		_, err := v.Credential(ctx, "status") // never there
		if errors.Is(err, vault.ErrNotFound) {
			return nil
		}
		return err
	}), nil
}

// background runs a late dependency. What it returns stops that and closes it.
func background[T io.Closer](p *process, l *late[T], open func(context.Context) (T, error), ask func(context.Context, T) error) func(context.Context) error {
	stop := p.inBackground(func(ctx context.Context) error {
		l.run(ctx, open, ask)
		return nil
	})
	return func(ctx context.Context) error {
		return errors.Join(stop(ctx), p.letGo(l.what, l.Close))
	}
}

// startRoleIntake starts an intake with a run of its own, and tells this
// process's certificate, which must be durable before it signs anything.
func startRoleIntake(ctx context.Context, p *process) (func(context.Context) error, error) {
	p.wait("waiting for the journal's first answer")
	hopeless := func(err error) bool {
		return errors.Is(err, journal.ErrFrame) || errors.Is(err, journal.ErrFork) || isOtherInstallation(err)
	}
	stop, err := until(ctx, p.log, "the journal's first answer", hopeless, func(ctx context.Context) (func(context.Context) error, error) {
		return startIntake(ctx, p.node)
	})
	if err == nil {
		p.reading = p.watchJournal()
	}
	return stop, err
}

// stateOfJournal is how the journal is: as far as intake knows, and when intake
// has nothing to tell because nobody sends, whether it answers at all.
func (p *process) stateOfJournal() gateway.State {
	if s := p.journalState(); !s.OK {
		return s
	}
	return p.reading.now()
}

// inLimit calls f as long as a call to a database may take.
func (p *process) inLimit(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Postgres.callLimit())
	defer cancel()
	return f(ctx)
}

// checkOwner refuses the journal of another installation, before anything is
// made or said of it.
func checkOwner(ctx context.Context, p *process) (func(context.Context) error, error) {
	p.wait("waiting for the journal's first answer")
	defer p.wait("starting")
	return until(ctx, p.log, "the journal's first answer", isOtherInstallation, func(ctx context.Context) (func(context.Context) error, error) {
		return nil, p.ownJournal(ctx)
	})
}

// tellCertificate tells this process's certificate and nothing more: for a role
// that signs checkpoints and takes no facts.
func (p *process) tellCertificate(ctx context.Context) error {
	// Not as this process's intake: nothing more comes of it.
	stop, err := startIntake(ctx, &node{folder: p.folder, storage: p.storage, cfg: p.cfg, failed: p.failed})
	if err != nil {
		return err
	}
	return stop(ctx)
}

// compareFirst refuses a journal that ends below an anchor, before this process
// appends anything. Anchors are signed by a projector, whose certificate is in
// the tables, and those may be away; then what the anchor says is compared all
// the same, and until that is settled the process waits: an empty journal in the
// place of one that held reports has no tables either.
func compareFirst(ctx context.Context, p *process) (func(context.Context) error, error) {
	if len(p.anchors) == 0 {
		return nil, nil
	}
	final := func(err error) bool {
		var below *receipt.BelowAnchorError
		var unsigned *unsignedAnchorError
		return errors.As(err, &below) && !errors.As(err, &unsigned)
	}
	return until(ctx, p.log, "the journal that the anchors saw", final, func(ctx context.Context) (func(context.Context) error, error) {
		err := p.inLimit(ctx, p.checkAnchors)
		if err == nil || final(err) {
			return nil, err
		}
		// With a limit of its own: tables that hang must not keep it from an answer.
		if alarm := p.inLimit(ctx, p.checkAnchorTexts); alarm != nil {
			p.wait("waiting for the journal that the anchors saw: see the log")
			return nil, alarm
		}
		p.log.Warn("who signed the anchors could not be checked; the journal has the frames that they name, and the projector checks them too", "error", err)
		return nil, nil
	})
}

// watchProjector asks how far the tables are, for /status: that nobody projects shows in
// a lag that does not shrink.
func (p *process) watchProjector() *watch {
	w := &watch{}
	w.state.Store(&gateway.State{OK: true, State: "not asked yet"})
	var last journal.Position
	moved := time.Now()
	ask := func(ctx context.Context) gateway.State {
		lag, err := p.projector.Lag(ctx)
		switch {
		case err != nil:
			return gateway.State{State: "not known", Since: time.Now(), Note: fmt.Sprintf("how far the tables are cannot be read (%v)", err)}
		case lag.Applied != last || lag.Applied >= lag.End:
			last, moved = lag.Applied, time.Now()
		}
		if quiet := time.Since(moved); quiet > projectorQuiet {
			return gateway.State{State: "behind", Since: moved, Note: fmt.Sprintf("the tables stand at position %d of %d and do not move: is a projector running? Reports are taken", lag.Applied, lag.End)}
		}
		return gateway.State{OK: true, State: "serving"}
	}
	stop := p.inBackground(func(ctx context.Context) error { return w.run(ctx, watchLag, ask) })
	p.stops = append(p.stops, step{"the watch on the projector", stop})
	return w
}

// watchLag is how often the tables are asked how far they are.
const watchLag = time.Second

// projectorQuiet is how long the tables may stand still below the journal's end
// before somebody should look.
const projectorQuiet = 15 * time.Second

// watchJournal asks the journal now and then: an append says more, but there is
// none while nobody sends.
func (p *process) watchJournal() *watch {
	w := &watch{}
	w.state.Store(&gateway.State{OK: true, State: "serving"})
	stop := p.inBackground(func(ctx context.Context) error {
		return w.run(ctx, watchEvery, func(ctx context.Context) gateway.State {
			if _, err := p.journal.End(ctx, shard); err != nil {
				return gateway.State{State: "failing", Since: time.Now(), Note: fmt.Sprintf("it does not answer, reports get a 503 until it does (%v)", err)}
			}
			return gateway.State{OK: true, State: "serving"}
		})
	})
	p.stops = append(p.stops, step{"the watch on the journal", stop})
	return w
}
