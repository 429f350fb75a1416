package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "curl" {
		os.Exit(tinyCurl(os.Args[1:])) // see readme_test.go
	}
	code := m.Run()
	services.CleanUp()
	server.CleanUp()
	os.Exit(code)
}

func onlyLong(t *testing.T) {
	t.Helper()
	if os.Getenv("TIDEGATE_LONG") != "1" {
		t.Skip("a long test: TIDEGATE_LONG=1 runs it, as `make test-all` does")
	}
}

// slots bounds how many servers run at once.
var slots = make(chan struct{}, 3)

// parallel lets the test run beside others, as far as there are slots.
func parallel(t *testing.T) {
	t.Helper()
	t.Parallel()
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
}

// place is a new folder for a data folder and the anchors beside it.
func place(t *testing.T) string { t.Helper(); return filepath.Join(t.TempDir(), "data") }

// tidegate runs a command of the binary.
func tidegate(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return server.Run(t, server.Binary(t, ""), args...)
}

// must runs a command that has to succeed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	return server.Must(t, server.Binary(t, ""), args...)
}

// audit is what tidegate verify --json prints.
type audit struct {
	OK            bool   `json:"ok"`
	Accepted      uint64 `json:"accepted"`
	Recorded      uint64 `json:"recorded"`
	Duplicates    uint64 `json:"duplicates"`
	Conflicts     uint64 `json:"conflicts"`
	Quarantined   uint64 `json:"quarantined"`
	Pending       uint64 `json:"pending"`
	Lost          uint64 `json:"lost"`
	Altered       uint64 `json:"altered"`
	Doubled       uint64 `json:"doubled"`
	Eras          uint64 `json:"eras"`
	AnchorsHeld   int    `json:"anchorsHeld"`
	RebuildSame   *bool  `json:"rebuildSame"`
	TablesChecked bool   `json:"tablesChecked"`
	Acks          *struct {
		Lines uint64 `json:"lines"`
		Found uint64 `json:"found"`
	} `json:"acks"`
	Findings []struct {
		Check string `json:"check"`
		Text  string `json:"text"`
	} `json:"findings"`
}

// verify audits a data folder and checks that the exit code agrees.
func verify(t *testing.T, data string, args ...string) audit {
	t.Helper()
	return verifyAt(t, []string{"--data", data}, args...)
}

// verifyAt audits what the flags lead to.
func verifyAt(t *testing.T, where []string, args ...string) audit {
	t.Helper()
	out, errs, code := tidegate(t, append(append([]string{"verify", "--json"}, where...), args...)...)
	var a audit
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		t.Fatalf("verify --json: exit %d, %v\n%s%s", code, err, out, errs)
	}
	if a.OK != (code == 0) || a.OK != (len(a.Findings) == 0) {
		t.Fatalf("verify says ok=%v with %d findings, but exits %d", a.OK, len(a.Findings), code)
	}
	if a.OK && a.TablesChecked && a.Accepted != a.Recorded+a.Duplicates+a.Conflicts+a.Quarantined+a.Pending {
		t.Errorf("the books do not balance: %+v", a)
	}
	return a
}

// clean is verify without a finding.
func clean(t *testing.T, data string, args ...string) audit {
	t.Helper()
	return cleanAt(t, []string{"--data", data}, args...)
}

// cleanAt is verifyAt without a finding.
func cleanAt(t *testing.T, where []string, args ...string) audit {
	t.Helper()
	a := verifyAt(t, where, args...)
	if !a.OK || a.Lost != 0 || a.Altered != 0 || a.Doubled != 0 {
		a.Findings = a.Findings[:min(3, len(a.Findings))]
		t.Fatalf("verify %v: %+v", args, a)
	}
	return a
}

// user sends requests with one token.
type user struct {
	t     *testing.T
	s     *server.Server
	token string
}

// get reads JSON; the status must be the one wanted.
func (u user) get(path string, want int, into any) {
	u.t.Helper()
	code, body := u.s.Get(path, u.token)
	if code != want {
		u.t.Fatalf("GET %s: %d, want %d\n%s", path, code, want, body)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(body), into); err != nil {
			u.t.Fatalf("GET %s: %v\n%s", path, err, body)
		}
	}
}

// object is any JSON object.
type object map[string]any

func (o object) text(name string) string { s, _ := o[name].(string); return s }

// post sends an object; the status must be the one wanted.
func (u user) post(path string, want int, body object) object {
	u.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		u.t.Fatal(err)
	}
	return u.postText(path, want, string(b))
}

