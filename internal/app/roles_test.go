package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/vault/pgvault"
	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

// A cluster is the second shape on this machine: one root folder, a configuration,
// and databases for journal, tables and vault that can be apart.
type cluster struct {
	t                     *testing.T
	dir, root, config     string
	binary                string
	journal, store, vault string
}

func newCluster(t *testing.T, pg *services.PG, more string) *cluster {
	t.Helper()
	url := pg.NewDatabase(t)
	return newClusterOn(t, url, url, url, more)
}

func newClusterOn(t *testing.T, journal, store, vault, more string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), binary: server.Binary(t, ""), journal: journal, store: store, vault: vault}
	c.root, c.config = filepath.Join(c.dir, "root"), filepath.Join(c.dir, "tidegate.yaml")
	text := fmt.Sprintf("postgres:\n  journalURL: %q\n  storeURL: %q\n  vaultURL: %q\n  connectTimeout: 2s\n  statementTimeout: 2s\n%s", journal, store, vault, more)
	if err := os.WriteFile(c.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.ok("keys", "init", "--data", c.root)
	return c
}

func (c *cluster) migrateJournal() {
	c.t.Helper()
	if _, _, err := pgjournal.Migrate(c.t.Context(), postgres.Options{URL: c.journal}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) migrate() {
	c.t.Helper()
	c.migrateJournal()
	if _, _, err := pgvault.Migrate(c.t.Context(), postgres.Options{URL: c.vault}); err != nil {
		c.t.Fatal(err)
	}
}

// run runs a command of the binary.
func (c *cluster) run(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	cmd := exec.Command(c.binary, args...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = server.Environ(), &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (c *cluster) ok(args ...string) string {
	c.t.Helper()
	out, errs, code := c.run(args...)
	if code != 0 {
		c.t.Fatalf("tidegate %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// roleProcess is a role that runs.
type roleProcess struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	mu    sync.Mutex
	out   bytes.Buffer
	ended chan struct{}
}

func (r *roleProcess) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *roleProcess) output() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

// start starts a role in a folder of its own, with keys that were issued to it.
func (c *cluster) start(role, name string, args ...string) *roleProcess {
	c.t.Helper()
	dir := filepath.Join(c.dir, name)
	if _, err := os.Stat(dir); err != nil {
		c.ok("keys", "issue", "--data", c.root, "--to", dir, "--name", name)
	}
	return c.launch(role, name, args...)
}

func (c *cluster) launch(role, name string, args ...string) *roleProcess {
	c.t.Helper()
	r := &roleProcess{t: c.t, name: name, ended: make(chan struct{})}
	args = append([]string{"serve", role, "--data", filepath.Join(c.dir, name), "--config", c.config, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, args...)
	r.cmd = exec.Command(c.binary, args...)
	r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = server.Environ(), r, r
	if err := r.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() { _ = r.cmd.Wait(); close(r.ended) }()
	c.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
		if c.t.Failed() {
			c.t.Logf("%s said:\n%s", name, r.output())
		}
	})
	return r
}

// said waits until the process's log holds a text.
func (r *roleProcess) said(text string) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(r.output(), text) {
			return
		}
		select {
		case <-r.ended:
			r.t.Fatalf("%s ended without having said %q:\n%s", r.name, text, r.output())
		default:
		}
	}
	r.t.Fatalf("%s did not say %q", r.name, text)
}

// value is the last value of a key in the log.
func (r *roleProcess) value(key string) string {
	r.t.Helper()
	var last string
	for field := range strings.FieldsSeq(r.output()) {
		if v, ok := strings.CutPrefix(field, key+"="); ok {
			last = v
		}
	}
	if last == "" {
		r.t.Fatalf("%s named no %s:\n%s", r.name, key, r.output())
	}
	return last
}

// stop asks the process to stop, which must take no longer than 10 s.
func (r *roleProcess) stop() {
	r.t.Helper()
	start := time.Now()
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(15 * time.Second):
	}
	if took := time.Since(start); took > 10*time.Second || r.cmd.ProcessState == nil || r.cmd.ProcessState.ExitCode() != 0 {
		r.t.Fatalf("%s stopped in %v with %v", r.name, took, r.cmd.ProcessState)
	}
}

func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

type roleStatus struct {
	Role         string
	Ready        bool
	NotReady     string
	Dependencies map[string]struct {
		OK          bool
		State, Note string
	}
}

func (r *roleProcess) status() (s roleStatus) {
	r.t.Helper()
	code, body := get(r.t, "http://"+r.value("admin")+"/status", "")
	if err := json.Unmarshal([]byte(body), &s); code != http.StatusOK || err != nil {
		r.t.Fatalf("status %d, %v: %s", code, err, body)
	}
	return s
}

