//go:build unix

package auth_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/receipt"
)

func issue(t *testing.T, k *auth.Keys, dir, name string) auth.Issued {
	t.Helper()
	i, err := k.Issue(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestIssue(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	root, rootDir := newKeys(t)
	if _, err := root.NewTokenKey(); err != nil {
		t.Fatal(err)
	}
	if err := root.RetireTokenKey(1); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "gateway-1", "keys")
	i := issue(t, root, dir, "gateway-1")

	id := i.Certificate.KeyID
	want := []string{"bundle.name", "meaning.key", "root.pub", "signing-" + id + ".key", "token-1.key", "token-2.key"}
	if got := names(t, dir); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("files %v, want %v", got, want)
	}
	for _, path := range append(want, ".") {
		info, err := os.Stat(filepath.Join(dir, path))
		if mode := info.Mode().Perm(); err != nil || mode != 0o600 && path != "." || path == "." && mode != 0o700 {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
	own := load(t, dir)
	if own.Name() != "gateway-1" || own.Fingerprint() != root.Fingerprint() || own.MeaningKey("T") != root.MeaningKey("T") {
		t.Error("the issued keys are not of this installation")
	}
	if own.Signer().KeyID().String() != id || id == root.Signer().KeyID().String() {
		t.Errorf("signs with %s, was issued %s", own.Signer().KeyID(), id)
	}
	if err := checkProof(t, own, own.Signer(), nil); err != nil {
		t.Error(err)
	}
	// One token serves every process, both ways.
	for _, pair := range [][2]*auth.Keys{{root, own}, {own, root}} {
		if _, err := pair[1].Verify(mint(t, pair[0], participantClaims()), now); err != nil {
			t.Error(err)
		}
	}
	// Nothing of the root key or of the root folder's own signing key is in it.
	for _, name := range []string{"root.key", filepath.Base(signingPath(root, rootDir, 0))} {
		secret, err := os.ReadFile(filepath.Join(rootDir, name))
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := bytes.Cut(bytes.TrimSpace(secret), []byte(" "))
		for _, file := range want {
			if content, _ := os.ReadFile(filepath.Join(dir, file)); bytes.Contains(content, text[:40]) {
				t.Errorf("%s holds %s", file, name)
			}
		}
	}
	if got, err := load(t, rootDir).Issued(); err != nil || fmt.Sprint(got) != fmt.Sprint([]auth.Issued{i}) {
		t.Errorf("remembered %v, %v", got, err)
	}
}

// What an issued folder cannot do, it says, and where to go.
func TestIssuedKeysHaveNoRoot(t *testing.T) {
	root, rootDir := newKeys(t)
	dir := filepath.Join(t.TempDir(), "keys")
	issue(t, root, dir, "trial-1")
	own := load(t, dir)
	_, rotate := own.NewSigningKey()
	_, issued := own.Issue(filepath.Join(t.TempDir(), "keys"), "gateway-9")
	_, token := own.NewTokenKey()
	for what, err := range map[string]error{
		"root online": own.RootOnline(), "rotate": rotate, "issue": issued, "token key": token, "retire token key": own.RetireTokenKey(1),
	} {
		if !errors.Is(err, auth.ErrRootOffline) || !strings.Contains(err.Error(), "issued for trial-1") || !strings.Contains(err.Error(), "root folder") ||
			strings.Contains(err.Error(), "put root.key back") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := len(names(t, dir)); n != 5 {
		t.Errorf("%d files after refusals", n)
	}
	// Somebody who follows the advice for a root folder by mistake.
	key, err := os.ReadFile(filepath.Join(rootDir, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "root.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	var refusal *auth.KeyFileError
	if _, err := auth.LoadKeys(dir); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "move it back") {
		t.Errorf("a root key among issued keys: %v", err)
	}
}

func TestIssueAgain(t *testing.T) {
	root, rootDir := newKeys(t)
	dir := filepath.Join(t.TempDir(), "keys")
	first := issue(t, root, dir, "gateway-1")
	running := load(t, dir)
	if _, err := root.NewTokenKey(); err != nil {
		t.Fatal(err)
	}
	if err := root.RetireTokenKey(1); err != nil {
		t.Fatal(err)
	}
	second := issue(t, root, dir, "gateway-1")
	if running.Signer().KeyID().String() != first.Certificate.KeyID {
		t.Error("a process that runs changed its key by itself")
	}
	own := load(t, dir)
	if own.Signer().KeyID().String() != second.Certificate.KeyID || len(own.Certificates()) != 2 || second.Sequence != 2 {
		t.Errorf("after issuing again: %v", own.Certificates())
	}
	if keys := own.TokenKeys(); len(keys) != 2 || !keys[0].Retired || !keys[1].Current {
		t.Errorf("token keys: %+v", keys)
	}
	other := issue(t, root, filepath.Join(t.TempDir(), "keys"), "gateway-1") // the folder was lost
	list, err := load(t, rootDir).Issued()
	if err != nil || len(list) != 3 || list[0].Name != "gateway-1" {
		t.Errorf("remembered %v, %v", list, err)
	}
	// The root folder retires every one of them, whoever still signs; a server that loaded its keys before, too.
	for _, i := range []auth.Issued{first, second, other} {
		id, err := receipt.ParseKeyID(i.Certificate.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := root.Retire(id, receipt.RetiredCompromised); err != nil || r.KeyID != i.Certificate.KeyID {
			t.Errorf("retire %s: %v", id, err)
		}
		if _, err := own.Retire(id, receipt.RetiredRotated); err == nil {
			t.Error("issued keys retired a key without the root key")
		}
	}
	if _, err := root.Retire(receipt.KeyID{1}, receipt.RetiredRotated); err == nil {
		t.Error("a key was retired that nobody issued")
	}
}

func TestUsable(t *testing.T) {
	root, _ := newKeys(t)
	dir := filepath.Join(t.TempDir(), "keys")
	first := issue(t, root, dir, "gateway-1")
	own := load(t, dir)
	id := own.Signer().KeyID()
	retire := func(reason string) []receipt.Certificate {
		r, err := root.Retire(id, reason)
		if err != nil {
			t.Fatal(err)
		}
		c := first.Certificate
		c.Retired = &r
		return append(root.Certificates(), c)
	}
	if err := own.Usable(append(root.Certificates(), first.Certificate)); err != nil {
		t.Error(err)
	}
	if err := own.Usable(nil); err != nil {
		t.Errorf("a journal that does not know the key yet: %v", err)
	}
	for _, reason := range []string{receipt.RetiredRotated, receipt.RetiredCompromised} {
		err := own.Usable(retire(reason))
		if !errors.Is(err, auth.ErrOwnKeyRetired) || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), "--name gateway-1") {
			t.Errorf("%s: %v", reason, err)
		}
	}
	retired := retire(receipt.RetiredRotated)
	issue(t, root, dir, "gateway-1")
	if err := load(t, dir).Usable(retired); err != nil {
		t.Errorf("with a newer key: %v", err)
	}
}

func TestIssueRefuses(t *testing.T) {
	root, rootDir := newKeys(t)
	dir := filepath.Join(t.TempDir(), "keys")
	issue(t, root, dir, "gateway-1")
	other, otherDir := newKeys(t)
	foreign := filepath.Join(t.TempDir(), "keys")
	issue(t, other, foreign, "gateway-1")

	// A copy of the root folder from before a token key was made.
	old := filepath.Join(t.TempDir(), "keys")
	if err := os.CopyFS(old, os.DirFS(rootDir)); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names(t, old), ".") {
		if err := os.Chmod(filepath.Join(old, name), map[bool]os.FileMode{true: 0o700, false: 0o600}[name == "."]); err != nil {
			t.Fatal(err)
		}
	}
	newest := filepath.Join(t.TempDir(), "keys")
	if _, err := root.NewTokenKey(); err != nil {
		t.Fatal(err)
	}
	issue(t, root, newest, "gateway-2")

	for name, c := range map[string]struct {
		keys      *auth.Keys
		dir, name string
		says      string
	}{
		"another root's":       {root, foreign, "gateway-1", "another root"},
		"another's name":       {root, dir, "gateway-2", "holds the keys of gateway-1"},
		"the root folder":      {root, rootDir, "gateway-1", "root folder's own"},
		"another installation": {root, otherDir, "gateway-1", "another root"},
		"an older copy":        {load(t, old), newest, "gateway-2", "newest copy"},
		"no name":              {root, dir, "", "cannot name"},
		"a path":               {root, dir, "../x", "cannot name"},
		"capitals":             {root, dir, "Gateway", "cannot name"},
		"a long name":          {root, dir, strings.Repeat("a", 64), "cannot name"},
		"a dash at the end":    {root, dir, "gateway-", "cannot name"},
	} {
		before := names(t, rootDir)
		if _, err := c.keys.Issue(c.dir, c.name); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, must say %q", name, err, c.says)
		}
		if after := names(t, rootDir); len(after) != len(before) {
			t.Errorf("%s: a refusal left %v", name, after)
		}
	}
	if len(load(t, dir).Certificates()) != 1 || len(load(t, foreign).Certificates()) != 1 {
		t.Error("a refusal changed a folder")
	}
	away := filepath.Join(t.TempDir(), "root.key")
	if err := os.Rename(filepath.Join(rootDir, "root.key"), away); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Issue(dir, "gateway-1"); !errors.Is(err, auth.ErrRootOffline) || !strings.Contains(err.Error(), "put root.key back") {
		t.Errorf("without the root key: %v", err)
	}
}

// A record of an issued key that was damaged is told, and stops no server.
func TestDamagedRecord(t *testing.T) {
	root, rootDir := newKeys(t)
	i := issue(t, root, filepath.Join(t.TempDir(), "keys"), "gateway-1")
	path := filepath.Join(rootDir, "issued-"+i.Certificate.KeyID+".pub")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range []string{"", "tidegate-issued-key-v1 \n", string(content[:len(content)-3]) + "AA\n", "tidegate-bundle-v1 " + strings.Split(string(content), " ")[1]} {
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		var refusal *auth.KeyFileError
		if _, err := load(t, rootDir).Issued(); !errors.As(err, &refusal) {
			t.Errorf("%q: %v", damaged, err)
		}
		id, err := receipt.ParseKeyID(i.Certificate.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := root.Retire(id, receipt.RetiredRotated); !errors.As(err, &refusal) {
			t.Errorf("retired under a damaged record: %v", err)
		}
	}
}
