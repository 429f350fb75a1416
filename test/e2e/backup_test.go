package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

// Keys rotate and a backup is made while a wave goes through; nothing of the
// wave is hurt, and both are good afterwards.
func TestRotateAndBackUpUnderLoad(t *testing.T) {
	parallel(t)
	s := server.Start(t, server.Options{Data: place(t), Participants: 150})
	phone := user{t, s, s.Token("P-000001", "T001")}
	old := phone.post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", 1, object{"reportId": uuid(1)})).text("receipt")
	first := keysOf(t, s.Data)

	w := startWave(t, s, 150, "3s")
	w.acknowledged(20)
	must(t, "keys", "rotate", "--data", s.Data)
	w.acknowledged(40)
	backup := filepath.Join(t.TempDir(), "backup")
	must(t, "backup", "--data", s.Data, "--to", backup)
	w.acknowledged(80)
	var rotated struct{ KeyID string }
	if err := json.Unmarshal([]byte(must(t, "keys", "rotate", "--data", s.Data, "--json")), &rotated); err != nil {
		t.Fatal(err)
	}
	w.wait()
	now := keysOf(t, s.Data)
	if len(first.ids) != 1 || len(now.ids) != 3 || now.root != first.root || now.current != rotated.KeyID {
		t.Fatalf("keys before %+v and after %+v", first, now)
	}

	// Receipts of before and after are good; the new one is under the new key.
	young := phone.post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", 2, object{"reportId": uuid(2)})).text("receipt")
	for receipt, key := range map[string]string{old: first.current, young: now.current} {
		if out, code := now.check(t, receipt); code != 0 || !strings.Contains(out, key) {
			t.Fatalf("a receipt under %s: exit %d\n%s", key, code, out)
		}
	}
	clean(t, s.Data, "--acks", w.acks) // beside the server
	// A key that was only replaced leaves its receipts valid; a stolen one does not.
	must(t, "keys", "retire", now.ids[1], "--data", s.Data)
	must(t, "keys", "retire", first.current, "--data", s.Data, "--reason", "compromised")
	after := keysOf(t, s.Data)
	if out, code := after.check(t, old); code != 1 || !strings.Contains(out, "compromised") {
		t.Fatalf("a receipt under a stolen key: exit %d\n%s", code, out)
	}
	if out, code := after.check(t, young); code != 0 {
		t.Fatalf("a receipt under another key: exit %d\n%s", code, out)
	}
	// What the stolen key had signed is issued anew, from the journal.
	var anew struct{ Receipt string }
	phone.get("/v1/patient/reports/"+uuid(1)+"/receipt", http.StatusOK, &anew)
	if out, code := after.check(t, anew.Receipt); code != 0 || anew.Receipt == old {
		t.Fatalf("issued anew: exit %d\n%s", code, out)
	}
	refusal{t: t, code: 1}.of("keys", "retire", after.current, "--data", s.Data) // it signs
	refusal{t: t, code: 1}.of("keys", "retire", "0123456789abcdef", "--data", s.Data)

	s.Stop()
	clean(t, s.Data)
	// Acknowledgements under the stolen key are found in the journal, but prove nothing by themselves.
	audit := verify(t, s.Data, "--acks", w.acks)
	if audit.OK || audit.Lost != 0 || audit.Altered != 0 || audit.Doubled != 0 {
		t.Fatalf("acknowledgements under a stolen key: %+v", audit)
	}
	for _, f := range audit.Findings {
		if f.Check != "acks" || !strings.Contains(f.Text, "compromised") {
			t.Errorf("%+v", f)
		}
	}

	// The copy is whole, and a part of the wave; it comes back as a new folder.
	if a := verify(t, backup); a.Accepted < 21 || a.Accepted > 151 || len(a.Findings) != 0 {
		t.Fatalf("the backup: %+v", a)
	}
	restored := place(t)
	if out := must(t, "restore", "--from", backup, "--data", restored); !strings.Contains(out, "keys were rotated after the backup") {
		t.Errorf("the anchor is signed by a key that the backup does not have, and restore says:\n%s", out)
	}
	left := filepath.Join(restored, "anchors.json")
	refusal{t: t, code: 1, says: "remove " + left, data: restored, run: quiet(t)}.of(serveArgs(restored)...)
	if err := os.Remove(left); err != nil {
		t.Fatal(err)
	}
	a := clean(t, restored)
	if a.Recorded != a.Accepted || a.RebuildSame == nil || !*a.RebuildSame {
		t.Fatalf("restored: %+v", a)
	}
	refusal{t: t, code: 1, says: "not empty", data: restored}.of("restore", "--from", backup, "--data", restored)
	refusal{t: t, code: 1, says: "not empty", data: backup}.of("backup", "--data", restored, "--to", backup)
	refusal{t: t, code: 1, says: "no backup"}.of("restore", "--from", t.TempDir(), "--data", place(t))
	s = server.Start(t, server.Options{Serve: true, Data: restored})
	(user{t, s, s.Token("P-000002", "T001")}).post("/v1/patient/report", http.StatusOK, reportBody("P-000002", "T001", 1, nil))
	s.Stop()
	clean(t, restored)
}

