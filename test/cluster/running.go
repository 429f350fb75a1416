package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Running is a process that was started.
type Running struct {
	Process
	LogFile string

	cmd   *exec.Cmd
	ended chan struct{}
	from  int64 // where its log begins in the file, which is kept over starts
}

// stopLimit is how long a process may take to stop; it promises 10 s.
const stopLimit = 15 * time.Second

func start(p Process, log string, env []string, command ...string) (*Running, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() //nolint:errcheck // the child has its own
	r := &Running{Process: p, LogFile: log, ended: make(chan struct{})}
	if info, err := out.Stat(); err == nil {
		r.from = info.Size()
	}
	r.cmd = exec.Command(command[0], command[1:]...) //nolint:gosec // what this package runs
	r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr, r.cmd.SysProcAttr = env, out, out, attributes()
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = r.cmd.Wait(); close(r.ended) }()
	return r, nil
}

// client asks the admin listeners: over fresh connections, for they are killed.
var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// Ready waits until the process says that it is ready.
func (r *Running) Ready(limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		select {
		case <-r.ended:
			return fmt.Errorf("%s ended: %s\n%s", r.Name, r.cmd.ProcessState, r.Tail())
		default:
		}
		if resp, err := client.Get("http://" + r.Admin + "/readyz"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %s\n%s", r.Name, limit, r.Tail())
		}
	}
}

// URL is where a gateway takes reports.
func (r *Running) URL() string { return "http://" + r.HTTP }

// Status is what a process says of itself and of what it stands on.
type Status struct {
	Ready        bool
	NotReady     string
	Dependencies map[string]struct {
		OK          bool
		State, Note string
	}
}

// Status asks the process.
func (r *Running) Status() (s Status, err error) {
	resp, err := client.Get("http://" + r.Admin + "/status")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("status of %s: %d %s", r.Name, resp.StatusCode, b)
	}
	return s, nil
}

// Output is all that the process has printed since it was started.
func (r *Running) Output() string {
	text, err := os.ReadFile(r.LogFile)
	if err != nil || int64(len(text)) < r.from {
		return ""
	}
	return string(text[r.from:])
}

// Tail is the end of its output.
func (r *Running) Tail() string {
	lines := strings.Split(strings.TrimSpace(r.Output()), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// Pid is the id of the process.
func (r *Running) Pid() int { return r.cmd.Process.Pid }

// Ended is closed when the process has ended.
func (r *Running) Ended() <-chan struct{} { return r.ended }

// Signal sends a signal; to a process that has ended it does nothing.
func (r *Running) Signal(s syscall.Signal) { _ = r.cmd.Process.Signal(s) }

// Kill ends it with SIGKILL and waits.
func (r *Running) Kill() {
	r.Signal(syscall.SIGKILL)
	<-r.ended
}

// Freeze stops it where it is; Thaw lets it go on.
func (r *Running) Freeze() { r.Signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (r *Running) Thaw() { r.Signal(syscall.SIGCONT) }

// Stop asks it to stop and waits. One that had ended before is fine; one that
// ends with a failure, or not in time, is an error.
func (r *Running) Stop() error {
	select {
	case <-r.ended:
		return nil
	default:
	}
	r.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(stopLimit):
		err := fmt.Errorf("%s did not stop within %s\n%s", r.Name, stopLimit, r.Tail())
		r.Kill()
		return err
	}
	if !r.cmd.ProcessState.Success() {
		return errors.New(r.Name + ": " + r.cmd.ProcessState.String() + "\n" + r.Tail())
	}
	return nil
}
