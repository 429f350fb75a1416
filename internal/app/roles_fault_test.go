package app_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/vault/pgvault"
	"github.com/tidegate/tidegate/test/services"
)

func report(t *testing.T, url, token string, n int) (int, string) {
	t.Helper()
	body := fmt.Sprintf(`{"patientId":"P-000001","trialId":"T001","timestamp":"2026-01-02T03:04:%02d.%03dZ","qolScore":4}`, n/1000%60, n%1000)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/patient/report", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// within fails when f takes so long that it must be called hanging: nobody may
// because a server does. Every bound that is set in these tests is 3 s or less.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("%s took %v", what, took)
	}
}

// eventually tries until f says that it is so.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// A gateway starts and takes reports while the journal is all there is.
func TestGatewayNeedsTheJournalAlone(t *testing.T) {
	t.Parallel()
	journal, other := services.SharedPostgres(t), services.Postgres(t, services.PGOptions{})
	elsewhere := other.NewDatabase(t)
	c := newClusterOn(t, journal.NewDatabase(t), elsewhere, elsewhere, "etcd:\n  endpoints: [\"127.0.0.1:1\"]\n  dialTimeout: 1s\n")
	other.Kill()
	c.migrateJournal()
	gateway := c.start("gateway", "gateway-1")
	gateway.said("msg=serving")
	url := "http://" + gateway.value("http")
	phone := strings.TrimSpace(c.ok("token", "participant", "--data", c.root, "--patient", "P-000001", "--trial", "T001"))
	for i := range 20 {
		if code, body := report(t, url, phone, i); code != http.StatusOK || !strings.Contains(body, `"receipt"`) {
			t.Fatalf("report %d: %d %s", i, code, body)
		}
	}
	for _, path := range []string{"/v1/patient/reports", "/v1/keys", "/v1/patient/trials"} {
		within(t, path, func() {
			if code, body := get(t, url+path, phone); code != http.StatusServiceUnavailable || !strings.Contains(body, `"type":"urn:tidegate:problem:`) {
				t.Errorf("%s: %d %s", path, code, body)
			}
		})
	}
	within(t, "status", func() {
		s := gateway.status()
		if !s.Ready || !s.Dependencies["journal"].OK {
			t.Errorf("%+v", s)
		}
		for _, name := range []string{"tables", "vault", "projector", "trial service", "directory"} {
			if d, there := s.Dependencies[name]; !there || d.OK {
				t.Errorf("%s: %+v", name, d)
			}
		}
	})
	eventually(t, "etcd is known to be away", func() bool { return !gateway.status().Dependencies["etcd"].OK })
	other.Start()
	if _, _, err := pgvault.Migrate(t.Context(), postgres.Options{URL: c.vault}); err != nil {
		t.Fatal(err)
	}
	projector := c.start("projector", "projector-1")
	projector.said("msg=projecting")
	eventually(t, "the patient's reports are shown", func() bool {
		code, body := get(t, url+"/v1/patient/reports", phone)
		return code == http.StatusOK && strings.Count(body, `"reportId"`) == 20
	})
	gateway.stop()
	projector.stop()
}

// A database that hangs hangs nobody: phones are told that it is not known, or
// that nothing was taken, screens get a 503, and afterwards all goes on.
func TestFrozenDatabase(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{})
	c := newCluster(t, pg, "intake:\n  waitLimit: 2s\n  maxAge: 1s\n")
	c.migrate()
	gateway, projector := c.start("gateway", "gateway-1"), c.start("projector", "projector-1")
	gateway.said("msg=serving")
	projector.said("msg=projecting")
	url := "http://" + gateway.value("http")
	phone := strings.TrimSpace(c.ok("token", "participant", "--data", c.root, "--patient", "P-000001", "--trial", "T001"))
	if code, body := report(t, url, phone, 0); code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	pg.Freeze()
	for i := 1; i < 4; i++ {
		within(t, "a report", func() {
			if code, body := report(t, url, phone, i); code != http.StatusServiceUnavailable || !strings.Contains(body, `"accepted":`) {
				t.Errorf("a report to a frozen database: %d %s", code, body)
			}
		})
	}
	eventually(t, "the gateway says that its journal is slow", func() bool {
		d := gateway.status().Dependencies["journal"]
		return d.State == "slow" && !d.OK && strings.Contains(d.Note, "waited")
	})
	if code, _ := get(t, "http://"+gateway.value("admin")+"/readyz", ""); code != http.StatusOK {
		t.Errorf("readyz %d: phones are moved to a gateway that waits for the same database", code)
	}
	if _, page := get(t, "http://"+gateway.value("admin")+"/metrics", ""); !strings.Contains(page, `tidegate_ready{role="gateway"} 1`) || !strings.Contains(page, `tidegate_dependency_up{dependency="journal"} 0`) {
		t.Errorf("the gateway's metrics:\n%s", page)
	}
	for _, path := range []string{"/v1/patient/reports", "/v1/keys"} {
		within(t, path, func() {
			if code, body := get(t, url+path, phone); code != http.StatusServiceUnavailable {
				t.Errorf("%s: %d %s", path, code, body)
			}
		})
	}
	for _, r := range []*roleProcess{gateway, projector} {
		for _, page := range []string{"/status", "/metrics", "/readyz", "/healthz"} {
			within(t, r.name+page, func() { get(t, "http://"+r.value("admin")+page, "") })
		}
	}
	pg.Thaw()
	eventually(t, "reports are taken again", func() bool { code, _ := report(t, url, phone, 1); return code == http.StatusOK })
	eventually(t, "all is well again", func() bool {
		for _, r := range []*roleProcess{gateway, projector} {
			for _, d := range r.status().Dependencies {
				if !d.OK && d.State != "failing" {
					return false
				}
			}
		}
		return true
	})
	// Nobody sends now: the journal is missed all the same.
	pg.Freeze()
	eventually(t, "an idle gateway misses its journal", func() bool {
		d := gateway.status().Dependencies["journal"]
		return d.State == "failing" && !d.OK && strings.Contains(d.Note, "reports get a 503")
	})
	pg.Thaw()
	eventually(t, "it has it again", func() bool { return gateway.status().Dependencies["journal"].OK })
	gateway.stop()
	projector.stop()
	c.ok("verify", "--data", c.root, "--config", c.config)
}

