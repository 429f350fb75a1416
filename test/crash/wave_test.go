package crash_test

import (
	"bytes"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

// TestWaveThroughKills is the wave of the issue: the product's own load tool
// sends 10,000 phones, the server is killed and started again twice in the
// middle, and every phone ends acknowledged.
func TestWaveThroughKills(t *testing.T) {
	onlyLong(t)
	const phones, over = 10000, 30 * time.Second
	w := newWorld(t, "", "--participants", "10000")
	// The tool knows one address, so the server has it again after each start.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := w.options()
	o.Args = append(o.Args, "--http", l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := server.Start(t, o)
	load := exec.Command(w.binary, "load", "--target", s.URL, "--data", w.data, "--phones", "10000", "--over", over.String(), "--retry", "--acks", w.acks)
	load.Env = server.Environ()
	var said bytes.Buffer
	load.Stdout, load.Stderr = &said, &said
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = load.Process.Kill() })
	r := random(t)
	for range 2 {
		time.Sleep(between(r, over/8, over/4))
		s.Kill()
		time.Sleep(between(r, 0, time.Second))
		s = server.Start(t, o)
	}
	if err := load.Wait(); err != nil {
		t.Errorf("load: %v", err)
	}
	t.Logf("the load tool says:\n%s", strings.TrimSpace(said.String()))
	eventually(t, 60*time.Second, "the projector has caught up", func() bool { return w.judge(false).Pending == 0 })
	if s.Stop(); s.ExitCode() != 0 {
		t.Errorf("stop: %v\n%s", s.Err(), tail(s.Output()))
	}
	a := w.judge(true)
	w.clean(a)
	if a.Recorded != phones || a.Acks.Lines != phones {
		t.Errorf("%d phones, recorded %d, acknowledged %d", phones, a.Recorded, a.Acks.Lines)
	}
	t.Logf("phones %d, kills 2: %s", phones, a)
}
