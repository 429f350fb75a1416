package app_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/test/services"
)

// refuses waits until a role gave up.
func (r *roleProcess) refuses(texts ...string) {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		r.t.Fatalf("%s goes on", r.name)
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 1 {
		r.t.Errorf("%s: exit code %d", r.name, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.output(), text) {
			r.t.Errorf("%s does not say %q", r.name, text)
		}
	}
}

// openJournal opens the cluster's journal beside its roles.
func (c *cluster) openJournal() *pgjournal.Journal {
	c.t.Helper()
	j, err := pgjournal.Open(c.t.Context(), pgjournal.Options{Postgres: postgres.Options{URL: c.journal}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = j.Close() })
	return j
}

func endOf(t *testing.T, j journal.Journal) journal.Position {
	t.Helper()
	end, err := j.End(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return end.Position
}

// Keys of another installation append nothing: neither a role's nor a command's.
// What somebody wrote past that is passed over by everybody, and found by an audit.
func TestJournalOfAnotherInstallation(t *testing.T) {
	t.Parallel()
	c := newCluster(t, services.SharedPostgres(t), "")
	c.migrate()
	projector, gateway := c.start("projector", "projector-1"), c.start("gateway", "gateway-1")
	projector.said("msg=projecting")
	gateway.said("msg=serving")
	seed := []string{"seed", "--config", c.config, "--participants", "5", "--data"}
	c.ok(append(seed, c.root)...)
	gateway.stop()
	projector.stop()
	j := c.openJournal()
	before := endOf(t, j)

	other := &cluster{t: t, dir: c.dir, root: filepath.Join(c.dir, "other-root"), config: c.config, binary: c.binary, journal: c.journal}
	other.ok("keys", "init", "--data", other.root)
	keys, err := auth.LoadKeys(filepath.Join(other.root, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	for role, args := range map[string][]string{"gateway": nil, "trial": {"--rpc", "127.0.0.1:0"}, "projector": nil} {
		other.start(role, "foreign-"+role, args...).refuses("belongs to another installation", keys.Fingerprint())
	}
	for _, args := range [][]string{
		append(seed, other.root),
		{"token", "staff", "--config", c.config, "--role", "monitor", "--name", "eve", "--data", other.root},
		{"keys", "retire", "0123456789abcdef", "--config", c.config, "--data", other.root},
		{"verify", "--config", c.config, "--data", other.root},
	} {
		if out, errs, code := c.run(args...); code != 1 || !strings.Contains(errs, "belongs to another installation") {
			t.Errorf("%s: %d %s%s", args[0], code, out, errs)
		}
	}
	if end := endOf(t, j); end != before {
		t.Fatalf("%d frames were appended", end-before)
	}

	// A version that did not ask, or somebody with access to the database.
	in, err := intake.New(t.Context(), j, keys.Signer(), intake.Options{Config: intake.NewDefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	cert := keys.Certificates()[0]
	for _, body := range []any{cert, map[string]int{"keyId": 1}} {
		f, err := registry.Fact(registry.Command{Kind: epro.KindKeyAdded, ID: epro.NewUUID(), Actor: epro.Actor{Type: epro.ActorSystem, ID: "keys"}, Body: body}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Submit(t.Context(), &f); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	projector, gateway = c.launch("projector", "projector-1"), c.launch("gateway", "gateway-1")
	projector.said("msg=projecting")
	gateway.said("msg=serving")
	c.ok("load", "--target", "http://"+gateway.value("http"), "--data", c.root, "--phones", "5", "--over", "1s", "--retry")
	c.ok(append(seed, c.root)...)
	if out := c.ok("keys", "list", "--data", c.root, "--config", c.config); !strings.Contains(out, fmt.Sprintf("foreign  %q  not certified by this root", cert.KeyID)) {
		t.Errorf("keys list says\n%s", out)
	}
	if code, body := get(t, "http://"+gateway.value("http")+"/v1/keys", ""); code != http.StatusOK || strings.Contains(body, cert.KeyID) {
		t.Errorf("GET /v1/keys: %d %s", code, body)
	}
	out, errs, code := c.run("verify", "--data", c.root, "--config", c.config)
	if code != 1 || strings.Count(out, "counts for nothing") != 2 || !strings.Contains(out, cert.KeyID) {
		t.Errorf("verify: %d %s%s", code, out, errs)
	}
	gateway.stop()
	projector.stop()
	gateway = c.launch("gateway", "gateway-1")
	gateway.said("that this root did not certify")
	gateway.stop()
	other.launch("gateway", "foreign-gateway").refuses("belongs to another installation") // though its certificate is there now
}

// An anchor that saw reports keeps an empty database from being taken for the
// journal, though nobody there knows who signed it.
func TestEmptyJournalBelowAnchor(t *testing.T) {
	t.Parallel()
	pg := services.SharedPostgres(t)
	anchor := filepath.Join(t.TempDir(), "anchor.txt")
	c := newCluster(t, pg, fmt.Sprintf("anchors: [%q]\n", anchor))
	c.migrate()
	projector := c.start("projector", "projector-1")
	projector.said("msg=projecting")
	c.ok("seed", "--data", c.root, "--config", c.config, "--participants", "5")
	projector.stop()
	seen, err := os.ReadFile(anchor)
	if err != nil {
		t.Fatal(err)
	}

	url := pg.NewDatabase(t)
	empty := newClusterOn(t, url, url, url, fmt.Sprintf("anchors: [%q]\n", anchor))
	empty.root = c.root
	empty.migrate()
	j := empty.openJournal()
	gateway := empty.start("gateway", "gateway-2")
	gateway.said("tidegate era open")
	trial := empty.start("trial", "trial-2", "--rpc", "127.0.0.1:0")
	trial.said("tidegate era open")
	if s := gateway.status(); s.Ready || !strings.Contains(s.NotReady, "the journal that the anchors saw") {
		t.Errorf("the gateway says %+v", s)
	}
	if strings.Contains(gateway.output(), " http=") {
		t.Error("the gateway listens for phones")
	}
	projector = empty.start("projector", "projector-2") // whose key did not sign the anchor
	projector.said("the projector stopped")
	if d := projector.status().Dependencies["projector"]; d.State != "stopped" || !strings.Contains(d.Note, "the frames behind it are missing") {
		t.Errorf("the projector says %+v", d)
	}
	if _, errs, code := empty.run("token", "staff", "--config", empty.config, "--role", "monitor", "--name", "eve", "--data", filepath.Join(empty.dir, "gateway-2")); code != 1 || !strings.Contains(errs, "are missing") {
		t.Errorf("token staff: %d %s", code, errs)
	}
	if end := endOf(t, j); end != 0 {
		t.Errorf("%d frames were appended", end)
	}
	if now, err := os.ReadFile(anchor); err != nil || string(now) != string(seen) {
		t.Errorf("the anchor was changed: %v", err)
	}
	select {
	case <-gateway.ended:
		t.Error("the gateway does not wait")
	default:
	}

	// Somebody decides to go on without: the gateway was waiting for that.
	if out := empty.ok("era", "open", "--data", c.root, "--config", empty.config, "--reason", "the test's other database"); !strings.Contains(out, "Era 2 is open") {
		t.Error(out)
	}
	gateway.said("msg=serving")
	trial.said("msg=serving")
	eventually(t, "the projector goes on", func() bool { return projector.status().Dependencies["projector"].State == stateActive })
	gateway.stop()
	trial.stop()
	projector.stop()
}
