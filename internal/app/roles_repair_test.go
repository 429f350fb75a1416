package app_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/services"
)

// A journal that lost its tail is noticed by the projector, and by gateways that
// are told of the anchor; an operator makes the tables again and opens an era.
func TestEraOnPostgres(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{})
	anchor := filepath.Join(t.TempDir(), "anchor.txt")
	c := newCluster(t, pg, fmt.Sprintf("anchors: [%q]\n", anchor))
	c.migrate()
	gateway, projector := c.start("gateway", "gateway-1"), c.start("projector", "projector-1")
	gateway.said("msg=serving")
	projector.said("msg=projecting")
	c.ok("seed", "--data", c.root, "--config", c.config, "--participants", "20")
	c.ok("load", "--target", "http://"+gateway.value("http"), "--data", c.root, "--phones", "20", "--over", "1s", "--retry")
	gateway.stop()
	projector.stop() // which signs its last checkpoint
	if _, err := os.Stat(anchor); err != nil {
		t.Fatal(err)
	}
	database := c.journal[strings.LastIndex(c.journal, "/")+1:]
	database, _, _ = strings.Cut(database, "?")
	pg.Exec(database, "DELETE FROM tidegate_journal.frame WHERE position > (SELECT position - 3 FROM tidegate_journal.head)", "UPDATE tidegate_journal.head SET position = position - 3")

	projector = c.launch("projector", "projector-1")
	projector.said("acknowledged reports may be missing")
	eventually(t, "the status says so", func() bool {
		d := projector.status().Dependencies["projector"]
		return d.State == "stopped" && strings.Contains(d.Note, "tidegate rebuild --config")
	})
	gateway = c.launch("gateway", "gateway-1")
	<-gateway.ended
	if code := gateway.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(gateway.output(), "tidegate era open") {
		t.Errorf("a gateway above a journal that ends below its anchor: %d\n%s", code, gateway.output())
	}
	if out, errs, code := c.run("verify", "--data", c.root, "--config", c.config); code != 1 {
		t.Errorf("verify finds nothing: %s%s", out, errs)
	}
	era := []string{"era", "open", "--data", c.root, "--config", c.config, "--reason", "a test cut the tail"}
	if _, errs, code := c.run(era...); code != 1 || !strings.Contains(errs, "tidegate rebuild --config") {
		t.Errorf("era open above tables of another journal: %d %s", code, errs)
	}
	c.ok("rebuild", "--data", c.root, "--config", c.config)
	if out := c.ok(era...); !strings.Contains(out, "Era 2 is open") {
		t.Error(out)
	}
	eventually(t, "the projector goes on by itself", func() bool { return projector.status().Dependencies["projector"].State == stateActive })
	gateway = c.launch("gateway", "gateway-1")
	gateway.said("msg=serving")
	gateway.stop()
	projector.stop()
	c.ok("verify", "--data", c.root, "--config", c.config)
}

const stateActive = "active"

