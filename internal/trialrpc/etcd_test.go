package trialrpc_test

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/zrpc"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/tidegate/tidegate/internal/trialrpc"
	"github.com/tidegate/tidegate/test/services"
)

const etcdKey = "tidegate/trial.rpc"

func etcdAt(e *services.EtcdServer) trialrpc.Etcd {
	return trialrpc.Etcd{Endpoints: []string{e.Endpoint()}, Key: etcdKey, DialTimeout: 5 * time.Second}
}

// etcdClient is Tidegate's client, which finds the service by etcd.
func (w *world) etcdClient(e trialrpc.Etcd) *trialrpc.Client {
	return w.client(func(o *trialrpc.ClientOptions) { o.Settings.Etcd = e })
}

// registered is what etcd has.
func registered(t *testing.T, c *clientv3.Client) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
	defer cancel()
	list, err := c.Get(ctx, etcdKey+"/", clientv3.WithPrefix())
	must(t, err)
	var addresses []string
	for _, kv := range list.Kvs {
		addresses = append(addresses, string(kv.Value))
	}
	slices.Sort(addresses)
	return addresses
}

// callers call all the time and counts.
type callers struct {
	calls, failed atomic.Int64
	last          atomic.Value
	stop          chan struct{}
	done          sync.WaitGroup
}

