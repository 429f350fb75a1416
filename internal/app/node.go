package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/telemetry"
)

// node is the record path of one data folder at work: intake in front of the
// journal, projector and anchors behind it. Commands of the command line that
// write without a server run one too, without listeners.
type node struct {
	*folder
	storage
	cfg       Config
	intake    *intake.Intake
	projector *projector.Projector
	anchors   []receipt.Anchor // that are written
	earlier   []receipt.Anchor // of before a restore: read, until they are settled
	loop      *receipt.AnchorLoop
	shipments []*shipment // copies of the journal that are kept
	failed    chan error  // the first failure that must stop the process

	stops []step // what was started, in order
}

// step is something that was started and how it is stopped.
type step struct {
	name string
	stop func(context.Context) error
}

// role is a part of the process. Roles start in the order of the table and
// stop in the reverse order.
type role struct {
	name  string
	start func(context.Context, *node) (stop func(context.Context) error, err error)
}

// recordPath are the roles below the listeners.
var recordPath = []role{
	{"projector", startProjector},
	{"intake", startIntake},
	{"anchors", startAnchors},
}

// fail reports a failure that must stop the process. The first one counts.
func (n *node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

// start starts roles in order; when one fails, those before it are stopped.
func (n *node) start(ctx context.Context, roles []role) error {
	for _, r := range roles {
		stop, err := r.start(ctx, n)
		if err != nil {
			return errors.Join(fmt.Errorf("start %s: %w", r.name, err), n.stopAll(context.WithoutCancel(ctx)))
		}
		if stop != nil {
			n.stops = append(n.stops, step{r.name, stop})
		}
	}
	return nil
}

// stopAll stops what was started, in reverse order, all of it even if one fails.
func (n *node) stopAll(ctx context.Context) error {
	var errs []error
	for i := len(n.stops) - 1; i >= 0; i-- {
		if err := n.stops[i].stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", n.stops[i].name, err))
		}
	}
	n.stops = nil
	return errors.Join(errs...)
}

// inBackground runs f until the returned stop is called, which waits for it.
func (n *node) inBackground(f func(context.Context) error) func(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func(limit context.Context) error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-limit.Done():
			return errors.New("did not end in time")
		}
	}
}

func startProjector(_ context.Context, n *node) (func(context.Context) error, error) {
	// A projector that must stop (a damaged frame, a newer kind) does not stop
	// intake: reports are still taken, and /status says what is wrong.
	return n.inBackground(func(ctx context.Context) error {
		if err := n.projector.Run(ctx); err != nil {
			n.log.Error("the projector stopped: reports are still taken, but not shown", "error", err)
		}
		return nil
	}), nil
}

func startIntake(ctx context.Context, n *node) (func(context.Context) error, error) {
	opts := intake.Options{Config: n.cfg.Intake.options(), Shard: shard, Log: n.log, OnFatal: n.fail, Tracing: telemetry.Provider()}
	if !n.cfg.inPostgres() { // else the journal is on another machine's disk
		opts.DiskFree = func() (uint64, error) { return diskFree(n.dir) }
	}
	if err := n.ownJournal(ctx); err != nil {
		return nil, err
	}
	in, err := intake.New(ctx, n.journal, n.keys.Signer(), opts)
	if err != nil {
		return nil, err
	}
	n.intake = in
	// Once more behind it: two installations may have begun on an empty database
	// at the same time. The first certificate in it says whose it is.
	if err := errors.Join(n.bootstrap(ctx), n.ownJournal(ctx)); err != nil {
		return nil, errors.Join(err, in.Close(ctx))
	}
	return func(limit context.Context) error {
		if n.cfg.inPostgres() { // what comes after has connections to close
			var cancel context.CancelFunc
			limit, cancel = earlier(limit, closingTime)
			defer cancel()
		}
		if err := in.Close(limit); err != nil {
			return fmt.Errorf("whether the journal keeps the last frame is not known: who waited for it was told so and sends the same again, which counts once (%w)", err)
		}
		return nil
	}, nil
}

func diskFree(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil //nolint:gosec // a block size is positive
}

// tzVersion is the version of the IANA time zone database that comes with the
// Go release this module names.
const tzVersion = "2025c"

