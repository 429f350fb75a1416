package app_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/test/services"
)

// Anchors are signed by a projector, whose key only tables tell. While those are
// behind, the root folder knows it, and whoever does not says what is missing.
func TestAnchorsWhileTablesAreBehind(t *testing.T) {
	t.Parallel()
	anchor := filepath.Join(t.TempDir(), "anchor.txt")
	c := newCluster(t, services.SharedPostgres(t), fmt.Sprintf("anchors: [%q]\n", anchor))
	c.migrate()
	projector := c.start("projector", "projector-1")
	projector.said("msg=projecting")
	c.ok("seed", "--data", c.root, "--config", c.config, "--participants", "5")
	projector.stop() // which signs its last checkpoint
	if _, err := os.Stat(anchor); err != nil {
		t.Fatal(err)
	}
	c.ok("keys", "issue", "--data", c.root, "--to", filepath.Join(c.dir, "other"), "--name", "other")
	sqlExec(t, c.store, "DROP SCHEMA tidegate_store CASCADE")
	staff := []string{"token", "staff", "--config", c.config, "--role", "monitor", "--name", "eve", "--data"}
	_, errs, code := c.run(append(staff, filepath.Join(c.dir, "other"))...)
	if code != 1 || !strings.Contains(errs, "are behind the journal (at position 0 of ") || strings.Contains(errs, "move it away") {
		t.Errorf("with keys that know no other: exit %d, %s", code, errs)
	}
	if out := c.ok(append(staff, c.root)...); !strings.HasPrefix(out, "tgs1_") {
		t.Errorf("token staff says %s", out)
	}
	// Now the tables know, and so does everybody.
	c.ok(append(staff, filepath.Join(c.dir, "other"))...)
}

// A copy of a folder that was transferred is compared with the anchor that its
// successor's projector signs.
func TestRestoreOfTransferredFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	must(t, "seed", "--data", data, "--participants", "3")
	url := services.SharedPostgres(t).NewDatabase(t)
	out := must(t, "transfer", "--from", data, "--to", url)
	anchor := regexp.MustCompile(`Name the folder's anchor, (.+), in the anchors`).FindStringSubmatch(out)
	if anchor == nil {
		t.Fatalf("transfer says\n%s", out)
	}
	c := newClusterOn(t, url, url, url, fmt.Sprintf("anchors: [%q]\n", anchor[1]))
	c.root = data
	projector := c.start("projector", "projector-1")
	projector.said("msg=projecting")
	c.ok("seed", "--data", data, "--config", c.config, "--participants", "5")
	projector.stop()
	backup, restored := filepath.Join(dir, "backup"), filepath.Join(dir, "restored")
	must(t, "backup", "--data", data, "--to", backup)
	var got struct {
		Anchors []struct{ Anchor, State, Note string }
	}
	text := must(t, "restore", "--from", backup, "--data", restored, "--json")
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(got.Anchors) != 1 || got.Anchors[0].State != "below" {
		t.Errorf("restore says %s", text)
	}
}
