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
)

// mounted is a folder as a container engine mounts a secret: links, other
// modes, a folder beside the files.
func mounted(t *testing.T, keys string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "..data"), os.DirFS(keys)); err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t, keys) {
		path := filepath.Join(dir, "..data", name)
		if err := errors.Join(os.Chmod(path, 0o440), os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestInstallKeys(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	root, rootDir := newKeys(t)
	issuedDir := filepath.Join(t.TempDir(), "keys")
	first := issue(t, root, issuedDir, "gateway-1")
	to := filepath.Join(t.TempDir(), "data", "keys")

	// No key: as it is mounted it is not fit for use.
	if _, err := auth.LoadKeys(mounted(t, issuedDir)); err == nil {
		t.Fatal("a mounted secret can be used as it is: this test proves nothing")
	}
	install := func(from string) (*auth.Keys, bool) {
		t.Helper()
		k, changed, err := auth.InstallKeys(from, to)
		if err != nil {
			t.Fatal(err)
		}
		return k, changed
	}
	early := mounted(t, issuedDir)
	k, changed := install(early)
	if !changed || k.Name() != "gateway-1" || k.Signer().KeyID().String() != first.Certificate.KeyID {
		t.Errorf("installed %v %v", k.Name(), changed)
	}
	if _, changed := install(early); changed {
		t.Error("the same again wrote something")
	}
	second := issue(t, root, issuedDir, "gateway-1")
	k, changed = install(mounted(t, issuedDir))
	if !changed || k.Signer().KeyID().String() != second.Certificate.KeyID || len(load(t, to).Certificates()) != 2 {
		t.Error("newer keys did not take over")
	}
	if left := names(t, filepath.Dir(to)); fmt.Sprint(left) != "[keys]" {
		t.Errorf("left beside the keys: %v", left)
	}

	refuses := func(what, from, to, says string) {
		t.Helper()
		before := map[string][]byte{}
		for _, name := range names(t, to) {
			before[name], _ = os.ReadFile(filepath.Join(to, name))
		}
		_, _, err := auth.InstallKeys(from, to)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), ".new-") {
			t.Errorf("%s: %v, must say %q", what, err, says)
		}
		for name, content := range before {
			if now, _ := os.ReadFile(filepath.Join(to, name)); !bytes.Equal(now, content) {
				t.Errorf("%s: a refusal changed %s", what, name)
			}
		}
		if left := names(t, filepath.Dir(to)); fmt.Sprint(left) != "[keys]" {
			t.Errorf("%s: left %v", what, left)
		}
	}
	otherName := filepath.Join(t.TempDir(), "keys")
	issue(t, root, otherName, "gateway-2")
	otherRoot, _ := newKeys(t)
	foreign := filepath.Join(t.TempDir(), "keys")
	issue(t, otherRoot, foreign, "gateway-1")
	damaged := mounted(t, issuedDir)
	if err := os.Remove(filepath.Join(damaged, "token-1.key")); err != nil {
		t.Fatal(err)
	}
	noBundle := mounted(t, issuedDir)
	if err := os.Remove(filepath.Join(noBundle, "bundle.name")); err != nil {
		t.Fatal(err)
	}
	refuses("another name", mounted(t, otherName), to, "of gateway-2")
	refuses("another root", mounted(t, foreign), to, otherRoot.Fingerprint())
	refuses("a file short", damaged, to, damaged+"/token-1.key is missing")
	refuses("not issued", noBundle, to, "no issued keys")
	refuses("a root folder", rootDir, to, "root key")
	refuses("over a root folder", mounted(t, issuedDir), rootDir, "keys of its own")
	refuses("nothing there", filepath.Join(t.TempDir(), "no"), to, "no such file")
}

// Older keys of the same name do not come back by a stale mount.
func TestInstallRefusesOlderKeys(t *testing.T) {
	root, _ := newKeys(t)
	older, newer := filepath.Join(t.TempDir(), "keys"), filepath.Join(t.TempDir(), "keys")
	to := filepath.Join(t.TempDir(), "keys")
	first := issue(t, root, older, "gateway-1")
	for { // a certificate says seconds
		if i := issue(t, root, newer, "gateway-1"); i.Certificate.NotBefore > first.Certificate.NotBefore {
			break
		}
		if err := os.RemoveAll(newer); err != nil {
			t.Fatal(err)
		}
	}
	for _, from := range []string{newer, older} {
		_, _, err := auth.InstallKeys(from, to)
		if (err == nil) != (from == newer) || err != nil && !strings.Contains(err.Error(), "is older than") {
			t.Errorf("%s: %v", from, err)
		}
	}
	if len(load(t, to).Certificates()) != 1 {
		t.Error("the newer keys are gone")
	}
}

// One file for a secret store holds all of a folder of issued keys.
func TestPack(t *testing.T) {
	root, _ := newKeys(t)
	dir := filepath.Join(t.TempDir(), "keys")
	issue(t, root, dir, "gateway-0")
	issue(t, root, dir, "gateway-0")
	pack, err := load(t, dir).Pack()
	if err != nil {
		t.Fatal(err)
	}
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "gateway-0")
		if err := os.WriteFile(path, []byte(content), 0o444); err != nil {
			t.Fatal(err)
		}
		return path
	}
	to := filepath.Join(t.TempDir(), "keys")
	if _, _, err := auth.InstallKeys(write(string(pack)), to); err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t, dir) {
		a, _ := os.ReadFile(filepath.Join(dir, name))
		if b, _ := os.ReadFile(filepath.Join(to, name)); !bytes.Equal(a, b) {
			t.Errorf("%s is another one", name)
		}
	}
	if _, changed, err := auth.InstallKeys(dir, to); changed || err != nil {
		t.Errorf("the folder holds something else than its pack: %v", err)
	}
	if _, err := root.Pack(); err == nil || !strings.Contains(err.Error(), "root folder") {
		t.Errorf("the root folder was packed: %v", err)
	}
	lines := strings.SplitAfter(string(pack), "\n")
	for what, content := range map[string]string{
		"empty": "", "no head": strings.Join(lines[1:], ""), "cut": string(pack[:len(pack)-9]), "a line short": strings.Join(append(lines[:2:2], lines[3:]...), ""),
		"a path": lines[0] + "../x.key y z\n", "a root key": string(pack) + "root.key tidegate-root-key-v1 AAAA\n", "a line twice": string(pack) + lines[1],
		"long": strings.Repeat("x", 100<<20>>3),
	} {
		if _, _, err := auth.InstallKeys(write(content), filepath.Join(t.TempDir(), "keys")); err == nil {
			t.Errorf("%s: installed", what)
		}
	}
}