// keyring is what keys list prints.
type keyring struct {
	ids           []string
	current, root string
	json          string
}

func keysOf(t *testing.T, data string) keyring {
	t.Helper()
	return keysAt(t, []string{"--data", data})
}

// keysAt are those that the flags lead to.
func keysAt(t *testing.T, where []string) keyring {
	t.Helper()
	list := append([]string{"keys", "list"}, where...)
	k := keyring{json: must(t, append(list, "--json")...)}
	for line := range strings.Lines(must(t, list...)) {
		fields := strings.Fields(line)
		if fields[0] == "root" {
			k.root = fields[1]
			continue
		}
		if fields[0] == "tokens" {
			continue // keys of tokens sign no receipts
		}
		k.ids = append(k.ids, fields[1])
		if strings.HasSuffix(strings.TrimSpace(line), "in use") {
			k.current = fields[1]
		}
	}
	return k
}

// check runs tidegate verify receipt.
func (k keyring) check(t *testing.T, receipt string) (string, int) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"keys.json": k.json, "receipt.txt": receipt + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, errs, code := tidegate(t, "verify", "receipt", filepath.Join(dir, "receipt.txt"), "--keys", filepath.Join(dir, "keys.json"), "--root", k.root)
	return out + errs, code
}

// An older backup comes back in the place of a folder that went on after it:
// the anchor knows more, so nothing is taken until the gap is accepted.
func TestOlderBackupNeedsAnEra(t *testing.T) {
	parallel(t)
	data, backup := place(t), filepath.Join(t.TempDir(), "backup")
	s := server.Start(t, server.Options{Data: data, Participants: 20})
	phone := user{t, s, s.Token("P-000001", "T001")}
	phone.post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", 1, nil))
	must(t, "backup", "--data", data, "--to", backup)
	var last string
	for i := range 5 {
		last = phone.post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", i, object{"reportId": uuid(i)})).text("receipt")
	}
	s.Stop() // which writes the anchor
	ring := keysOf(t, data)

	must(t, "era", "open", "--help")
	refusal{t: t, code: 1, says: "nothing to accept", run: quiet(t)}.of("era", "open", "--data", data, "--reason", "by mistake")
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	must(t, "restore", "--from", backup, "--data", data)
	if a := verify(t, data); a.OK || a.Findings[0].Check != "anchor" {
		t.Fatalf("verify of a folder that ends below its anchor: %+v", a)
	}
	serve := []string{"serve", "--data", data, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"}
	below := refusal{t: t, code: 1, says: "tidegate era open", data: data}
	below.of(serve...)
	// Whatever would write is refused, and not only the server.
	below.of("seed", "--data", data, "--participants", "30")
	below.of("token", "staff", "--data", data, "--role", "admin", "--name", "ada")
	below.of("keys", "rotate", "--data", data)

	refusal{t: t, code: 2}.of("era", "open", "--data", data)
	var opened struct {
		Eras []struct {
			Era                  uint64
			AnchorFrames, Frames uint64
		}
	}
	out, errs, code := tidegate(t, "era", "open", "--data", data, "--reason", "disk lost, last night's backup restored", "--json")
	if err := json.Unmarshal([]byte(out), &opened); err != nil || code != 0 {
		t.Fatalf("era open: exit %d %v\n%s%s", code, err, out, errs)
	}
	if len(opened.Eras) != 1 || opened.Eras[0].Era != 2 || opened.Eras[0].AnchorFrames <= opened.Eras[0].Frames {
		t.Fatalf("era open: %+v", opened)
	}
	s = server.Start(t, server.Options{Serve: true, Data: data})
	// The audit says who and why.
	admin := user{t, s, s.Staff("admin", "ada")}
	var page struct {
		Audit []struct{ Kind, Reason, Outcome string }
	}
	admin.get("/v1/audit?limit=1000", http.StatusOK, &page)
	found := false
	for _, e := range page.Audit {
		found = found || strings.HasPrefix(e.Kind, "era.opened") && e.Reason == "disk lost, last night's backup restored"
	}
	if !found {
		t.Fatalf("the audit does not show the era: %+v", page)
	}
	// A phone that kept its report sends it again; the old receipt is still genuine.
	phone = user{t, s, s.Token("P-000001", "T001")}
	phone.post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", 4, object{"reportId": uuid(4)}))
	if out, code := ring.check(t, last); code != 0 {
		t.Fatalf("a receipt of a frame that was lost: exit %d\n%s", code, out)
	}
	s.Stop()
	if a := clean(t, data); a.Eras != 2 || a.Recorded != 2 {
		t.Fatalf("after the era: %+v", a)
	}
	server.Start(t, server.Options{Serve: true, Data: data}).Stop()
}

// An older backup that comes back under another name is asked for by nobody's
// default anchor; the backup remembers which one knows more.
func TestOlderBackupUnderAnotherName(t *testing.T) {
	parallel(t)
	data, backup := place(t), filepath.Join(t.TempDir(), "backup")
	s := server.Start(t, server.Options{Data: data, Participants: 20})
	phone := user{t, s, s.Token("P-000001", "T001")}
	early := filepath.Join(t.TempDir(), "early")
	phone.post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", 1, nil))
	must(t, "backup", "--data", data, "--to", backup)
	for i := range 5 {
		phone.post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", i, object{"reportId": uuid(i)}))
	}
	s.Stop()
	must(t, "backup", "--data", data, "--to", early)
	clean(t, backup) // which is not asked to hold what came after it
	file := func(dir string) string { return filepath.Join(dir, "anchors.json") }
	there := func(dir string) bool { _, err := os.Stat(file(dir)); return err == nil }

	// A backup that holds all is free at once.
	whole := filepath.Join(t.TempDir(), "whole")
	if out := must(t, "restore", "--from", early, "--data", whole); !strings.Contains(out, "holds all that the anchor "+anchors(t, data)) || there(whole) {
		t.Errorf("a whole backup:\n%s", out)
	}

	// One that lacks something says so, and nothing starts on it.
	other := filepath.Join(t.TempDir(), "other")
	out := must(t, "restore", "--from", backup, "--data", other)
	for _, says := range []string{"REPORTS ARE MISSING", anchors(t, data), "refuse to start", "tidegate era open"} {
		if !strings.Contains(out, says) {
			t.Errorf("restore does not say %q:\n%s", says, out)
		}
	}
	below := refusal{t: t, code: 1, says: "tidegate era open", data: other, run: quiet(t)}
	below.of(serveArgs(other)...)
	below.of(serveArgs(other, "--anchor", "none")...)
	below.of("seed", "--data", other, "--participants", "30")
	if a := verify(t, other); a.OK || a.Findings[0].Check != "anchor" {
		t.Fatalf("verify: %+v", a)
	}
	// A backup of it carries that on.
	again := filepath.Join(t.TempDir(), "again")
	must(t, "backup", "--data", other, "--to", again)
	third := filepath.Join(t.TempDir(), "third")
	var told struct {
		Hash    string
		Anchors []struct{ Anchor, State string }
	}
	if err := json.Unmarshal([]byte(must(t, "restore", "--from", again, "--data", third, "--json")), &told); err != nil {
		t.Fatal(err)
	}
	if len(told.Hash) != 64 || len(told.Anchors) != 2 || told.Anchors[0].State != "unread" || told.Anchors[1].State != "below" {
		t.Errorf("restore --json: %+v", told)
	}
	must(t, "era", "open", "--data", other, "--reason", "the newer copy is lost")
	if there(other) {
		t.Error("anchors.json outlives the era")
	}
	server.Start(t, server.Options{Serve: true, Data: other}).Stop()
	clean(t, other)

	// An anchor that cannot be read leaves the question open.
	away := anchors(t, data)
	if err := os.Rename(away, away+".away"); err != nil {
		t.Fatal(err)
	}
	unknown := filepath.Join(t.TempDir(), "unknown")
	if out := must(t, "restore", "--from", backup, "--data", unknown); !strings.Contains(out, "Checked against no anchor") || !strings.Contains(out, file(unknown)) {
		t.Errorf("an anchor that is away:\n%s", out)
	}
	s = server.Start(t, server.Options{Serve: true, Data: unknown})
	if !strings.Contains(s.Output(), "an anchor of before the restore could not be read") {
		t.Error(s.Output())
	}
	s.Stop()
	if err := os.Rename(away+".away", away); err != nil {
		t.Fatal(err)
	}
	below.data = unknown
	below.of(serveArgs(unknown)...)

	// A backup that is too old to name its anchors.
	if err := os.Remove(file(early)); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "restore", "--from", early, "--data", filepath.Join(t.TempDir(), "old")); !strings.Contains(out, "Checked against no anchor, the backup names none") {
		t.Error(out)
	}
	// Anchors that were configured are named as well.
	named := filepath.Join(t.TempDir(), "named")
	must(t, "backup", "--data", data, "--to", named, "--anchor", "some.anchor", "--anchor", "https://anchors.example.org/1")
	b, err := os.ReadFile(file(named))
	if err != nil || !strings.Contains(string(b), "https://anchors.example.org/1") || !regexp.MustCompile(`"/.*/some\.anchor"`).Match(b) {
		t.Errorf("%v\n%s", err, b)
	}
}

