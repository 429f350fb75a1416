package services_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

// connect opens a connection; one that breaks is an error of the statement.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// within runs a statement with a deadline.
func within(t *testing.T, conn *pgx.Conn, limit time.Duration, sql string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err := conn.Exec(ctx, sql)
	return err
}

// What was committed is there after kill -9 and after a stop, on the same port.
func TestPostgresEndsAndStartsAgain(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{})
	db := pg.NewDatabase(t)
	name := database(t, db)
	pg.Exec(name, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
	conn := connect(t, db)
	pg.Kill()
	if err := within(t, conn, 5*time.Second, "SELECT 1"); err == nil {
		t.Fatal("a killed server answers")
	}
	pg.Start()
	pg.Exec(name, "INSERT INTO t VALUES (2)")
	pg.Stop()
	pg.Start()
	if n := pg.Query(name, "SELECT count(*)::text FROM t"); n != "2" {
		t.Errorf("%s rows after kill, start, stop and start, want 2", n)
	}
	if on := pg.Query(name, "SHOW fsync"); on != "on" {
		t.Errorf("fsync is %s: the server would show nothing about durability", on)
	}
}

func database(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(u.Path)
}

// A frozen server accepts connections and answers nothing, then goes on.
func TestPostgresFreezes(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{})
	conn := connect(t, pg.NewDatabase(t))
	pg.Freeze()
	done := make(chan error, 1)
	go func() { done <- within(t, conn, 30*time.Second, "SELECT 1") }()
	select {
	case err := <-done:
		t.Fatalf("a frozen server answers: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	pg.Thaw()
	if err := <-done; err != nil {
		t.Errorf("after the thaw: %v", err)
	}
	pg.Freeze() // the end of the test must cope
}

// A commit waits for the standby; the promoted standby has all of it, on a new
// timeline.
func TestPostgresStandby(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{})
	name := database(t, pg.NewDatabase(t))
	standby := pg.Standby(t)
	pg.Exec(name, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
	standby.Freeze()
	waiting := connect(t, pg.URL(name))
	if err := within(t, waiting, 500*time.Millisecond, "INSERT INTO t VALUES (2)"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a commit without its standby: %v, want it to wait", err)
	}
	standby.Thaw()
	pg.Exec(name, "INSERT INTO t VALUES (3)")
	pg.Kill()
	standby.Promote()
	standby.Exec(name, "INSERT INTO t VALUES (4)")
	if n := standby.Query(name, "SELECT count(*)::text FROM t WHERE n IN (1, 3, 4)"); n != "3" {
		t.Errorf("%s of 3 committed rows on the promoted standby", n)
	}
	if line := standby.Query(name, "SELECT timeline_id::text FROM pg_control_checkpoint()"); line == "" {
		t.Error("no timeline")
	}
	pg.Start() // the old primary comes back and knows nothing
	if n := pg.Query(name, "SELECT count(*)::text FROM t WHERE n = 4"); n != "0" {
		t.Errorf("the old primary has %s rows that were written to the new one", n)
	}
}

// A server with a password wants it.
func TestPostgresPassword(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{Password: "s3cret"})
	url := pg.NewDatabase(t)
	_, err := pgx.Connect(t.Context(), url)
	var refused *pgconn.ConnectError
	if !errors.As(err, &refused) {
		t.Errorf("without the password: %v", err)
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Password = "s3cret"
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
}

// The databases of a shared server are apart, and go with their tests.
func TestSharedPostgres(t *testing.T) {
	t.Parallel()
	var first string
	t.Run("one", func(t *testing.T) {
		first = services.SharedPostgres(t).NewDatabase(t)
	})
	pg := services.SharedPostgres(t)
	second := pg.NewDatabase(t)
	if first == second {
		t.Error("two tests have one database")
	}
	if n := pg.Query("postgres", "SELECT count(*)::text FROM pg_database WHERE datname = '"+database(t, first)+"'"); n != "0" {
		t.Error("a database outlives its test")
	}
}

// What was put is there after kill -9, on the same port.
func TestEtcd(t *testing.T) {
	t.Parallel()
	e := services.Etcd(t)
	c := e.Client(t)
	if _, err := c.Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	e.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Get(ctx, "k"); err == nil {
		t.Fatal("a killed etcd answers")
	}
	e.Start()
	got, err := c.Get(t.Context(), "k")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "v" {
		t.Errorf("after kill and start: %v %v", got, err)
	}
}

// An etcd with TLS talks to those with a certificate of its authority.
func TestEtcdTLS(t *testing.T) {
	t.Parallel()
	e := services.EtcdTLS(t, services.NewCA(t))
	if _, err := e.Client(t).Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
}

// Each fault of the proxy is one that a client can tell, and heals.
func TestProxy(t *testing.T) {
	t.Parallel()
	pg := services.SharedPostgres(t)
	p := services.Proxy(t, pg.Addr())
	url := "postgres://tidegate@" + p.Addr() + "/" + database(t, pg.NewDatabase(t)) + "?sslmode=disable"
	conn := connect(t, url)
	p.Slow(200 * time.Millisecond)
	start := time.Now()
	if err := within(t, conn, 5*time.Second, "SELECT 1"); err != nil || time.Since(start) < 190*time.Millisecond {
		t.Errorf("slowed by 200 ms: %v after %s", err, time.Since(start))
	}
	p.Heal()
	p.Blackhole()
	if err := within(t, conn, 300*time.Millisecond, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("in a black hole: %v", err)
	}
	p.Heal()
	conn = connect(t, url)
	p.Cut()
	if err := within(t, conn, 5*time.Second, "SELECT 1"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over a cut connection: %v, want an error at once", err)
	}
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("a cut proxy takes connections")
	}
	p.Heal()
	conn = connect(t, url)
	other := services.Postgres(t, services.PGOptions{})
	p.Switch(other.Addr())
	if err := within(t, conn, 5*time.Second, "SELECT 1"); err == nil {
		t.Error("a connection outlives the switch")
	}
	there := connect(t, "postgres://tidegate@"+p.Addr()+"/postgres?sslmode=disable")
	var port string
	if err := there.QueryRow(t.Context(), "SHOW port").Scan(&port); err != nil || "127.0.0.1:"+port != other.Addr() {
		t.Errorf("after the switch: port %s, %v", port, err)
	}
}

// Nothing that a server leaves behind outlives its test.
func TestNothingIsLeft(t *testing.T) {
	temp := t.TempDir()
	if err := os.Chmod(temp, 0o755); err != nil { //nolint:gosec // PostgreSQL's user passes through
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(temp), 0o755); err != nil { //nolint:gosec // likewise
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	t.Run("killed", func(t *testing.T) { services.Postgres(t, services.PGOptions{}).Kill() })
	t.Run("frozen", func(t *testing.T) { services.Postgres(t, services.PGOptions{}).Freeze() })
	t.Run("running", func(t *testing.T) { services.Postgres(t, services.PGOptions{}) })
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("left behind: %s", e.Name())
	}
}
