package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

// start runs a prepared command; one that does not end is a failure.
func start(t *testing.T, cmd *exec.Cmd, cancel context.CancelFunc) (string, string, int) {
	t.Helper()
	defer cancel()
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errb.String(), cmd.ProcessState.ExitCode()
}

func command(t *testing.T, binary string, args ...string) (*exec.Cmd, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	return exec.CommandContext(ctx, binary, args...), cancel
}

// tidegateEnv runs a command with one more environment variable.
func tidegateEnv(t *testing.T, env string, args ...string) (string, string, int) {
	t.Helper()
	cmd, cancel := command(t, server.Binary(t, ""), args...)
	cmd.Env = append(os.Environ(), env)
	return start(t, cmd, cancel)
}

// nobody is the user that owns nothing.
const nobody = 65534

// open lets every user enter a folder of a test.
func open(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // on purpose
			t.Fatal(err)
		}
	}
}

// asNobody runs a copy of the binary, in a place that everybody can enter, as
// another user.
func asNobody(t *testing.T, args ...string) (string, string, int) {
	t.Helper()
	dir := t.TempDir()
	open(t, dir)
	b, err := os.ReadFile(server.Binary(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tidegate")
	if err := os.WriteFile(path, b, 0o755); err != nil { //nolint:gosec // to be run
		t.Fatal(err)
	}
	cmd, cancel := command(t, path, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return start(t, cmd, cancel)
}
