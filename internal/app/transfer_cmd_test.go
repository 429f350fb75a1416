package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

// audit is what verify says, as far as both shapes have it.
type audit struct {
	OK                                                              bool
	Accepted, Recorded, Duplicates, Conflicts, Quarantined, Pending int
	Frames, Runs, Facts                                             int
	Lost, Altered, Doubled                                          *int
	Trials                                                          json.RawMessage
}

func verified(t *testing.T, args ...string) audit {
	t.Helper()
	out, errs, code := tidegate(append([]string{"verify", "--json"}, args...)...)
	var a audit
	if err := json.Unmarshal([]byte(out), &a); err != nil || code != 0 || !a.OK {
		t.Fatalf("verify %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return a
}

// TestTransfer moves an installation that was in use, and goes on with it.
func TestTransfer(t *testing.T) {
	s := server.Start(t, server.Options{Participants: 20})
	var receipts []string
	token := s.Token("P-000001", "T001")
	for i := range 30 {
		code, answer := s.Post("/v1/patient/report", token, fmt.Sprintf(`{"patientId":"P-000001","trialId":"T001","timestamp":"2026-03-01T08:%02d:00Z","qolScore":%d}`, i, i%11))
		if code != http.StatusOK {
			t.Fatalf("report %d: %d %s", i, code, answer)
		}
		receipts = append(receipts, answer)
	}
	acks := filepath.Join(t.TempDir(), "acks")
	server.Must(t, s.Binary, "load", "--target", s.URL, "--data", s.Data, "--phones", "20", "--over", "1s", "--acks", acks)
	coordinator := s.Staff("coordinator", "anna", "--trial", "T001")

	url := services.SharedPostgres(t).NewDatabase(t)
	refused(t, 1, "is in use by process", "transfer", "--from", s.Data, "--to", url)
	s.Stop()
	before := verified(t, "--data", s.Data, "--acks", acks)

	var got struct {
		Position, Frames, Facts, Copied uint64
		Credentials                     int
		Header, To, Root                string
	}
	if err := json.Unmarshal([]byte(must(t, "transfer", "--from", s.Data, "--to", url, "--json")), &got); err != nil {
		t.Fatal(err)
	}
	if int(got.Frames) != before.Frames || int(got.Facts) != before.Facts || got.Copied != got.Frames || got.Position != got.Frames || got.Credentials < 1 || got.Credentials != sqlInt(t, url, "SELECT count(*) FROM tidegate_vault.staff_credential") {
		t.Errorf("transferred %+v, verified before %+v", got, before)
	}
	// The folder is as it was, but no server begins on it.
	if after := verified(t, "--data", s.Data, "--acks", acks); after.Frames != before.Frames {
		t.Errorf("the folder has %d frames now, %d before", after.Frames, before.Frames)
	}
	refused(t, 1, "remove "+filepath.Join(s.Data, "transferred"), "serve", "--data", s.Data, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--rpc", "none")
	refused(t, 1, "went to", "token", "staff", "--data", s.Data, "--role", "admin", "--name", "x")
	// Again there is nothing to do, and to another place it does not go.
	if err := json.Unmarshal([]byte(must(t, "transfer", "--from", s.Data, "--to", url, "--json")), &got); err != nil || got.Copied != 0 {
		t.Errorf("again: %+v, %v", got, err)
	}
	refused(t, 1, "went to", "transfer", "--from", s.Data, "--to", services.SharedPostgres(t).NewDatabase(t))

	// The tables of the other side are those that the same journal gives.
	c := &cluster{t: t, dir: t.TempDir(), root: s.Data, binary: s.Binary, journal: url, store: url, vault: url}
	c.config = filepath.Join(c.dir, "tidegate.yaml")
	if err := os.WriteFile(c.config, fmt.Appendf(nil, "postgres:\n  url: %q\n", url), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "rebuild", "--data", s.Data, "--config", c.config)
	after := verified(t, "--data", s.Data, "--config", c.config, "--acks", acks)
	if fmt.Sprint(after.Accepted, after.Recorded, after.Duplicates, after.Conflicts, after.Quarantined, after.Pending, after.Frames, after.Runs, after.Facts, string(after.Trials), *after.Lost, *after.Altered, *after.Doubled) !=
		fmt.Sprint(before.Accepted, before.Recorded, before.Duplicates, before.Conflicts, before.Quarantined, before.Pending, before.Frames, before.Runs, before.Facts, string(before.Trials), *before.Lost, *before.Altered, *before.Doubled) {
		t.Errorf("verify says\n%+v of the folder and\n%+v of the database", before, after)
	}
	// Receipts that phones hold are as good as before.
	keys := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(keys, []byte(must(t, "keys", "list", "--data", s.Data, "--config", c.config, "--json")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range receipts {
		file := filepath.Join(t.TempDir(), "receipt")
		if err := os.WriteFile(file, []byte(r), 0o600); err != nil {
			t.Fatal(err)
		}
		must(t, "verify", "receipt", file, "--keys", keys, "--root", got.Root)
	}

	// And the installation goes on from there: old tokens, old reports, new ones.
	projector := c.start("projector", "projector-1")
	gateway := c.start("gateway", "gateway-1")
	gateway.said("msg=serving")
	projector.said("msg=projecting")
	base := gateway.address("http")
	do := func(method, path, token, body string) (int, string) {
		req, err := http.NewRequest(method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, answer := do(http.MethodPost, "/v1/patient/report", token, `{"patientId":"P-000001","trialId":"T001","timestamp":"2026-03-02T08:00:00Z","qolScore":0}`); code != http.StatusOK {
		t.Errorf("a report with the old token: %d %s", code, answer)
	}
	var answer struct{ ReportID, Receipt string }
	if err := json.Unmarshal([]byte(receipts[3]), &answer); err != nil {
		t.Fatal(err)
	}
	if code, text := do(http.MethodGet, "/v1/patient/reports/"+answer.ReportID+"/receipt", token, ""); code != http.StatusOK || !strings.Contains(text, "receipt1.") {
		t.Errorf("the receipt of an old report, asked for again: %d %s", code, text)
	}
	wait(t, "the old staff token", func() bool {
		code, text := do(http.MethodGet, "/v1/trials/T001/reports?limit=1000", coordinator, "")
		return code == http.StatusOK && strings.Count(text, `"reportId"`) == before.Recorded+1
	})
	refused(t, 1, "has gone on since", "transfer", "--from", s.Data, "--to", url)
}

// address is where the process says that it listens.
func (r *roleProcess) address(what string) string {
	r.t.Helper()
	for line := range strings.Lines(r.output()) {
		if !strings.Contains(line, "msg=serving") {
			continue
		}
		for field := range strings.FieldsSeq(line) {
			if v, ok := strings.CutPrefix(field, what+"="); ok {
				return "http://" + v
			}
		}
	}
	r.t.Fatalf("%s does not say where it listens:\n%s", r.name, r.output())
	return ""
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not in time: %s", what)
}

// folderOf makes a data folder with keys and a journal of these frames.
func folderOf(t *testing.T, frames ...journal.Sealed) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	must(t, "keys", "init", "--data", dir)
	j, err := sqlitejournal.Open(t.Context(), filepath.Join(dir, "journal.db"), sqlitejournal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	journaltest.MustAppend(t, j, frames...)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func framesIn(t *testing.T, url string) []journal.Record {
	t.Helper()
	j, err := pgjournal.Open(t.Context(), pgjournal.Options{Postgres: postgres.Options{URL: url}, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	return journaltest.ReadAll(t, j, 500)
}

func sameFrames(t *testing.T, got []journal.Record, want []journal.Sealed) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].Position != journal.Position(i+1) || !bytes.Equal(got[i].Bytes, want[i].Bytes) {
			t.Fatalf("frame %d differs", i)
		}
	}
}

// TestTransferRefuses: what a journal must not be laid upon, and what must not
// be moved. Nothing is changed.
func TestTransferRefuses(t *testing.T) {
	pg := services.SharedPostgres(t)
	chain, other := journaltest.Chain(6, 2), journaltest.Chain(3, 1)
	dir := folderOf(t, chain...)
	marker := filepath.Join(dir, "transferred")
	holding := func(frames ...journal.Sealed) string {
		url := pg.NewDatabase(t)
		must(t, "migrate", "--postgres", url)
		j, err := pgjournal.Open(t.Context(), pgjournal.Options{Postgres: postgres.Options{URL: url}})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		journaltest.MustAppend(t, j, frames...)
		return url
	}
	credential := "INSERT INTO tidegate_vault.staff_credential VALUES ('a', 'b', sha256('x'), now(), now() + interval '1 day', NULL)"
	foreignVault := holding()
	sqlExec(t, foreignVault, credential)
	for _, test := range []struct {
		name, url, sentence string
		frames              int
	}{
		{"another journal", holding(other...), "at position 1 it has another frame", 3},
		{"another one with the same beginning", holding(append(append([]journal.Sealed{}, chain[:2]...), other[0])...), "at position 3 it has another frame", 3},
		{"one that is longer", holding(append(append([]journal.Sealed{}, chain...), other...)...), "has gone on since", 9},
		{"another one that is longer", holding(append(append([]journal.Sealed{}, other...), chain...)...), "it is another journal", 9},
		{"somebody else's vault", foreignVault, "holds 1 credentials that are not this folder's", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			refused(t, 1, test.sentence, "transfer", "--from", dir, "--to", test.url)
			if got := framesIn(t, test.url); len(got) != test.frames {
				t.Errorf("the database has %d frames, %d before", len(got), test.frames)
			}
			if _, err := os.Stat(marker); err == nil {
				t.Error("the folder says that it was transferred")
			}
		})
	}
	empty := pg.NewDatabase(t)
	refused(t, 1, "has no journal", "transfer", "--from", func() string {
		d := filepath.Join(t.TempDir(), "root")
		must(t, "keys", "init", "--data", d)
		return d
	}(), "--to", empty)
	refused(t, 1, "is no data folder", "transfer", "--from", filepath.Join(t.TempDir(), "nothing"), "--to", empty)
	refused(t, 2, "where to?", "transfer", "--from", dir)
	refused(t, 2, "--to must be postgres://", "transfer", "--from", dir, "--to", "/mnt/x")
	// A frame that was changed in the folder is not copied, and nor is what follows.
	damaged := folderOf(t, chain...)
	damage(t, filepath.Join(damaged, "journal.db"), chain[3].Bytes)
	refused(t, 1, "damaged at position 4", "transfer", "--from", damaged, "--to", empty)
	if got := framesIn(t, empty); len(got) > 3 {
		t.Errorf("%d frames were copied", len(got))
	}
	// And what is there is no obstacle for the right folder.
	must(t, "transfer", "--from", dir, "--to", empty)
	sameFrames(t, framesIn(t, empty), chain)
	// Whoever removes the marker has the folder back.
	refused(t, 1, "went to", "seed", "--data", dir, "--participants", "1")
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	if _, errs, _ := tidegate("seed", "--data", dir, "--participants", "1"); strings.Contains(errs, "went to") {
		t.Errorf("without the marker: %s", errs)
	}
}

// damage changes one byte of a body where it lies in a file.
func damage(t *testing.T, path string, frame []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	part := frame[len(frame)-250:] // with the last fact's salt, which no other has
	i := bytes.Index(b, part)
	if i < 0 {
		t.Fatal("the frame does not lie in one piece in the file")
	}
	b[i+len(part)-30] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTransferKilled: killed again and again, and run again each time, it ends
// with the whole journal.
func TestTransferKilled(t *testing.T) {
	binary := server.Binary(t, "")
	var frames []journal.Sealed
	run := journaltest.NewRun()
	for i := range 1500 {
		var prev *journal.Sealed
		if i > 0 {
			prev = &frames[i-1]
		}
		frames = append(frames, journaltest.Frame(run, uint64(i), prev, 8))
	}
	dir := folderOf(t, frames...)
	url := services.SharedPostgres(t).NewDatabase(t)
	must(t, "migrate", "--postgres", url)
	const head = "SELECT position FROM tidegate_journal.head WHERE shard = 0"
	kills, last := 0, 0
	for {
		cmd := exec.Command(binary, "transfer", "--from", dir, "--to", url)
		cmd.Env = server.Environ()
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		if kills < 3 {
			// As soon as it has got further.
			wait(t, "progress", func() bool {
				select {
				case err := <-ended:
					ended <- err
					return true
				default:
					return sqlInt(t, url, head) > last
				}
			})
			_ = cmd.Process.Kill()
		}
		if err := <-ended; err == nil {
			break
		} else if cmd.ProcessState.Exited() {
			t.Fatalf("after %d kills: %v\n%s", kills, err, out.String())
		}
		kills++
		last = sqlInt(t, url, head)
	}
	if kills == 0 {
		t.Error("it was never killed: this test shows nothing")
	}
	t.Logf("%d kills", kills)
	sameFrames(t, framesIn(t, url), frames)
}
