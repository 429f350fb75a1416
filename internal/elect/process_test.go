package elect_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tidegate/tidegate/internal/elect"
)

// asProcess makes this test's binary a candidate of its own, which can be
// killed and frozen. Its value is the endpoint.
const asProcess = "ELECT_TEST_ENDPOINT"

// candidateProcess is that candidate.
func candidateProcess() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	o := elect.Options{Endpoints: []string{os.Getenv(asProcess)}, Key: key, Name: "process", TTL: ttl}
	err := elect.Run(ctx, o, func(ctx context.Context) error {
		fmt.Println("leads")
		<-ctx.Done()
		fmt.Println("lost")
		return ctx.Err()
	})
	if err != nil {
		fmt.Println(err)
	}
}

// process is a candidate in a process of its own.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
}

func startProcess(t *testing.T, endpoint string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(self), lines: make(chan string, 16)}
	p.cmd.Env = append(os.Environ(), asProcess+"="+endpoint)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- strings.TrimSpace(s.Text())
		}
	}()
	t.Cleanup(func() { p.kill(); _ = p.cmd.Wait() })
	return p
}

// says waits for its next line.
func (p *process) says(want string) {
	p.t.Helper()
	select {
	case got := <-p.lines:
		if got != want {
			p.t.Fatalf("the candidate's process says %q, want %q", got, want)
		}
	case <-time.After(limit):
		p.t.Fatalf("the candidate's process does not say %q", want)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) kill() { _ = p.cmd.Process.Kill() }

// prefixed lists the candidates in the order in which they stood up.
func prefixed() []clientv3.OpOption {
	return []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)}
}
