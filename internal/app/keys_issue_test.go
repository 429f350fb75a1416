package app_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/app"
	"github.com/tidegate/tidegate/internal/auth"
)

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := run(t, args...)
	if code != 0 {
		t.Fatalf("tidegate %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

type issuedAnswer struct {
	Name, KeyID, Keys, Root string
	Earlier                 []string
}

func issueKeys(t *testing.T, root, to, name string) (a issuedAnswer) {
	t.Helper()
	if err := json.Unmarshal([]byte(mustRun(t, "keys", "issue", "--data", root, "--to", to, "--name", name, "--json")), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// From nothing to a second key of one process, as an operator does it.
func TestKeysOfManyProcesses(t *testing.T) {
	dir := t.TempDir()
	root, gateway := filepath.Join(dir, "root"), filepath.Join(dir, "gateway-1")
	out := mustRun(t, "keys", "init", "--data", root)
	keys, err := auth.LoadKeys(filepath.Join(root, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, keys.Fingerprint()) || !strings.Contains(out, "tidegate keys issue --data "+root) {
		t.Errorf("keys init says\n%s", out)
	}
	if _, errs, code := run(t, "keys", "init", "--data", root); code != 1 || !strings.Contains(errs, keys.Fingerprint()) {
		t.Errorf("keys init over keys: exit %d, %s", code, errs)
	}
	if err := keys.RootOnline(); err != nil {
		t.Error(err)
	}

	out = mustRun(t, "keys", "issue", "--data", root, "--to", gateway, "--name", "gateway-1")
	own, err := auth.LoadKeys(filepath.Join(gateway, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	first := own.Signer().KeyID().String()
	if !strings.Contains(out, first) || own.Fingerprint() != keys.Fingerprint() || own.RootOnline() == nil {
		t.Errorf("keys issue says\n%s", out)
	}
	second := issueKeys(t, root, gateway, "gateway-1")
	if second.Name != "gateway-1" || second.KeyID == first || second.Root != keys.Fingerprint() || second.Keys != filepath.Join(gateway, "keys") ||
		len(second.Earlier) != 1 || second.Earlier[0] != first {
		t.Errorf("issued again: %+v", second)
	}
	if out := mustRun(t, "keys", "issue", "--data", root, "--to", gateway, "--name", "gateway-1"); !strings.Contains(out, "tidegate keys retire "+second.KeyID) {
		t.Errorf("issued a third time, without a word on the second:\n%s", out)
	}

	// The root folder knows them by name, and says what it cannot know.
	out, errs, code := run(t, "keys", "list", "--data", root)
	if code != 0 || strings.Count(out, "issued to gateway-1") != 3 || !strings.Contains(out, "in use") || !strings.Contains(errs, "GET /v1/keys") {
		t.Errorf("keys list: exit %d\n%s%s", code, out, errs)
	}
	// A token made in the root folder is good everywhere: it is made with the same key.
	if out := mustRun(t, "token", "participant", "--data", gateway, "--patient", "P-1", "--trial", "T001"); !strings.HasPrefix(out, "tgp1_") {
		t.Errorf("token: %s", out)
	}
	for _, c := range [][]string{
		{"keys", "rotate", "--data", gateway},
		{"keys", "issue", "--data", gateway, "--to", filepath.Join(dir, "x"), "--name", "x"},
	} {
		if _, errs, code := run(t, c...); code != 1 || !strings.Contains(errs, "root folder") {
			t.Errorf("tidegate %v: exit %d, %s", c, code, errs)
		}
	}
	for says, c := range map[string][]string{
		"of gateway-1":    {"keys", "issue", "--data", root, "--to", gateway, "--name", "gateway-2"},
		"own":             {"keys", "issue", "--data", root, "--to", root, "--name", "gateway-2"},
		"no data folder":  {"keys", "issue", "--data", filepath.Join(dir, "none"), "--to", gateway, "--name", "gateway-1"},
		"no such file":    {"keys", "install", "--from", filepath.Join(dir, "none"), "--data", filepath.Join(dir, "data")},
		"is a root key":   {"keys", "install", "--from", root, "--data", filepath.Join(dir, "data")},
		"keys of its own": {"keys", "install", "--from", gateway, "--data", root},
	} {
		if out, errs, code := run(t, c...); code != 1 || !strings.Contains(errs, says) {
			t.Errorf("tidegate %v: exit %d, %s%s, must say %q", c, code, out, errs, says)
		}
	}
	if _, errs, code := run(t, "keys", "issue", "--data", root, "--to", gateway, "--name", "Gateway 1"); code != 2 || !strings.Contains(errs, "cannot name") {
		t.Errorf("a name that never could be one: exit %d, %s", code, errs)
	}
}

func TestKeysInstall(t *testing.T) {
	dir := t.TempDir()
	root, issued, data := filepath.Join(dir, "root"), filepath.Join(dir, "issued"), filepath.Join(dir, "data")
	mustRun(t, "keys", "init", "--data", root)
	a := issueKeys(t, root, issued, "trial-0")
	if out := mustRun(t, "keys", "install", "--from", issued, "--data", data); !strings.Contains(out, a.KeyID) || !strings.Contains(out, "installed") {
		t.Errorf("install says %s", out)
	}
	if out := mustRun(t, "keys", "install", "--from", filepath.Join(issued, "keys"), "--data", data); !strings.Contains(out, "there already") {
		t.Errorf("install again says %s", out)
	}
	var second struct {
		Name, KeyID, Root string
		Changed           bool
	}
	b := issueKeys(t, root, issued, "trial-0")
	if err := json.Unmarshal([]byte(mustRun(t, "keys", "install", "--from", issued, "--data", data, "--json")), &second); err != nil {
		t.Fatal(err)
	}
	if !second.Changed || second.KeyID != b.KeyID || second.Name != "trial-0" || second.Root != b.Root {
		t.Errorf("%+v", second)
	}
	pack := filepath.Join(dir, "trial-0.keys")
	mustRun(t, "keys", "pack", "--data", issued, "--to", pack)
	if out := mustRun(t, "keys", "install", "--from", pack, "--data", data); !strings.Contains(out, "there already") {
		t.Errorf("install of a pack of the same says %s", out)
	}
	if info, err := os.Stat(pack); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("pack: %v, %v", info.Mode(), err)
	}
	if _, errs, code := run(t, "keys", "pack", "--data", issued, "--to", pack); code != 1 || !strings.Contains(errs, "exists") {
		t.Errorf("pack over a file: exit %d, %s", code, errs)
	}
	// Beside a process that serves from the folder nothing is exchanged under it.
	held, err := app.TakeLock(data, "serve trial")
	if err != nil {
		t.Fatal(err)
	}
	if _, errs, code := run(t, "keys", "install", "--from", issued, "--data", data); code != 1 || !strings.Contains(errs, "tidegate serve trial") {
		t.Errorf("beside a process: exit %d, %s", code, errs)
	}
	// Issuing to it is fine: a process reads its keys once.
	issueKeys(t, root, data, "trial-0")
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(data); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data folder: %v, %v", info.Mode(), err)
	}
}
