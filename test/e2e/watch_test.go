package e2e_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

// tidegate status is for people and for supervisors: a line a dependency, and
// an exit code that says whether all is well.
func TestStatusTellsWhatIsWrong(t *testing.T) {
	parallel(t)
	s := server.Start(t, server.Options{Serve: true, Data: place(t)})
	out := must(t, "status", "--data", s.Data)
	for _, name := range []string{"ready", "journal", "projector", "vault", "anchor ", "intake", "refused"} {
		if !strings.Contains("\n"+out, "\n"+name) {
			t.Errorf("no line for %q:\n%s", name, out)
		}
	}
	if strings.ContainsAny(out, "{}") || strings.Contains(out, "NOT WELL") {
		t.Errorf("not for people:\n%s", out)
	}
	if out, _, code := tidegate(t, "status", "--admin", strings.TrimPrefix(s.URL, "http://")); code != 1 || out != "" {
		t.Errorf("another server's answer: exit %d %s", code, out)
	}
	// A vault that is gone is seen within one look.
	vault := filepath.Join(s.Data, "vault.db")
	if err := os.Rename(vault, vault+".away"); err != nil {
		t.Fatal(err)
	}
	wait := func(want int) string {
		t.Helper()
		for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			out, errs, code := tidegate(t, "status", "--data", s.Data)
			if code == want {
				return out
			}
			if time.Now().After(deadline) {
				t.Fatalf("exit %d, want %d\n%s%s", code, want, out, errs)
			}
		}
	}
	if out := wait(1); !strings.Contains(out, "NOT WELL: failing since ") || !strings.Contains(out, "reports are still taken") {
		t.Errorf("a vault that is gone:\n%s", out)
	}
	if out, _, code := tidegate(t, "status", "--data", s.Data, "--json"); code != 1 || !strings.HasPrefix(out, "{") {
		t.Errorf("--json: exit %d\n%s", code, out)
	}
	if err := os.Rename(vault+".away", vault); err != nil {
		t.Fatal(err)
	}
	wait(0)
	s.Stop()

	// Not ready is exit 1 too, with the reason.
	s = server.Start(t, server.Options{Serve: true, Data: s.Data})
	s.Stop()
	full := server.Launch(t, server.Options{Serve: true, Data: s.Data, Env: []string{"TIDEGATE_INTAKE_DISKFLOORMB=1000000000"}})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, _, code := tidegate(t, "status", "--data", full.Data)
		if code == 1 && strings.Contains(out, "NO: the disk is nearly full") && strings.Contains(out, "intake.diskFloorMB") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a full disk: exit %d\n%s", code, out)
		}
	}
	for _, env := range []string{"A=b", "TIDEGATE_INTAKE_DISKFLOORMB=1000000000"} { // asked of the server, and done here
		text := refusal{t: t, code: 1, says: "free space and run this again", run: func(args ...string) (string, string, int) {
			out, errs, code := tidegateEnv(t, env, args...)
			return out, withoutLog(errs), code
		}}.of("token", "staff", "--data", full.Data, "--role", "admin", "--name", "ada")
		if !strings.Contains(text, "1000000000 MB") {
			t.Error(text)
		}
		full.Stop()
	}
}

// A supervisor signals the process and then its group: the request in hand
// still gets its answer. Two Ctrl-C end at once.
func TestTwoSignals(t *testing.T) {
	parallel(t)
	s := server.Start(t, server.Options{Data: place(t), Participants: 20})
	body := fmt.Sprintf(`{"patientId":"P-000001","trialId":"T001","timestamp":%q,"qolScore":7}`, time.Now().Format(time.RFC3339))
	begin := func(s *server.Server) (conn net.Conn, finish func() int) {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = fmt.Fprintf(conn, "POST /v1/patient/report HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			s.Token("P-000001", "T001"), len(body), body[:10])
		time.Sleep(200 * time.Millisecond) // until the server reads the body
		return conn, func() int {
			_, _ = conn.Write([]byte(body[10:]))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("no answer: %v\n%s", err, s.Output())
			}
			_ = resp.Body.Close()
			return resp.StatusCode
		}
	}
	send := func(s *server.Server, signals ...os.Signal) {
		t.Helper()
		for _, sig := range signals {
			if err := s.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	_, finish := begin(s)
	send(s, syscall.SIGTERM, syscall.SIGTERM)
	if code := finish(); code != http.StatusOK {
		t.Errorf("the request in hand: %d", code)
	}
	if code := s.ExitCode(); code != 0 || !strings.Contains(s.Output(), "stopped cleanly") {
		t.Fatalf("two SIGTERM: exit %d\n%s", code, s.Output())
	}

	s = again(t, s)
	begin(s)
	start := time.Now()
	send(s, os.Interrupt, os.Interrupt)
	if code := s.ExitCode(); code != 1 || time.Since(start) > 3*time.Second {
		t.Fatalf("two SIGINT: exit %d after %v\n%s", code, time.Since(start), s.Output())
	}
}

// TLS files are looked at before anything is made.
func TestWrongTLSFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair := func(name string) (cert, key string) {
		t.Helper()
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, k.Public(), k)
		if err != nil {
			t.Fatal(err)
		}
		p, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
		for path, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c}, key: {Type: "PRIVATE KEY", Bytes: p}} {
			if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return cert, key
	}
	cert, key := pair("a")
	_, other := pair("b")
	data := place(t)
	for _, c := range []struct{ cert, key, says string }{
		{cert, other, "does not match"},
		{cert, filepath.Join(dir, "none.key"), "no such file"},
		{key, key, "cannot be used"},
	} {
		path := filepath.Join(t.TempDir(), "tidegate.yaml")
		if err := os.WriteFile(path, fmt.Appendf(nil, "tls:\n  cert: %s\n  key: %s\n", c.cert, c.key), 0o600); err != nil {
			t.Fatal(err)
		}
		refusal{t: t, code: 1, says: c.says}.of("config", "check", path)
		refusal{t: t, code: 1, says: c.says}.of(serveArgs(data, "--config", path)...)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("the data folder was made")
	}
	path := filepath.Join(dir, "tidegate.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, "tls:\n  cert: %s\n  key: %s\n", cert, key), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "config", "check", path); out != "ok\n" {
		t.Error(out)
	}
}
