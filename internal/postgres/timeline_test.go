package postgres_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/test/services"
)

// hosts is a database's URL with other hosts in it.
func hosts(t *testing.T, text string, addrs ...string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = strings.Join(addrs, ",")
	return u.String()
}

// split is an old primary that is back beside the server that was promoted, and
// a table in each that says which it is.
func split(t *testing.T) (old, promoted *services.PG, database string) {
	t.Helper()
	old = services.Postgres(t, services.PGOptions{})
	database = old.NewDatabase(t)
	promoted = old.Standby(t)
	old.Kill()
	promoted.Promote()
	old.Start()
	old.SyncNames("")
	for name, url := range map[string]string{"old": database, "promoted": hosts(t, database, promoted.Addr())} {
		execute(t, url, "CREATE TABLE server AS SELECT '"+name+"' AS name")
	}
	return old, promoted, database
}

func leadsTo(t *testing.T, pool *pgxpool.Pool) (name string) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), "SELECT name FROM server").Scan(&name); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestOldPrimaryIsPassedOver: a pool goes on to the next host, whatever else the
// URL wants of it, and a pool that begins with nothing seen asks all of them
// first.
func TestOldPrimaryIsPassedOver(t *testing.T) {
	t.Parallel()
	old, promoted, database := split(t)
	both := hosts(t, database, old.Addr(), promoted.Addr())
	if got := leadsTo(t, open(t, postgres.Options{URL: both + "&target_session_attrs=read-write"})); got != "old" {
		t.Fatalf("without a timeline it leads to the %s one: this test shows nothing", got)
	}
	for _, attrs := range []string{"any", "read-write", "primary", "prefer-standby"} {
		for _, mode := range []string{"disable", "prefer"} { // which has each host twice
			url := strings.Replace(both, "sslmode=disable", "sslmode="+mode, 1) + "&target_session_attrs=" + attrs
			if got := leadsTo(t, open(t, postgres.Options{URL: url, Timeline: new(postgres.Timeline)})); got != "promoted" || !strings.Contains(url, mode) {
				t.Errorf("%s: it leads to the %s one", url, got)
			}
		}
	}
	// Alone in the URL, it is refused by whoever shares what another pool saw.
	var seen postgres.Timeline
	if got := leadsTo(t, open(t, postgres.Options{URL: hosts(t, database, promoted.Addr()), Timeline: &seen})); got != "promoted" || seen.Highest() != 2 {
		t.Errorf("%s, timeline %d", got, seen.Highest())
	}
	err := open(t, postgres.Options{URL: database, Timeline: &seen}).Ping(t.Context())
	var behind *postgres.TimelineError
	if !errors.As(err, &behind) || behind.Server != 1 || behind.Seen != 2 || postgres.Final(err) {
		t.Errorf("the old one alone: %v", err)
	}
}

// TestPooledConnectionToAnOldPrimary: it is given up as soon as any pool that
// shares the timeline has met a newer one.
func TestPooledConnectionToAnOldPrimary(t *testing.T) {
	t.Parallel()
	old, promoted, database := split(t)
	proxy := services.Proxy(t, old.Addr())
	var seen postgres.Timeline
	pool := open(t, postgres.Options{URL: hosts(t, database, proxy.Addr()), Timeline: &seen})
	for range 2 {
		if got := leadsTo(t, pool); got != "old" {
			t.Fatalf("it leads to the %s one", got)
		}
	}
	other := open(t, postgres.Options{URL: hosts(t, database, promoted.Addr()), Timeline: &seen})
	if got := leadsTo(t, other); got != "promoted" {
		t.Fatalf("it leads to the %s one", got)
	}
	var behind *postgres.TimelineError
	if err := pool.Ping(t.Context()); !errors.As(err, &behind) {
		t.Errorf("over the connection that was there: %v", err)
	}
}

// TestSurveyDoesNotWait: a host that takes a connection and says nothing holds
// nobody up for longer than a connection may take.
func TestSurveyDoesNotWait(t *testing.T) {
	t.Parallel()
	pg := services.SharedPostgres(t)
	database := pg.NewDatabase(t)
	proxy := services.Proxy(t, pg.Addr())
	proxy.Blackhole()
	pool := open(t, postgres.Options{URL: hosts(t, database, pg.Addr(), proxy.Addr()), Timeline: new(postgres.Timeline), ConnectTimeout: 10 * time.Second})
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("the first host answers, and still: %v", err)
	}
}
