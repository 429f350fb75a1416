package elect_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/elect"
	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		candidateProcess()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// key is where the candidates of the tests stand; each test has an etcd of its own.
const key = "tidegate/projector"

const ttl = 2 * time.Second

// limit is for what must happen, however busy the machine is.
const limit = 30 * time.Second

// group watches several candidates: how many lead at the moment.
type group struct {
	t     *testing.T
	now   atomic.Int64
	most  atomic.Int64
	total atomic.Int64
}

// member is a candidate in this process.
type member struct {
	g      *group
	name   string
	stop   context.CancelFunc
	ended  chan error
	leads  atomic.Bool
	fail   chan error
	log    *logs
	mu     sync.Mutex
	states []elect.State
}

type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }

func (l *logs) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// join lets a candidate stand; it leaves with the test at the latest.
func (g *group) join(name string, o elect.Options) *member {
	g.t.Helper()
	m := &member{g: g, name: name, ended: make(chan error, 1), fail: make(chan error), log: &logs{}}
	o.Key, o.Name, o.Log, o.Changed = key, name, slog.New(slog.NewTextHandler(m.log, nil)), m.changed
	if o.TTL == 0 {
		o.TTL = ttl
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	ended := make(chan struct{})
	go func() { m.ended <- elect.Run(ctx, o, m.work); close(ended) }()
	g.t.Cleanup(func() {
		stop()
		<-ended
		if g.t.Failed() {
			g.t.Logf("%s:\n%s", name, m.log)
		}
	})
	return m
}

// work takes some time to end, as a transaction in hand does.
func (m *member) work(ctx context.Context) error {
	n := m.g.now.Add(1)
	m.g.total.Add(1)
	m.g.most.Store(max(m.g.most.Load(), n))
	m.leads.Store(true)
	defer func() { m.leads.Store(false); m.g.now.Add(-1) }()
	select {
	case <-ctx.Done():
		time.Sleep(50 * time.Millisecond)
		return ctx.Err()
	case err := <-m.fail:
		return err
	}
}

func (m *member) changed(s elect.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states = append(m.states, s)
}

func (m *member) state() (s elect.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.states) > 0 {
		s = m.states[len(m.states)-1]
	}
	return s
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// one waits until exactly one of two leads, elected, and says which.
func one(t *testing.T, a, b *member) (leader, other *member) {
	t.Helper()
	eventually(t, "exactly one leads by etcd", func() bool {
		return a.leads.Load() != b.leads.Load() && a.state().Elected != b.state().Elected && a.state().Err == nil && b.state().Err == nil
	})
	if a.leads.Load() {
		return a, b
	}
	return b, a
}

func TestWithoutEtcdItLeadsAtOnce(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	if err := elect.Run(t.Context(), elect.Options{}, func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Run: %v", err)
	}
	g := &group{t: t}
	m := g.join("a", elect.Options{})
	eventually(t, "it leads", m.leads.Load)
	m.stop()
	if err := <-m.ended; err != nil {
		t.Errorf("Run, told to end: %v", err)
	}
	if m.leads.Load() {
		t.Error("Run has returned and the work goes on")
	}
}

// One of two leads; when it stops, the other begins at once, and not before the
// first one's work is over.
func TestOneLeadsAndHandsOver(t *testing.T) {
	t.Parallel()
	e := services.Etcd(t)
	g := &group{t: t}
	o := elect.Options{Endpoints: []string{e.Endpoint()}, TTL: time.Minute}
	leader, other := one(t, g.join("a", o), g.join("b", o))
	got, err := e.Client(t).Get(t.Context(), key+"/", prefixed()...)
	if err != nil || len(got.Kvs) != 2 || string(got.Kvs[0].Value) != leader.name {
		t.Errorf("in etcd: %v, %v; %s leads", got, err, leader.name)
	}
	leader.stop()
	if err := <-leader.ended; err != nil {
		t.Errorf("the one that stopped: %v", err)
	}
	eventually(t, "the other leads, long before the lease would run out", other.leads.Load)
	if g.most.Load() != 1 {
		t.Errorf("%d led at once", g.most.Load())
	}
}

// Work that fails ends Run with its error and makes room for the other.
func TestFailedWorkMakesRoom(t *testing.T) {
	t.Parallel()
	e := services.Etcd(t)
	g := &group{t: t}
	o := elect.Options{Endpoints: []string{e.Endpoint()}, TTL: time.Minute}
	leader, other := one(t, g.join("a", o), g.join("b", o))
	broken := errors.New("broken")
	leader.fail <- broken
	if err := <-leader.ended; !errors.Is(err, broken) {
		t.Errorf("Run: %v", err)
	}
	eventually(t, "the other leads", other.leads.Load)
}

// A leader that is killed keeps its place for its lease and not longer.
func TestKilledLeaderIsFollowed(t *testing.T) {
	t.Parallel()
	e := services.Etcd(t)
	p := startProcess(t, e.Endpoint())
	p.says("leads")
	g := &group{t: t}
	m := g.join("b", elect.Options{Endpoints: []string{e.Endpoint()}})
	time.Sleep(ttl + time.Second)
	if m.leads.Load() {
		t.Fatal("two lead: the living leader's lease is not renewed")
	}
	p.kill()
	eventually(t, "the successor leads", m.leads.Load)
}

// A leader that is stopped for longer than its lease sees, when it goes on, that
// it no longer leads.
func TestFrozenLeaderLosesItsPlace(t *testing.T) {
	t.Parallel()
	e := services.Etcd(t)
	p := startProcess(t, e.Endpoint())
	p.says("leads")
	g := &group{t: t}
	m := g.join("b", elect.Options{Endpoints: []string{e.Endpoint()}})
	p.signal(syscall.SIGSTOP)
	eventually(t, "the successor leads", m.leads.Load)
	p.signal(syscall.SIGCONT)
	p.says("lost")
	time.Sleep(ttl)
	if !m.leads.Load() {
		t.Error("the one that woke up has taken its place back")
	}
}

// With etcd away everybody leads after a pause, says so in the log, and makes
// room when etcd is back.
func TestEtcdGoesAway(t *testing.T) {
	t.Parallel()
	e := services.Etcd(t)
	g := &group{t: t}
	o := elect.Options{Endpoints: []string{e.Endpoint()}, Patience: time.Second, DialTimeout: time.Second}
	a, b := g.join("a", o), g.join("b", o)
	leader, other := one(t, a, b)
	e.Kill()
	eventually(t, "the leader has lost its place or leads without etcd", func() bool { return !leader.state().Elected })
	eventually(t, "both lead without etcd", func() bool { return a.leads.Load() && b.leads.Load() })
	for _, m := range []*member{leader, other} {
		if s := m.state(); !s.Leads || s.Elected || s.Err == nil {
			t.Errorf("%s leads without etcd: %+v", m.name, s)
		}
		if !strings.Contains(m.log.String(), "leads without etcd") || strings.Count(m.log.String(), "etcd cannot be asked") != 1 {
			t.Errorf("%s says:\n%s", m.name, m.log)
		}
	}
	before := g.total.Load()
	e.Start()
	leader, other = one(t, a, b)
	if !strings.Contains(leader.log.String(), "etcd is back, goes on leading") || !strings.Contains(other.log.String(), "another leads") {
		t.Errorf("the leader:\n%s\nthe other:\n%s", leader.log, other.log)
	}
	if g.total.Load() != before {
		t.Error("the leader that won was interrupted")
	}
}

// A candidate that starts with etcd away leads after the pause.
func TestEtcdWasNeverThere(t *testing.T) {
	t.Parallel()
	g := &group{t: t}
	o := elect.Options{Endpoints: []string{fmt.Sprintf("127.0.0.1:%d", services.FreePort(t))}, Patience: 300 * time.Millisecond, DialTimeout: 300 * time.Millisecond}
	m := g.join("a", o)
	eventually(t, "it leads", m.leads.Load)
	if s := m.state(); s.Elected || s.Err == nil {
		t.Errorf("%+v", s)
	}
	m.stop()
	if err := <-m.ended; err != nil {
		t.Errorf("Run, told to end: %v", err)
	}
}

// A hung etcd is an etcd that is away.
func TestEtcdFreezes(t *testing.T) {
	t.Parallel()
	e := services.Etcd(t)
	g := &group{t: t}
	m := g.join("a", elect.Options{Endpoints: []string{e.Endpoint()}, Patience: time.Second, DialTimeout: time.Second})
	eventually(t, "it leads by etcd", func() bool { return m.state().Elected })
	e.Freeze()
	eventually(t, "it leads without etcd", func() bool { s := m.state(); return s.Leads && !s.Elected && s.Err != nil })
	e.Thaw()
	eventually(t, "it leads by etcd again", func() bool { return m.state().Elected })
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca := services.NewCA(t)
	e := services.EtcdTLS(t, ca)
	g := &group{t: t}
	cert, certKey := ca.Issue("projector")
	secure := elect.Options{Endpoints: []string{e.Endpoint()}, Cert: cert, CertKey: certKey, CA: ca.File, Patience: time.Minute, DialTimeout: time.Second}
	m := g.join("a", secure)
	eventually(t, "it leads by etcd", func() bool { return m.state().Elected })
	// Without a certificate, with one of another authority, with a file that is not
	// there: etcd is away, and why is said.
	stranger, strangerKey := services.NewCA(t).Issue("stranger")
	for name, spoil := range map[string]func(*elect.Options){
		"none":     func(o *elect.Options) { o.Cert, o.CertKey = "", "" },
		"stranger": func(o *elect.Options) { o.Cert, o.CertKey = stranger, strangerKey },
		"absent":   func(o *elect.Options) { o.Cert = "/nowhere.pem" },
		"server":   func(o *elect.Options) { o.CA = stranger },
	} {
		o := secure
		spoil(&o)
		refused := g.join(name, o)
		eventually(t, name+": the refusal is seen", func() bool { return refused.state().Err != nil })
		if refused.state().Leads {
			t.Errorf("%s: leads", name)
		}
	}
}

// A user that etcd refuses is told apart from one that it takes; the password
// is not in the log.
func TestUser(t *testing.T) {
	t.Parallel()
	e := services.Etcd(t)
	c := e.Client(t)
	const password = "c0rrect-horse"
	for _, f := range []func() error{
		func() error { _, err := c.UserAdd(t.Context(), "root", password); return err },
		func() error { _, err := c.UserGrantRole(t.Context(), "root", "root"); return err },
		func() error { _, err := c.UserAdd(t.Context(), "projector", password); return err },
		func() error { _, err := c.RoleAdd(t.Context(), "elects"); return err },
		func() error { _, err := c.RoleGrantPermission(t.Context(), "elects", key+"/", key+"0", 2); return err },
		func() error { _, err := c.UserGrantRole(t.Context(), "projector", "elects"); return err },
		func() error { _, err := c.AuthEnable(t.Context()); return err },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	g := &group{t: t}
	o := elect.Options{Endpoints: []string{e.Endpoint()}, User: "projector", PasswordFile: file(password), Patience: 500 * time.Millisecond, DialTimeout: 5 * time.Second}
	right := g.join("right", o)
	eventually(t, "it leads by etcd", func() bool { return right.state().Elected })
	o.PasswordFile = file("wr0ng-horse")
	wrong := g.join("wrong", o)
	eventually(t, "it leads without etcd, which refuses it", func() bool { s := wrong.state(); return s.Leads && s.Err != nil })
	if wrong.state().Elected {
		t.Error("elected with a wrong password")
	}
	if all := wrong.log.String() + right.log.String(); strings.Contains(all, "horse") {
		t.Errorf("the password is in the log:\n%s", all)
	}
}
