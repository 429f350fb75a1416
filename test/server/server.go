// Package server runs the real tidegate binary as a user would, for the tests
// of the whole system: built once, started on free ports, killed or stopped.
package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	buildMu sync.Mutex
	built   = map[string]string{} // name → path
	buildIn string
)

// Root is the repository's top folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above the test")
	return ""
}

// Binary builds cmd/tidegate once per test process and set of build tags. The
// tag faultpoints gives the one with fault points; none gives what users get.
func Binary(t testing.TB, tags string) string {
	t.Helper()
	return build(t, "tidegate-"+tags, "./cmd/tidegate", "-tags", strings.TrimSuffix("no_k8s,"+tags, ","))
}

// Verifier2 builds the second verifier once per test process.
func Verifier2(t testing.TB) string {
	t.Helper()
	return build(t, "verify2", "./test/verify2")
}

// build builds a program of this module, once for each name.
func build(t testing.TB, name, program string, flags ...string) string {
	t.Helper()
	buildMu.Lock()
	defer buildMu.Unlock()
	if path := built[name]; path != "" {
		return path
	}
	if buildIn == "" {
		dir, err := os.MkdirTemp("", "tidegate-test-") //nolint:usetesting // outlives the test that builds first; CleanUp removes it
		if err != nil {
			t.Fatal(err)
		}
		buildIn = dir
	}
	lookAtSources(t)
	path := filepath.Join(buildIn, name)
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", path, program)...) //nolint:gosec // the programs named above
	cmd.Dir = Root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	built[name] = path
	return path
}

// lookAtSources looks at every file that the programs are built from, so that go
// test knows them: it forgets a cached result when a file that the test looked
// at has changed, and cannot see what a build in another process read.
func lookAtSources(t testing.TB) {
	t.Helper()
	for _, dir := range []string{"cmd", "internal", "test/verify2", "go.mod"} {
		if err := filepath.WalkDir(filepath.Join(Root(t), dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				_, err = os.Stat(path)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// CleanUp removes the binaries; call it at the end of TestMain.
func CleanUp() {
	if buildIn != "" {
		_ = os.RemoveAll(buildIn)
	}
}

// Environ is the environment without TIDEGATE_ variables: those speak to the
// tests, and the program would rightly refuse the ones it does not know.
func Environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "TIDEGATE_") })
}

// Options of a server under test.
type Options struct {
	Tags         string   // build tags of the binary
	Data         string   // folder; empty: a new one
	Participants int      // of the demo registry; 0: 50
	Serve        bool     // `serve` instead of `demo`
	Env          []string // added to the environment
	Args         []string // added to the command line
	Wrap         []string // command in front, such as strace with its options
	Wait         time.Duration
}

// Server is a running process.
type Server struct {
	t       testing.TB
	Binary  string
	Data    string
	URL     string // public, without a slash at the end
	Admin   string
	RPC     string      // address of the Trial service
	Config  string      // file for commands beside the server; "" on one machine, where the folder is enough
	Process *os.Process // nil for a server of several processes

	whole Whole
	cmd   *exec.Cmd
	out   *buffer
	ended chan struct{}
	err   error
}

// buffer is a bytes.Buffer that two goroutines may use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }

