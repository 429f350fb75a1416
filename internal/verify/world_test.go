package verify_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
	"github.com/tidegate/tidegate/internal/verify"
)

// world is an installation: a journal of several runs, its tables, its keys,
// an anchor, and what phones were given.
type world struct {
	t       testing.TB
	dir     string
	root    ed25519.PrivateKey
	signer  *receipt.Signer
	keys    *receipt.KeySet
	meaning epro.MeaningKey
	frames  []journal.Sealed // as appended
	acks    []verify.Ack
	anchor  []byte
	run     journal.Run
	n       uint64
	prev    journal.Sealed
	clock   time.Time
	j       *sqlitejournal.Journal
}

func newWorld(t testing.TB) *world {
	t.Helper()
	_, root, _ := ed25519.GenerateKey(rand.Reader)
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	w := &world{t: t, dir: t.TempDir(), root: root, signer: receipt.NewSigner(key), clock: time.Date(2026, 3, 29, 8, 0, 0, 0, time.UTC)}
	rootPub := root.Public().(ed25519.PublicKey)
	var err error
	w.keys, err = receipt.NewKeySet(receipt.NewKeys(rootPub, receipt.Certify(root, pub, w.clock)), receipt.Fingerprint(rootPub))
	w.must(err)
	_, _ = rand.Read(w.meaning[:])
	w.open()
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) journalPath() string { return filepath.Join(w.dir, "journal.db") }
func (w *world) storePath() string   { return filepath.Join(w.dir, "store.db") }

func (w *world) open() {
	w.t.Helper()
	var err error
	w.j, err = sqlitejournal.Open(w.t.Context(), w.journalPath(), sqlitejournal.Options{})
	w.must(err)
}

func (w *world) close() {
	w.t.Helper()
	w.must(w.j.Close())
	w.j = nil
}

// newRun begins a run, as a process start does.
func (w *world) newRun() {
	_, _ = rand.Read(w.run[:])
	w.n = 0
}

// commit appends one frame of facts and acknowledges its reports.
func (w *world) commit(facts ...epro.Fact) {
	w.t.Helper()
	entries := make([]journal.Entry, len(facts))
	leaves := make([]epro.Digest, len(facts))
	for i := range facts {
		env, err := facts[i].Envelope.AppendBinary(nil)
		w.must(err)
		entries[i] = journal.Entry{Envelope: env, Salt: facts[i].Salt, Body: facts[i].Body, Erased: facts[i].Erased}
		leaves[i] = epro.Leaf(env)
	}
	w.clock = w.clock.Add(time.Second)
	tree := journal.NewTree(leaves)
	f, err := journal.SealTree(journal.Header{Run: w.run, N: w.n, Prev: w.prev.Hash, Time: w.clock.UnixNano()}, entries, tree)
	w.must(err)
	class, err := w.j.Append(w.t.Context(), f)
	w.must(err)
	w.frames, w.prev = append(w.frames, f), f
	w.n++
	signed := receipt.Signed{Header: f.Header, Class: class, KeyID: w.signer.KeyID(), Signature: w.signer.Sign(f.Hash, class), Tree: tree}
	for i := range facts {
		if facts[i].Kind != epro.KindReport || facts[i].Erased {
			continue
		}
		sha := sha256.Sum256(facts[i].Body)
		w.acks = append(w.acks, verify.Ack{
			ReportID: facts[i].ID.String(), PatientID: facts[i].Subject, TrialID: facts[i].Trial, SHA256: hex.EncodeToString(sha[:]),
			Receipt: signed.Receipt(i, entries[i].Envelope, facts[i].Salt).String(),
		})
	}
}

func (w *world) command(kind epro.Kind, body any) epro.Fact {
	w.t.Helper()
	f, err := registry.Fact(registry.Command{Kind: kind, ID: epro.NewUUID(), Actor: epro.Actor{Type: epro.ActorSystem, ID: "test"}, Body: body}, w.clock)
	w.must(err)
	return f
}

