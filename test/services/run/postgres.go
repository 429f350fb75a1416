package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresUser is the superuser of a private server.
const PostgresUser = "tidegate"

// startLimit is how long a server may take to start or stop on a busy machine.
const startLimit = 60 * time.Second

// PostgresConfig says how a private server is made. The zero value of every
// field but Dir is good.
type PostgresConfig struct {
	Dir      string   // its folder; a server that is there already is started again as it is
	Port     int      // on 127.0.0.1; 0: a free one
	Password string   // asked of every connection; "" for none
	Settings []string // lines of postgresql.conf
}

// Postgres is a private PostgreSQL server on a loopback port.
type Postgres struct {
	*process
	cfg PostgresConfig
	bin string
}

// PostgresBinaries finds the folder with the server's programs: beside the
// postgres on the PATH, or the newest of Debian's, which keeps them off it.
func PostgresBinaries() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		if target, err := filepath.EvalSymlinks(path); err == nil && isFile(filepath.Join(filepath.Dir(target), "initdb")) {
			return filepath.Dir(target), nil
		}
	}
	var found []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		for _, d := range dirs {
			if isFile(filepath.Join(d, "postgres")) && isFile(filepath.Join(d, "initdb")) {
				found = append(found, d)
			}
		}
	}
	if len(found) == 0 {
		return "", &MissingError{"PostgreSQL"}
	}
	// By the number, so that 15 comes after 9.6.
	return slices.MaxFunc(found, func(a, b string) int {
		return cmpVersion(a, b)
	}), nil
}

// cmpVersion compares the digits of two paths by length and then by value.
func cmpVersion(a, b string) int {
	digits := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r < '0' || r > '9' {
				return -1
			}
			return r
		}, strings.SplitN(s, ".", 2)[0])
	}
	x, y := digits(a), digits(b)
	if len(x) != len(y) {
		return len(x) - len(y)
	}
	return strings.Compare(x, y)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// NewPostgres makes the server's folder, unless it is there already, and starts
// it. It returns when the server answers.
func NewPostgres(cfg PostgresConfig) (*Postgres, error) {
	p, err := newPostgres(cfg)
	if err != nil {
		return nil, err
	}
	if isFile(filepath.Join(p.data(), "PG_VERSION")) {
		return p, p.Start()
	}
	args := []string{"-D", p.data(), "-U", PostgresUser, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"}
	if cfg.Password != "" {
		file := filepath.Join(cfg.Dir, "password")
		if err := os.WriteFile(file, []byte(cfg.Password+"\n"), 0o600); err != nil {
			return nil, err
		}
		if p.user != nil {
			if err := os.Chown(file, int(p.user.uid), int(p.user.gid)); err != nil {
				return nil, err
			}
		}
		defer os.Remove(file)
		args = append(args, "-A", "scram-sha-256", "--pwfile", file)
	}
	if err := p.tool("initdb", args...); err != nil {
		return nil, err
	}
	// Small, quick to stop, and with nothing outside the folder: no socket file,
	// and shared memory for parallel queries as files in it, where a kill -9
	// leaves them to be removed with the rest. What makes a commit durable is left
	// at its default.
	settings := append([]string{
		"listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "shared_buffers = 32MB",
		"dynamic_shared_memory_type = mmap", "max_connections = 200", "log_checkpoints = off",
	}, cfg.Settings...)
	if err := appendTo(filepath.Join(p.data(), "postgresql.conf"), strings.Join(settings, "\n")+"\n"); err != nil {
		return nil, err
	}
	return p, p.Start()
}

// newPostgres prepares one without a data folder.
func newPostgres(cfg PostgresConfig) (*Postgres, error) {
	bin, err := PostgresBinaries()
	if err != nil {
		return nil, err
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if cfg.Port == 0 {
		if cfg.Port, err = FreePort(); err != nil {
			return nil, err
		}
	}
	user, err := unprivileged()
	if err != nil {
		return nil, err
	}
	if err := user.own(cfg.Dir); err != nil {
		return nil, err
	}
	p := &Postgres{cfg: cfg, bin: bin}
	p.process = &process{
		name: "PostgreSQL", path: filepath.Join(bin, "postgres"), user: user,
		args: []string{"-D", p.data(), "-p", fmt.Sprint(cfg.Port)},
		env:  p.environ(), log: filepath.Join(cfg.Dir, "log"),
		orphan: syscall.SIGQUIT, // its immediate shutdown, which takes the children along
	}
	return p, nil
}

func (p *Postgres) data() string { return filepath.Join(p.cfg.Dir, "data") }

// environ is the environment without what libpq and the server would read
// from it (PGDATA, PGPORT, …), which is about another server.
func (p *Postgres) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, "LC_") })
	return append(env, "LC_ALL=C", "PGPASSWORD="+p.cfg.Password)
}

// tool runs one of PostgreSQL's own programs as its user.
func (p *Postgres) tool(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...) //nolint:gosec // a test's own command
	cmd.Env, cmd.Dir, cmd.SysProcAttr = p.environ(), os.TempDir(), attributes(p.user, syscall.SIGKILL)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

func appendTo(path, text string) (err error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteString(text)
	return err
}

// Start starts it again and returns when it answers.
func (p *Postgres) Start() error {
	if err := p.start(); err != nil {
		return err
	}
	return p.waitFor(startLimit, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return p.Exec(ctx, "postgres", "SELECT 1")
	})
}

// Stop stops it as an operator does (fast shutdown): open transactions are
// rolled back and a checkpoint is written.
func (p *Postgres) Stop() error { return p.stop(syscall.SIGINT, startLimit) }

// Kill ends it and all its processes with SIGKILL.
func (p *Postgres) Kill() error { return p.kill() }

// Discard ends it in the quickest way that leaves nothing behind outside its
// folder; for the end of a test.
func (p *Postgres) Discard() error {
	if p.pid() == 0 {
		// A crash has left a small segment of System V memory, which only the next
		// server on the folder or its key can find.
		return forgetSegment(filepath.Join(p.data(), "postmaster.pid"))
	}
	return p.stop(syscall.SIGQUIT, startLimit)
}

// Freeze stops all its processes where they are; Thaw lets them go on.
func (p *Postgres) Freeze() error { return p.freeze() }

// Thaw lets a frozen server go on.
func (p *Postgres) Thaw() error { return p.thaw() }

// Pid is the id of its first process, 0 when it does not run.
func (p *Postgres) Pid() int { return p.pid() }

// LogFile is where it writes its log.
func (p *Postgres) LogFile() string { return p.log }

// Addr is host and port.
func (p *Postgres) Addr() string { return fmt.Sprintf("127.0.0.1:%d", p.cfg.Port) }

// URL is the address of one of its databases, without the password.
func (p *Postgres) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(PostgresUser), Host: p.Addr(), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Exec runs statements, one by one, on a connection of their own.
func (p *Postgres) Exec(ctx context.Context, database string, statements ...string) error {
	cfg, err := pgx.ParseConfig(p.URL(database))
	if err != nil {
		return err
	}
	cfg.Password = p.cfg.Password
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is open on it
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// Query reads one text value.
func (p *Postgres) Query(ctx context.Context, database, statement string) (value string, err error) {
	cfg, err := pgx.ParseConfig(p.URL(database))
	if err != nil {
		return "", err
	}
	cfg.Password = p.cfg.Password
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is open on it
	err = conn.QueryRow(ctx, statement).Scan(&value)
	return value, err
}