func callAllTheTime(t *testing.T, c *trialrpc.Client) *callers {
	s := &callers{stop: make(chan struct{})}
	for range 2 {
		s.done.Go(func() {
			for {
				select {
				case <-s.stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				s.calls.Add(1)
				if _, err := c.PatientTrials(context.WithoutCancel(t.Context()), "P-2"); err != nil {
					s.failed.Add(1)
					s.last.Store(err.Error())
				}
			}
		})
	}
	return s
}

// check says what failed since the last time.
func (s *callers) check(t *testing.T, while string) {
	t.Helper()
	if calls, failed := s.calls.Swap(0), s.failed.Swap(0); failed > 0 || calls == 0 {
		t.Errorf("%s: %d of %d calls failed: %v", while, failed, calls, s.last.Load())
	}
}

// TestDiscovery has two instances in processes of their own, found by etcd; one
// is killed, etcd is killed, comes back, and a third instance appears. Calls go
// on all the time.
func TestDiscovery(t *testing.T) {
	t.Parallel() // it waits, mostly
	etcd := services.Etcd(t)
	e := etcd.Client(t)
	w := newWorld(t)
	a, b := startInstance(t, processConfig{Etcd: etcdAt(etcd)}), startInstance(t, processConfig{Etcd: etcdAt(etcd)})
	both := []string{a.addr, b.addr}
	slices.Sort(both)
	w.eventually("both are registered", func() bool { return slices.Equal(registered(t, e), both) })

	client := w.etcdClient(etcdAt(etcd))
	w.eventually("the client knows both", func() bool { return slices.Equal(client.State().Instances, both) })
	calling := callAllTheTime(t, client)
	time.Sleep(time.Second)
	calling.check(t, "with both")

	must(t, a.cmd.Process.Kill())
	a.wait()
	time.Sleep(2 * time.Second) // its lease goes on, so etcd still names it
	calling.check(t, "after one was killed")
	if got := registered(t, e); !slices.Equal(got, both) {
		t.Logf("etcd forgot the killed one already: %v", got)
	}
	w.eventually("the client forgets it when its lease has ended", func() bool { return slices.Equal(client.State().Instances, []string{b.addr}) })

	etcd.Kill()
	time.Sleep(3 * time.Second)
	calling.check(t, "after etcd was killed")
	etcd.Start()
	c := startInstance(t, processConfig{Etcd: etcdAt(etcd)})
	two := []string{b.addr, c.addr}
	slices.Sort(two)
	w.eventually("the client knows the new one", func() bool { return slices.Equal(client.State().Instances, two) })
	calling.check(t, "after etcd came back")

	// A clean stop takes the registration back before it ends, and no call fails.
	must(t, b.cmd.Process.Signal(syscall.SIGTERM))
	if _, code := b.wait(); code != 0 {
		t.Errorf("the stop ended with %d", code)
	}
	if got := registered(t, e); !slices.Equal(got, []string{c.addr}) {
		t.Errorf("after the stop etcd has %v, want %s", got, c.addr)
	}
	time.Sleep(time.Second)
	calling.check(t, "after a clean stop")
	close(calling.stop)
	calling.done.Wait()
	for _, line := range strings.Split(w.log.String(), "\n") {
		if strings.Contains(line, "not up to date") && strings.Count(w.log.String(), "not up to date") > 3 {
			t.Errorf("the log repeats itself: %s", line)
			break
		}
	}
}

// TestEtcdAwayAtTheStart: the service serves and registers when etcd comes; a
// client fails at once, with the reason, and finds the service when etcd comes.
func TestEtcdAwayAtTheStart(t *testing.T) {
	t.Parallel() // it waits, mostly
	etcd := services.Etcd(t)
	etcd.Kill()
	w := newWorld(t)
	s := w.serve(func(o *trialrpc.Options) { o.Settings.Etcd = etcdAt(etcd) })
	client := w.etcdClient(etcdAt(etcd))
	if _, err := dial(t, s.addr).GetPatientTrials(t.Context(), patient1); err != nil {
		t.Errorf("the service without etcd: %v", err)
	}
	if s.server.State().Registered {
		t.Error("registered without etcd")
	}
	w.eventually("the client says why it has nothing", func() bool {
		_, err := client.PatientTrials(t.Context(), "P-1")
		return failureOf(err).code == codes.Unavailable && client.State().Err != nil
	})
	etcd.Start()
	w.eventually("the service registers", func() bool { return s.server.State().Registered })
	w.eventually("the client finds it", func() bool {
		_, err := client.PatientTrials(t.Context(), "P-1")
		return err == nil
	})
	// Somebody takes the registration out: it comes back, and no call fails.
	calling := callAllTheTime(t, client)
	e := etcd.Client(t)
	_, err := e.Delete(t.Context(), etcdKey+"/", clientv3.WithPrefix())
	must(t, err)
	w.eventually("it registers again", func() bool { return slices.Equal(registered(t, e), []string{s.addr}) })
	time.Sleep(200 * time.Millisecond)
	close(calling.stop)
	calling.done.Wait()
	calling.check(t, "while the registration was gone")
}

// TestFrozenEtcd stops etcd in its place (SIGSTOP) for longer than a lease: calls
// go on, and afterwards the instance is registered as before.
func TestFrozenEtcd(t *testing.T) {
	t.Parallel() // it waits, mostly
	if testing.Short() {
		t.Skip("waits for a lease to end")
	}
	etcd := services.Etcd(t)
	w := newWorld(t)
	s := w.serve(func(o *trialrpc.Options) { o.Settings.Etcd = etcdAt(etcd) })
	client := w.etcdClient(etcdAt(etcd))
	w.eventually("the client finds it", func() bool {
		_, err := client.PatientTrials(t.Context(), "P-1")
		return err == nil
	})
	calling := callAllTheTime(t, client)
	etcd.Freeze()
	w.eventually("the service says that etcd does not answer, before its lease is over", func() bool {
		st := s.server.State()
		return st.EtcdErr != nil && !st.EtcdSince.IsZero() && st.Registered
	})
	w.eventually("the service notices", func() bool { return !s.server.State().Registered })
	etcd.Thaw()
	w.eventually("it is registered again", func() bool { st := s.server.State(); return st.Registered && st.EtcdErr == nil })
	w.eventually("only the address is there", func() bool { return slices.Contains(registered(t, etcd.Client(t)), s.addr) })
	close(calling.stop)
	calling.done.Wait()
	calling.check(t, "while etcd was frozen")
}

// TestEtcdOverTLS registers and finds through mutual TLS.
func TestEtcdOverTLS(t *testing.T) {
	ca := services.NewCA(t)
	etcd := services.EtcdTLS(t, ca)
	w := newWorld(t)
	at := etcdAt(etcd)
	at.CA = ca.File
	at.Cert, at.CertKey = ca.Issue("trial")
	s := w.serve(func(o *trialrpc.Options) { o.Settings.Etcd = at })
	w.eventually("the service registers", func() bool { return s.server.State().Registered })
	client := w.etcdClient(at)
	w.eventually("the client finds it", func() bool {
		_, err := client.PatientTrials(t.Context(), "P-1")
		return err == nil
	})
}

// TestEtcdWithPassword registers and finds where etcd wants to know who asks,
// also when it is away at first.
func TestEtcdWithPassword(t *testing.T) {
	etcd := services.Etcd(t)
	root := etcd.Client(t)
	ctx := t.Context()
	_, err := root.UserAdd(ctx, "root", "s3cret-of-etcd")
	must(t, err)
	_, err = root.UserGrantRole(ctx, "root", "root")
	must(t, err)
	_, err = root.AuthEnable(ctx)
	must(t, err)
	w := newWorld(t)
	at := etcdAt(etcd)
	at.User, at.PasswordFile, at.DialTimeout = "root", filepath.Join(t.TempDir(), "password"), time.Second
	must(t, os.WriteFile(at.PasswordFile, []byte("s3cret-of-etcd\n"), 0o600))
	etcd.Stop()
	s := w.serve(func(o *trialrpc.Options) { o.Settings.Etcd = at })
	client := w.etcdClient(at)
	time.Sleep(500 * time.Millisecond)
	etcd.Start()
	w.eventually("the service registers", func() bool { return s.server.State().Registered })
	w.eventually("the client finds it", func() bool {
		_, err := client.PatientTrials(ctx, "P-1")
		return err == nil
	})
	if strings.Contains(w.log.String(), "s3cret") {
		t.Errorf("the log has the password:\n%s", w.log)
	}
}

// TestStopWhileEtcdStands: a stop does not wait for an etcd that does not answer.
func TestStopWhileEtcdStands(t *testing.T) {
	etcd := services.Etcd(t)
	w := newWorld(t)
	s := w.serve(func(o *trialrpc.Options) { o.Settings.Etcd = etcdAt(etcd) })
	w.eventually("the service registers", func() bool { return s.server.State().Registered })
	client := w.etcdClient(etcdAt(etcd))
	w.eventually("the client finds it", func() bool { return len(client.State().Instances) == 1 })
	etcd.Freeze()
	began := time.Now()
	must(t, s.end())
	must(t, client.Close())
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("service and client took %v to stop", took)
	}
	etcd.Thaw()
}

