package app_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/services"
)

// A role whose key was retired stops, does not start again with it, and goes on
// with a new one: what the old key signed meanwhile nobody could rely on.
func TestRoleWithRetiredKey(t *testing.T) {
	c := newCluster(t, services.SharedPostgres(t), "")
	c.migrate()
	projector := c.start("projector", "projector-1")
	projector.said("msg=projecting")
	for _, role := range []string{"gateway", "trial"} {
		name := role + "-1"
		more := map[string][]string{"trial": {"--rpc", "127.0.0.1:0"}}[role]
		p := c.start(role, name, more...)
		p.said("msg=serving")
		// Not before the tables know the key: a retirement counts after its certificate.
		eventually(t, "the key is known", func() bool {
			out, _, _ := c.run("keys", "list", "--data", c.root, "--config", c.config)
			return strings.Contains(out, "issued to "+name)
		})
		key := signingKey(t, c.ok("keys", "list", "--data", c.root, "--config", c.config), name)
		c.ok("keys", "retire", key, "--data", c.root, "--config", c.config, "--reason", "compromised")
		refused := func(p *roleProcess) {
			t.Helper()
			select {
			case <-p.ended:
			case <-time.After(60 * time.Second):
				t.Fatalf("%s goes on signing with a retired key", name)
			}
			if code := p.cmd.ProcessState.ExitCode(); code != 1 || strings.Count(p.output(), key+" as compromised") != 1 || !strings.Contains(p.output(), "keys issue --name "+name) {
				t.Errorf("%s: exit code %d\n%s", name, code, p.output())
			}
		}
		refused(p)
		refused(c.launch(role, name, more...)) // at once, or as soon as the tables can be read
		c.ok("keys", "issue", "--data", c.root, "--to", filepath.Join(c.dir, name), "--name", name)
		renewed := c.launch(role, name, more...)
		renewed.said("msg=serving")
		if code, body := get(t, "http://"+renewed.value("admin")+"/readyz", ""); code != http.StatusOK {
			t.Errorf("%s with a new key: %d %s", name, code, body)
		}
		renewed.stop()
	}
	projector.stop()
}
