package elect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// candidate is the state of one [Run]. Only its goroutine uses it.
type candidate struct {
	o    Options
	log  *slog.Logger
	lead func(context.Context) error

	work  *work     // running; nil while another leads
	away  time.Time // since when etcd cannot be asked; zero while it answers
	state State
}

// work is one call of lead.
type work struct {
	cancel context.CancelFunc
	done   chan error // of capacity 1
}

// errEnded says that lead ended by itself, or the context did: Run is over.
var errEnded = errors.New("ended")

// run stands for election until the context or the work ends.
func (c *candidate) run(ctx context.Context) error {
	for {
		t, err := c.open(ctx)
		if err == nil {
			err = c.stand(ctx, t)
			// The work is over before the place is given up.
			if errors.Is(err, errEnded) {
				err = c.finish()
				t.close()
				return err
			}
			t.close()
		}
		if ctx.Err() != nil {
			return c.finish()
		}
		c.lost(ctx, err)
		if err := c.pause(ctx); err != nil {
			return c.finish()
		}
	}
}

// lost notes that etcd cannot be asked, and leads without it when that lasts.
func (c *candidate) lost(ctx context.Context, err error) {
	if c.away.IsZero() {
		c.away = time.Now()
		c.log.WarnContext(ctx, "etcd cannot be asked who leads, trying again", slog.Any("error", err), slog.Duration("patience", c.o.Patience))
	}
	s := c.state
	s.Elected, s.Err = false, err
	c.tell(s)
	if c.work == nil && time.Since(c.away) >= c.o.Patience {
		c.log.WarnContext(ctx, "leads without etcd, which has been away for too long", slog.String("name", c.o.Name))
		c.begin(ctx)
	}
}

// pause waits before the next try, and notices when patience or the work ends.
func (c *candidate) pause(ctx context.Context) error {
	wait := retryAfter
	if c.work == nil {
		wait = max(min(wait, c.o.Patience-time.Since(c.away)), time.Millisecond)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errEnded
	case err := <-c.ended():
		c.work.done <- err // for finish
		return errEnded
	}
}

// ended is where the running work says how it ended; a nil channel without one.
func (c *candidate) ended() chan error {
	if c.work == nil {
		return nil
	}
	return c.work.done
}

// begin runs lead.
func (c *candidate) begin(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	w := &work{cancel: cancel, done: make(chan error, 1)}
	go func() { w.done <- c.lead(ctx) }()
	c.work = w
	s := c.state
	s.Leads = true
	c.tell(s)
}

// finish waits for the work, whose context has ended or that ended by itself,
// and returns how it did.
func (c *candidate) finish() error {
	if c.work == nil {
		return nil
	}
	err := <-c.work.done
	c.work.cancel()
	c.work = nil
	s := c.state
	s.Leads, s.Elected = false, false
	c.tell(s)
	if errors.Is(err, context.Canceled) {
		return nil // it was told to end
	}
	return err
}

// concede ends the work because another leads, or may. An error is one that the
// work had by itself.
func (c *candidate) concede() error {
	c.work.cancel()
	return c.finish()
}

