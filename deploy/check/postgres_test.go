//go:build unix

package check

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// installation runs PostgreSQL's own programs as the container's entrypoint
// would, in a folder of its own.
type installation struct {
	t    *testing.T
	dir  string // owned by uid
	uid  int    // who runs it: PostgreSQL refuses root
	path string
	env  []string
}

func postgres(t *testing.T) *installation {
	t.Helper()
	path := os.Getenv("PATH")
	more, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	path = strings.Join(append([]string{path}, more...), string(os.PathListSeparator))
	t.Setenv("PATH", path)
	for _, program := range []string{"initdb", "pg_basebackup", "psql", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed: the scripts of the compose file's PostgreSQL were not run", program)
		}
	}
	i := &installation{t: t, uid: os.Geteuid(), path: path}
	// Not t.TempDir: sockets have short paths, and another user must get in.
	dir, err := os.MkdirTemp("", "tg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	i.dir = dir
	if i.uid == 0 {
		i.uid = 65534
	}
	i.copyIn("compose/postgres-init.sh", "compose/standby.sh", "certs.sh")
	i.own()
	return i
}

// copyIn copies scripts to where the other user can read them.
func (i *installation) copyIn(files ...string) {
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(deploy, f))
		if err == nil {
			err = os.WriteFile(filepath.Join(i.dir, filepath.Base(f)), text, 0o600)
		}
		if err != nil {
			i.t.Fatal(err)
		}
	}
}

func (i *installation) own() {
	err := filepath.Walk(i.dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, i.uid, -1)
	})
	if err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) command(name string, args ...string) *exec.Cmd {
	// Not cut short by the test's end: a server is told to stop, a killed one would leave its children.
	cmd := exec.CommandContext(context.WithoutCancel(i.t.Context()), name, args...)
	cmd.Dir = i.dir
	cmd.Env = append([]string{"PATH=" + i.path, "HOME=" + i.dir, "PGHOST=" + i.dir}, i.env...)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(i.uid), Gid: uint32(i.uid)}}
	}
	return cmd
}