// TestStockDiscovery: go-zero's own client finds our service, and our client
// finds what go-zero's own publisher registered.
//
// It runs in a process of its own: go-zero never closes a client of etcd.
func TestStockDiscovery(t *testing.T) {
	if os.Getenv(leakyEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestStockDiscovery$", "-test.count=1", "-test.v")
		cmd.Env = append(os.Environ(), leakyEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, out)
		} else if bytes.Contains(out, []byte("--- SKIP")) {
			t.Skipf("not shown here:\n%s", out)
		}
		return
	}
	etcd := services.Etcd(t)
	w := newWorld(t)
	s := w.serve(func(o *trialrpc.Options) { o.Settings.Etcd = etcdAt(etcd) })
	w.eventually("the service registers", func() bool { return s.server.State().Registered })
	stock, err := zrpc.NewClient(zrpc.NewEtcdClientConf([]string{etcd.Addr()}, etcdKey, "", ""))
	must(t, err)
	defer stock.Conn().Close()
	trials, err := original(t, stock.Conn(), "P-2")
	if err != nil || !slices.EqualFunc(trials, bothTrials, maps.Equal) {
		t.Errorf("go-zero's client with the original contract: %v, %v", trials, err)
	}
	plain := w.serve(nil)
	publisher := discov.NewPublisher([]string{etcd.Addr()}, "another/key", plain.addr)
	must(t, publisher.KeepAlive())
	defer publisher.Stop()
	at := etcdAt(etcd)
	at.Key = "another/key"
	client := w.etcdClient(at)
	w.eventually("our client finds what go-zero registered", func() bool {
		_, err := client.PatientTrials(t.Context(), "P-1")
		return err == nil && slices.Equal(client.State().Instances, []string{plain.addr})
	})
}
