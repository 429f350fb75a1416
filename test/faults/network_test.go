package faults_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/services"
)

// through is the URL of a database by way of a proxy.
func through(t *testing.T, database string, p *services.ProxyServer) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.Addr()
	return u.String()
}

// both is the URL of a database on two servers, of which the one that takes
// writes is wanted.
func both(t *testing.T, database string, first, second string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = first + "," + second
	u.RawQuery += "&target_session_attrs=read-write"
	return u.String()
}

// TestPostgresFreezes stops PostgreSQL with SIGSTOP for 20 s: no phone hangs, no
// phone is told 200, and afterwards everything goes on.
func TestPostgresFreezes(t *testing.T) {
	onlyLong(t)
	pg := services.Postgres(t, services.PGOptions{})
	w := newWorld(t, pg, options{})
	w.warm(16)
	pg.Freeze()
	time.Sleep(500 * time.Millisecond) // answers that were given before are read by now
	before := w.crowd.Acked.Load() + w.crowd.Repeated.Load()
	time.Sleep(19500 * time.Millisecond)
	if after := w.crowd.Acked.Load() + w.crowd.Repeated.Load(); after != before {
		t.Errorf("%d reports were acknowledged while PostgreSQL stood still", after-before)
	}
	if w.crowd.Refused.Load()+w.crowd.Unknown.Load() == 0 {
		t.Error("no phone was told anything while PostgreSQL stood still")
	}
	pg.Thaw()
	w.flows("after the thaw")
	w.figures("PostgreSQL frozen for 20 s")
	w.end()
}

// TestNetwork slows, blackholes and cuts what lies between the roles and
// PostgreSQL.
func TestNetwork(t *testing.T) {
	onlyLong(t)
	pg := services.Postgres(t, services.PGOptions{})
	p := services.Proxy(t, pg.Addr())
	database := pg.NewDatabase(t)
	w := newWorld(t, pg, options{journal: through(t, database, p), judged: database})
	w.warm(16)
	p.Slow(300 * time.Millisecond)
	time.Sleep(500 * time.Millisecond)
	w.crowd.Mark()
	w.flows("over a slow network")
	w.figures("300 ms slower between the roles and PostgreSQL")
	p.Heal()
	w.flows("after a slow network")
	w.crowd.Mark()
	for _, fault := range []struct {
		name string
		do   func()
	}{
		{"cut", p.Cut},
		{"a black hole", p.Blackhole},
	} {
		fault.do()
		time.Sleep(5 * time.Second)
		p.Heal()
		w.flows("after " + fault.name)
		w.figures(fault.name + " for 5 s between the roles and PostgreSQL")
		w.clean(false)
	}
	w.end()
}

// TestStandbyIsPromoted kills the primary under load and promotes its
// synchronous standby: nothing acknowledged is lost. Then the old primary comes
// back, believes that it is one, and would even take commits without a standby:
// no role takes its word, one that is started anew neither, and all go on to the
// promoted server, although the old one comes first in their list.
func TestStandbyIsPromoted(t *testing.T) {
	onlyLong(t)
	old := services.Postgres(t, services.PGOptions{})
	database := old.NewDatabase(t)
	standby := old.Standby(t)
	promoted := strings.Replace(database, old.Addr(), standby.Addr(), 1)
	w := newWorld(t, old, options{
		journal: both(t, database, old.Addr(), standby.Addr()), judged: promoted, gateways: 2, projectors: 2,
	})
	w.warm(16)
	old.Kill()
	time.Sleep(time.Second)
	standby.Promote()
	w.flows("on the promoted standby")
	w.figures("primary killed, standby promoted after 1 s")
	w.clean(false)

	w.oldPrimary(old, standby, database)
	w.end()
}

// oldPrimary brings the old primary back and lets every role meet it first.
// While it is there, the promoted server serves reports, tables and vault; the
// old one is changed by nobody, a command that has seen nothing neither.
func (w *world) oldPrimary(old, standby *services.PG, database string) {
	w.t.Helper()
	old.Start()
	old.SyncNames("")
	name := strings.SplitN(database[strings.LastIndex(database, "/")+1:], "?", 2)[0]
	content := func() string {
		return old.Query(name, `SELECT (SELECT count(*) FROM tidegate_journal.frame) || ' frames, tables at ' ||
			(SELECT max(position) FROM tidegate_store.cursor) || ', ' || (SELECT count(*) FROM tidegate_vault.staff_credential) || ' credentials'`)
	}
	first := content()
	for _, name := range []string{"gateway-1", "projector-1", "projector-2"} {
		w.Named(name).Kill()
		_, err := w.Start(name)
		w.must(err)
	}
	standby.Exec("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tidegate%'")
	w.crowd.Mark()
	w.must(w.Ready(time.Minute))
	for range 4 {
		w.flows("while the old primary is back")
		time.Sleep(2 * time.Second)
	}
	// A token is a fact, a decision and a credential, made by a process that knows
	// no timeline yet and used at a gateway.
	token, err := w.Operate("token", "staff", "--role", "admin", "--name", "after-the-promotion")
	w.must(err)
	if books := w.get("/v1/trials/T001/books", strings.TrimSpace(token)); !strings.Contains(books, `"recorded"`) {
		w.t.Errorf("the books: %s", books)
	}
	if now := content(); now != first {
		w.t.Errorf("the old primary has %s now and had %s: somebody writes to it", now, first)
	}
	w.figures("the old primary back, and first in everybody's list")
	old.Stop()
	w.flows("after the old primary is gone")
	w.figures("the old primary gone again")
}
