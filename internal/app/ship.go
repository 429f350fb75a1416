package app

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/ship"
)

// Second copies of the journal. A copy in a folder is what a data folder is
// without its secrets: journal.db, LOCK while it is written, and keys.json.

// fileKeysJSON lies in a copy: the certified keys, as GET /v1/keys answers, so
// that the copy can be audited without secrets.
const fileKeysJSON = "keys.json"

// errUsedFolder says that a server or a command has worked on the copy.
var errUsedFolder = errors.New("a server has used this folder, so it goes on by itself and is no copy any more")

// copyFolder is a copy in a folder, held by this process.
type copyFolder struct {
	ship.Appends
	j    *sqlitejournal.Journal
	lock *lock
}

// Close gives the folder back.
func (c *copyFolder) Close() error { return errors.Join(c.j.Close(), c.lock.release()) }

// openCopyFolder opens a copy in a folder, or begins one where this process has
// not seen one yet.
func openCopyFolder(ctx context.Context, dir string, seen bool, log *slog.Logger) (_ *copyFolder, err error) {
	if seen && !exists(filepath.Join(dir, fileJournal)) {
		return nil, fmt.Errorf("the copy %s is gone: is the disk mounted?", dir)
	}
	// Not its parents: what they lie on may not be mounted yet.
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the folder of the copy: %w", err)
	}
	for _, name := range []string{fileStore, fileVault} {
		if exists(filepath.Join(dir, name)) {
			return nil, fmt.Errorf("%w: %s has %s; ship to a new folder", errUsedFolder, dir, name)
		}
	}
	l, err := takeLock(dir, "ship")
	if err != nil {
		return nil, err
	}
	j, err := sqlitejournal.Open(ctx, filepath.Join(dir, fileJournal), sqlitejournal.Options{Logger: log})
	if err != nil {
		return nil, errors.Join(err, l.release())
	}
	return &copyFolder{Appends: ship.Appends{Journal: j}, j: j, lock: l}, nil
}

// shipment is one copy and the shipper that keeps it.
type shipment struct {
	*ship.Shipper
	name    string      // of the place, without a password
	running atomic.Bool // it is this process that keeps it
}

// shipTo makes the shipper of one copy. root is the installation's root public
// key and certs what is known of its signing keys; without root no keys.json is
// written.
func shipTo(to string, pg PostgresConfig, root ed25519.PublicKey, certs []receipt.Certificate, source func(context.Context) (ship.Source, error), once bool, progress func(ship.Status), log *slog.Logger) *shipment {
	s := &shipment{name: to}
	opts := ship.Options{
		OpenSource: source, Shard: shard, Once: once, Progress: progress,
		Final: func(err error) bool { return errors.Is(err, errUsedFolder) || hopelessDatabase(err) },
	}
	if postgres.IsURL(to) {
		s.name = postgres.Redact(to)
		opts.OpenTarget = func(ctx context.Context) (ship.Target, error) {
			o := pg.options(to, "ship")
			if u, err := url.Parse(to); err == nil && u.User != nil {
				if _, own := u.User.Password(); own {
					o.PasswordFile = "" // that is the installation's own database's
				}
			}
			j, err := pgjournal.Open(ctx, pgjournal.Options{Postgres: o, Logger: log})
			if err != nil {
				return nil, err
			}
			return j, nil
		}
	} else {
		keys := &copiedKeys{path: filepath.Join(to, fileKeysJSON), root: root, certs: receipt.NewCertificates(root)}
		seen := false
		opts.OpenTarget = func(ctx context.Context) (ship.Target, error) {
			c, err := openCopyFolder(ctx, to, seen, log)
			if err != nil {
				return nil, err
			}
			seen = true
			if err := keys.open(ctx, c.j, certs); err != nil {
				return nil, errors.Join(err, c.Close())
			}
			return c, nil
		}
		opts.BeforeImport = keys.see
	}
	opts.Logger = log.With("copy", s.name)
	s.Shipper = ship.New(opts)
	return s
}

// copiedKeys keeps keys.json of a copy: what the folder's keys and the facts in
// the journal say of the signing keys.
type copiedKeys struct {
	path  string
	root  ed25519.PublicKey // nil: none is written
	certs *receipt.Certificates
	known bool
}

// open reads what the copy says of its keys, and writes it if it is not there.
func (k *copiedKeys) open(ctx context.Context, j journal.Journal, certs []receipt.Certificate) error {
	if k.root == nil || k.known {
		return nil
	}
	there, err := readCopiedKeys(k.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		list, err := certificatesIn(ctx, j, k.root)
		if err != nil {
			return err
		}
		k.add(list.List())
	case err != nil:
		return err
	case there.Root.Fingerprint != receipt.Fingerprint(k.root):
		return fmt.Errorf("%w: %s is of another installation", ship.ErrOther, k.path)
	default:
		k.add(there.Keys)
	}
	k.add(certs)
	k.known = true
	return k.write()
}

func (k *copiedKeys) add(certs []receipt.Certificate) {
	for _, c := range certs {
		k.certs.Add(c)
		if c.Retired != nil {
			k.certs.Retire(*c.Retired)
		}
	}
}

// see takes note of the keys that frames tell of, before the frames are in the
// copy.
func (k *copiedKeys) see(frames []journal.Frame) error {
	if k.root == nil {
		return nil
	}
	changed := false
	for i := range frames {
		for _, e := range frames[i].Entries {
			env, err := epro.DecodeEnvelope(e.Envelope)
			if err != nil || env.Kind != epro.KindKeyAdded && env.Kind != epro.KindKeyRetired {
				continue
			}
			changed = true
			k.certs.AddFact(e.Body, env.Kind == epro.KindKeyRetired)
		}
	}
	if !changed {
		return nil
	}
	return k.write()
}