func (c *candidate) tell(s State) {
	if s.Leads == c.state.Leads && s.Elected == c.state.Elected && textOf(s.Err) == textOf(c.state.Err) {
		return
	}
	c.state = s
	if c.o.Changed != nil {
		c.o.Changed(s)
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// term is a lease in etcd and the place in the queue of candidates that hangs
// on it.
type term struct {
	client  *clientv3.Client
	session *concurrency.Session
	cancel  context.CancelFunc
}

// open makes a lease. It fails within the dial time-out when etcd does not
// answer.
func (c *candidate) open(ctx context.Context) (*term, error) {
	// The farewell is said after ctx has ended.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fail := func(err error) (*term, error) { cancel(); return nil, err }
	client, err := c.o.client(ctx)
	if err != nil {
		return fail(err)
	}
	fail = func(err error) (*term, error) {
		cancel()
		_ = client.Close() // says that the context has ended
		return nil, fmt.Errorf("etcd: %w", err)
	}
	seconds := int64((c.o.TTL + time.Second - 1) / time.Second)
	asking, done := context.WithTimeout(ctx, c.o.DialTimeout)
	lease, err := client.Grant(asking, seconds)
	done()
	if err != nil {
		return fail(err)
	}
	session, err := concurrency.NewSession(client, concurrency.WithLease(lease.ID), concurrency.WithContext(ctx))
	if err != nil {
		return fail(err)
	}
	return &term{client, session, cancel}, nil
}

// close gives the place up, as far as etcd can be told.
func (t *term) close() {
	t.session.Orphan()
	ctx, done := context.WithTimeout(t.client.Ctx(), resignWithin)
	_, _ = t.client.Revoke(ctx, t.session.Lease()) // or it runs out by itself
	done()
	t.cancel()
	_ = t.client.Close() // says that the context has ended
}

// stand waits for this candidate's turn, leads, and returns why the term is
// over: errEnded, or what became of etcd.
func (c *candidate) stand(ctx context.Context, t *term) error {
	won := make(chan error, 1)
	campaign, stop := context.WithCancel(t.client.Ctx())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		won <- concurrency.NewElection(t.session, c.o.Key).Campaign(campaign, c.o.Name)
	}()
	defer func() {
		stop()
		// A campaign that is cut short takes its place out of etcd before it returns,
		// for which it waits as long as the client lives.
		select {
		case <-gone:
		case <-time.After(resignWithin):
			t.cancel()
			<-gone
		}
	}()

	settled := settleAfter
	if c.work != nil {
		// An etcd that comes back still holds the places of leases that nobody renews,
		// for a lease and what it adds after its own election. Until then two may lead,
		// as they did before.
		settled += 2 * c.o.TTL
	}
	timer := time.NewTimer(settled)
	defer timer.Stop()
	for leads := false; !leads; {
		select {
		case <-ctx.Done():
			return errEnded
		case err := <-c.ended():
			c.work.done <- err
			return errEnded
		case <-t.session.Done():
			return errors.New("etcd: the lease could not be renewed")
		case <-timer.C:
			// etcd has taken this candidate and another is before it. One that led
			// without etcd goes on if it has won by now, and makes room if not.
			if c.work != nil {
				c.log.WarnContext(ctx, "etcd is back and another leads", slog.String("name", c.o.Name))
				if err := c.concede(); err != nil {
					return c.over(err)
				}
			}
			c.back(ctx)
		case err := <-won:
			if err != nil {
				return fmt.Errorf("etcd: %w", err)
			}
			leads = true
		}
	}
	c.back(ctx)
	if c.work == nil {
		c.log.InfoContext(ctx, "leads", slog.String("name", c.o.Name))
		c.begin(ctx)
	} else {
		c.log.InfoContext(ctx, "etcd is back, goes on leading", slog.String("name", c.o.Name))
	}
	c.tell(State{Leads: true, Elected: true})
	select {
	case <-ctx.Done():
		return errEnded
	case err := <-c.ended():
		c.work.done <- err
		return errEnded
	case <-t.session.Done():
		// Another may lead from now on: this one has to see it first.
		c.log.WarnContext(ctx, "lost its place as leader: the lease could not be renewed", slog.String("name", c.o.Name))
		if err := c.concede(); err != nil {
			return c.over(err)
		}
		return errors.New("etcd: the lease could not be renewed")
	}
}

// back notes that etcd answers.
func (c *candidate) back(ctx context.Context) {
	if !c.away.IsZero() {
		c.log.InfoContext(ctx, "etcd answers again", slog.Duration("away", time.Since(c.away).Round(time.Millisecond)))
		c.away = time.Time{}
	}
	s := c.state
	s.Err = nil
	c.tell(s)
}

// over keeps an error of work that was told to end, and ends Run with it.
func (c *candidate) over(err error) error {
	c.work = &work{cancel: func() {}, done: make(chan error, 1)}
	c.work.done <- err
	return errEnded
}
