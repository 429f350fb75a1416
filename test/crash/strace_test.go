package crash_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// syncs are the system calls that make a write durable.
const syncs = "fdatasync,fsync"

// tamper makes strace interfere with the syncs of a running process, all of
// its threads, until detach is called. how is what stands behind the colon of
// strace's --inject; a count in it (when=N) is kept per thread. It skips the
// test where strace cannot be had.
func tamper(t testing.TB, pid int, how string) (detach func()) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("not shown here: failing system calls need Linux and strace")
	}
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("not shown here: strace is not installed (test/services/install.sh installs it)")
	}
	cmd := exec.Command("strace", "-f", "-o", filepath.Join(t.TempDir(), "calls"), "-p", strconv.Itoa(pid),
		"-e", "trace="+syncs, "-e", "inject="+syncs+":"+how)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	attached, ended := make(chan bool, 1), make(chan struct{})
	var said strings.Builder
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "attached") {
				select {
				case attached <- true:
				default:
				}
			}
		}
		_ = cmd.Wait()
		close(attached)
	}()
	done := false
	detach = func() {
		if done {
			return
		}
		done = true
		_ = cmd.Process.Signal(syscall.SIGINT) // detaches and lets the process go on
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	t.Cleanup(detach)
	select {
	case ok := <-attached:
		if !ok {
			t.Skipf("not shown here: strace may not trace another process: %s", strings.TrimSpace(said.String()))
		}
	case <-time.After(10 * time.Second):
		t.Fatal("strace did not attach in 10 s")
	}
	return detach
}

// injected counts the calls that strace interfered with so far.
func injected(t testing.TB) int {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(t.TempDir()), "*", "calls"))
	n := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		n += strings.Count(string(b), "INJECTED")
	}
	return n
}
