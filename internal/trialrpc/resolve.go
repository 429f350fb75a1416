package trialrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/resolver"

	"github.com/tidegate/tidegate/internal/trialrpc/internal/config"
)

// scheme is the scheme of this package's targets.
const scheme = "tidegate"

// relist is how often the whole list is read, beside the watch: an etcd that
// lost its data counts revisions from the beginning, and a watch that waits for
// a later one would wait for very long.
const relist = 15 * time.Second

// finder resolves the Trial service for gRPC: fixed addresses, or those that
// etcd has under go-zero's key. It needs no etcd to begin with, and what was
// found once stays while etcd is away or its list is empty: an instance is up
// or down by what its connections say, not by what etcd does.
type finder struct {
	settings Settings
	log      *slog.Logger

	mu        sync.Mutex
	addresses []string // sorted
	err       error    // why they may be old, or none
}

// Scheme implements resolver.Builder.
func (f *finder) Scheme() string { return scheme }

// Build implements resolver.Builder.
func (f *finder) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &search{finder: f, cc: cc, cancel: cancel, done: make(chan struct{})}
	if len(f.settings.Endpoints) > 0 {
		s.found(f.settings.Endpoints)
		close(s.done)
		return s, nil
	}
	go s.run(ctx)
	return s, nil
}

func (f *finder) state() ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.addresses), f.err
}

// search is a finder at work for a connection.
type search struct {
	*finder
	cc     resolver.ClientConn
	cancel context.CancelFunc
	done   chan struct{}
}

// ResolveNow implements resolver.Resolver. The watch is always up to date.
func (s *search) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver.
func (s *search) Close() {
	s.cancel()
	<-s.done
}

func (s *search) run(ctx context.Context) {
	defer close(s.done)
	var client *clientv3.Client
	for ctx.Err() == nil {
		err := error(nil)
		if client == nil {
			client, err = newEtcd(s.settings.Etcd)
		}
		if err == nil {
			err = s.follow(ctx, client)
		}
		if err != nil && ctx.Err() == nil {
			s.lost(err)
			pause(ctx, retryEtcd)
		}
	}
	if client != nil {
		_ = client.Close()
	}
}

// follow reads the list and watches it, for as long as relist; nil asks for
// another round.
func (s *search) follow(ctx context.Context, client *clientv3.Client) error {
	prefix := s.settings.Etcd.Key + "/"
	limit, cancel := context.WithTimeout(ctx, etcdAnswer)
	defer cancel()
	list, err := client.Get(limit, prefix, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("list the instances: %w", err)
	}
	instances := map[string]string{}
	for _, kv := range list.Kvs {
		instances[string(kv.Key)] = string(kv.Value)
	}
	s.found(slices.Collect(maps.Values(instances)))
	round, cancel := context.WithTimeout(ctx, relist)
	defer cancel()
	for w := range client.Watch(round, prefix, clientv3.WithPrefix(), clientv3.WithRev(list.Header.Revision+1)) {
		if err := w.Err(); err != nil {
			return fmt.Errorf("watch the instances: %w", err)
		}
		for _, e := range w.Events {
			if e.Type == clientv3.EventTypeDelete {
				delete(instances, string(e.Kv.Key))
			} else {
				instances[string(e.Kv.Key)] = string(e.Kv.Value)
			}
		}
		s.found(slices.Collect(maps.Values(instances)))
	}
	return nil
}

var errNone = errors.New("no instance of the Trial service is registered")

// found tells gRPC of the instances.
func (s *search) found(list []string) {
	slices.Sort(list)
	list = slices.Compact(list)
	list = slices.DeleteFunc(list, func(a string) bool { return !s.reachable(a) })
	if len(list) == 0 {
		s.lost(fmt.Errorf("%w under %s", errNone, s.settings.Etcd.Key))
		return
	}
	s.mu.Lock()
	same := slices.Equal(s.addresses, list)
	s.addresses, s.err = list, nil
	s.mu.Unlock()
	if same {
		return
	}
	addresses := make([]resolver.Address, len(list))
	for i, a := range list {
		host, _, _ := net.SplitHostPort(a) // reachable has looked
		addresses[i] = resolver.Address{Addr: a, ServerName: host}
	}
	s.log.Info("instances of the Trial service", "addresses", strings.Join(list, " "))
	_ = s.cc.UpdateState(resolver.State{Addresses: addresses}) // its error asks for ResolveNow, which has nothing to add
}

// reachable refuses plain text to another machine, also to one that etcd names.
func (s *search) reachable(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err == nil && (s.settings.TLS.On() || config.Loopback(host)) {
		return true
	}
	s.log.Warn("an instance of the Trial service is not called: its address is not host:port, or it is on another machine and rpcTLS is not set", "address", address)
	return false
}

// lost keeps what is known, and says so once; with nothing known, calls fail
// at once with the reason and do not wait for their deadline.
func (s *search) lost(err error) {
	s.mu.Lock()
	first := s.err == nil
	s.err = err
	none := len(s.addresses) == 0
	s.mu.Unlock()
	if first {
		s.log.Warn("the list of the Trial service's instances is not up to date; the last known ones are used; trying again", "error", err)
	}
	if none {
		s.cc.ReportError(err)
	}
}