// quiet runs the command and drops the log's lines, which some commands print
// as warnings: what is left is what the command itself says.
func quiet(t *testing.T) func(args ...string) (string, string, int) {
	return func(args ...string) (string, string, int) {
		t.Helper()
		out, errs, code := tidegateEnv(t, "LC_ALL=C", args...)
		return out, withoutLog(errs), code
	}
}

func withoutLog(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "time=") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// A plain copy without the -wal is no backup: it lacks acknowledged reports,
// which the acknowledgements prove, and the anchor refuses it.
func TestPlainCopyWithoutTheWAL(t *testing.T) {
	parallel(t)
	data := place(t)
	s := server.Start(t, server.Options{Data: data, Participants: 100})
	w := startWave(t, s, 100, "1s")
	w.wait()
	(user{t, s, s.Staff("admin", "ada")}).books("T001")
	s.Stop() // a whole anchor, and no -wal
	s = again(t, s)
	before := anchored(t, data)
	w2 := startWave(t, s, 100, "1s", "--seed", "7")
	w2.wait()
	for deadline := time.Now().Add(20 * time.Second); anchored(t, data) <= before; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the anchor did not go on")
		}
	}
	must(t, "backup", "--data", data, "--to", filepath.Join(t.TempDir(), "good"))
	s.Kill() // the newest frames lie in the -wal
	clean(t, data, "--acks", w2.acks)

	info, err := os.Stat(filepath.Join(data, "journal.db-wal"))
	if err != nil || info.Size() == 0 {
		t.Fatalf("no -wal was left behind, this would prove nothing: %v", err)
	}
	copied := filepath.Join(t.TempDir(), "data")
	copyTree(t, data, copied, func(name string) bool { return strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, "-shm") })
	copyTree(t, anchors(t, data), copied+".anchors", nil)
	if a := verify(t, copied, "--acks", w2.acks, "--no-rebuild"); a.OK || a.Lost == 0 {
		t.Fatalf("verify --acks of a copy without the -wal: %+v", a)
	}
	if a := clean(t, data, "--acks", w2.acks); a.Recorded != 200 {
		t.Fatalf("the folder itself: %+v", a)
	}
	// The anchor knows better; without one, the copy's own tables do.
	refusal{t: t, code: 1, says: "tidegate era open", data: copied}.of(serveArgs(copied)...)
	refusal{t: t, code: 1, says: "the tables were made from", data: copied, run: quiet(t)}.of(serveArgs(copied, "--anchor", "none")...)
	// Who accepts the gap goes on with what is there.
	must(t, "era", "open", "--data", copied, "--reason", "copied without its -wal")
	s = server.Start(t, server.Options{Serve: true, Data: copied})
	if b := (user{t, s, s.Staff("admin", "bert")}).books("T001"); b.Accepted != 100 {
		t.Fatalf("after the gap: %+v", b)
	}
	s.Stop()
	clean(t, copied)
}

