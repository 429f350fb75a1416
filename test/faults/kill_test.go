package faults_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/cluster"
	"github.com/tidegate/tidegate/test/services"
)

// TestPostgresIsKilled kills PostgreSQL under load and starts it again. No role
// needs a restart.
func TestPostgresIsKilled(t *testing.T) {
	rounds := 1
	if long() {
		rounds = 3
	}
	pg := services.Postgres(t, services.PGOptions{})
	w := newWorld(t, pg, options{})
	w.warm(16)
	for range rounds {
		killed := time.Now()
		pg.Kill()
		time.Sleep(time.Second)
		pg.Start()
		back := time.Since(killed)
		w.flows("after PostgreSQL is back")
		w.figures(fmt.Sprintf("PostgreSQL killed, serving again after %s", back.Round(10*time.Millisecond)))
		w.clean(false)
	}
	w.end()
}

// TestEachRoleIsKilled kills each process in turn under load, and starts it
// again a moment later; the others go on.
func TestEachRoleIsKilled(t *testing.T) {
	onlyLong(t)
	w := newWorld(t, services.Postgres(t, services.PGOptions{}), options{gateways: 2, trials: 2, projectors: 2})
	w.warm(24)
	active := w.active().Name
	for _, name := range []string{"gateway-1", "trial-1", active, "gateway-2", "trial-2"} {
		w.Named(name).Kill()
		time.Sleep(500 * time.Millisecond)
		w.flows("while " + name + " is away")
		w.again(name)
		w.flows("after " + name + " is back")
		w.figures(name + " killed")
		w.clean(false)
	}
	if now := w.active().Name; now == active {
		t.Errorf("%s is active again at once, though the other was elected", now)
	}
	// All at once: only PostgreSQL and etcd are left.
	w.KillAll()
	time.Sleep(500 * time.Millisecond)
	w.must(w.StartAll())
	w.flows("after all are back")
	w.figures("every process killed at once")
	w.end()
}

// TestFrozenProjectorCannotWrite stops the active projector for longer than its
// lease; the other takes over, and the first, when it goes on, writes nothing.
func TestFrozenProjectorCannotWrite(t *testing.T) {
	onlyLong(t)
	w := newWorld(t, services.Postgres(t, services.PGOptions{}), options{projectors: 2})
	w.warm(4)
	for range 2 {
		frozen := w.active()
		frozen.Freeze()
		eventually(t, time.Minute, "the other projector is active", func() bool {
			for _, p := range w.Of(cluster.Projector) {
				if p == frozen {
					continue
				}
				if s, err := p.Status(); err == nil && s.Dependencies["projector"].State == "active" {
					return true
				}
			}
			return false
		})
		w.flows("while a projector is frozen")
		frozen.Thaw()
		time.Sleep(3 * time.Second)
		w.clean(true)
	}
	w.figures("the active projector frozen, twice")
	w.end()
}

// TestEtcdIsGone takes etcd away for longer than everybody's patience: reports
// are taken, tables come after, the Trial service is called; and brings it back.
func TestEtcdIsGone(t *testing.T) {
	onlyLong(t)
	w := newWorld(t, services.Postgres(t, services.PGOptions{}), options{projectors: 2, trials: 2})
	w.warm(4)
	w.etcd.Kill()
	time.Sleep(20 * time.Second)
	a := w.clean(false)
	eventually(t, 30*time.Second, "the tables come after without etcd", func() bool { return w.judge(false).Recorded > a.Recorded })
	g := w.Named("gateway-1")
	s, err := g.Status()
	w.must(err)
	if !s.Ready || !s.Dependencies["directory"].OK || s.Dependencies["etcd"].OK {
		t.Errorf("a gateway without etcd: %+v", s)
	}
	w.etcd.Start()
	eventually(t, time.Minute, "one projector is active and the other is not", func() bool {
		active := 0
		for _, p := range w.Of(cluster.Projector) {
			s, err := p.Status()
			if err != nil || !s.Dependencies["etcd"].OK {
				return false
			}
			if s.Dependencies["projector"].State == "active" {
				active++
			}
		}
		return active == 1
	})
	w.figures("etcd away for 20 s")
	w.end()
}
