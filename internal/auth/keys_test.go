//go:build unix

package auth_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidegate/tidegate/internal/auth"
)

func signingPath(k *auth.Keys, dir string, i int) string {
	return filepath.Join(dir, "signing-"+k.Certificates()[i].KeyID+".key")
}

func TestInitKeys(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // modes do not depend on it
	k, dir := newKeys(t)
	info, err := os.Stat(dir)
	if err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("folder: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		info, err := e.Info()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", e.Name(), info.Mode(), err)
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || bytes.Count(content, []byte("\n")) != 1 || !bytes.HasPrefix(content, []byte("tidegate-")) {
			t.Errorf("%s is not one tagged line: %v", e.Name(), err)
		}
	}
	want := []string{"meaning.key", "root.key", "root.pub", filepath.Base(signingPath(k, dir, 0)), "token-1.key"}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("files %v, want %v", names, want)
	}
	if beside, _ := os.ReadDir(filepath.Dir(dir)); len(beside) != 1 {
		t.Errorf("left beside the folder: %v", beside)
	}
	again := load(t, dir)
	if again.Fingerprint() != k.Fingerprint() || again.Signer().KeyID() != k.Signer().KeyID() || again.MeaningKey("T") != k.MeaningKey("T") {
		t.Error("loading gives other keys than making gave")
	}
	if _, err := auth.InitKeys(dir); err == nil {
		t.Error("keys were made anew over others")
	}
	if load(t, dir).Fingerprint() != k.Fingerprint() {
		t.Error("a refused InitKeys changed the keys")
	}
	if k2, _ := newKeys(t); k2.Fingerprint() == k.Fingerprint() || k2.MeaningKey("T") == k.MeaningKey("T") {
		t.Error("two installations have the same keys")
	}
}

