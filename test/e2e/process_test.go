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
	// Copied by another process: a file that this one has open for writing could
	// not be run while a test beside this one forks.
	path := filepath.Join(dir, "tidegate")
	if out, err := exec.CommandContext(t.Context(), "install", "-m", "755", server.Binary(t, ""), path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd, cancel := command(t, path, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return start(t, cmd, cancel)
}
