package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/test/server"
)

// tinyCurl is as much of curl as the printed requests use, for machines without
// it: the test's own binary under the name curl.
func tinyCurl(args []string) int {
	method, body, target := http.MethodGet, "", ""
	header := http.Header{}
	for i := 0; i < len(args); i++ {
		next := func() string {
			if i++; i < len(args) {
				return args[i]
			}
			return ""
		}
		switch a := args[i]; a {
		case "-H":
			name, value, _ := strings.Cut(next(), ":")
			header.Add(name, strings.TrimSpace(value))
		case "-d":
			method, body = http.MethodPost, next()
		case "-sS":
		default:
			target = a
		}
	}
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		return 2
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		return 7
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		return 56
	}
	return 0
}

// shell runs commands as they are printed, in a folder of their own.
type shell struct {
	t    *testing.T
	dir  string
	path string
}

func newShell(t *testing.T, tiny bool) *shell {
	t.Helper()
	sh := &shell{t: t, dir: t.TempDir(), path: os.Getenv("PATH")}
	if _, err := exec.LookPath("curl"); err != nil || tiny {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		bin := t.TempDir()
		if err := os.Symlink(self, filepath.Join(bin, "curl")); err != nil {
			t.Fatal(err)
		}
		sh.path = bin + string(os.PathListSeparator) + sh.path
	}
	return sh
}

func (sh *shell) run(command string) (string, error) {
	sh.t.Helper()
	cmd := exec.Command("sh", "-c", command) //nolint:gosec // what the program itself printed
	cmd.Dir, cmd.Env = sh.dir, append(os.Environ(), "PATH="+sh.path)
	cmd.Stderr = nil
	out, err := cmd.Output()
	return string(out), err
}

func (sh *shell) must(command string) string {
	sh.t.Helper()
	out, err := sh.run(command)
	if err != nil {
		sh.t.Fatalf("$ %s\n%s%v", command, out, err)
	}
	return out
}

// printed are the commands that demo printed: lines that are indented, with
// what follows a backslash at the end of one.
func printed(output string) []string {
	var out []string
	more := false
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\n")
		switch {
		case more:
			out[len(out)-1] += "\n" + line
		case strings.HasPrefix(line, "  "):
			out = append(out, strings.TrimSpace(line))
		default:
			continue
		}
		more = strings.HasSuffix(line, `\`)
	}
	return out
}

// The README's path: everything that demo prints is pasted, as it is, into a
// shell; a wave goes through; the server is killed in the middle of it and
// started again; nothing was lost.
func TestWhatDemoPrintsWorksAsPrinted(t *testing.T) {
	parallel(t)
	s := server.Start(t, server.Options{Data: place(t), Participants: 300})
	commands := printed(s.Output())
	find := func(what string) string {
		t.Helper()
		for i, c := range commands {
			if strings.Contains(c, what) {
				commands = append(commands[:i:i], commands[i+1:]...)
				return c
			}
		}
		t.Fatalf("demo does not print a command with %q:\n%s", what, s.Output())
		return ""
	}
	root := commands[0]
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(root) {
		t.Fatalf("the root key's fingerprint is not printed first: %q", root)
	}
	commands = commands[1:]
	sh := newShell(t, false)

	var answer struct{ Status, Message, ReportID, Receipt, Durability string }
	send := find("/v1/patient/report \\")
	if err := json.Unmarshal([]byte(sh.must(send)), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Status != "success" || answer.Message != "Report for patient P-000001 received." || answer.Receipt == "" {
		t.Fatalf("the answer to the printed request: %+v", answer)
	}
	(user{t, s, s.Staff("admin", "watcher")}).books("T001") // until it is projected
	var own struct{ Reports []report }
	list := find("/v1/patient/reports")
	if err := json.Unmarshal([]byte(sh.must(list)), &own); err != nil {
		t.Fatal(err)
	}
	if tiny := newShell(t, true); tiny.must(list) != sh.must(list) {
		t.Fatal("this test's own curl gets another answer")
	}
	if len(own.Reports) != 1 || own.Reports[0].ReportID != answer.ReportID || own.Reports[0].Disposition != "recorded" {
		t.Fatalf("own reports: %+v", own.Reports)
	}
	var b books
	if err := json.Unmarshal([]byte(sh.must(find("/books"))), &b); err != nil {
		t.Fatal(err)
	}
	if b != (books{Accepted: 1, Recorded: 1}) {
		t.Fatalf("books: %+v", b)
	}

	sh.must(find("/v1/keys"))
	check := find("verify receipt")
	if !strings.Contains(check, "RECEIPT") || !strings.Contains(check, root) {
		t.Fatalf("the printed check: %s", check)
	}
	if out := sh.must(strings.Replace(check, "RECEIPT", answer.Receipt, 1)); !strings.HasPrefix(out, "valid") || !strings.Contains(out, answer.ReportID) {
		t.Fatalf("the receipt, checked as printed:\n%s", out)
	}
	// The whole answer may be pasted too, and a flipped bit is told.
	whole, _ := json.Marshal(map[string]string{"receipt": answer.Receipt})
	sh.must(strings.Replace(check, "RECEIPT", string(whole), 1))
	spoilt := []byte(answer.Receipt)
	spoilt[len(spoilt)/2] ^= 1
	if out, err := sh.run(strings.Replace(check, "RECEIPT", string(spoilt), 1)); err == nil {
		t.Fatalf("a receipt with another letter is valid:\n%s", out)
	}

	load, audit := find(" load "), find(" verify --data")
	if len(commands) != 0 {
		t.Fatalf("demo prints commands that this test does not run: %q", commands)
	}
	const size = "--phones 10000 --over 60s"
	if !strings.Contains(load, size) {
		t.Fatalf("the printed wave: %s", load)
	}
	load = strings.Replace(load, size, "--phones 300 --over 4s", 1)
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() { out, err := sh.run(load); done <- result{out, err} }()
	w := &wave{t: t, acks: filepath.Join(sh.dir, "acks.ndjson")}
	w.acknowledged(60)
	s.Kill()
	s = again(t, s)
	if r := <-done; r.err != nil {
		t.Fatalf("load over a kill: %v\n%s", r.err, r.out)
	}
	if out := sh.must(audit); !strings.Contains(out, "no findings") || !regexp.MustCompile(`(?m)^lost +0$`).MatchString(out) {
		t.Fatalf("verify, as printed, beside the server:\n%s", out)
	}
	a := clean(t, s.Data, "--acks", w.acks)
	if a.Acks.Lines != 300 || a.Acks.Found != 300 || a.Recorded != 301 {
		t.Fatalf("300 phones and one request: %+v", a)
	}
	// The -wal that the kill left was kept before recovery.
	kept, err := filepath.Glob(filepath.Join(s.Data, "recovery", "journal.db-wal.*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("copies of the -wal: %v %v", kept, err)
	}
	if took := s.Stop(); s.ExitCode() != 0 {
		t.Fatalf("stop after %s: exit %d\n%s", took, s.ExitCode(), s.Output())
	}
	clean(t, s.Data, "--acks", w.acks)
}