// anchored is how many frames the default anchor has seen: the second line of a
// checkpoint.
func anchored(t *testing.T, data string) int {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(anchors(t, data), "*.txt"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("anchors: %v %v", paths, err)
	}
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Split(string(b), "\n")[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// anchors is the folder with the default anchors.
func anchors(t *testing.T, data string) string {
	t.Helper()
	dir := data + ".anchors"
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyTree(t *testing.T, from, to string, skip func(name string) bool) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		a, b := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if skip != nil && skip(e.Name()) {
			continue
		}
		if e.IsDir() {
			copyTree(t, a, b, skip)
			continue
		}
		content, err := os.ReadFile(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The tables are a function of the journal: rebuilt twice, or deleted and
// projected by a server, they are the same to the byte of their dump.
func TestRebuildGivesTheSameTables(t *testing.T) {
	parallel(t)
	data := place(t)
	s := server.Start(t, server.Options{Data: data, Participants: 60})
	startWave(t, s, 60, "1s").wait()
	phone := user{t, s, s.Token("P-000001", "T001")}
	for i := range 3 { // a conflict or two, and one that is set aside
		phone.post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", i, object{"reportId": uuid(1)}))
	}
	phone.post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", 1, object{"instrument": "qol@9"}))
	refusal{t: t, code: 1, says: "in use by process"}.of("rebuild", "--data", data)
	s.Stop()
	hash := func() string {
		t.Helper()
		m := regexp.MustCompile(`hash ([0-9a-f]{64})\n$`).FindStringSubmatch(must(t, "rebuild", "--data", data))
		if m == nil {
			t.Fatal("rebuild prints no hash")
		}
		return m[1]
	}
	first := clean(t, data)
	one, two := hash(), hash()
	var last struct{ Hash string }
	if err := os.Remove(filepath.Join(data, "store.db")); err != nil {
		t.Fatal(err)
	}
	s = server.Start(t, server.Options{Serve: true, Data: data})
	if b := (user{t, s, s.Staff("admin", "ada")}).books("T001"); b != (books{64, 61, 0, 2, 1, 0}) {
		t.Fatalf("books of tables that a server made anew: %+v", b)
	}
	s.Stop()
	a := clean(t, data) // which compares the server's tables with a rebuild
	if a.RebuildSame == nil || !*a.RebuildSame || first.Recorded != a.Recorded {
		t.Fatalf("%+v", a)
	}
	// The token above added facts: without it the hash is the first one.
	if err := json.Unmarshal([]byte(must(t, "rebuild", "--data", data, "--json")), &last); err != nil {
		t.Fatal(err)
	}
	if one != two || last.Hash == one || len(last.Hash) != 64 {
		t.Fatalf("hashes %s %s, and with more facts %s", one, two, last.Hash)
	}
	// Tables that somebody changed are told from the journal's.
	if err := os.Remove(filepath.Join(data, "store.db")); err != nil {
		t.Fatal(err)
	}
	out, errs, code := tidegate(t, "verify", "--data", data)
	if code != 0 || !strings.Contains(errs, "there are no tables") || !strings.Contains(out, "accepted") {
		t.Fatalf("verify without tables: exit %d\n%s%s", code, out, errs)
	}
}