// A first start that was killed leaves no folder, and the next one is not
// bothered by what lies about.
func TestInitAfterUnfinished(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "keys")
	if err := os.MkdirAll(filepath.Join(parent, ".new-keys", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(parent, ".new-keys", "root.key"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil { // an empty folder is as good as none
		t.Fatal(err)
	}
	k, err := auth.InitKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	// The same for one key: what bears no key's name is no key, and is not in the way.
	for _, name := range []string{"token-2.key", "signing-0000000000000000.key"} {
		if err := os.WriteFile(filepath.Join(dir, ".new-"+name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(load(t, dir).Certificates()); n != 1 {
		t.Errorf("%d signing keys", n)
	}
	if _, err := k.NewTokenKey(); err != nil {
		t.Error(err)
	}
	load(t, dir)
}

// Every refusal is one sentence with the path and what to do, and no key.
func TestLoadRefuses(t *testing.T) {
	remove := func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	write := func(content string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	edit := func(f func(string) string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(f(string(content)))(t, path)
		}
	}
	mode := func(m os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Chmod(path, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	damages := []struct {
		name   string
		damage func(*testing.T, string)
		says   []string
	}{
		{"missing", remove, []string{"is missing", "restore"}},
		{"empty", write(""), []string{"is empty", "restore"}},
		{"blank", write("\n"), []string{"is empty", "restore"}},
		{"text", write("no key\n"), []string{"is damaged", "restore"}},
		{"long", write(strings.Repeat("x", 5000)), []string{"longer", "restore"}},
		{"binary", write("\x00\xff\n"), []string{"is damaged"}},
		{"no line end", edit(strings.TrimSpace), []string{"is damaged"}},
		{"two lines", edit(func(s string) string { return s + s }), []string{"is damaged"}},
		{"folded", edit(func(s string) string { return s[:len(s)-9] + "\n" + s[len(s)-9:] }), []string{"is damaged"}},
		{"cut", edit(func(s string) string { return s[:len(s)-9] + "\n" }), []string{"is damaged"}},
		{"one letter", edit(func(s string) string {
			i := len(s) - 20
			return s[:i] + string(s[i]^1) + s[i+1:]
		}), []string{"is damaged"}},
		{"other tag", edit(func(s string) string {
			_, text, _ := strings.Cut(s, " ")
			return "tidegate-other-key-v1 " + text
		}), []string{"another kind of key"}},
		{"group may read", mode(0o640), []string{"0640", "chmod 600 "}},
		{"all may read", mode(0o604), []string{"0604", "chmod 600 "}},
		{"group may write", mode(0o620), []string{"0620", "chmod 600 "}},
		{"a folder", func(t *testing.T, path string) {
			remove(t, path)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, []string{"not a regular file"}},
		{"a pipe", func(t *testing.T, path string) {
			remove(t, path)
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"not a regular file"}},
		{"somebody else's", func(t *testing.T, path string) {
			if os.Geteuid() != 0 {
				t.Skip("only root can give files away")
			}
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Fatal(err)
			}
		}, []string{"user 12345", "chown 0 "}},
		{"of another installation", func(t *testing.T, path string) {
			other, dir := newKeys(t)
			if _, err := other.NewTokenKey(); err != nil {
				t.Fatal(err)
			}
			from := filepath.Join(dir, filepath.Base(path))
			if strings.HasPrefix(filepath.Base(path), "signing-") {
				from = signingPath(other, dir, 0)
			}
			content, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			write(string(content))(t, path)
		}, []string{"another installation"}},
	}
	for _, file := range []string{"root.key", "root.pub", "meaning.key", "token-1.key", "token-2.key", "signing"} {
		for _, d := range damages {
			if file == "root.key" && d.name == "missing" {
				continue // allowed: see TestRootOffline
			}
			t.Run(file+" "+d.name, func(t *testing.T) {
				k, dir := newKeys(t)
				for range 2 {
					if _, err := k.NewTokenKey(); err != nil {
						t.Fatal(err)
					}
				}
				path := filepath.Join(dir, file)
				if file == "signing" {
					path = signingPath(k, dir, 0)
				}
				d.damage(t, path)
				secrets := keyText(t, dir)
				_, err := auth.LoadKeys(dir)
				var refusal *auth.KeyFileError
				if !errors.As(err, &refusal) {
					t.Fatalf("loaded, or another error: %v", err)
				}
				for _, says := range d.says {
					if !strings.Contains(err.Error(), says) && file+d.name != "root.pubof another installation" {
						t.Errorf("%q does not say %q", err, says)
					}
				}
				if !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
					t.Errorf("not one sentence with the path: %q", err)
				}
				for _, secret := range secrets {
					if strings.Contains(err.Error(), secret) {
						t.Errorf("the error shows a key: %q", err)
					}
				}
			})
		}
	}
}

// keyText is the base64 of every key in the folder.
func keyText(t *testing.T, dir string) (all []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, text, _ := strings.Cut(strings.TrimSpace(string(content)), " "); len(text) > 20 {
			all = append(all, text[:20])
		}
	}
	return all
}

func TestLoadRefusesFolder(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(k *auth.Keys, dir string) error
		says   string
	}{
		"missing":        {func(_ *auth.Keys, dir string) error { return os.RemoveAll(dir) }, "restore"},
		"group may look": {func(_ *auth.Keys, dir string) error { return os.Chmod(dir, 0o750) }, "chmod 700 "},
		"a file": {func(_ *auth.Keys, dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600))
		}, "not a folder"},
		"a token key renamed": {func(_ *auth.Keys, dir string) error {
			return os.Rename(filepath.Join(dir, "token-1.key"), filepath.Join(dir, "token-2.key"))
		}, "token-1.key is missing"},
		"token keys exchanged": {func(k *auth.Keys, dir string) error {
			_, err := k.NewTokenKey()
			one, two, temp := filepath.Join(dir, "token-1.key"), filepath.Join(dir, "token-2.key"), filepath.Join(dir, "x")
			return errors.Join(err, os.Rename(one, temp), os.Rename(two, one), os.Rename(temp, two))
		}, "was renamed"},
		"token key with another name": {func(_ *auth.Keys, dir string) error {
			return os.Rename(filepath.Join(dir, "token-1.key"), filepath.Join(dir, "token-01.key"))
		}, "token-<number>.key"},
		"token key far away": {func(_ *auth.Keys, dir string) error {
			return os.Rename(filepath.Join(dir, "token-1.key"), filepath.Join(dir, "token-4000000000.key"))
		}, "beyond"},
		"meaning key in a token key's place": {func(_ *auth.Keys, dir string) error {
			return os.Rename(filepath.Join(dir, "meaning.key"), filepath.Join(dir, "token-2.key"))
		}, "meaning.key is missing"},
		"no signing key": {func(k *auth.Keys, dir string) error { return os.Remove(signingPath(k, dir, 0)) }, "no signing key at all"},
		"an older signing key lost": {func(k *auth.Keys, dir string) error {
			_, err := k.NewSigningKey()
			return errors.Join(err, os.Remove(signingPath(k, dir, 0)))
		}, "lacks signing key number 1"},
		"signing key renamed": {func(k *auth.Keys, dir string) error {
			return os.Rename(signingPath(k, dir, 0), filepath.Join(dir, "signing-0123456789abcdef.key"))
		}, "was renamed"},
	} {
		t.Run(name, func(t *testing.T) {
			k, dir := newKeys(t)
			if err := test.damage(k, dir); err != nil {
				t.Fatal(err)
			}
			_, err := auth.LoadKeys(dir)
			var refusal *auth.KeyFileError
			if !errors.As(err, &refusal) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v, want a refusal that says %q", err, test.says)
			}
		})
	}
}

func TestPathIsSafeToPaste(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's a folder", "keys")
	if _, err := auth.InitKeys(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	_, err := auth.LoadKeys(dir)
	if err == nil || !strings.Contains(err.Error(), `'\''s a folder/keys'`) {
		t.Errorf("the path is not quoted: %v", err)
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	k, dir := newKeys(t)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", k)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("start", slog.Any("keys", k))
	slog.New(slog.NewJSONHandler(&out, nil)).Info("start", slog.Any("keys", k))
	if got, want := out.String(), "keys of root "+k.Fingerprint(); strings.Count(got, want) != 9 {
		t.Errorf("printed %q", got)
	}
	for _, secret := range keyText(t, dir) {
		if strings.Contains(out.String(), secret) {
			t.Error("a key was printed")
		}
	}
}