// Keys of processes are issued and retired from the root folder; an auditor
// needs the public ones alone.
func TestKeysOnPostgres(t *testing.T) {
	t.Parallel()
	pg := services.SharedPostgres(t)
	c := newCluster(t, pg, "")
	c.migrate()
	gateway, projector := c.start("gateway", "gateway-1"), c.start("projector", "projector-1")
	gateway.said("msg=serving")
	projector.said("msg=projecting")
	c.ok("seed", "--data", c.root, "--config", c.config, "--participants", "10")
	url, acks := "http://"+gateway.value("http"), filepath.Join(c.dir, "acks.ndjson")
	c.ok("load", "--target", url, "--data", c.root, "--phones", "10", "--over", "1s", "--retry", "--acks", acks)
	gateway.stop()
	dir := filepath.Join(c.dir, "gateway-1")
	first := signingKey(t, c.ok("keys", "list", "--data", c.root, "--config", c.config), "gateway-1")
	c.ok("keys", "issue", "--data", c.root, "--to", dir, "--name", "gateway-1")
	gateway = c.launch("gateway", "gateway-1")
	gateway.said("msg=serving")
	url = "http://" + gateway.value("http")
	c.ok("keys", "retire", first, "--data", c.root, "--config", c.config, "--reason", "rotated")
	if out := c.ok("keys", "list", "--data", c.root, "--config", c.config); !strings.Contains(out, first) || !strings.Contains(out, "retired") {
		t.Error(out)
	}
	c.ok("load", "--target", url, "--data", c.root, "--phones", "10", "--over", "1s", "--retry", "--acks", acks)
	keys := filepath.Join(c.dir, "keys.json")
	code, body := get(t, url+"/v1/keys", "")
	if code != http.StatusOK || !strings.Contains(body, first) {
		t.Fatalf("%d %s", code, body)
	}
	if err := os.WriteFile(keys, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	out := c.ok("verify", "--journal", c.journal, "--keys", keys, "--root", gateway.value("root"), "--acks", acks)
	if !strings.Contains(out, "acks         20") || !strings.Contains(out, "lost         0") {
		t.Error(out)
	}
	gateway.stop()
	projector.stop()
}

// signingKey is the last key of a process in what keys list prints.
func signingKey(t *testing.T, list, name string) (id string) {
	t.Helper()
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) > 1 && strings.Contains(line, "issued to "+name) {
			id = f[1]
		}
	}
	if id == "" {
		t.Fatalf("no key of %s in\n%s", name, list)
	}
	return id
}

// A role stops in time also while its database hangs.
func TestStopWhileFrozen(t *testing.T) {
	t.Parallel()
	pg := services.Postgres(t, services.PGOptions{})
	c := newCluster(t, pg, "")
	c.migrate()
	gateway, trial, projector := c.start("gateway", "gateway-1"), c.start("trial", "trial-1", "--rpc", "127.0.0.1:0"), c.start("projector", "projector-1")
	for _, r := range []*roleProcess{gateway, trial, projector} {
		r.said("msg=serving")
	}
	projector.said("msg=projecting")
	standby := c.start("projector", "projector-2")
	standby.said("msg=serving")
	phone := strings.TrimSpace(c.ok("token", "participant", "--data", c.root, "--patient", "P-000001", "--trial", "T001"))
	url := "http://" + gateway.value("http")
	pg.Freeze()
	answered := make(chan string, 1)
	go func() {
		code, body := report(t, url, phone, 1)
		answered <- fmt.Sprint(code, body)
	}()
	time.Sleep(300 * time.Millisecond)
	start := time.Now()
	for _, r := range []*roleProcess{gateway, trial, projector, standby} {
		_ = r.cmd.Process.Signal(os.Interrupt)
	}
	for _, r := range []*roleProcess{gateway, trial, projector, standby} {
		select {
		case <-r.ended:
			t.Logf("%s: %v after %v", r.name, r.cmd.ProcessState, time.Since(start))
		case <-time.After(12 * time.Second):
			t.Fatalf("%s does not stop", r.name)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s took %v to stop", r.name, took)
		}
		if strings.Contains(r.output(), "did not end in time") {
			t.Errorf("%s names parts that did not stop, and nothing to do:\n%s", r.name, r.output())
		}
	}
	// Only the gateway had a frame on its way: that is all that is not clean, told once.
	const unknown = "whether the journal keeps the last frame is not known"
	if code := gateway.cmd.ProcessState.ExitCode(); code != 1 || strings.Count(gateway.output(), unknown) != 1 {
		t.Errorf("the gateway ended with exit code %d and said\n%s", code, gateway.output())
	}
	for _, r := range []*roleProcess{trial, projector, standby} {
		if code := r.cmd.ProcessState.ExitCode(); code != 0 || !strings.Contains(r.output(), "stopped cleanly") {
			t.Errorf("%s ended with exit code %d and said\n%s", r.name, code, r.output())
		}
	}
	if a := <-answered; !strings.HasPrefix(a, "503") || !strings.Contains(a, `"accepted":"unknown"`) {
		t.Errorf("the phone in hand was told %s", a)
	}
	pg.Thaw()
}