func (i *installation) run(name string, args ...string) string {
	i.t.Helper()
	out, err := i.command(name, args...).CombinedOutput()
	if err != nil {
		i.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// serve runs a server until the test ends, and waits until it answers.
func (i *installation) serve(port int, name string, args ...string) (stop func()) {
	i.t.Helper()
	cmd := i.command(name, args...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	}
	i.t.Cleanup(stop)
	for range 150 {
		if i.command("pg_isready", "--quiet", "--username=tidegate", "--dbname=tidegate", fmt.Sprint("--port=", port)).Run() == nil {
			return stop
		}
		select {
		case err := <-done:
			i.t.Fatalf("%s ended: %v\n%s", name, err, log.String())
		case <-time.After(100 * time.Millisecond):
		}
	}
	stop()
	i.t.Fatalf("%s does not answer\n%s", name, log.String())
	return nil
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// The scripts and settings that compose.yaml gives to PostgreSQL, on a real one:
// roles, TLS only, and a standby that every commit waits for.
func TestComposePostgres(t *testing.T) {
	i := postgres(t)
	project, p := Compose(t.Context(), deploy)
	none(t, p)
	i.run("sh", "certs.sh", "secrets", "postgres,localhost", "postgres-standby")
	for _, f := range []string{"postgres/superuser-password", "postgres/tidegate-password", "postgres/replication-password", "postgres-standby/replication-password"} {
		if err := os.WriteFile(filepath.Join(i.dir, "secrets", f), []byte(filepath.Base(f)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i.own()
	port, second := freePort(t), freePort(t)
	// What compose.yaml says, with this place and these ports.
	settings := func(service string, port int) []string {
		var args []string
		for _, a := range project.Services[service].Command {
			if a != "postgres" {
				args = append(args, strings.ReplaceAll(a, secretsAt, filepath.Join(i.dir, "secrets", service)))
			}
		}
		return append(args, fmt.Sprint("-cport=", port), "-clisten_addresses=127.0.0.1", "-cunix_socket_directories="+i.dir)
	}
	primary := filepath.Join(i.dir, "primary")

	// As the image's entrypoint does: make it, start it on the socket alone, run the script, stop it, start it.
	i.run("initdb", append(strings.Fields(*project.Services["postgres"].Environment["POSTGRES_INITDB_ARGS"]),
		"--pgdata="+primary, "--username=postgres", "--pwfile=secrets/postgres/superuser-password", "--no-sync")...)
	i.env = []string{"POSTGRES_USER=postgres", "PGPASSWORD=superuser-password", "PGDATA=" + primary, fmt.Sprint("PGPORT=", port), "SECRETS=" + filepath.Join(i.dir, "secrets/postgres")}
	stop := i.serve(port, "postgres", append([]string{"-D", primary}, append(settings("postgres", port), "-clisten_addresses=")...)...)
	i.run("sh", "postgres-init.sh")
	stop()
	i.serve(port, "postgres", append([]string{"-D", primary}, settings("postgres", port)...)...)

	root := filepath.Join(i.dir, "secrets", "ca", "ca.crt")
	psql := func(port int, mode, query string) *exec.Cmd {
		cmd := i.command("psql", "--no-psqlrc", "--no-password", "-Atq", "-v", "ON_ERROR_STOP=1",
			fmt.Sprintf("host=localhost port=%d user=tidegate dbname=tidegate sslmode=%s sslrootcert=%s connect_timeout=5", port, mode, root), "-c", query)
		cmd.Env = append(cmd.Env, "PGPASSWORD=tidegate-password")
		return cmd
	}
	sql := func(port int, mode, query string) (string, error) {
		out, err := psql(port, mode, query).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := sql(port, "disable", "SELECT 1"); err == nil || !strings.Contains(out, "no encryption") {
		t.Errorf("without TLS: %s, %v", out, err)
	}
	// Nothing is committed while the standby is not there.
	early := psql(port, "verify-full", "CREATE TABLE early (n int)")
	if err := early.Start(); err != nil {
		t.Fatal(err)
	}
	committed := make(chan error, 1)
	go func() { committed <- early.Wait() }()
	select {
	case err := <-committed:
		t.Errorf("committed without a standby: %v", err)
		committed <- err
	case <-time.After(time.Second):
	}

	i.env = []string{"PGDATA=" + filepath.Join(i.dir, "standby"), "PRIMARY=localhost", fmt.Sprint("PRIMARY_PORT=", port), "SECRETS=" + filepath.Join(i.dir, "secrets/postgres-standby")}
	stopStandby := i.serve(second, "sh", append([]string{"standby.sh"}, settings("postgres-standby", second)...)...)
	if err := <-committed; err != nil {
		t.Errorf("with the standby: %v", err)
	}
	if out, err := sql(port, "verify-full", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		port        int
		query, want string
	}{
		{port, "SELECT ssl, current_setting('synchronous_commit') FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "t|on"},
		{port, "SELECT rolsuper, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = 'tidegate'", "f|f|f"},
		{port, "SHOW max_connections", "200"},
		{port, "SHOW data_checksums", "on"},
		{second, "SELECT n, pg_is_in_recovery() FROM kept", "7|t"},
	} {
		if out, err := sql(c.port, "verify-full", c.query); err != nil || out != c.want {
			t.Errorf("%s: %q, %v, want %q", c.query, out, err, c.want)
		}
	}
	// Started again it is a standby still, without another copy.
	stopStandby()
	i.serve(second, "sh", append([]string{"standby.sh"}, settings("postgres-standby", second)...)...)
	if out, err := sql(second, "verify-full", "SELECT n FROM kept"); err != nil || out != "7" {
		t.Errorf("after its restart: %q, %v", out, err)
	}
}