// bootstrap writes the facts that every journal begins with, and the
// certificates of signing keys that it does not hold yet: after a crash at
// first start, or after a key was made without a server.
func (n *node) bootstrap(ctx context.Context) error {
	end, err := n.journal.End(ctx, shard)
	if err != nil {
		return err
	}
	if end.Position == 0 {
		rules := registry.Command{
			Kind: epro.KindRulesActivated, ID: seedID("rules", projector.RuleSet), Actor: systemActor("start"),
			Body: epro.RulesActivated{RuleSet: projector.RuleSet, TZ: tzVersion},
		}
		if err := n.command(ctx, rules); err != nil {
			return fmt.Errorf("name the rule set: %w", err)
		}
	}
	known, err := n.knownKeys(ctx)
	if err != nil && !n.cfg.inPostgres() { // there the tables may be away: what is told again changes nothing
		return err
	}
	for _, c := range n.keys.Certificates() {
		if known[c.KeyID] {
			continue
		}
		retired := c.Retired
		c.Retired = nil
		if err := n.command(ctx, registry.Command{Kind: epro.KindKeyAdded, ID: seedID("key.added", c.KeyID), Actor: systemActor("keys"), Body: c}); err != nil {
			return fmt.Errorf("certify signing key %s: %w", c.KeyID, err)
		}
		if retired != nil {
			if err := n.command(ctx, registry.Command{Kind: epro.KindKeyRetired, ID: seedID("key.retired", c.KeyID), Actor: systemActor("keys"), Body: retired}); err != nil {
				return fmt.Errorf("retire signing key %s: %w", c.KeyID, err)
			}
		}
	}
	return nil
}

// knownKeys are the keys whose certificate lies in the tables already. Tables
// that are behind name fewer: then a certificate is written once more, under
// the same command id, which changes nothing.
func (n *node) knownKeys(ctx context.Context) (map[string]bool, error) {
	facts, err := n.store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	certs := receipt.NewCertificates(n.keys.RootPublic())
	for _, f := range facts {
		certs.AddFact(f.Body, f.Kind == epro.KindKeyRetired)
	}
	n.warnForeign(certs)
	known := map[string]bool{}
	for _, c := range certs.List() {
		known[c.KeyID] = true
	}
	return known, nil
}

// command writes one command as a fact and returns when it is durable.
func (n *node) command(ctx context.Context, c registry.Command) error {
	f, err := registry.Fact(c, time.Now())
	if err != nil {
		return err
	}
	_, err = n.intake.Submit(ctx, &f)
	return n.notWritten(err)
}

// notWritten says, to whoever sits at the command line, what to do about what
// intake answers.
func (n *node) notWritten(err error) error {
	var refused *intake.RefusedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused) && refused.Reason == "disk-low":
		return fmt.Errorf("nothing was written: the disk of %s has less than %d MB free (intake.diskFloorMB): free space and run this again (%w)", n.dir, n.cfg.Intake.DiskFloorMB, err)
	case errors.As(err, &refused):
		return fmt.Errorf("nothing was written: there is no room at this moment: run this again in a few seconds (%w)", err)
	case errors.Is(err, intake.ErrNotTaken):
		return fmt.Errorf("nothing was written: look at the disk and at the log, and run this again (%w)", err)
	case errors.Is(err, intake.ErrStopped):
		return fmt.Errorf("nothing was written: run this again when the stop is over (%w)", err)
	case errors.Is(err, intake.ErrUnknown):
		return fmt.Errorf("%w: run this again, what is there by then is not made twice", err)
	}
	return err
}

// apply writes one command and waits until the projector has decided it.
func (n *node) apply(ctx context.Context, c registry.Command) (store.Outcome, error) {
	if err := n.command(ctx, c); err != nil {
		return store.Outcome{}, err
	}
	out, err := n.passed(ctx, c.ID)
	if err != nil {
		return out, fmt.Errorf("written, but not yet decided: %w", err)
	}
	return out, nil
}

// anchorsOf are the anchors of a configuration, and what is unwise about them.
func anchorsOf(cfg Config, dir, fingerprint string) (anchors []receipt.Anchor, warnings []string, err error) {
	specs, err := anchorSpecs(cfg, dir, fingerprint)
	if err != nil {
		return nil, nil, err
	}
	for _, spec := range specs {
		a, err := receipt.ParseAnchor(spec)
		if err != nil {
			return nil, nil, err
		}
		anchors = append(anchors, a)
		if f, ok := a.(*receipt.FileAnchor); ok && receipt.SameFilesystem(filepath.Dir(f.Path()), dir) {
			warnings = append(warnings, "the anchor "+f.Path()+" lies on the same file system as the data folder: one lost disk takes both; name another with --anchor")
		}
	}
	return anchors, warnings, nil
}