func (k *copiedKeys) write() error {
	b, err := json.MarshalIndent(receipt.NewKeys(k.root, k.certs.List()...), "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(k.path, append(b, '\n')); err != nil {
		return fmt.Errorf("write the keys of the copy: %w", err)
	}
	return nil
}

func readCopiedKeys(path string) (k receipt.Keys, err error) {
	b, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return k, fmt.Errorf("%s is damaged: remove it, it is made again", path)
	}
	return k, nil
}

// lent is a source that belongs to somebody else.
type lent struct{ journal.Journal }

// Close leaves it open.
func (lent) Close() error { return nil }

// sameDisk says what is unwise about a copy beside the journal; "" for nothing.
func sameDisk(to, dir string) string {
	if postgres.IsURL(to) || !receipt.SameFilesystem(filepath.Dir(to), dir) {
		return ""
	}
	return "the copy " + to + " lies on the same file system as the data folder: one lost disk takes both"
}

// prepareCopies makes the shippers of the configured copies of the node's own
// journal, and shows them in the metrics.
func (n *node) prepareCopies(metrics prometheus.Registerer) error {
	if len(n.cfg.Ship.To) == 0 {
		return nil
	}
	source := func(context.Context) (ship.Source, error) { return lent{n.journal}, nil }
	for _, to := range n.cfg.Ship.To {
		if w := sameDisk(to, n.dir); w != "" {
			n.log.Warn("an unwise setting", "warning", "ship.to: "+w)
		}
		n.shipments = append(n.shipments, shipTo(to, n.cfg.Postgres, n.keys.RootPublic(), n.keys.Certificates(), source, false, nil, n.log))
	}
	return metrics.Register(shipCollector{n})
}

// keepCopies keeps the copies until ctx ends. One that cannot be kept stops
// nothing else: /status and the log say so.
func (n *node) keepCopies(ctx context.Context) {
	var all sync.WaitGroup
	for _, s := range n.shipments {
		all.Go(func() {
			s.running.Store(true)
			defer s.running.Store(false)
			if err := s.Run(ctx); err != nil {
				n.log.Error("a copy of the journal is not kept any more: reports are still taken", "copy", s.name, "error", err)
				<-ctx.Done() // its state stays in sight
			}
		})
	}
	all.Wait()
}

// copiesInBackground keeps the copies until the returned stop is called, which
// waits for the frame in hand.
func (n *node) copiesInBackground() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.keepCopies(ctx)
	}()
	return func() { cancel(); <-ended }
}

// shipLate is how long a copy may lack frames before it is not well.
const shipLate = 30 * time.Second

// shipDependencies are the copies, for /status.
func (n *node) shipDependencies() []gateway.Dependency {
	var deps []gateway.Dependency
	for _, s := range n.shipments {
		deps = append(deps, gateway.Dependency{Name: "copy " + s.name, Check: func() gateway.State { return s.state(time.Now()) }})
	}
	return deps
}

func (s *shipment) state(now time.Time) gateway.State {
	st := s.Status()
	at := fmt.Sprintf("position %d of %d", st.Position, st.End)
	late := st.Behind() > 0 && now.Sub(st.Current) > shipLate
	switch {
	case !s.running.Load():
		return gateway.State{OK: true, State: "standby", Note: "the active projector keeps it"}
	case st.Stopped:
		return gateway.State{State: "stopped", Since: st.Failing, Note: at + "; " + st.Err}
	case st.Err != "":
		return gateway.State{State: "failing", Since: st.Failing, Note: at + "; it is tried again: " + st.Err}
	case !st.Asked.IsZero() && now.Sub(st.Asked) > shipLate:
		return gateway.State{State: "silent", Since: st.Asked, Note: at + "; the copy or the journal does not answer"}
	case st.Current.IsZero():
		return gateway.State{OK: true, State: "catching up", Note: at}
	case late:
		return gateway.State{State: "behind", Since: st.Current, Note: at}
	}
	return gateway.State{OK: true, State: "serving", Note: at}
}

// shipCollector shows how far the copies are.
type shipCollector struct{ *node }

var (
	shipPositionDesc = prometheus.NewDesc("tidegate_ship_position", "Position of the last frame of the copy.", []string{"copy"}, nil)
	shipBehindDesc   = prometheus.NewDesc("tidegate_ship_behind_frames", "Frames that the copy lacks, as far as is known.", []string{"copy"}, nil)
	shipLagDesc      = prometheus.NewDesc("tidegate_ship_lag_seconds", "Time since the copy last had all that the journal has; 0 while it has.", []string{"copy"}, nil)
	shipFramesDesc   = prometheus.NewDesc("tidegate_ship_frames_total", "Frames copied since the start.", []string{"copy"}, nil)
)

// Describe implements prometheus.Collector.
func (shipCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{shipPositionDesc, shipBehindDesc, shipLagDesc, shipFramesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c shipCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.shipments {
		st := s.Status()
		lag := 0.0
		if (st.Behind() > 0 || st.Err != "") && !st.Current.IsZero() {
			lag = time.Since(st.Current).Seconds()
		}
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.name)
		}
		gauge(shipPositionDesc, float64(st.Position))
		gauge(shipBehindDesc, float64(st.Behind()))
		gauge(shipLagDesc, lag)
		ch <- prometheus.MustNewConstMetric(shipFramesDesc, prometheus.CounterValue, float64(st.Frames), s.name)
	}
}
