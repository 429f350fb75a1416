package directory

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tidegate/tidegate/internal/store"
)

// Options of a directory. The zero value is a directory in memory alone.
type Options struct {
	// Path is the file that keeps the directory over restarts; "" for none.
	Path string
	// Identity names the installation, as its root's fingerprint does: a file of
	// another one is put aside.
	Identity string
	Log      *slog.Logger     // nil for none
	Now      func() time.Time // nil for time.Now
	// SaveEvery is how often the file is written at most while things change; 5 s
	// when 0. When nothing but the version moves it is written each minute.
	SaveEvery time.Duration
	// SilentAfter is how long a source may say nothing before it is left and
	// followed anew; 30 s when 0. A connection that is gone may look like one
	// on which nothing happens, but a source gives a sign of life every 5 s.
	SilentAfter time.Duration
}

const (
	defaultSaveEvery   = 5 * time.Second
	defaultSilentAfter = 30 * time.Second
	saveIdle           = time.Minute
	firstRetryAfter    = 100 * time.Millisecond
	longRetryAfter     = 5 * time.Second
)

// PatientTrial is a participant's trial. A participant is a trial and an id in
// it: the same id in another trial may be another person.
type PatientTrial struct {
	Trial      store.Trial
	Site       store.Site // without a name while the site is not known
	Enrollment store.Enrollment
}

// State is how a directory is.
type State struct {
	// Version is up to where it is complete; nil while it never was.
	Version Version
	// AsOf is when it was last known to be complete, and Age how long ago that
	// is; zero while it never was.
	AsOf                       time.Time
	Age                        time.Duration
	Trials, Sites, Enrollments int
	// Connected says that the source is being followed, since Since.
	Connected bool
	Since     time.Time
	// Err is why the source was last not followed; nil while it is.
	Err error
	// LoadedFromDisk says that what it holds was read from the file, and that
	// nothing has confirmed it since.
	LoadedFromDisk bool
	// FileBytes is the size of the file as last read or written, SaveErr why it
	// could not be written.
	FileBytes int64
	SaveErr   error
}

// Loaded says whether the directory was ever complete.
func (s State) Loaded() bool { return s.Version != nil }

// Directory is the copy. It is safe for concurrent use.
type Directory struct {
	opts Options
	log  *slog.Logger
	now  func() time.Time

	mu      sync.RWMutex
	held    *holdings
	staged  *holdings // a snapshot that is not complete yet
	version Version
	asOf    time.Time

	connected bool
	since     time.Time
	err       error
	fromDisk  bool

	changed, moved bool // since the file was written: the content, or the version alone
	saved          time.Time
	fileBytes      int64
	saveErr        error
}

// New makes a directory of what its file holds. A file that is damaged, or of
// another installation, is put aside and the directory begins empty: it is a
// copy, and will be told everything again.
func New(opts Options) *Directory {
	d := &Directory{opts: opts, log: opts.Log, now: opts.Now, held: newHoldings()}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.now == nil {
		d.now = time.Now
	}
	if d.opts.SaveEvery <= 0 {
		d.opts.SaveEvery = defaultSaveEvery
	}
	if d.opts.SilentAfter <= 0 {
		d.opts.SilentAfter = defaultSilentAfter
	}
	d.since = d.now()
	if opts.Path != "" {
		d.load()
	}
	return d
}

// Run follows a source until ctx ends, trying again for ever, and keeps the
// file up to date; it writes it once more before it returns. It is called once.
func (d *Directory) Run(ctx context.Context, src Source) {
	var saver sync.WaitGroup
	saving, stop := context.WithCancel(ctx)
	if d.opts.Path != "" {
		saver.Go(func() { d.keep(saving) })
	}
	d.follow(ctx, src)
	stop()
	saver.Wait()
	if d.opts.Path != "" {
		d.save()
	}
}

func (d *Directory) follow(ctx context.Context, src Source) {
	pause := firstRetryAfter
	for ctx.Err() == nil {
		err := d.followOnce(ctx, src, func() { pause = firstRetryAfter })
		d.disconnected(ctx, err)
		// Spread, so that gateways that lost one source do not come to the next together.
		if !sleep(ctx, pause/2+time.Duration(rand.Int64N(int64(pause)))) { //nolint:gosec // jitter needs no secrecy
			return
		}
		pause = min(2*pause, longRetryAfter)
	}
}