// report is a report as the gateway takes it.
func (w *world) report(patient string, id epro.UUID, score int) epro.Fact {
	w.t.Helper()
	body := fmt.Appendf(nil, `{"patientId":%q,"trialId":"T001","reportId":%q,"timestamp":"2026-03-29T09:00:00+02:00","qolScore":%d,"comments":"secret words"}`, patient, id, score)
	r, problems := epro.ParseReport(body)
	if problems != nil {
		w.t.Fatal(problems)
	}
	salt := epro.NewSalt()
	return epro.Fact{
		Envelope: epro.Envelope{
			Kind: epro.KindReport, ID: r.ID(), Trial: "T001", Subject: patient,
			Actor: epro.Actor{Type: epro.ActorParticipant, ID: patient, Device: "d1"}, TokenKey: 1, Epoch: 1,
			OccurredAt: r.Timestamp, ReceivedAt: w.clock, BodyDigest: epro.BodyDigest(salt, body),
			Meaning: epro.ReportMeaning(w.meaning, r.AppendMeaning(nil)),
		},
		Salt: salt, Body: body,
	}
}

func (w *world) registry() {
	w.commit(
		w.command(epro.KindRulesActivated, epro.RulesActivated{RuleSet: projector.RuleSet, TZ: "2026a"}),
		w.command(epro.KindTrialCreated, epro.TrialCreated{TrialID: "T001", Name: "A Study", Status: epro.TrialRecruiting}),
		w.command(epro.KindInstrumentPublished, epro.InstrumentPublished{TrialID: "T001", Instrument: "qol", Version: 1}),
		w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: "T001", SiteID: "S01", Name: "Site"}),
		w.command(epro.KindParticipantEnrolled, epro.ParticipantEnrolled{TrialID: "T001", SiteID: "S01", PatientID: "P-1"}),
		w.command(epro.KindParticipantEnrolled, epro.ParticipantEnrolled{TrialID: "T001", SiteID: "S01", PatientID: "P-2"}),
	)
}

// fill makes three runs of 5, 4 and 3 frames, with a duplicate, a conflict and a
// quarantined report, and closes the journal.
func (w *world) fill() {
	w.t.Helper()
	again, other := epro.NewUUID(), epro.NewUUID()
	w.newRun()
	w.registry()
	w.commit(w.report("P-1", again, 7), w.report("P-2", epro.NewUUID(), 0))
	w.commit(w.report("P-1", epro.NewUUID(), 10))
	w.commit(w.report("P-1", other, 3), w.report("P-2", other, 3), w.report("P-2", epro.NewUUID(), 4))
	w.commit(w.report("P-2", epro.NewUUID(), 5))
	w.newRun()
	w.commit(w.report("P-1", again, 7)) // duplicate
	w.commit(w.report("P-1", other, 4)) // conflict
	w.commit(w.report("P-9", epro.NewUUID(), 1), w.report("P-1", epro.NewUUID(), 2))
	w.commit(w.report("P-2", epro.NewUUID(), 2))
	w.newRun()
	w.commit(w.report("P-1", epro.NewUUID(), 6))
	w.commit(w.report("P-2", epro.NewUUID(), 6), w.report("P-1", epro.NewUUID(), 8))
	w.commit(w.report("P-2", epro.NewUUID(), 9))
	w.project()
	w.close()
}

// project makes the tables, and the anchor from them.
func (w *world) project() {
	w.t.Helper()
	s, err := sqlitestore.Open(w.t.Context(), w.storePath())
	w.must(err)
	w.must(projector.Rebuild(w.t.Context(), w.j, s, 0, projector.Options{}, nil))
	w.anchor = w.sign(s)
	w.must(s.Close())
}

func (w *world) sign(s store.Store) []byte {
	w.t.Helper()
	c, err := projector.ReadCheckpoint(w.t.Context(), s, 0)
	w.must(err)
	signed, err := w.signer.SignCheckpoint(receipt.Checkpoint{
		Root16: w.keys.Fingerprint()[:16], Frames: c.Size, Tree: c.Root, Position: c.Position, Header: c.Header, Era: c.Era, Time: w.clock,
	})
	w.must(err)
	return signed
}

// ackFile is the acks as a file.
func (w *world) ackFile() []byte {
	var b bytes.Buffer
	for _, a := range w.acks {
		line, _ := json.Marshal(a)
		b.Write(append(line, '\n'))
	}
	return b.Bytes()
}

// what says which evidence an audit is given beside the journal.
type what struct{ tables, rebuild, anchor, acks, meaning bool }

var everything = what{true, true, true, true, true}