// keySet is the certified keys of the folder, as files, with more certificates:
// the files of a data folder or a root folder are enough to check anchors before
// the tables are there.
func (f *folder) keySet(more ...receipt.Certificate) (*receipt.KeySet, error) {
	return keySetOf(f.keys, more...)
}

// keySetOf is more, with the keys of a folder and those that it issued.
func keySetOf(keys *auth.Keys, more ...receipt.Certificate) (*receipt.KeySet, error) {
	all := joined(more, keys.Certificates())
	issued, err := keys.Issued()
	if err != nil {
		return nil, err
	}
	for _, i := range issued {
		all = joined(all, []receipt.Certificate{i.Certificate})
	}
	return receipt.NewKeySet(receipt.NewKeys(keys.RootPublic(), all...), keys.Fingerprint())
}

// checkpointOf is what the anchors are to hold: as far as the tables are.
func (f *folder) checkpointOf(p *projector.Projector) func(context.Context) (receipt.Checkpoint, error) {
	return func(ctx context.Context) (receipt.Checkpoint, error) {
		c, err := p.Checkpoint(ctx)
		if err != nil {
			return receipt.Checkpoint{}, err
		}
		return receipt.Checkpoint{
			Root16: f.keys.Fingerprint()[:16], Shard: c.Shard, Frames: c.Size, Tree: c.Root, Position: c.Position, Header: c.Header, Era: c.Era,
		}, nil
	}
}

func startAnchors(_ context.Context, n *node) (func(context.Context) error, error) {
	if len(n.anchors) == 0 {
		return nil, nil
	}
	n.loop = receipt.NewAnchorLoop(receipt.AnchorLoopOptions{
		Source: n.checkpointOf(n.projector), Signer: n.keys.Signer, Anchors: n.anchors, Log: n.log,
	})
	return n.inBackground(n.loop.Run), nil
}

// check refuses a journal that keeps less than it is asked to, or that lacks
// what its anchors or its tables have seen.
func (n *node) check(ctx context.Context) error {
	if err := n.strongEnough(); err != nil {
		return err
	}
	if err := n.checkAnchors(ctx); err != nil {
		return err
	}
	return n.checkTables(ctx)
}

// strongEnough refuses a journal that keeps less than it is asked to.
func (n *node) strongEnough() error {
	class, want := n.journal.Properties().Class.String(), n.cfg.Durable.Require
	if durabilityRank[class] < durabilityRank[want] {
		return fmt.Errorf("durability.require asks for a journal of class %s, and this one is %s: its acknowledgements would survive less; change the setting, or the journal", want, class)
	}
	return nil
}

// openNode opens a prepared folder, checks it, and starts the record path on it.
func openNode(ctx context.Context, f *folder, cfg Config, roles []role, check func(*node, context.Context) error, log *slog.Logger) (*node, error) {
	n := &node{folder: f, cfg: cfg, failed: make(chan error, 1)}
	anchors, warnings, err := anchorsOf(cfg, f.dir, f.keys.Fingerprint())
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	n.anchors = anchors
	used, err := readUsedAnchors(f.dir, f.keys.Fingerprint())
	if err == nil {
		n.earlier, err = used.open()
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	if err := n.openSQLite(ctx, func(ctx context.Context) error { return check(n, ctx) }); err != nil {
		return nil, errors.Join(err, f.close())
	}
	n.projector = projector.New(n.journal, n.store, shard, projector.Options{Logger: log, Tracing: telemetry.Provider()})
	if err := n.start(ctx, roles); err != nil {
		return nil, errors.Join(err, n.storage.close(), f.close())
	}
	for _, w := range warnings {
		log.Warn("an unwise setting", "warning", w) // not before: a refusal to start is to stand alone
	}
	return n, nil
}

// close stops the roles and closes the folder.
func (n *node) close(ctx context.Context) error {
	return errors.Join(n.stopAll(ctx), n.storage.close(), n.folder.close())
}
