package e2e_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/cluster"
	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

// ground is where a server will run: commands work on it before, beside and
// after.
type ground interface {
	// flags lead a command to it.
	flags() []string
	// start starts the server, ready and with a demo registry of so many
	// participants; 0 for none.
	start(participants int) *server.Server
	// again starts it after it has ended, where it was.
	again() *server.Server
}

// inBothShapes runs a test on one machine with SQLite, and on PostgreSQL with
// every role in a process of its own.
func inBothShapes(t *testing.T, test func(*testing.T, ground)) {
	t.Helper()
	t.Parallel()
	t.Run("one machine", func(t *testing.T) {
		parallel(t)
		test(t, &folder{t: t, data: place(t)})
	})
	t.Run("many machines", func(t *testing.T) {
		parallel(t)
		test(t, newSite(t))
	})
}

// folder is the first shape: all roles in one process on a data folder.
type folder struct {
	t    *testing.T
	data string
	s    *server.Server
}

func (f *folder) flags() []string { return []string{"--data", f.data} }

func (f *folder) start(participants int) *server.Server {
	f.t.Helper()
	f.s = server.Start(f.t, server.Options{Data: f.data, Serve: participants == 0, Participants: participants})
	return f.s
}

func (f *folder) again() *server.Server { f.t.Helper(); return again(f.t, f.s) }

// site is the second shape: a database of its own, and keys of its own in an
// etcd that the tests share.
type site struct {
	*cluster.Cluster
	t      *testing.T
	etcd   *services.EtcdServer
	prefix string
}

var prefixes atomic.Int64

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, etcd: services.SharedEtcd(t), prefix: fmt.Sprintf("test-%d", prefixes.Add(1))}
	addr := func() string { return fmt.Sprintf("127.0.0.1:%d", services.FreePort(t)) }
	var err error
	s.Cluster, err = cluster.New(cluster.Config{
		Dir: filepath.Join(t.TempDir(), "site"), Binary: server.Binary(t, ""),
		Journal: services.SharedPostgres(t).NewDatabase(t), Etcd: []string{s.etcd.Addr()}, Prefix: s.prefix,
		Processes: []cluster.Process{
			{Role: cluster.Projector, Name: "projector-1", Admin: addr()},
			{Role: cluster.Trial, Name: "trial-1", Admin: addr(), RPC: addr()},
			{Role: cluster.Gateway, Name: "gateway-1", Admin: addr(), HTTP: addr()},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.KillAll()
		if t.Failed() {
			lines := strings.Split(s.Output(), "\n")
			t.Logf("the processes said at last:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
	if err := s.Migrate(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) flags() []string { return []string{"--data", s.Root(), "--config", s.ConfigFile()} }

func (s *site) start(participants int) *server.Server {
	s.t.Helper()
	srv := s.again()
	if participants > 0 {
		if err := s.Seed(participants); err != nil {
			s.t.Fatal(err)
		}
	}
	return srv
}

func (s *site) again() *server.Server {
	s.t.Helper()
	if err := s.StartAll(); err != nil {
		s.t.Fatal(err)
	}
	// Ready means that reports are taken; what these tests ask for needs the rest.
	for _, role := range []string{cluster.Gateway, cluster.Trial, cluster.Projector} {
		r := s.Of(role)[0]
		eventually(s.t, r.Name+" says that all is well", func() (bool, string) { return allWell(r) })
	}
	g := s.Named("gateway-1")
	srv := server.Of(s.t, s.Cluster, server.Binary(s.t, ""), s.Root(), s.ConfigFile())
	srv.URL, srv.Admin, srv.RPC = g.URL(), g.Admin, s.Named("trial-1").RPC
	return srv
}

// wants of /status of every role: what it stands on, by name.
var wants = map[string][]string{
	cluster.Gateway:   {"journal", "tables", "vault", "projector", "directory", "trial service", "etcd"},
	cluster.Trial:     {"journal", "tables", "vault", "projector", "trial service", "etcd"},
	cluster.Projector: {"journal", "tables", "projector", "etcd", "anchor "},
}

// allWell says whether a process finds nothing wrong with what it stands on.
func allWell(r *cluster.Running) (bool, string) {
	status, err := r.Status()
	if err != nil {
		return false, err.Error()
	}
	for name, d := range status.Dependencies {
		if !d.OK {
			return false, fmt.Sprintf("%s is %q: %s", name, d.State, d.Note)
		}
	}
	return true, ""
}

// Every role names what it stands on, and all of it is well.
func TestStatusNamesEveryDependency(t *testing.T) {
	parallel(t)
	s := newSite(t)
	s.start(20)
	for _, role := range []string{cluster.Gateway, cluster.Trial, cluster.Projector} {
		r := s.Of(role)[0]
		status, err := r.Status()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants[role] {
			found := false
			for name := range status.Dependencies {
				found = found || name == want || strings.HasSuffix(want, " ") && strings.HasPrefix(name, want)
			}
			if !found {
				t.Errorf("%s does not name %q: %+v", r.Name, want, status.Dependencies)
			}
		}
		if out := must(t, "status", "--data", filepath.Join(s.Dir(), r.Name)); !strings.Contains(out, "journal") || strings.Contains(out, "NOT WELL") {
			t.Errorf("tidegate status of %s:\n%s", r.Name, out)
		}
	}
	s.mustStop()
}

func (s *site) mustStop() {
	s.t.Helper()
	if err := s.StopAll(); err != nil {
		s.t.Error(err)
	}
}

// eventually waits until ok; the text says what is still wrong.
func eventually(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		done, wrong := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s: %s", what, wrong)
		}
	}
}