// Two projectors without etcd: the cursor's fence decides, one stands aside, and
// goes on when the other is killed.
func TestTwoProjectors(t *testing.T) {
	t.Parallel()
	c := newCluster(t, services.SharedPostgres(t), "")
	c.migrate()
	one := c.start("projector", "projector-1")
	one.said("msg=projecting")
	two := c.start("projector", "projector-2")
	two.said("msg=projecting")
	c.ok("seed", "--data", c.root, "--config", c.config, "--participants", "50")
	eventually(t, "one of them stands aside", func() bool {
		return strings.Contains(one.output()+two.output(), "stands aside")
	})
	first, second := one, two
	if strings.Contains(one.output(), "stands aside") {
		first, second = two, one
	}
	_ = first.cmd.Process.Signal(syscall.SIGKILL)
	<-first.ended
	c.ok("token", "staff", "--data", c.root, "--config", c.config, "--role", "monitor", "--name", "eve")
	eventually(t, "the other one is active", func() bool { return second.status().Dependencies["projector"].State == "active" })
	second.stop()
	c.ok("verify", "--data", c.root, "--config", c.config)
}

// What cannot get better ends the start with a sentence.
func TestRoleRefusals(t *testing.T) {
	t.Parallel()
	pg := services.SharedPostgres(t)
	c := newCluster(t, pg, "")
	c.migrate()
	c.ok("keys", "issue", "--data", c.root, "--to", filepath.Join(c.dir, "g"), "--name", "g")
	passwordless := filepath.Join(c.dir, "passwordless.yaml")
	if err := os.WriteFile(passwordless, fmt.Appendf(nil, "postgres:\n  url: %q\n  passwordFile: %q\n", c.journal, filepath.Join(c.dir, "nosuch.txt")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no such role":     {[]string{"serve", "gatway", "--data", filepath.Join(c.dir, "g")}, 2, "there is no role"},
		"no database":      {[]string{"serve", "gateway", "--data", filepath.Join(c.dir, "g")}, 2, "postgres.url"},
		"no such folder":   {[]string{"serve", "gateway", "--data", filepath.Join(c.dir, "mistyped"), "--config", c.config}, 1, "mistyped is no folder"},
		"no password file": {[]string{"migrate", "--check", "--config", passwordless}, 1, "nosuch.txt cannot be read: see postgres.passwordFile"},
		"all in one":       {[]string{"serve", "--data", filepath.Join(c.dir, "g"), "--config", c.config}, 2, "each role is a process of its own"},
		"demo":             {[]string{"demo", "--data", filepath.Join(c.dir, "g"), "--config", c.config}, 2, "each role is a process of its own"},
		"go-zero's file":   {[]string{"serve", "gateway", "-f", c.config, "--config", c.config}, 2, "trial role"},
		"no address":       {[]string{"serve", "trial", "--data", filepath.Join(c.dir, "g"), "--config", c.config, "--rpc", "none"}, 1, "needs an address"},
		"no such file":     {[]string{"serve", "trial", "--data", filepath.Join(c.dir, "g"), "--config", c.config, "-f", "/none.yaml"}, 1, "/none.yaml"},
		"one machine's":    {[]string{"rebuild", "--data", filepath.Join(c.dir, "nothing"), "--config", c.config}, 0, ""},
		"keys of a folder": {[]string{"seed", "--data", filepath.Join(c.dir, "nothing"), "--config", c.config}, 1, "holds no keys"},
		"rotate":           {[]string{"keys", "rotate", "--data", c.root, "--config", c.config}, 1, "tidegate keys issue"},
	} {
		out, errs, code := c.run(x.args...)
		if code != x.code || !strings.Contains(errs, x.says) {
			t.Errorf("%s: exit code %d\n%s%s", name, code, out, errs)
		}
	}
}

// Whoever waits for a database says what is to be done about it, as migrate does.
func TestWaitingSaysWhatToDo(t *testing.T) {
	t.Parallel()
	pg := services.SharedPostgres(t)
	nowhere := pg.URL("nosuch_database")
	c := newClusterOn(t, nowhere, pg.NewDatabase(t), nowhere, "")
	c.start("gateway", "gateway-1").said("msg=waiting role=gateway for=\"the journal\" error=\"there is no such database: create it")
	c = newClusterOn(t, pg.NewDatabase(t), nowhere, nowhere, "")
	c.migrateJournal()
	c.start("gateway", "gateway-2").said("part=\"the tables\" error=\"there is no such database: create it")
}
