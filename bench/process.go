package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is a server under measurement.
type process struct {
	cmd     *exec.Cmd
	pid     int    // of the server itself, which may be a child of cmd
	address string // of its public listener
	admin   string // of its admin listener, "" for a contender
	log     *os.File
	ended   chan error // holds the outcome when the process has ended
}

// watch waits for the process beside everything else.
func (p *process) watch() {
	p.ended = make(chan error, 1)
	go func() { p.ended <- p.cmd.Wait() }()
}

// startContender starts this program as one of its contenders.
func startContender(kind, dir string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, contenderCommand, "-kind", kind, "-log", filepath.Join(dir, kind+".log"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: no address: %w", kind, err), cmd.Process.Kill(), cmd.Wait())
	}
	p := &process{cmd: cmd, pid: cmd.Process.Pid, address: strings.TrimSpace(line)}
	p.watch()
	return p, nil
}

// freeAddress is one that nobody listens on right now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// startServer starts the product on a data folder and waits until it is ready.
// before are a program and its arguments that start it, such as strace.
func startServer(ctx context.Context, o *options, data string, before []string, args ...string) (*process, error) {
	p := &process{}
	var err error
	if p.address, err = freeAddress(); err != nil {
		return nil, err
	}
	if p.admin, err = freeAddress(); err != nil {
		return nil, err
	}
	if p.log, err = os.OpenFile(data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	line := append(append([]string{}, before...), o.binary, "serve", "--data", data, "--http", p.address, "--admin", p.admin, "--anchor", data+".anchor")
	line = append(line, args...)
	p.cmd = exec.Command(line[0], line[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.pid = p.cmd.Process.Pid
	p.watch()
	deadline := time.After(30 * time.Second)
	for !p.ready(ctx) {
		err := ctx.Err()
		select {
		case err = <-p.ended:
			text, _ := os.ReadFile(p.log.Name())
			return nil, errors.Join(fmt.Errorf("the server ended: %s", text), err, p.log.Close())
		case <-deadline:
			err = errors.New("the server did not become ready within 30 s")
		case <-time.After(50 * time.Millisecond):
		}
		if err != nil {
			return nil, errors.Join(err, p.stop())
		}
	}
	if len(before) > 0 {
		if p.pid, err = onlyChild(p.pid); err != nil {
			return nil, errors.Join(err, p.stop())
		}
	}
	return p, nil
}

func onlyChild(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func (p *process) ready(ctx context.Context) bool {
	_, err := p.get(ctx, "/readyz")
	return err == nil
}

// get asks the admin listener.
func (p *process) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return body, err
}

// status is the part of /status that is measured.
type status struct {
	Intake struct {
		Facts  uint64 `json:"facts"`
		Frames uint64 `json:"frames"`
	} `json:"intake"`
	Projector struct {
		Applied uint64 `json:"applied"`
		End     uint64 `json:"end"`
	} `json:"projector"`
}

func (p *process) status(ctx context.Context) (s status, err error) {
	if p.admin == "" {
		return s, nil
	}
	body, err := p.get(ctx, "/status")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(body, &s)
}

// projected waits until the tables hold all that the journal holds.
func (p *process) projected(ctx context.Context) error {
	for {
		s, err := p.status(ctx)
		if err != nil {
			return err
		}
		if s.Projector.Applied >= s.Projector.End {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the process and waits for it.
func (p *process) stop() error {
	if p.log != nil {
		defer p.log.Close()
	}
	if p.admin == "" {
		_ = p.cmd.Process.Kill() // a contender has nothing to close
		if err := <-p.ended; err == nil {
			return errors.New("a contender ended by itself")
		}
		return nil // killed, as meant
	}
	if server, err := os.FindProcess(p.pid); err == nil {
		_ = server.Signal(os.Interrupt) // it may be gone
	}
	select {
	case err := <-p.ended:
		return err
	case <-time.After(20 * time.Second):
		return errors.Join(errors.New("the server did not stop within 20 s"), p.cmd.Process.Kill(), <-p.ended)
	}
}

// cpu is the time that the process has spent on a core, user and system.
func (p *process) cpu() (time.Duration, error) { return ticks(p.pid, false) }

// ticks is the user and system time of a process, with that of the children it
// has waited for if asked.
func ticks(pid int, children bool) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name may hold spaces; behind it utime, stime, cutime and cstime are the 12th to 15th field.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	last := 12
	if children {
		last = 14
	}
	var sum time.Duration
	for _, field := range fields[11 : last+1] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// memory is a line of /proc/PID/status in MiB: VmRSS now, VmHWM at its highest.
func (p *process) memory(name string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024
		}
	}
	return 0
}
