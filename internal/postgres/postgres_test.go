package postgres_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/test/services"
)

func open(t *testing.T, o postgres.Options) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestRedact(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://app@db:5432/tidegate":                         "postgres://app@db:5432/tidegate",
		"postgres://app:hunter2@db:5432/tidegate?sslmode=require": "postgres://app@db:5432/tidegate?sslmode=require",
		"postgres://db/tidegate":                                  "postgres://db/tidegate",
		"postgres://db/tidegate?user=app&password=hunter2":        "postgres://db/tidegate?password=%2A%2A%2A&user=app",
		"postgres://app:hunter2@db:port/tidegate":                 "the value given",
		"host=db user=app password=hunter2":                       "the value given",
		"hunter2":                                                 "the value given",
		"":                                                        "the value given",
		"postgres://app:hunter2@db/tidegate?sslpassword=hunter2&x=y": "postgres://app@db/tidegate?sslpassword=%2A%2A%2A&x=y",
	} {
		got := postgres.Redact(url)
		if got != want {
			t.Errorf("%q: got %q, want %q", url, got, want)
		}
		if strings.Contains(got, "hunter2") {
			t.Errorf("%q: the password shows: %q", url, got)
		}
	}
}

func TestIsURL(t *testing.T) {
	for text, want := range map[string]bool{
		"postgres://db/x": true, "postgresql://db/x": true, "/mnt/postgres": false, "postgres": false, "http://db": false, "": false,
	} {
		if postgres.IsURL(text) != want {
			t.Errorf("%q: got %v", text, !want)
		}
	}
}

// TestPasswordFile: it is read for each connection, so that a password can be
// changed under a running process, and whatever is wrong with it never shows it.
func TestPasswordFile(t *testing.T) {
	const password = "correct horse €"
	pg := services.Postgres(t, services.PGOptions{Password: password})
	url := pg.URL("postgres")
	file := filepath.Join(t.TempDir(), "password")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	connect := func() error { return open(t, postgres.Options{URL: url, PasswordFile: file}).Ping(t.Context()) }
	refused := func(what string, final bool) {
		t.Helper()
		err := connect()
		if err == nil {
			t.Fatalf("%s: connected", what)
		}
		if strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "wrong-one") {
			t.Errorf("%s: the error shows the password: %v", what, err)
		}
		if postgres.Final(err) != final {
			t.Errorf("%s: final is %v: %v", what, !final, err)
		}
	}
	refused("no file", false)
	write("wrong-one")
	refused("the wrong password", true)
	for _, end := range []string{"", "\n", "\r\n"} {
		write(password + end)
		if err := connect(); err != nil {
			t.Errorf("a file that ends in %q: %v", end, err)
		}
	}
	if err := open(t, postgres.Options{URL: url}).Ping(t.Context()); err == nil {
		t.Error("the server asks for no password: this test shows nothing")
	}
	// Changed while the pool lives.
	pool := open(t, postgres.Options{URL: url, PasswordFile: file, MaxConns: 2})
	held, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	write("wrong-one")
	if err := pool.Ping(t.Context()); err == nil {
		t.Error("the file was not read again")
	}
}

// TestConnectTimeout: a host that takes the connection and says nothing.
func TestConnectTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = c.Read(make([]byte, 1))
				_, _ = c.Read(make([]byte, 1<<16)) // until the other side gives up
			})
		}
	})
	pool := open(t, postgres.Options{URL: "postgres://app@" + l.Addr().String() + "/x?sslmode=disable", ConnectTimeout: 50 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := pool.Ping(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("got %v, and the context %v", err, ctx.Err())
	} else if postgres.Final(err) {
		t.Errorf("a silent host is final: %v", err)
	}
}

// TestStatementTimeout: the server itself ends what takes too long.
func TestStatementTimeout(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	pool := open(t, postgres.Options{URL: url, StatementTimeout: 50 * time.Millisecond})
	_, err := pool.Exec(t.Context(), "SELECT pg_sleep(30)")
	if postgres.Code(err) != postgres.CodeQueryCanceled || postgres.Final(err) {
		t.Errorf("got %v", err)
	}
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("and then: %v", err)
	}
	if got := query[string](t, url, "SHOW statement_timeout"); got != "0" {
		t.Fatalf("the server's own time-out is %s: this test shows nothing", got)
	}
	var got, zone, name string
	free := open(t, postgres.Options{URL: url, Name: "tidegate-test"})
	if err := free.QueryRow(t.Context(), "SELECT current_setting('statement_timeout'), current_setting('timezone'), current_setting('application_name')").Scan(&got, &zone, &name); err != nil {
		t.Fatal(err)
	}
	if got != "0" || zone != "UTC" || name != "tidegate-test" {
		t.Errorf("statement_timeout %s, timezone %s, application_name %s", got, zone, name)
	}
}

// TestPoolBound: there are never more connections than were allowed, and whoever
// finds all of them in use waits as long as its context does.
func TestPoolBound(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	const most = 3
	pool := open(t, postgres.Options{URL: url, MaxConns: most, Name: "bounded"})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := pool.Exec(t.Context(), "SELECT pg_sleep(0.02)"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := query[int](t, url, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bounded'"); n != most {
		t.Errorf("%d connections, want %d", n, most)
	}
	for range most {
		c, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release() //nolint:revive // all of them are held until the end
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := pool.Exec(ctx, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more than allowed: %v", err)
	}
}

// TestFinal: what goes away by itself, and what an operator must change.
func TestFinal(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := pg.NewDatabase(t)
	ping := func(url string) error { return open(t, postgres.Options{URL: url}).Ping(t.Context()) }
	if err := ping(pg.URL("nowhere")); !postgres.Final(err) || postgres.Code(err) != postgres.CodeUndefinedDB {
		t.Errorf("no such database: %v", err)
	}
	if err := ping(strings.Replace(url, userOf(t, url)+"@", "nobody@", 1)); !postgres.Final(err) {
		t.Errorf("no such user: %v", err)
	}
	if err := ping("postgres://app@127.0.0.1:1/x"); err == nil || postgres.Final(err) {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := open(t, postgres.Options{URL: url}).Exec(t.Context(), "SELECT * FROM nothing"); !postgres.Final(err) || postgres.Code(err) != postgres.CodeUndefinedTable {
		t.Errorf("no such table: %v", err)
	}
	if postgres.Final(nil) || postgres.Final(context.Canceled) || postgres.Code(errors.New("x")) != "" {
		t.Error("other errors")
	}
}

// TestNoURL: text that is no URL is refused without being repeated.
func TestNoURL(t *testing.T) {
	for _, url := range []string{"postgres://app:hunter2@[", "host=db password=hunter2 port=x"} {
		_, err := postgres.Open(t.Context(), postgres.Options{URL: url})
		if !errors.Is(err, postgres.ErrURL) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v", err)
		}
	}
}
