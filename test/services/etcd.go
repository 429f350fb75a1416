package services

import (
	"os"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tidegate/tidegate/test/services/run"
)

// EtcdServer is an etcd of a test. Its methods fail the test that asked for it.
type EtcdServer struct {
	t testing.TB
	s *run.Etcd
}

// Etcd starts a private etcd, which ends with the test.
func Etcd(t testing.TB) *EtcdServer { t.Helper(); return etcd(t, run.EtcdConfig{}) }

// EtcdTLS starts one that serves TLS and wants certificates of the authority.
func EtcdTLS(t testing.TB, ca *CA) *EtcdServer {
	t.Helper()
	cert, key := ca.Issue("etcd")
	return etcd(t, run.EtcdConfig{Cert: cert, Key: key, CA: ca.File})
}

// SharedEtcd is one for all the tests of a package, started by the first that
// asks. They use prefixes of their own and do nothing to it. [Main] stops it.
func SharedEtcd(t testing.TB) *EtcdServer {
	t.Helper()
	binary := etcdBinary(t)
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if sharedEtcd == nil {
		dir := folder(t, "tidegate-etcd-")
		sharedDirs = append(sharedDirs, dir)
		s, err := run.NewEtcd(run.EtcdConfig{Dir: dir, Binary: binary})
		if err != nil {
			t.Fatal(err)
		}
		sharedEtcd = s
	}
	return &EtcdServer{t, sharedEtcd}
}

// etcdBinary is the path of etcd, or the end of the test.
func etcdBinary(t testing.TB) string {
	t.Helper()
	path, err := run.EtcdBinary(long())
	if run.Missing(err) {
		missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func etcd(t testing.TB, cfg run.EtcdConfig) *EtcdServer {
	t.Helper()
	cfg.Binary = etcdBinary(t)
	cfg.Dir = folder(t, "tidegate-etcd-")
	t.Cleanup(func() { _ = os.RemoveAll(cfg.Dir) })
	s, err := run.NewEtcd(cfg)
	if s != nil {
		t.Cleanup(func() {
			if err := s.Kill(); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return &EtcdServer{t, s}
}

// Endpoint is its address with the scheme, http://127.0.0.1:PORT.
func (e *EtcdServer) Endpoint() string { return e.s.Endpoint() }

// Addr is host and port.
func (e *EtcdServer) Addr() string { return e.s.Addr() }

// Client is a client of the test's own, closed with the test.
func (e *EtcdServer) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	c, err := e.s.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (e *EtcdServer) check(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// Kill ends it with SIGKILL.
func (e *EtcdServer) Kill() { e.t.Helper(); e.check(e.s.Kill()) }

// Stop stops it as an operator does.
func (e *EtcdServer) Stop() { e.t.Helper(); e.check(e.s.Stop()) }

// Start starts it again, on the same port and with what it knew.
func (e *EtcdServer) Start() { e.t.Helper(); e.check(e.s.Start()) }

// Freeze stops it where it is (SIGSTOP).
func (e *EtcdServer) Freeze() { e.t.Helper(); e.check(e.s.Freeze()) }

// Thaw lets it go on.
func (e *EtcdServer) Thaw() { e.t.Helper(); e.check(e.s.Thaw()) }
