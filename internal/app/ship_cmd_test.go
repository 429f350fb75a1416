package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

// shipped is what ship --once prints.
type shipped struct {
	Position, Copied, Facts uint64
	Header                  string
}

func shipOnce(t *testing.T, args ...string) (s shipped) {
	t.Helper()
	if err := json.Unmarshal([]byte(must(t, append([]string{"ship", "--once", "--json"}, args...)...)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func appendTo(t *testing.T, dir string, frames ...journal.Sealed) {
	t.Helper()
	j, err := sqlitejournal.Open(t.Context(), filepath.Join(dir, "journal.db"), sqlitejournal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	journaltest.MustAppend(t, j, frames...)
}

func framesOf(t *testing.T, dir string) []journal.Record {
	t.Helper()
	j, err := sqlitejournal.Open(t.Context(), filepath.Join(dir, "journal.db"), sqlitejournal.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	return journaltest.ReadAll(t, j, 500)
}

// TestShip: from a folder into a folder, from there into a database, and from
// there into a folder again.
func TestShip(t *testing.T) {
	chain := journaltest.Chain(40, 2)
	dir := folderOf(t, chain[:25]...)
	copied := filepath.Join(t.TempDir(), "copy")
	if s := shipOnce(t, "--data", dir, "--to", copied); s.Position != 25 || s.Copied != 25 || s.Facts != 50 || s.Header != chain[24].Hash.String() {
		t.Errorf("first %+v", s)
	}
	appendTo(t, dir, chain[25:]...)
	if s := shipOnce(t, "--data", dir, "--to", copied); s.Position != 40 || s.Copied != 15 {
		t.Errorf("then %+v", s)
	}
	sameFrames(t, framesOf(t, copied), chain)
	verified(t, "--data", copied)
	// No secret lies in the copy.
	entries, err := os.ReadDir(copied)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if n := e.Name(); !strings.HasPrefix(n, "journal.db") && n != "keys.json" && n != "LOCK" {
			t.Errorf("the copy holds %s", n)
		}
	}
	url := services.SharedPostgres(t).NewDatabase(t)
	refused(t, 1, "run `tidegate migrate`", "ship", "--once", "--data", copied, "--to", url)
	must(t, "migrate", "--postgres", url)
	shipOnce(t, "--data", copied, "--to", url)
	sameFrames(t, framesIn(t, url), chain)
	back := filepath.Join(t.TempDir(), "back")
	if s := shipOnce(t, "--journal", url, "--data", copied, "--to", back); s.Position != 40 {
		t.Errorf("back %+v", s)
	}
	sameFrames(t, framesOf(t, back), chain)
	verified(t, "--data", back)
	for _, at := range []string{copied, back} {
		if keys, err := os.ReadFile(filepath.Join(at, "keys.json")); err != nil || !bytes.Contains(keys, []byte(`"fingerprint"`)) || bytes.Contains(keys, []byte("private")) {
			t.Errorf("keys of %s: %v\n%s", at, err, keys)
		}
	}
}

// TestShipRefuses: a copy is never laid upon something else.
func TestShipRefuses(t *testing.T) {
	chain, other := journaltest.Chain(6, 1), journaltest.Chain(3, 1)
	dir, ahead, foreign := folderOf(t, chain[:4]...), folderOf(t, chain...), folderOf(t, other...)
	tmp := t.TempDir()
	of := func(source, name string) string {
		to := filepath.Join(tmp, name)
		shipOnce(t, "--data", source, "--to", to)
		return to
	}
	longer := of(ahead, "ahead")
	if err := os.Remove(filepath.Join(longer, "keys.json")); err != nil { // which is of another installation here
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ to, sentence string }{
		"ahead":     {longer, "the copy holds frames that the source does not have"},
		"another":   {of(foreign, "foreign"), "is of another installation"},
		"itself":    {dir, "names the data folder itself"},
		"no parent": {filepath.Join(tmp, "not mounted", "copy"), "make the folder of the copy"},
	} {
		before := 0
		if _, err := os.Stat(filepath.Join(test.to, "journal.db")); err == nil {
			before = len(framesOf(t, test.to))
		}
		_, errs, code := tidegate("ship", "--once", "--data", dir, "--to", test.to)
		if code == 0 || !strings.Contains(errs, test.sentence) {
			t.Errorf("%s: exit code %d, %s", name, code, errs)
		}
		if before > 0 && len(framesOf(t, test.to)) != before {
			t.Errorf("%s: the copy was changed", name)
		}
	}
	// Without keys.json the frames themselves tell.
	strange := of(foreign, "strange")
	if err := os.Remove(filepath.Join(strange, "keys.json")); err != nil {
		t.Fatal(err)
	}
	refused(t, 1, "the copy holds another journal", "ship", "--once", "--data", dir, "--to", strange)
	// A copy that somebody serves from goes on by itself.
	used := of(dir, "used")
	if err := os.WriteFile(filepath.Join(used, "vault.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, 1, "is no copy any more", "ship", "--once", "--data", dir, "--to", used)
	refused(t, 1, "has no journal", "ship", "--once", "--data", filepath.Join(tmp, "nothing"), "--to", filepath.Join(tmp, "x"))
	refused(t, 2, "--json is for --once", "ship", "--json", "--data", dir, "--to", filepath.Join(tmp, "x"))
}

// background is a command that runs until it is killed.
type background struct {
	t     *testing.T
	cmd   *exec.Cmd
	mu    sync.Mutex
	out   bytes.Buffer
	ended chan struct{}
}

func (b *background) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *background) output() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

func (b *background) kill() {
	_ = b.cmd.Process.Kill()
	<-b.ended
}

func running(t *testing.T, command ...string) *background {
	t.Helper()
	b := &background{t: t, cmd: exec.Command(command[0], command[1:]...), ended: make(chan struct{})}
	b.cmd.Env, b.cmd.Stdout, b.cmd.Stderr = server.Environ(), b, b
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = b.cmd.Wait(); close(b.ended) }()
	t.Cleanup(func() {
		b.kill()
		if t.Failed() {
			t.Logf("%v said:\n%s", command, b.output())
		}
	})
	return b
}

// position is where a journal in a folder ends; 0 while it cannot be read.
func position(dir string) int {
	j, err := sqlitejournal.Open(context.Background(), filepath.Join(dir, "journal.db"), sqlitejournal.Options{ReadOnly: true})
	if err != nil {
		return 0
	}
	defer j.Close()
	last, err := j.LastPosition(context.Background())
	if err != nil {
		return 0
	}
	return int(last)
}

// reports sends n reports and fails unless each is acknowledged.
func reports(t *testing.T, s *server.Server, token string, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		body := fmt.Sprintf(`{"patientId":"P-000001","trialId":"T001","timestamp":"2026-03-01T%02d:%02d:00Z","qolScore":%d}`, i/60, i%60, i%11)
		if code, answer := s.Post("/v1/patient/report", token, body); code != http.StatusOK {
			t.Fatalf("report %d: %d %s", i, code, answer)
		}
	}
}

// TestShipKilled: the shipper and the server that it copies from are killed in
// turn, while reports come in. In the end the copy is the journal.
func TestShipKilled(t *testing.T) {
	s := server.Start(t, server.Options{Participants: 5})
	data, to := s.Data, filepath.Join(t.TempDir(), "copy")
	token := s.Token("P-000001", "T001")
	ship := func() *background { return running(t, s.Binary, "ship", "--data", data, "--to", to) }
	shipper := ship()
	sent := 0
	for round := range 3 {
		reports(t, s, token, sent, 15)
		sent += 15
		wait(t, "the copy follows", func() bool { return position(to) >= sent })
		shipper.kill()
		reports(t, s, token, sent, 15)
		sent += 15
		shipper = ship()
		if round%2 == 0 {
			s.Kill()
			s = server.Start(t, server.Options{Data: data, Serve: true, Args: []string{"--rpc", "none"}})
		}
	}
	s.Stop()
	end := position(data)
	wait(t, "the copy has all", func() bool { return position(to) == end })
	if strings.Contains(shipper.output(), "level=ERROR") {
		t.Errorf("the shipper said\n%s", shipper.output())
	}
	shipper.kill()
	got, want := framesOf(t, to), framesOf(t, data)
	if len(got) != len(want) {
		t.Fatalf("%d frames in the copy, %d in the journal", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i].Bytes, want[i].Bytes) {
			t.Fatalf("frame %d differs", i)
		}
	}
	if a, b := verified(t, "--data", to), verified(t, "--data", data); a.Frames != b.Frames || a.Facts != b.Facts || a.Accepted != b.Accepted || a.Accepted != sent {
		t.Errorf("verify says %+v of the copy and %+v of the journal", a, b)
	}
	// The source was set back: the copy is all that is left of the rest.
	old := filepath.Join(t.TempDir(), "old")
	must(t, "backup", "--data", data, "--to", old)
	s = server.Start(t, server.Options{Data: data, Serve: true, Args: []string{"--rpc", "none"}})
	reports(t, s, token, sent, 5)
	s.Stop()
	shipOnce(t, "--data", data, "--to", to)
	refused(t, 1, "the source was set back", "ship", "--once", "--data", old, "--to", to)
	if position(to) != position(data) {
		t.Errorf("the copy ends at %d, the journal at %d", position(to), position(data))
	}
}

// TestServeShips: a server keeps its copies by itself and says how far they are;
// what cannot be kept stops no report.
func TestServeShips(t *testing.T) {
	tmp := t.TempDir()
	good, bad := filepath.Join(tmp, "copy"), filepath.Join(tmp, "not mounted", "copy")
	s := server.Start(t, server.Options{Participants: 5, Env: []string{"TIDEGATE_SHIP_TO=" + good + "," + bad}})
	token := s.Token("P-000001", "T001")
	reports(t, s, token, 0, 10)
	type state struct {
		OK          bool
		State, Note string
	}
	states := func() map[string]state {
		var st struct{ Dependencies map[string]state }
		if _, text := s.Status(); json.Unmarshal([]byte(text), &st) != nil {
			return nil
		}
		return st.Dependencies
	}
	wait(t, "the copy is up to date", func() bool {
		st := states()["copy "+good]
		return st.OK && st.State == "serving" && position(good) == position(s.Data)
	})
	if st := states()["copy "+bad]; st.OK || st.State != "failing" || !strings.Contains(st.Note, "make the folder of the copy") {
		t.Errorf("the copy that cannot be kept: %+v", st)
	}
	resp, err := http.Get("http://" + s.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var metrics bytes.Buffer
	if _, err := metrics.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{fmt.Sprintf("tidegate_ship_position{copy=%q} %d", good, position(good)), fmt.Sprintf("tidegate_ship_behind_frames{copy=%q} 0", good)} {
		if !strings.Contains(metrics.String(), line) {
			t.Errorf("the metrics lack %q", line)
		}
	}
	// The missing place appears, and is filled.
	if err := os.Mkdir(filepath.Dir(bad), 0o700); err != nil {
		t.Fatal(err)
	}
	wait(t, "the second copy", func() bool { return position(bad) == position(s.Data) })
	s.Stop()
	verified(t, "--data", good)
	verified(t, "--data", bad)
}

// TestShipTargetAway: a database that stops and comes back.
func TestShipTargetAway(t *testing.T) {
	pg := services.Postgres(t, services.PGOptions{})
	url := pg.NewDatabase(t)
	must(t, "migrate", "--postgres", url)
	chain := journaltest.Chain(30, 1)
	dir := folderOf(t, chain[:10]...)
	shipper := running(t, server.Binary(t, ""), "ship", "--data", dir, "--to", url)
	const head = "SELECT position FROM tidegate_journal.head WHERE shard = 0"
	wait(t, "the first frames", func() bool { return sqlInt(t, url, head) == 10 })
	pg.Kill()
	appendTo(t, dir, chain[10:]...)
	wait(t, "that it is told", func() bool { return strings.Contains(shipper.output(), "it is tried again") })
	pg.Start()
	wait(t, "the rest", func() bool { return sqlInt(t, url, head) == 30 })
	wait(t, "that it goes on is told", func() bool { return strings.Contains(shipper.output(), "goes on") })
	sameFrames(t, framesIn(t, url), chain)
}

// TestShipDiskFull: a copy whose disk is full holds whole frames only, says why
// it does not go on, and goes on when there is room.
func TestShipDiskFull(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("not shown here: there is no shell to limit the size of files with")
	}
	chain := journaltest.Chain(300, 20)
	dir, to := folderOf(t, chain...), filepath.Join(t.TempDir(), "copy")
	binary := server.Binary(t, "")
	// A limit on the size of files is a disk full for whoever writes. 1 block is 512 bytes.
	limited := running(t, "sh", "-c", `ulimit -f 1000 && exec "$0" "$@"`, binary, "ship", "--data", dir, "--to", to)
	wait(t, "that it is told", func() bool { return strings.Contains(limited.output(), "it is tried again") })
	if n := position(to); n == 0 || n >= len(chain) {
		t.Errorf("the copy ends at %d", n)
	}
	limited.kill()
	got := framesOf(t, to)
	sameFrames(t, got, chain[:len(got)])
	shipOnce(t, "--data", dir, "--to", to)
	sameFrames(t, framesOf(t, to), chain)
	verified(t, "--data", to)
}
