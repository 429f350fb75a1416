package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

// demoCluster is the program behind make cluster, at work.
type demoCluster struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

func startDemoCluster(t *testing.T, dir string, port int) *demoCluster {
	t.Helper()
	program := filepath.Join(t.TempDir(), "up")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "no_k8s", "-o", program, "./test/cluster/up")
	build.Dir, build.Env = server.Root(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := &demoCluster{t: t, log: filepath.Join(t.TempDir(), "log"), ended: make(chan struct{})}
	out, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c.cmd = exec.Command(program, "-data", dir, "-port", strconv.Itoa(port), "-participants", "300", "-tidegate", server.Binary(t, ""))
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.Dir = out, out, server.Root(t)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.cmd.Wait(); close(c.ended) }()
	t.Cleanup(c.stop)
	eventually(t, "make cluster has printed all", func() (bool, string) {
		select {
		case <-c.ended:
			t.Fatalf("it ended:\n%s", c.output())
		default:
		}
		return strings.Contains(c.output(), "Stop: Ctrl-C"), c.output()
	})
	return c
}

func (c *demoCluster) output() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// stop is Ctrl-C; all of it must end well.
func (c *demoCluster) stop() {
	_ = c.cmd.Process.Signal(os.Interrupt)
	select {
	case <-c.ended:
	case <-time.After(time.Minute):
		c.t.Error("it does not stop")
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
	if !c.cmd.ProcessState.Success() {
		c.t.Errorf("it ended with %s\n%s", c.cmd.ProcessState, c.output())
	}
}

// The README's path for the second shape: everything that make cluster prints is
// pasted, as it is, into a shell; a wave goes through a gateway that is killed
// and comes back; a second start goes on with the same data.
func TestWhatClusterPrintsWorksAsPrinted(t *testing.T) {
	onlyLong(t)
	services.Missing(t)
	// Not t.TempDir: PostgreSQL may have to run as another user, who cannot enter it.
	temp, err := os.MkdirTemp("", "tidegate-cluster-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(temp) })
	if err := os.Chmod(temp, 0o711); err != nil { //nolint:gosec // likewise
		t.Fatal(err)
	}
	dir, port := filepath.Join(temp, "cluster"), services.FreePort(t)
	c := startDemoCluster(t, dir, port)
	commands := printed(c.output())
	find := func(what string) string {
		t.Helper()
		for _, c := range commands {
			if strings.Contains(c, what) {
				return c
			}
		}
		t.Fatalf("no command with %q:\n%s", what, c.output())
		return ""
	}
	root := commands[0]
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(root) {
		t.Fatalf("the root key's fingerprint is not printed first: %q", root)
	}
	sh := newShell(t, false)
	var answer struct{ Status, ReportID, Receipt, Durability string }
	send := find("/v1/patient/report \\")
	post := func(command string) {
		t.Helper()
		text := sh.must(command)
		if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Status != "success" || answer.Receipt == "" {
			t.Fatalf("%v: %s", err, text)
		}
	}
	// For some seconds after the standby was made synchronous no more is claimed
	// than before.
	stamp := regexp.MustCompile(`"timestamp":"[^"]*"`)
	others := 0
	eventually(t, "a report survives the loss of a database server", func() (bool, string) {
		time.Sleep(time.Second)
		post(stamp.ReplaceAllString(send, fmt.Sprintf(`"timestamp":%q`, time.Now().Format(time.RFC3339))))
		others++
		return answer.Durability == "sync-replica", answer.Durability
	})
	post(send)
	eventually(t, "the report is recorded", func() (bool, string) {
		text := sh.must(find("/v1/patient/reports"))
		return strings.Contains(text, answer.ReportID) && strings.Contains(text, `"recorded"`), text
	})
	if text := sh.must(find("/books")); !strings.Contains(text, fmt.Sprintf(`"recorded":%d`, others+1)) {
		t.Errorf("books: %s", text)
	}
	if text := sh.must(find("/v1/patient/trials")); !strings.Contains(text, "DrugX") {
		t.Errorf("trials: %s", text)
	}
	sh.must(find("/v1/keys"))
	if out := sh.must(strings.Replace(find("verify receipt"), "RECEIPT", answer.Receipt, 1)); !strings.HasPrefix(out, "valid") {
		t.Errorf("the receipt, checked as printed:\n%s", out)
	}

	load := strings.Replace(find(" load "), "--phones 10000 --over 60s", "--phones 300 --over 5s", 1)
	done := make(chan error, 1)
	go func() {
		out, err := sh.run(load)
		if err != nil {
			err = errors.Join(err, errors.New(out))
		}
		done <- err
	}()
	(&wave{t: t, acks: filepath.Join(sh.dir, "acks.ndjson")}).acknowledged(60)
	gateway := regexp.MustCompile(`gateway-1 +pid (\d+)`).FindStringSubmatch(c.output())
	if gateway == nil {
		t.Fatalf("no pid of gateway-1:\n%s", c.output())
	}
	pid, err := strconv.Atoi(gateway[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatalf("load over a kill: %v", err)
	}
	audit := find(" verify --data")
	eventually(t, "verify, as printed, is clean and nothing is pending", func() (bool, string) {
		out, err := sh.run(audit)
		return err == nil && regexp.MustCompile(`(?m)^lost +0$`).MatchString(out) && regexp.MustCompile(`(?m)^pending +0$`).MatchString(out), out
	})
	c.stop()

	c = startDemoCluster(t, dir, port)
	if out := sh.must(audit); !regexp.MustCompile(`(?m)^acks +300$`).MatchString(out) {
		t.Errorf("after a second start:\n%s", out)
	}
	if text := sh.must(find("/v1/patient/reports")); !strings.Contains(text, answer.ReportID) {
		t.Errorf("after a second start: %s", text)
	}
	for i := range 2 {
		if want := fmt.Sprintf("gateway-%d ", i+1); !strings.Contains(c.output(), want) {
			t.Errorf("%s is not named:\n%s", want, c.output())
		}
	}
}