var errSilent = errors.New("the source has said nothing for too long")

// followOnce follows until the source ends, or is silent. well is called
// whenever the directory is complete.
func (d *Directory) followOnce(ctx context.Context, src Source, well func()) error {
	following, leave := context.WithCancelCause(ctx)
	silence := time.AfterFunc(d.opts.SilentAfter, func() { leave(errSilent) })
	defer silence.Stop()
	defer leave(nil)
	err := src.Follow(following, d.State().Version, func(c Change) error {
		silence.Reset(d.opts.SilentAfter)
		if err := d.apply(&c); err != nil {
			return err
		}
		if c.Done {
			well()
		}
		return nil
	})
	if ctx.Err() == nil && errors.Is(context.Cause(following), errSilent) {
		return errSilent
	}
	return err
}

var errBack = errors.New("the source is behind what it has told before")

func (d *Directory) apply(c *Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.connected {
		d.connected, d.since, d.err = true, d.now(), nil
		d.log.Info("the directory follows its source")
	}
	if c.Snapshot {
		d.staged = newHoldings()
	}
	into := d.held
	if d.staged != nil {
		into = d.staged
	}
	into.put(c)
	if d.staged == nil && c.size() > 0 {
		d.changed = true
	}
	if !c.Done {
		return nil
	}
	switch {
	case d.staged != nil:
		d.held, d.staged, d.changed = d.staged, nil, true
	case c.Version.before(d.version):
		return errBack
	}
	d.moved = true
	d.version, d.asOf, d.fromDisk = c.Version, d.now(), false
	return nil
}

// disconnected notes that the source is not followed any more.
func (d *Directory) disconnected(ctx context.Context, err error) {
	if err == nil {
		err = errors.New("the source ended")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.staged = nil
	told := d.err != nil // one line for each change of state, not for each try
	if d.connected || !told {
		d.since = d.now()
	}
	d.connected, d.err = false, err
	if !told && ctx.Err() == nil {
		d.log.Warn("the directory cannot follow its source; it is tried again, and what is known is kept", "error", err)
	}
}

// PatientTrial is the trial of a participant who is, or was, enrolled in it;
// [store.ErrNotFound] for one who is not known there.
func (d *Directory) PatientTrial(trial, patient string) (PatientTrial, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	people := d.held.people[patient]
	for i := range people {
		p := &people[i]
		if p.trial.ID != trial {
			continue
		}
		if p.trial.Name == "" && p.trial.Status == "" {
			break // named by an enrolment and not told yet
		}
		site, ok := p.trial.sites[p.site]
		if !ok {
			site = store.Site{TrialID: trial, ID: p.site}
		}
		return PatientTrial{Trial: p.trial.Trial, Site: site, Enrollment: p.enrollment(patient)}, nil
	}
	return PatientTrial{}, store.ErrNotFound
}

// Trial is a trial as the directory knows it; [store.ErrNotFound] if it does not.
func (d *Directory) Trial(id string) (store.Trial, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t, ok := d.held.trials[id]
	if !ok || t.Status == "" {
		return store.Trial{}, store.ErrNotFound
	}
	return t.Trial, nil
}

// Enrollment is a participant's in a trial; [store.ErrNotFound] if there is none.
func (d *Directory) Enrollment(trial, patient string) (store.Enrollment, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	people := d.held.people[patient]
	for i := range people {
		if people[i].trial.ID == trial {
			return people[i].enrollment(patient), nil
		}
	}
	return store.Enrollment{}, store.ErrNotFound
}

// State answers from memory, at once.
func (d *Directory) State() State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := State{
		Version: d.version, AsOf: d.asOf, Trials: len(d.held.trials), Sites: d.held.sites, Enrollments: d.held.enrolled,
		Connected: d.connected, Since: d.since, Err: d.err, LoadedFromDisk: d.fromDisk, FileBytes: d.fileBytes, SaveErr: d.saveErr,
	}
	if s.Loaded() {
		s.Age = max(0, d.now().Sub(d.asOf))
	}
	return s
}
