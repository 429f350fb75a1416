package services

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/services/run"
)

// PGOptions say how a private PostgreSQL is made. The zero value is good.
type PGOptions struct {
	Password string   // asked of every connection; "" for none. Its URLs do not name it
	Settings []string // lines of postgresql.conf
	Port     int      // 0: a free one
}

// PG is a PostgreSQL server of a test. Its methods fail the test that asked for
// it, so they belong to the test's own goroutine.
type PG struct {
	t      testing.TB
	s      *run.Postgres
	shared bool // by the tests of a package
}

// limit bounds what the tests' own statements take.
const limit = 60 * time.Second

// Postgres starts a private server, which ends with the test.
func Postgres(t testing.TB, o PGOptions) *PG {
	t.Helper()
	if _, err := run.PostgresBinaries(); err != nil {
		missing(t, err)
	}
	dir := folder(t, "tidegate-postgres-")
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err := run.NewPostgres(run.PostgresConfig{Dir: dir, Port: o.Port, Password: o.Password, Settings: o.Settings})
	return own(t, s, err)
}

// own is a server that ends with the test.
func own(t testing.TB, s *run.Postgres, err error) *PG {
	t.Helper()
	if s != nil {
		t.Cleanup(func() {
			if err := s.Discard(); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return &PG{t: t, s: s}
}

// SharedPostgres is one server for all the tests of a package, started by the
// first that asks. They use databases of their own ([PG.NewDatabase]) and do
// nothing to the server. [Main] stops it.
func SharedPostgres(t testing.TB) *PG {
	t.Helper()
	if _, err := run.PostgresBinaries(); err != nil {
		missing(t, err)
	}
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if sharedPG == nil && sharedErr == nil {
		dir := folder(t, "tidegate-postgres-")
		sharedDirs = append(sharedDirs, dir)
		var s *run.Postgres
		if s, sharedErr = run.NewPostgres(run.PostgresConfig{Dir: dir}); sharedErr == nil {
			sharedPG = s
		}
	}
	if sharedErr != nil {
		t.Fatal(sharedErr)
	}
	return &PG{t: t, s: sharedPG, shared: true}
}

// check fails the test on an error.
func (p *PG) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// Addr is host and port.
func (p *PG) Addr() string { return p.s.Addr() }

// URL is the address of one of its databases, without a password.
func (p *PG) URL(database string) string { return p.s.URL(database) }

var databases atomic.Int64

// NewDatabase makes an empty database, which goes with the test, and returns
// its URL.
func (p *PG) NewDatabase(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	p.Exec("postgres", "CREATE DATABASE "+name)
	if p.shared { // any other server goes itself
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			if err := p.s.Exec(ctx, "postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
				t.Error(err)
			}
		})
	}
	return p.URL(name)
}

// Exec runs statements, one by one, on a connection of their own.
func (p *PG) Exec(database string, statements ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	p.check(p.s.Exec(ctx, database, statements...))
}

// Query reads one text value.
func (p *PG) Query(database, statement string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	v, err := p.s.Query(ctx, database, statement)
	p.check(err)
	return v
}

// Kill ends the server and all its processes with SIGKILL, as a crash does.
func (p *PG) Kill() { p.t.Helper(); p.check(p.s.Kill()) }

// Stop stops the server as an operator does.
func (p *PG) Stop() { p.t.Helper(); p.check(p.s.Stop()) }

// Start starts a server that was stopped or killed, on the same port, and
// returns when it answers.
func (p *PG) Start() { p.t.Helper(); p.check(p.s.Start()) }

// Freeze stops all processes of the server where they are (SIGSTOP): its
// connections stay open, new ones are accepted by the system, nothing answers.
func (p *PG) Freeze() { p.t.Helper(); p.check(p.s.Freeze()) }

// Thaw lets a frozen server go on.
func (p *PG) Thaw() { p.t.Helper(); p.check(p.s.Thaw()) }

// Standby makes a standby, which ends with the test, and makes commits wait for
// it: synchronous_standby_names = FIRST 1 (standby).
func (p *PG) Standby(t testing.TB) *PG {
	t.Helper()
	const name = "standby"
	dir := folder(t, "tidegate-standby-")
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	s, err := p.s.Standby(ctx, name, run.PostgresConfig{Dir: filepath.Clean(dir)})
	standby := own(t, s, err)
	p.check(p.s.SyncNames(ctx, "FIRST 1 ("+name+")"))
	return standby
}

// SyncNames sets synchronous_standby_names; "" makes commits wait for nobody. A
// promoted standby has none until it is told.
func (p *PG) SyncNames(names string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	p.check(p.s.SyncNames(ctx, names))
}

// Promote makes a standby a primary, on a new timeline.
func (p *PG) Promote() { p.t.Helper(); p.check(p.s.Promote(context.Background())) }
