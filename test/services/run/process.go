package run

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a server that can be started again after it has ended. Its methods
// may be called from several goroutines.
type process struct {
	name   string // in errors
	path   string
	args   []string
	env    []string // the whole of it
	log    string   // file that its output is added to
	user   *account // nil: as this process
	orphan syscall.Signal

	mu     sync.Mutex
	cmd    *exec.Cmd
	ended  chan struct{}
	frozen bool
}

// start starts it. It does not wait until it serves.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runs() {
		return fmt.Errorf("%s runs already", p.name)
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()                      //nolint:errcheck // the child has its own
	cmd := exec.Command(p.path, p.args...) //nolint:gosec // a test's own command
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = p.env, out, out, os.TempDir()
	cmd.SysProcAttr = attributes(p.user, p.orphan)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	p.cmd, p.ended, p.frozen = cmd, ended, false
	return nil
}

// runs says whether the process is there. The lock is held.
func (p *process) runs() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// waitFor waits until ready returns nil, the process has ended or time is up.
func (p *process) waitFor(limit time.Duration, ready func() error) error {
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	deadline := time.Now().Add(limit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s ended instead of serving\n%s", p.name, p.tail())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not serve after %s: %w\n%s", p.name, limit, err, p.tail())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// tail is the end of its log.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(bytes.TrimSpace(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

// kill ends it and its children as a crash does, and waits until they are gone.
// Doing so to a process that does not run changes nothing.
func (p *process) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runs() {
		return nil
	}
	// The parent is stopped first, so that it makes no child that the list lacks,
	// and killed with the others: alone it would leave them behind, and PostgreSQL
	// does not start again while one of them holds its shared memory.
	pid := p.cmd.Process.Pid
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	children, err := descendants(pid)
	for _, c := range append(children, pid) {
		_ = syscall.Kill(c, syscall.SIGKILL)
	}
	<-p.ended
	deadline := time.Now().Add(10 * time.Second)
	for _, c := range children {
		for alive(c) {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: process %d outlives its SIGKILL", p.name, c)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return err
}

// stop asks it to end by a signal and waits; past the limit it is killed, and
// that is an error.
func (p *process) stop(how syscall.Signal, limit time.Duration) error {
	if err := p.thaw(); err != nil {
		return err
	}
	p.mu.Lock()
	if !p.runs() {
		p.mu.Unlock()
		return nil
	}
	_ = p.cmd.Process.Signal(how)
	ended := p.ended
	p.mu.Unlock()
	select {
	case <-ended:
		return nil
	case <-time.After(limit):
		return errors.Join(fmt.Errorf("%s did not stop within %s\n%s", p.name, limit, p.tail()), p.kill())
	}
}

// freeze stops it and its children where they are. Its connections stay open
// and the system goes on accepting for it: a host that hangs, not one that died.
func (p *process) freeze() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runs() {
		return fmt.Errorf("%s does not run", p.name)
	}
	pid := p.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	p.frozen = true
	return signalAll(pid, syscall.SIGSTOP)
}

// thaw lets it go on.
func (p *process) thaw() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.frozen || !p.runs() {
		return nil
	}
	p.frozen = false
	pid := p.cmd.Process.Pid
	return errors.Join(signalAll(pid, syscall.SIGCONT), syscall.Kill(pid, syscall.SIGCONT))
}

// signalAll sends a signal to the descendants of a process.
func signalAll(pid int, s syscall.Signal) error {
	children, err := descendants(pid)
	for _, c := range children {
		if e := syscall.Kill(c, s); e != nil && !errors.Is(e, syscall.ESRCH) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// pid is the process id; 0 when it does not run.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runs() {
		return 0
	}
	return p.cmd.Process.Pid
}
