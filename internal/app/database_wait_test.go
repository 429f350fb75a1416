package app_test

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

// said is what a process has printed so far.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// TestCommandsSayThatTheyWaitForTheStandby: a command whose commits wait for a
// standby that is not there says so, goes on when the standby is, and ends on
// Ctrl-C with a sentence about what that leaves.
func TestCommandsSayThatTheyWaitForTheStandby(t *testing.T) {
	t.Parallel()
	binary := server.Binary(t, "")
	pg := services.Postgres(t, services.PGOptions{})
	standby := pg.Standby(t)
	url := pg.NewDatabase(t)
	root := filepath.Join(t.TempDir(), "root")
	must(t, "keys", "init", "--data", root)
	const tells = "waits for its synchronous standby (synchronous_standby_names ="
	start := func(args ...string) (*exec.Cmd, *said, <-chan error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		t.Cleanup(cancel)
		cmd, errs := exec.CommandContext(ctx, binary, args...), &said{}
		cmd.Env = append(cmd.Environ(), "TIDEGATE_POSTGRES_URL="+url)
		cmd.Stdout, cmd.Stderr = errs, errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		for end := time.Now().Add(time.Minute); !strings.Contains(errs.String(), tells); time.Sleep(20 * time.Millisecond) {
			select {
			case err := <-done:
				t.Fatalf("%s ended: %v\n%s", args[0], err, errs)
			default:
			}
			if time.Now().After(end) {
				t.Fatalf("%s waits and does not say for what:\n%s", args[0], errs)
			}
		}
		return cmd, errs, done
	}
	for _, args := range [][]string{
		{"migrate"},
		{"seed", "--data", root, "--participants", "3"}, // makes the tables
		{"seed", "--data", root, "--participants", "5"}, // finds all and adds to the journal
	} {
		standby.Stop()
		cmd, errs, done := start(args...)
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "run it again, it is safe") && !strings.Contains(errs.String(), "run this again, what is there by then is not made twice") {
			t.Errorf("%s, stopped: %v\n%s", args[0], err, errs)
		}
		_, errs, done = start(args...)
		standby.Start()
		if err := <-done; err != nil {
			t.Errorf("%s, when the standby is back: %v\n%s", args[0], err, errs)
		}
	}
}
