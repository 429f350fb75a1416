package check

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const (
	root   = "../.."
	deploy = ".."
)

func none(t *testing.T, p problems) {
	t.Helper()
	for _, s := range p {
		t.Error(s)
	}
}

// tidegate is the program, built as the images have it.
var tidegate struct {
	once sync.Once
	dir  string
	err  error
}

func binary(t *testing.T) string {
	t.Helper()
	tidegate.once.Do(func() {
		if tidegate.dir, tidegate.err = os.MkdirTemp("", "tidegate-deploy-check-"); tidegate.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-buildvcs=false", "-tags", "no_k8s", "-o", tidegate.dir, "./cmd/tidegate")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			tidegate.err = fmt.Errorf("build tidegate: %w\n%s", err, out)
		}
	})
	if tidegate.err != nil {
		t.Fatal(tidegate.err)
	}
	return filepath.Join(tidegate.dir, "tidegate")
}

func TestMain(m *testing.M) {
	code := m.Run()
	if tidegate.dir != "" {
		_ = os.RemoveAll(tidegate.dir)
	}
	os.Exit(code)
}

// secrets is a folder with what a container finds at /run/secrets/tidegate.
func secrets(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("certs.sh needs openssl, which is not installed: configuration files were not checked")
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "sh", filepath.Join(deploy, "certs.sh"), dir, "gateway-1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "gateway-1", "postgres-password"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "gateway-1")
}

func TestDockerfile(t *testing.T) { none(t, Dockerfile(root, deploy)) }

func TestCompose(t *testing.T) {
	_, p := Compose(t.Context(), deploy)
	none(t, p)
}

func TestKubernetes(t *testing.T) {
	_, p := Kubernetes(deploy)
	none(t, p)
}

// Every configuration file, as every container gets it with its environment,
// is one that this version of tidegate takes.
func TestConfig(t *testing.T) {
	runs := allRuns(t, deploy)
	none(t, Config(t.Context(), binary(t), secrets(t), t.TempDir(), runs))
}

func allRuns(t *testing.T, deploy string) []run {
	t.Helper()
	project, p := Compose(t.Context(), deploy)
	if project == nil {
		t.Fatal(p)
	}
	pods, p := Kubernetes(deploy)
	if len(pods) < 4 {
		t.Fatalf("%d pods read a configuration file: %v", len(pods), p)
	}
	runs := append(composeRuns(project), pods...)
	if len(runs) != 7+4 {
		t.Fatalf("%d containers read a configuration file", len(runs))
	}
	files, err := filepath.Glob(filepath.Join(deploy, "config", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if filepath.Base(f) != "kustomization.yaml" {
			runs = append(runs, run{where: f, file: f})
		}
	}
	return runs
}

func TestSystemd(t *testing.T) { none(t, Systemd(deploy)) }

func analyze(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: units were checked by this project's own rules only")
	}
	return path
}

func TestSystemdVerify(t *testing.T) {
	none(t, SystemdVerify(t.Context(), analyze(t), deploy, binary(t), t.TempDir()))
}

// Scripts are read by the shell they name, and by shellcheck where it is.
func TestScripts(t *testing.T) {
	for _, pattern := range []string{"*.sh", "*/*.sh"} {
		files, err := filepath.Glob(filepath.Join(deploy, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, f := range files {
			if out, err := exec.CommandContext(t.Context(), "sh", "-n", f).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", f, err, out)
			}
			if text, err := os.ReadFile(f); err != nil || !strings.HasPrefix(string(text), "#!/bin/sh\n") {
				t.Errorf("%s: does not begin with #!/bin/sh: %v", f, err)
			}
		}
	}
}