// audit audits a copy of the journal at path with the world's evidence.
func (w *world) audit(path string, with what) *verify.Result {
	w.t.Helper()
	res, err := w.tryAudit(path, with)
	w.must(err)
	return res
}

func (w *world) tryAudit(path string, with what) (*verify.Result, error) {
	w.t.Helper()
	ctx := w.t.Context()
	j, err := sqlitejournal.Open(ctx, path, sqlitejournal.Options{ReadOnly: true, Audit: true})
	if err != nil {
		return nil, err
	}
	defer j.Close()
	in := verify.Input{Journal: j, Keys: w.keys}
	if with.meaning {
		in.MeaningKey = func(string) epro.MeaningKey { return w.meaning }
	}
	if with.tables {
		s, err := sqlitestore.Open(ctx, w.storePath())
		if err != nil {
			return nil, err
		}
		defer s.Close()
		in.Tables = s
	}
	if with.rebuild {
		in.Rebuild = rebuildOf(w.t, j)
	}
	if with.anchor {
		in.Anchors = []verify.Anchor{{Name: "the test's", Signed: w.anchor}}
	}
	if with.acks {
		in.Acks = bytes.NewReader(w.ackFile())
	}
	return verify.Run(ctx, in)
}

func rebuildOf(t testing.TB, j journal.Journal) verify.Rebuild {
	return func(ctx context.Context, upTo map[uint32]journal.Position, _ func(done, total uint64)) (epro.Digest, error) {
		s, err := sqlitestore.Open(ctx, filepath.Join(t.TempDir(), "rebuilt.db"))
		if err != nil {
			return epro.Digest{}, err
		}
		defer s.Close()
		if err := projector.Rebuild(ctx, verify.Bounded(j, upTo), s, 0, projector.Options{}, nil); err != nil {
			return epro.Digest{}, err
		}
		return s.Hash(ctx)
	}
}

// tampered is a copy of the journal that edit has changed, in SQL.
func (w *world) tampered(t testing.TB, edit func(db *sql.DB)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.db")
	b, err := os.ReadFile(w.journalPath())
	w.must(err)
	w.must(os.WriteFile(path, b, 0o600))
	db, err := sql.Open("sqlite", "file:"+path)
	w.must(err)
	db.SetMaxOpenConns(1)
	edit(db)
	w.must(db.Close())
	return path
}

func exec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// named says whether a finding names the position.
func named(res *verify.Result, p journal.Position) bool {
	for i := range res.Findings {
		if res.Findings[i].Position == p {
			return true
		}
	}
	return false
}

func list(res *verify.Result) string {
	var b bytes.Buffer
	for i := range res.Findings {
		fmt.Fprintf(&b, "\n  [%s] %s", res.Findings[i].Check, res.Findings[i].String())
	}
	return b.String()
}

// withTablesOf gives fn the same installation in a folder of its own, with the
// journal at path and tables made from it.
func (w *world) withTablesOf(t *testing.T, path string, fn func(*world)) {
	t.Helper()
	other := *w
	other.t, other.dir = t, t.TempDir()
	b, err := os.ReadFile(path)
	w.must(err)
	w.must(os.WriteFile(other.journalPath(), b, 0o600))
	if wal, err := os.ReadFile(path + "-wal"); err == nil {
		w.must(os.WriteFile(other.journalPath()+"-wal", wal, 0o600))
	}
	other.open()
	other.project()
	other.close()
	other.anchor = w.anchor
	fn(&other)
}

// frozenTables are the tables, open until the test ends.
func (w *world) frozenTables() *sqlitestore.Store {
	w.t.Helper()
	s, err := sqlitestore.Open(w.t.Context(), w.storePath())
	w.must(err)
	w.t.Cleanup(func() { s.Close() })
	return s
}

// sameFrames says whether the journal at path gives exactly the frames that
// were appended.
func (w *world) sameFrames(t *testing.T, path string) bool {
	t.Helper()
	j, err := sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{ReadOnly: true, Audit: true})
	if err != nil {
		return false
	}
	defer j.Close()
	records, err := j.Read(t.Context(), 0, 0, 100)
	if err != nil || len(records) != len(w.frames) {
		return false
	}
	for i := range records {
		if !bytes.Equal(records[i].Bytes, w.frames[i].Bytes) {
			return false
		}
	}
	return true
}
