package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/cluster"
	"github.com/tidegate/tidegate/test/phones"
	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

// options of a world. The zero value has one process of each role on one
// PostgreSQL, and etcd.
type options struct {
	gateways, trials, projectors int
	participants                 int    // 20 when 0
	journal                      string // URL of the journal as the roles know it; "": straight to the server
	store, vault                 string // databases of their own
	judged                       string // URL of the journal as the auditor knows it; "": as the roles
	settings                     string // more of tidegate.yaml
}

// world is a cluster, its phones, and what it takes to judge it.
type world struct {
	*cluster.Cluster

	t      testing.TB
	etcd   *services.EtcdServer
	crowd  *phones.Crowd
	judged string
}

// newWorld makes a cluster on databases that are empty, seeded and running.
func newWorld(t testing.TB, pg *services.PG, o options) *world {
	t.Helper()
	w := &world{t: t, etcd: services.Etcd(t), judged: o.judged}
	if o.journal == "" {
		o.journal = pg.NewDatabase(t)
	}
	cfg := cluster.Config{
		Dir: filepath.Join(t.TempDir(), "cluster"), Binary: server.Binary(t, ""),
		Journal: o.journal, Store: o.store, Vault: o.vault, Etcd: []string{w.etcd.Addr()},
		// Phones send more than their bucket holds, and every acknowledgement is of an append of its own.
		Settings: "intake:\n  burst: 0\n  remember: 0\n" + o.settings,
	}
	addr := func() string { return fmt.Sprintf("127.0.0.1:%d", services.FreePort(t)) }
	for _, name := range names(cluster.Projector, max(o.projectors, 1)) {
		cfg.Processes = append(cfg.Processes, cluster.Process{Role: cluster.Projector, Name: name, Admin: addr()})
	}
	for _, name := range names(cluster.Trial, max(o.trials, 1)) {
		cfg.Processes = append(cfg.Processes, cluster.Process{Role: cluster.Trial, Name: name, Admin: addr(), RPC: addr()})
	}
	for _, name := range names(cluster.Gateway, max(o.gateways, 1)) {
		cfg.Processes = append(cfg.Processes, cluster.Process{Role: cluster.Gateway, Name: name, Admin: addr(), HTTP: addr()})
	}
	var err error
	if w.Cluster, err = cluster.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.KillAll()
		if t.Failed() {
			w.tails()
		}
	})
	w.must(w.Migrate())
	w.must(w.StartAll())
	if o.participants == 0 {
		o.participants = 20
	}
	w.must(w.Seed(o.participants))
	var list []phones.Phone
	for i := 1; i <= 8; i++ {
		list = append(list, w.phone(fmt.Sprintf("P-%06d", i), "T001"))
	}
	for i := 2; i <= 8; i += 2 { // a second trial, which must get its share
		list = append(list, w.phone(fmt.Sprintf("P-%06d", i), "T002"))
	}
	w.crowd = phones.NewCrowd(t, w.Acks(), list)
	w.crowd.At(w.urls()...)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// tails shows the end of every log.
func (w *world) tails() {
	for _, role := range []string{cluster.Gateway, cluster.Trial, cluster.Projector} {
		for _, r := range w.Of(role) {
			w.t.Logf("%s said at last:\n%s", r.Name, r.Tail())
		}
	}
}

func (w *world) phone(patient, trial string) phones.Phone {
	w.t.Helper()
	token, err := w.Command("token", "participant", "--data", w.Root(), "--patient", patient, "--trial", trial, "--ttl", "24h")
	w.must(err)
	return phones.Phone{Patient: patient, Trial: trial, Token: strings.TrimSpace(token)}
}

// urls are where the gateways are.
func (w *world) urls() (list []string) {
	for _, g := range w.Of(cluster.Gateway) {
		list = append(list, g.URL())
	}
	return list
}

// again starts a process that has ended and waits until it is ready.
func (w *world) again(name string) {
	w.t.Helper()
	r, err := w.Start(name)
	w.must(err)
	w.must(r.Ready(time.Minute))
}

// active is the projector that moves the cursor.
func (w *world) active() (r *cluster.Running) {
	w.t.Helper()
	eventually(w.t, 45*time.Second, "a projector is active", func() bool {
		for _, p := range w.Of(cluster.Projector) {
			if s, err := p.Status(); err == nil && s.Dependencies["projector"].State == "active" {
				r = p
				return true
			}
		}
		return false
	})
	return r
}

// warm lets phones at the cluster and waits until reports are taken.
func (w *world) warm(phones int) {
	w.t.Helper()
	w.crowd.Start(phones)
	w.flows("at first")
	w.crowd.Mark()
}

// flows waits until reports are acknowledged (again).
func (w *world) flows(when string) {
	w.t.Helper()
	before := w.crowd.Acked.Load()
	eventually(w.t, time.Minute, "reports are acknowledged "+when, func() bool { return w.crowd.Acked.Load() > before+100 })
}

// figures are what a fault did to the phones.
func (w *world) figures(fault string) {
	w.t.Helper()
	w.t.Logf("%s: longest outage as phones saw it %s; %s", fault, w.crowd.Outage().Round(10*time.Millisecond), w.crowd)
	w.crowd.Mark()
}

// end makes no new reports, waits until all in hand are acknowledged and the
// tables have come after, stops everything in order, and wants each report
// counted exactly once by both auditors.
func (w *world) end() {
	w.t.Helper()
	w.crowd.Settle(time.Minute)
	w.settled()
	a := w.clean(true)
	if offered := uint64(w.crowd.Offered.Load()); a.Recorded != offered {
		w.t.Errorf("the phones made %d reports, recorded are %d: %s", offered, a.Recorded, a)
	}
	if lines := uint64(w.crowd.Acked.Load() + w.crowd.Repeated.Load()); a.Acks.Lines != lines {
		w.t.Errorf("the phones wrote %d acknowledgements, the audit read %d", lines, a.Acks.Lines)
	}
	w.crowd.NoWrongAnswers()
	w.must(w.StopAll())
	w.agree(a)
	w.t.Logf("at the end: %s; %s", w.crowd, a)
}

// settled waits until nothing is pending.
func (w *world) settled() {
	w.t.Helper()
	var a audit
	defer func() {
		if w.t.Failed() {
			w.t.Logf("not settled: %s", a)
		}
	}()
	eventually(w.t, 90*time.Second, "the tables have come after", func() bool { a = w.judge(false); return a.Pending == 0 })
}

// write writes a file beside the cluster.
func (w *world) write(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.Dir(), name)
	w.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}
