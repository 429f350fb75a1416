package trialrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaseSeconds is how long an instance that was killed is still found; go-zero
// has the same.
const leaseSeconds = 10

// silentAfter is how long etcd may leave the lease unanswered before it is said
// to be away: a third of the lease's time lies between two answers.
const silentAfter = 5 * time.Second

var (
	errLease      = errors.New("the lease was lost")
	errUnanswered = errors.New("etcd does not answer, and the registration ends when its lease does")
)

// announcer keeps an instance in etcd, at KEY/LEASE as go-zero's publisher
// does, so that any zRPC client finds it. go-zero's own would not let a server
// start while etcd is away, and does not wait for the end of its registration
// when it stops.
type announcer struct {
	etcd    Etcd
	address string
	log     *slog.Logger
	known   atomic.Bool // the instance is registered now
	trouble atomic.Pointer[etcdTrouble]
}

// etcdTrouble is why etcd is of no use, and since when.
type etcdTrouble struct {
	err   error
	since time.Time
}

// troubled notes what is wrong with etcd, nil for nothing.
func (a *announcer) troubled(err error) {
	if err == nil {
		a.trouble.Store(nil)
		return
	}
	t := &etcdTrouble{err: err, since: time.Now()}
	if old := a.trouble.Load(); old != nil {
		t.since = old.since
	}
	a.trouble.Store(t)
}

// run registers until ctx is done, whatever becomes of etcd, and takes the
// registration back before it returns.
func (a *announcer) run(ctx context.Context) {
	var client *clientv3.Client
	silent := false // the trouble at hand has been told of
	for ctx.Err() == nil {
		err := error(nil)
		if client == nil {
			client, err = newEtcd(a.etcd)
		}
		if err == nil {
			err = a.hold(ctx, client, func() { silent = false })
			a.known.Store(false)
		}
		if ctx.Err() != nil {
			break
		}
		a.troubled(err)
		if !silent {
			a.log.Warn("this instance of the Trial service is not registered in etcd: those who know it go on, new ones do not find it; trying again", "key", a.etcd.Key, "error", err)
			silent = true
		}
		pause(ctx, retryEtcd)
	}
	if client != nil {
		_ = client.Close()
	}
}

// hold registers and stays until the registration is lost or ctx is done.
func (a *announcer) hold(ctx context.Context, client *clientv3.Client, registered func()) error {
	lease, err := a.grant(ctx, client)
	if err != nil {
		return err
	}
	defer a.revoke(ctx, client, lease)
	key := a.etcd.Key + "/" + strconv.FormatInt(int64(lease), 10)
	put := func() (int64, error) {
		limit, cancel := context.WithTimeout(ctx, etcdAnswer)
		defer cancel()
		done, err := client.Put(limit, key, a.address, clientv3.WithLease(lease))
		if err != nil {
			return 0, fmt.Errorf("register: %w", err)
		}
		return done.Header.Revision, nil
	}
	revision, err := put()
	if err != nil {
		return err
	}
	// Both end with the registration, not with the process.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	beats, err := client.KeepAlive(ctx, lease)
	if err != nil {
		return fmt.Errorf("keep the lease: %w", err)
	}
	deleted := client.Watch(ctx, key, clientv3.WithFilterPut(), clientv3.WithRev(revision+1))
	a.known.Store(true)
	a.log.Info("this instance of the Trial service is registered in etcd", "key", key, "address", a.address)
	registered()
	a.troubled(nil)
	silence := time.NewTimer(silentAfter)
	defer silence.Stop()
	for {
		select {
		case _, ok := <-beats:
			if !ok {
				return errLease
			}
			silence.Reset(silentAfter)
			a.troubled(nil)
		case <-silence.C:
			a.troubled(errUnanswered)
		case w, ok := <-deleted:
			if !ok || w.Err() != nil {
				deleted = nil // then only the lease tells
				continue
			}
			if len(w.Events) > 0 {
				if _, err := put(); err != nil { // somebody took it out by hand
					return err
				}
			}
		}
	}
}

func (a *announcer) grant(ctx context.Context, client *clientv3.Client) (clientv3.LeaseID, error) {
	limit, cancel := context.WithTimeout(ctx, etcdAnswer)
	defer cancel()
	lease, err := client.Grant(limit, leaseSeconds)
	if err != nil {
		return 0, fmt.Errorf("get a lease: %w", err)
	}
	return lease.ID, nil
}

// revoke takes a registration back, so that nobody is sent to an instance that
// stops. If etcd is away its lease ends by itself.
func (a *announcer) revoke(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := client.Revoke(limit, lease); err != nil && ctx.Err() != nil {
		a.log.Warn("the registration in etcd could not be taken back: it ends within seconds", "key", a.etcd.Key, "error", err)
	}
}
