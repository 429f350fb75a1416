package check

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// script runs a script of deploy/ with tidegate on its path.
func script(t *testing.T, args ...string) string {
	t.Helper()
	program := binary(t)
	cmd := exec.CommandContext(t.Context(), "sh", args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", args, err, out, errs.String())
	}
	return string(out)
}

// tree is every file below a folder with its content, and fails for one that
// others may read.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The job that makes the secrets of compose.yaml: all that the containers
// mount is there, and a second run changes nothing.
func TestComposeSecrets(t *testing.T) {
	secrets(t) // openssl is there
	dir := t.TempDir()
	here := filepath.Join(dir, "deploy")
	if err := os.Mkdir(here, 0o700); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"compose/secrets.sh": "secrets.sh", "certs.sh": "certs.sh"} { // as compose.yaml mounts them
		text, err := os.ReadFile(filepath.Join(deploy, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(here, to), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	volumes := map[string]string{}
	for _, v := range []string{"secrets", "root", "data"} {
		volumes[v] = filepath.Join(dir, v)
		if err := os.Mkdir(volumes[v], 0o700); err != nil {
			t.Fatal(err)
		}
	}
	again := func() map[string]string {
		script(t, filepath.Join(here, "secrets.sh"), volumes["secrets"], volumes["root"], volumes["data"])
		return tree(t, dir)
	}
	first := again()
	second := again()
	for path, text := range first {
		if second[path] != text {
			t.Errorf("%s changed at the second start", path)
		}
	}
	if len(first) != len(second) {
		t.Errorf("%d files after the first start, %d after the second", len(first), len(second))
	}
	project, p := Compose(t.Context(), deploy)
	none(t, p)
	for _, s := range project.Services {
		words := slices.Concat(s.Command, s.Entrypoint)
		if s.HealthCheck != nil {
			words = append(words, s.HealthCheck.Test...)
		}
		for _, v := range s.Environment {
			if v != nil {
				words = append(words, *v)
			}
		}
		for _, v := range s.Volumes {
			at, ok := volumes[v.Source]
			if !ok || v.Volume == nil {
				continue
			}
			if _, err := os.Stat(filepath.Join(at, v.Volume.Subpath)); err != nil {
				t.Errorf("%s mounts %s of volume %s, which nobody makes", s.Name, v.Volume.Subpath, v.Source)
			}
			for _, word := range words {
				if _, rest, ok := strings.Cut(word, secretsAt+"/"); ok && v.Target == secretsAt {
					if _, err := os.Stat(filepath.Join(at, v.Volume.Subpath, rest)); err != nil {
						t.Errorf("%s reads %s, which nobody makes", s.Name, word)
					}
				}
			}
		}
	}
	// Configuration as it meets these very files.
	for _, r := range composeRuns(project) {
		name := strings.TrimPrefix(r.where, "compose.yaml: ")
		if name == "migrate" {
			continue // reads no certificate but the authority's
		}
		none(t, Config(t.Context(), binary(t), filepath.Join(volumes["secrets"], name), t.TempDir(), []run{r}))
	}
}

// The script that makes the Kubernetes secrets: one value for each pod, which
// the init container can install.
func TestKubernetesSecrets(t *testing.T) {
	dir := t.TempDir()
	root, issued := filepath.Join(dir, "root"), filepath.Join(dir, "issued")
	program := binary(t)
	tidegate := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("tidegate %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	tidegate("keys", "init", "--data", root)
	read := func(pods string) map[string]corev1.Secret {
		out := script(t, filepath.Join(deploy, "kubernetes", "secrets.sh"), root, issued, "gateway="+pods, "trial=1")
		list := map[string]corev1.Secret{}
		for text := range strings.SplitSeq(out, "---\n") {
			var s corev1.Secret
			if strings.TrimSpace(text) == "" {
				continue
			}
			if err := strict([]byte(text), &s); err != nil {
				t.Fatal(err)
			}
			list[s.Name] = s
		}
		return list
	}
	first, more := read("2"), read("3")
	if len(first["tidegate-keys-gateway"].Data) != 2 || len(more["tidegate-keys-gateway"].Data) != 3 || len(more["tidegate-keys-trial"].Data) != 1 {
		t.Fatalf("secrets: %v, then %v", first, more)
	}
	for pod, pack := range first["tidegate-keys-gateway"].Data {
		if string(more["tidegate-keys-gateway"].Data[pod]) != string(pack) {
			t.Errorf("%s got other keys when a pod was added", pod)
		}
		mounted, data := filepath.Join(dir, pod+"-mounted"), filepath.Join(dir, pod)
		if err := os.WriteFile(mounted, pack, 0o440); err != nil {
			t.Fatal(err)
		}
		if out := tidegate("keys", "install", "--from", mounted, "--data", data); !strings.HasPrefix(out, pod+" ") {
			t.Errorf("installed for %s: %s", pod, out)
		}
	}
	if list := tidegate("keys", "list", "--data", root); strings.Count(list, "issued to tidegate-") != 4 {
		t.Errorf("keys list\n%s", list)
	}
	tree(t, issued)
}
