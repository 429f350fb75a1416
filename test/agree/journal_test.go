package agree_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/receipt"
)

var verify2 string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "verify2")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		verify2 = filepath.Join(dir, "verify2")
		if out, err := exec.Command("go", "build", "-o", verify2, "../verify2").CombinedOutput(); err != nil { //nolint:gosec // fixed arguments
			fmt.Fprintf(os.Stderr, "building verify2: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// folder is a data folder as a server would leave it, the acknowledgements its
// phones got, and the keys an auditor has.
type folder struct {
	dir, acks, keys, root string
	writer                *writer
}

// run runs verify2 as a process of its own: a process that closes a file loses
// the locks it holds on it elsewhere, so the one that writes must not read too.
func (f *folder) run(t *testing.T, args ...string) (status int, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), verify2, append([]string{"--data", f.dir, "--acks", f.acks, "--keys", f.keys, "--root", f.root}, args...)...) //nolint:gosec // our own program
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "panic") || strings.Contains(string(b), "goroutine ") {
		t.Fatalf("verify2 panicked:\n%s", b)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

func (f *folder) mustPass(t *testing.T, want ...string) {
	t.Helper()
	status, out := f.run(t)
	for _, w := range append(want, "lost 0 altered 0 doubled 0", "faults 0", "unproven 0 (signatures checked)") {
		if !strings.Contains(out, w) {
			t.Errorf("does not say %q", w)
		}
	}
	if status != 0 || t.Failed() {
		t.Fatalf("status %d:\n%s", status, out)
	}
}

func (f *folder) mustFail(t *testing.T, want string) {
	t.Helper()
	if status, out := f.run(t); status != 1 || !strings.Contains(out, want) {
		t.Errorf("status %d, must be 1 and say %q:\n%s", status, want, out)
	}
}

// copy copies the folder with the -wal, as a kill would leave it.
func (f *folder) copy(t *testing.T) *folder {
	t.Helper()
	c := *f
	c.dir = t.TempDir()
	for _, name := range []string{"journal.db", "journal.db-wal"} {
		b, err := os.ReadFile(filepath.Join(f.dir, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(c.dir, name), b)
	}
	return &c
}

func (f *folder) journal() string { return filepath.Join(f.dir, "journal.db") }

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// writer makes frames as the intake does and acknowledges them. For one goroutine at a time.
type writer struct {
	signer  *receipt.Signer
	meaning epro.MeaningKey
	head    journal.Header
	acks    *os.File
	facts   int
}

// newFolder makes an empty journal, opened and closed by the product, and a root
// with one certified key.
func newFolder(t *testing.T) *folder {
	t.Helper()
	_, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rootPub := root.Public().(ed25519.PublicKey)
	dir := t.TempDir()
	f := &folder{dir: dir, acks: filepath.Join(t.TempDir(), "acks.ndjson"), keys: filepath.Join(t.TempDir(), "keys.json"), root: receipt.Fingerprint(rootPub)}
	b, err := json.Marshal(receipt.NewKeys(rootPub, receipt.Certify(root, pub, time.Now())))
	if err != nil {
		t.Fatal(err)
	}
	write(t, f.keys, b)
	acks, err := os.Create(f.acks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { acks.Close() })
	w := &writer{signer: receipt.NewSigner(key), acks: acks}
	_, _ = rand.Read(w.head.Run[:])
	_, _ = rand.Read(w.meaning[:])
	f.writer = w
	f.open(t, sqlitejournal.Options{}).Close()
	return f
}

func (f *folder) open(t *testing.T, opts sqlitejournal.Options) *sqlitejournal.Journal {
	t.Helper()
	j, err := sqlitejournal.Open(t.Context(), f.journal(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// body is a report of a size, with an id of its own or without one.
func body(n, size int) string {
	id := fmt.Sprintf(`"reportId":"%s",`, epro.NewUUID())
	if n%5 == 4 {
		id = ""
	}
	return fmt.Sprintf(`{%s"patientId":"P-%06d","trialId":"T%03d","timestamp":"2026-03-01T08:%02d:%02d.%03d+0%d:30","qolScore":%d,"comments":"%s"}`,
		id, n, 1+n%2, n/60%60, n%60, n%1000, n%9, n%11, strings.Repeat("x", size))
}

func (w *writer) fact(t *testing.T, body string) epro.Fact {
	t.Helper()
	r, problems := epro.ParseReport([]byte(body))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	w.facts++
	f := epro.Fact{
		Envelope: epro.Envelope{
			Kind: epro.KindReport, ID: r.ID(), Trial: r.TrialID, Subject: r.PatientID,
			Actor:      epro.Actor{Type: epro.ActorParticipant, ID: r.PatientID, Device: "d"},
			OccurredAt: r.Timestamp, ReceivedAt: time.Now().UTC(), Meaning: epro.ReportMeaning(w.meaning, r.AppendMeaning(nil)),
		},
		Salt: epro.NewSalt(), Body: []byte(body),
	}
	if !r.HasReportID {
		f.Flags |= epro.FlagDerivedID
	}
	f.BodyDigest = epro.BodyDigest(f.Salt, f.Body)
	return f
}

// seal makes the run's next frame and the acknowledgements of its facts.
func (w *writer) seal(t *testing.T, facts ...epro.Fact) (journal.Sealed, []byte) {
	t.Helper()
	entries := make([]journal.Entry, len(facts))
	leaves := make([]epro.Digest, len(facts))
	for i := range facts {
		env, err := facts[i].AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		entries[i] = journal.Entry{Envelope: env, Salt: facts[i].Salt, Body: facts[i].Body}
		leaves[i] = epro.Leaf(env)
	}
	h := w.head
	h.Time = max(h.Time, time.Now().UnixNano())
	s, err := journal.Seal(h, entries, leaves)
	if err != nil {
		t.Fatal(err)
	}
	w.head.N, w.head.Prev, w.head.Time = h.N+1, s.Hash, h.Time
	signed := receipt.Signed{
		Header: s.Header, Class: journal.ClassLocalFsync, KeyID: w.signer.KeyID(), Signature: w.signer.Sign(s.Hash, journal.ClassLocalFsync), Tree: journal.NewTree(leaves),
	}
	var acks bytes.Buffer
	for i, f := range facts {
		if f.Kind != epro.KindReport {
			continue
		}
		sum := sha256.Sum256(f.Body)
		line, err := json.Marshal(map[string]any{
			"reportId": f.ID.String(), "patientId": f.Subject, "trialId": f.Trial, "sha256": hex.EncodeToString(sum[:]),
			"receipt": signed.Receipt(i, entries[i].Envelope, entries[i].Salt).String(), "derived": f.Flags&epro.FlagDerivedID != 0,
		})
		if err != nil {
			t.Fatal(err)
		}
		acks.Write(append(line, '\n'))
	}
	return s, acks.Bytes()
}

// acknowledge tells the phones; call it once the frame is durable.
func (w *writer) acknowledge(t *testing.T, acks []byte) {
	t.Helper()
	if _, err := w.acks.Write(acks); err != nil {
		t.Fatal(err)
	}
}

// add appends frames of so many facts each through the product's journal.
func (f *folder) add(t *testing.T, j journal.Journal, frames, facts, size int) {
	t.Helper()
	for range frames {
		var list []epro.Fact
		for range facts {
			list = append(list, f.writer.fact(t, body(f.writer.facts, size)))
		}
		s, acks := f.writer.seal(t, list...)
		if _, err := j.Append(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		f.writer.acknowledge(t, acks)
	}
}

// sql opens the file with SQLite itself, to fill it fast or to do it harm.
func (f *folder) sql(t *testing.T, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", f.journal())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