func (u user) postText(path string, want int, body string) object {
	u.t.Helper()
	code, answer := u.s.Post(path, u.token, body)
	if code != want {
		u.t.Fatalf("POST %s %s: %d, want %d\n%s", path, body, code, want, answer)
	}
	var o object
	if err := json.Unmarshal([]byte(answer), &o); err != nil {
		u.t.Fatalf("POST %s: %v\n%s", path, err, answer)
	}
	return o
}

// report is one row of a list of reports.
type report struct {
	PatientID   string   `json:"patientId"`
	SiteID      string   `json:"siteId"`
	ReportID    string   `json:"reportId"`
	Version     int      `json:"version"`
	Disposition string   `json:"disposition"`
	Reasons     []string `json:"reasons"`
	Instrument  string   `json:"instrument"`
	Score       *int     `json:"qolScore"`
	Comments    *string  `json:"comments"`
	Actor       struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	} `json:"actor"`
	Resolution       string `json:"resolution"`
	ResolutionCount  int    `json:"resolutionCount"`
	ResolutionReason string `json:"resolutionReason"`
	ResolvedBy       string `json:"resolvedBy"`
}

// all reads every page of a list of reports, in small pages.
func (u user) all(path string) []report {
	u.t.Helper()
	var out []report
	cursor := ""
	for {
		var page struct {
			Reports []report `json:"reports"`
			Next    string   `json:"next"`
		}
		query := "?limit=7"
		if cursor != "" {
			query += "&cursor=" + url.QueryEscape(cursor)
		}
		u.get(path+query, http.StatusOK, &page)
		out = append(out, page.Reports...)
		if cursor = page.Next; cursor == "" {
			return out
		}
	}
}

// books are the counts of a trial.
type books struct {
	Accepted, Recorded, Duplicates, Conflicts, Quarantined, Pending uint64
}

// books reads the books, whose identity must hold at any moment, and waits
// until nothing is pending.
func (u user) books(trial string) books {
	u.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var b books
		u.get("/v1/trials/"+trial+"/books", http.StatusOK, &b)
		if b.Accepted != b.Recorded+b.Duplicates+b.Conflicts+b.Quarantined+b.Pending {
			u.t.Fatalf("the books of %s do not balance: %+v", trial, b)
		}
		if b.Pending == 0 {
			return b
		}
		if time.Now().After(deadline) {
			u.t.Fatalf("the projector does not come after: %+v", b)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// uuid makes a report id that a test can tell from others.
func uuid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// reportBody is a report as a phone writes it; extra replaces fields.
func reportBody(patient, trial string, score int, extra object) object {
	o := object{"patientId": patient, "trialId": trial, "timestamp": time.Now().Format(time.RFC3339Nano), "qolScore": score}
	for k, v := range extra {
		o[k] = v
		if v == nil {
			delete(o, k)
		}
	}
	return o
}

// wave is a load that runs in the background.
type wave struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  bytes.Buffer
	acks string
}

// startWave begins a load of so many phones over the time given.
func startWave(t *testing.T, s *server.Server, phones int, over string, args ...string) *wave {
	t.Helper()
	w := &wave{t: t, acks: filepath.Join(t.TempDir(), "acks.ndjson")}
	w.cmd = exec.Command(s.Binary, append([]string{
		"load", "--target", s.URL, "--data", s.Data, "--phones", fmt.Sprint(phones),
		"--over", over, "--retry", "--acks", w.acks,
	}, args...)...) //nolint:gosec // a test's own command
	w.cmd.Stdout, w.cmd.Stderr = &w.out, &w.out
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.cmd.Process.Kill() })
	return w
}

// wait waits for the end; every phone must have been acknowledged.
func (w *wave) wait() {
	w.t.Helper()
	if err := w.cmd.Wait(); err != nil {
		w.t.Fatalf("load: %v\n%s", err, w.out.String())
	}
}

// acknowledged waits until so many acknowledgements are in the file.
func (w *wave) acknowledged(n int) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		b, err := os.ReadFile(w.acks)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Fatal(err)
		}
		if bytes.Count(b, []byte("\n")) >= n {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d acknowledgements did not come\n%s", n, w.out.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// again starts a server on the folder and the addresses of one that ended.
func again(t *testing.T, s *server.Server, args ...string) *server.Server {
	t.Helper()
	return server.Start(t, server.Options{Data: s.Data, Serve: true, Args: append([]string{"--http", strings.TrimPrefix(s.URL, "http://")}, args...)})
}
