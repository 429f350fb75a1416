package trialrpc_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/trialrpc"
)

// processEnv tells the test binary to be a Trial service, and how.
const processEnv = "TIDEGATE_TRIALRPC_PROCESS"

// processConfig is what it is told.
type processConfig struct {
	Etcd trialrpc.Etcd
	Slow time.Duration // that a call takes
}

// TestServiceProcess is no test: it is the service of the tests that want one
// in a process of its own. It serves until SIGTERM.
func TestServiceProcess(t *testing.T) {
	raw := os.Getenv(processEnv)
	if raw == "" {
		t.Skip("it serves the other tests")
	}
	var c processConfig
	must(t, json.Unmarshal([]byte(raw), &c))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// As internal/app: the first signal asks to stop, a second one to stop at once.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		for range 2 {
			select {
			case <-signals:
				if ctx.Err() != nil {
					os.Exit(3)
				}
				cancel()
			case <-t.Context().Done():
				return
			}
		}
	}()
	w := newWorld(t)
	w.reader.slow.Store(int64(c.Slow))
	o := w.options()
	o.Settings.Etcd, o.Settings.Timeout, o.StopTimeout = c.Etcd, time.Minute, time.Minute
	s, err := trialrpc.NewServer(o)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go func() {
		w.eventually("it serves", func() bool { return s.State().Serving })
		fmt.Println("serving", l.Addr())
	}()
	must(t, s.Serve(ctx, l))
	fmt.Println("stopped")
}

// instance is a service in a process of its own.
type instance struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string
	said chan string // lines after the first
}

func startInstance(t *testing.T, c processConfig) *instance {
	t.Helper()
	raw, err := json.Marshal(c)
	must(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestServiceProcess$", "-test.count=1", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), processEnv+"="+string(raw))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	i := &instance{t: t, cmd: cmd, said: make(chan string, 100)}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if addr, serving := strings.CutPrefix(lines.Text(), "serving "); serving {
			i.addr = addr
			break
		}
	}
	if i.addr == "" {
		t.Fatal("the process does not serve")
	}
	go func() {
		defer close(i.said)
		for lines.Scan() {
			i.said <- lines.Text()
		}
	}()
	t.Cleanup(func() { i.kill() })
	return i
}

func (i *instance) kill() {
	_ = i.cmd.Process.Kill()
	i.wait()
}

// wait is everything it said, and its exit code.
func (i *instance) wait() ([]string, int) {
	var said []string
	for line := range i.said {
		said = append(said, line)
	}
	_ = i.cmd.Wait() // the code says it
	return said, i.cmd.ProcessState.ExitCode()
}

// TestSignalsAreOurs sends SIGTERM to a service with a call that takes 8 s.
// go-zero would signal the process again after 5.5 s, which asks to stop at
// once; here the call is answered and the stop is clean.
func TestSignalsAreOurs(t *testing.T) {
	t.Parallel() // it waits, mostly
	i := startInstance(t, processConfig{Slow: 8 * time.Second})
	c := dial(t, i.addr)
	answer := make(chan error, 1)
	go func() {
		r, err := c.GetPatientTrials(t.Context(), patient1)
		if err == nil && len(r.GetTrials()) != 1 {
			err = fmt.Errorf("answered %v", r)
		}
		answer <- err
	}()
	time.Sleep(500 * time.Millisecond) // the call is in
	began := time.Now()
	must(t, i.cmd.Process.Signal(syscall.SIGTERM))
	if err := <-answer; err != nil {
		t.Errorf("the call in hand: %v", err)
	}
	said, code := i.wait()
	if code != 0 || !slices.Contains(said, "stopped") {
		t.Errorf("the process ended with %d and %v", code, said)
	}
	if i := slices.IndexFunc(said, func(line string) bool { return strings.Contains(line, "Got signal") }); i >= 0 {
		t.Errorf("go-zero writes to standard output: %s", said[i])
	}
	if took := time.Since(began); took < 6*time.Second {
		t.Errorf("the stop took %v: it did not wait for the call, so this shows nothing", took)
	}
}

// TestOnlyOnePort looks at the sockets of a service: its own port and no
// other, no DevServer on 6060.
func TestOnlyOnePort(t *testing.T) {
	t.Parallel() // it waits, mostly
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	i := startInstance(t, processConfig{})
	_, err := dial(t, i.addr).GetPatientTrials(t.Context(), patient1)
	must(t, err)
	sockets := map[string]bool{}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", i.cmd.Process.Pid))
	must(t, err)
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && strings.HasPrefix(to, "socket:[") {
			sockets[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	var listening []string
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", i.cmd.Process.Pid, table))
		if err != nil {
			continue // no IPv6 here
		}
		for _, line := range strings.Split(string(text), "\n")[1:] {
			// sl, local address, remote address, state (0A: listening), …, inode
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" && sockets[f[9]] {
				listening = append(listening, f[1])
			}
		}
	}
	_, port, _ := net.SplitHostPort(i.addr)
	var n int
	_, _ = fmt.Sscan(port, &n)
	if len(listening) != 1 || !strings.HasSuffix(listening[0], fmt.Sprintf(":%04X", n)) {
		t.Errorf("the process listens on %v, and serves on port %d (%04X)", listening, n, n)
	}
}