// Roles start in any order, before the database is set up, and work together.
func TestRolesTogether(t *testing.T) {
	t.Parallel()
	pg := services.SharedPostgres(t)
	etcd := services.Etcd(t)
	c := newCluster(t, pg, fmt.Sprintf("etcd:\n  endpoints: [%q]\n  key: %q\n  election: %q\n", etcd.Endpoint(), t.Name()+"/trial.rpc", t.Name()+"/projector"))
	gateway, projector := c.start("gateway", "gateway-1"), c.start("projector", "projector-1")
	yaml := filepath.Join(c.dir, "trial.yaml")
	if err := os.WriteFile(yaml, []byte("Name: trial.rpc\nListenOn: 127.0.0.1:1\nTimeout: 1500\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	trial := c.start("trial", "trial-1", "-f", yaml, "--rpc", "127.0.0.1:0")
	gateway.said("msg=waiting")
	projector.said("msg=waiting")
	if s := gateway.status(); s.Ready || !strings.Contains(s.NotReady, "waiting for the journal") {
		t.Errorf("a gateway without a journal: %+v", s)
	}
	if out, _, code := c.run("status", "--data", filepath.Join(c.dir, "gateway-1")); code != 1 {
		t.Errorf("status of a gateway that waits: %d %s", code, out)
	}
	c.migrate()
	gateway.said("msg=serving")
	projector.said("msg=projecting")
	if n := strings.Count(gateway.output(), "the wait is over"); n != 1 {
		t.Errorf("the end of a wait was told %d times", n)
	}
	c.ok("seed", "--data", c.root, "--config", c.config, "--participants", "20")
	url := "http://" + gateway.value("http")
	acks := filepath.Join(c.dir, "acks.ndjson")
	c.ok("load", "--target", url, "--data", c.root, "--phones", "20", "--over", "1s", "--retry", "--acks", acks)
	token := strings.TrimSpace(c.ok("token", "staff", "--data", c.root, "--config", c.config, "--role", "coordinator", "--name", "anna", "--trial", "T001"))
	if code, body := get(t, url+"/v1/trials/T001/books", token); code != http.StatusOK || !strings.Contains(body, `"accepted":20`) {
		t.Errorf("books: %d %s", code, body)
	}
	phone := strings.TrimSpace(c.ok("token", "participant", "--data", c.root, "--patient", "P-000002", "--trial", "T001"))
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		code, body := get(t, url+"/v1/patient/trials", phone)
		if code == http.StatusOK && strings.Contains(body, `"T001"`) && !strings.Contains(body, `"T002"`) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("own trials: %d %s", code, body)
		}
	}
	for role, r := range map[string]*roleProcess{"gateway": gateway, "trial": trial, "projector": projector} {
		if s := r.status(); s.Role != role || s.Dependencies["etcd"].State == "" {
			t.Errorf("the %s's status names no etcd, or another role: %+v", role, s)
		}
		for name, d := range r.status().Dependencies {
			if !d.OK {
				t.Errorf("%s: %s is %s: %s", r.name, name, d.State, d.Note)
			}
		}
	}
	// What a role does not have is not shown as 0.
	shown := c.ok("status", "--data", filepath.Join(c.dir, "trial-1"))
	if !strings.Contains(shown, "for want of room\n") || strings.Contains(shown, "too fast") {
		t.Errorf("status of the trial role:\n%s", shown)
	}
	if shown = c.ok("status", "--data", filepath.Join(c.dir, "projector-1")); strings.Contains(shown, "intake") || strings.Contains(shown, "refused") {
		t.Errorf("status of the projector role:\n%s", shown)
	}
	for _, r := range []*roleProcess{gateway, trial, projector} {
		role := strings.TrimSuffix(r.name, "-1")
		if _, page := get(t, "http://"+r.value("admin")+"/metrics", ""); strings.Count(page, "tidegate_ready{") != 1 || !strings.Contains(page, fmt.Sprintf("tidegate_ready{role=%q} 1", role)) {
			t.Errorf("%s does not say in its metrics that it is ready", role)
		}
	}
	out := c.ok("verify", "--data", c.root, "--config", c.config, "--acks", acks)
	t.Log(out)
	c.ok("verify", "--data", filepath.Join(c.dir, "gateway-1"), "--journal", c.journal, "--acks", acks)
	gateway.stop()
	trial.stop()
	projector.stop()
	first := c.ok("rebuild", "--data", c.root, "--config", c.config, "--json")
	second := c.ok("rebuild", "--data", c.root, "--config", c.config, "--json")
	t.Log(first, second)
	out = c.ok("keys", "list", "--data", c.root, "--config", c.config)
	if strings.Count(out, "issued to") != 3 {
		t.Error(out)
	}
}