func (b *buffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

// Launch starts a server and returns at once; the process may still fail.
func Launch(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Data == "" {
		o.Data = filepath.Join(t.TempDir(), "data")
	}
	if o.Participants == 0 {
		o.Participants = 50
	}
	binary := Binary(t, o.Tags)
	args := []string{"demo", "--participants", fmt.Sprint(o.Participants)}
	if o.Serve {
		args = []string{"serve"}
	}
	args = append(args, "--data", o.Data, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--rpc", "127.0.0.1:0")
	args = append(append(append([]string{}, o.Wrap...), binary), append(args, o.Args...)...)
	s := &Server{t: t, Binary: binary, Data: o.Data, out: &buffer{}, ended: make(chan struct{})}
	s.cmd = exec.Command(args[0], args[1:]...) //nolint:gosec // a test's own command
	s.cmd.Env = append(Environ(), o.Env...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.Process = s.cmd.Process
	go func() { s.err = s.cmd.Wait(); close(s.ended) }()
	t.Cleanup(func() { s.Kill() })
	return s
}

// Start starts a server and waits until it is ready.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := Launch(t, o)
	if err := s.Ready(o.Wait); err != nil {
		t.Fatalf("%v\n%s", err, s.Output())
	}
	return s
}

// Ready waits until the server answers that it is ready; 0 means 30 s.
func (s *Server) Ready(limit time.Duration) error {
	if limit == 0 {
		limit = 30 * time.Second
	}
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		select {
		case <-s.ended:
			return fmt.Errorf("the server ended: %w", s.Err())
		default:
		}
		if s.findAddresses() {
			if resp, err := http.Get("http://" + s.Admin + "/readyz"); err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return nil
				}
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the server was not ready in time")
}

// findAddresses reads the line that says where the server listens.
func (s *Server) findAddresses() bool {
	for line := range strings.Lines(s.Output()) {
		if !strings.Contains(line, "msg=serving") {
			continue
		}
		for field := range strings.FieldsSeq(line) {
			if v, ok := strings.CutPrefix(field, "http="); ok {
				s.URL = "http://" + v
			}
			if v, ok := strings.CutPrefix(field, "admin="); ok {
				s.Admin = v
			}
			if v, ok := strings.CutPrefix(field, "rpc="); ok {
				s.RPC = v
			}
		}
	}
	return s.URL != "" && s.Admin != ""
}

// Output is all that the process printed so far.
func (s *Server) Output() string {
	if s.whole != nil {
		return s.whole.Output()
	}
	return s.out.String()
}

// Ended is closed when the process has ended.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Err is how the process ended; call it after Ended.
func (s *Server) Err() error {
	<-s.ended
	if s.err == nil {
		return errors.New("exit status 0")
	}
	return s.err
}

// ExitCode waits for the end and returns the exit code, -1 for a signal.
func (s *Server) ExitCode() int {
	<-s.ended
	switch {
	case s.whole == nil:
		return s.cmd.ProcessState.ExitCode()
	case s.err != nil:
		return 1
	default:
		return 0
	}
}

// Kill ends the process with SIGKILL and waits.
func (s *Server) Kill() {
	if s.whole != nil {
		s.whole.KillAll()
		s.end(errors.New("killed"))
		return
	}
	_ = s.Process.Signal(syscall.SIGKILL)
	<-s.ended
}

// Stop asks the process to stop and returns how long it took.
func (s *Server) Stop() time.Duration {
	s.t.Helper()
	start := time.Now()
	if s.whole != nil {
		s.end(s.whole.StopAll())
		return time.Since(start)
	}
	_ = s.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		s.t.Errorf("the server did not stop within 20 s\n%s", s.Output())
		s.Kill()
	}
	return time.Since(start)
}

// Run runs the binary with arguments and returns its output and exit code.
func Run(t testing.TB, binary string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = Environ()
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %v: %v", binary, args, err)
	}
	return out.String(), errb.String(), cmd.ProcessState.ExitCode()
}

// Must runs the binary and fails the test unless it exits 0.
func Must(t testing.TB, binary string, args ...string) string {
	t.Helper()
	out, errb, code := Run(t, binary, args...)
	if code != 0 {
		t.Fatalf("tidegate %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errb)
	}
	return out
}

// Token prints a participant's token.
func (s *Server) Token(patient, trial string) string {
	s.t.Helper()
	return strings.TrimSpace(Must(s.t, s.Binary, "token", "participant", "--data", s.Data, "--patient", patient, "--trial", trial))
}

// Staff prints a staff member's token.
func (s *Server) Staff(role, name string, args ...string) string {
	s.t.Helper()
	return strings.TrimSpace(Must(s.t, s.Binary, append(append([]string{"token", "staff", "--role", role, "--name", name}, s.Flags()...), args...)...))
}

// Do sends a request and returns the status and the body.
func (s *Server) Do(method, path, token, contentType, body string) (int, http.Header, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// Get reads a path.
func (s *Server) Get(path, token string) (int, string) {
	s.t.Helper()
	code, _, body := s.Do(http.MethodGet, path, token, "", "")
	return code, body
}

// Post sends JSON.
func (s *Server) Post(path, token, body string) (int, string) {
	s.t.Helper()
	code, _, answer := s.Do(http.MethodPost, path, token, "application/json", body)
	return code, answer
}

// Status reads /status of the admin listener; 0 when it does not answer.
func (s *Server) Status() (int, string) {
	resp, err := http.Get("http://" + s.Admin + "/status")
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}
