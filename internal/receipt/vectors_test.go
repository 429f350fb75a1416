package receipt_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

var update = flag.Bool("update", false, "write testdata/format anew instead of comparing: only for a new version of the format")

var vectorDir = filepath.Join("..", "..", "testdata", "format")

// The shapes of testdata/format, described in docs/format.md §14.
type (
	envelopeVector struct {
		Name            string `json:"name"`
		Hex             string `json:"hex"`
		Leaf            string `json:"leaf"`
		Flags           uint16 `json:"flags"`
		Kind            string `json:"kind"`
		KindVersion     uint16 `json:"kindVersion"`
		ID              string `json:"id"`
		Trial           string `json:"trial"`
		Subject         string `json:"subject"`
		ActorType       uint8  `json:"actorType"`
		Actor           string `json:"actor"`
		Device          string `json:"device"`
		TokenKey        uint32 `json:"tokenKey"`
		Epoch           uint32 `json:"epoch"`
		OccurredSeconds int64  `json:"occurredSeconds"`
		OccurredNanos   int    `json:"occurredNanos"`
		OffsetMinutes   int    `json:"offsetMinutes"`
		ReceivedSeconds int64  `json:"receivedSeconds"`
		ReceivedNanos   int    `json:"receivedNanos"`
		BodyDigest      string `json:"bodyDigest"`
		Meaning         string `json:"meaning"`
		Salt            string `json:"salt"`
		Body            string `json:"body"` // hex
	}
	frameVector struct {
		Name      string   `json:"name"`
		Hex       string   `json:"hex"`
		Hash      string   `json:"hash"`
		Shard     uint32   `json:"shard"`
		Run       string   `json:"run"`
		N         uint64   `json:"n"`
		Prev      string   `json:"prev"`
		Root      string   `json:"root"`
		Count     uint32   `json:"count"`
		Time      int64    `json:"time"`
		Envelopes []string `json:"envelopes"` // names in envelopes.json
		Erased    []int    `json:"erased"`
	}
	receiptVector struct {
		Frame string   `json:"frame"`
		Index uint32   `json:"index"`
		Class string   `json:"class"`
		KeyID string   `json:"keyId"`
		Path  []string `json:"path"`
		Text  string   `json:"text"`
		Body  string   `json:"body"` // hex, of the report it was given for
	}
	batchVector struct {
		Frame string        `json:"frame"`
		Batch receipt.Batch `json:"batch"`
		Lines []lineVector  `json:"lines"`
		Texts []string      `json:"texts"` // the receipts of the lines
	}
	lineVector struct {
		Envelope string `json:"envelope"` // hex
		Salt     string `json:"salt"`     // hex
	}
	invalidVector struct {
		Name   string `json:"name"`
		What   string `json:"what"`  // envelope, header, frame, receipt or keys
		Stage  string `json:"stage"` // form: refused by its form alone; hash: form good, hashes not; keys: hashes good, keys not
		Data   string `json:"data"`  // hex; text for receipt and keys
		Reason string `json:"reason"`
	}
	treeVector struct {
		Leaves []string     `json:"leaves"`
		Root   string       `json:"root"`
		Paths  [][]string   `json:"paths"`
		Ranges []rangeProof `json:"ranges"`
	}
	rangeProof struct {
		From  int      `json:"from"`
		To    int      `json:"to"`
		Proof []string `json:"proof"`
	}
	testKeys struct {
		Warning     string            `json:"warning"`
		Fingerprint string            `json:"fingerprint"`
		RootSeed    string            `json:"rootSeed"`
		Seeds       map[string]string `json:"seeds"`
	}
)

func hx(b []byte) string { return hex.EncodeToString(b) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func digests(d []epro.Digest) []string {
	out := make([]string, len(d))
	for i := range d {
		out[i] = d[i].String()
	}
	return out
}

// derive makes fixed bytes out of a name, so that the vectors are the same on every run.
func derive(name string) []byte {
	sum := sha256.Sum256([]byte("tidegate test vector: " + name))
	return sum[:]
}

// testKey is a key in clear, for tests only.
func testKey(name string) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(derive("key " + name)) }

var (
	rootKey     = testKey("root")
	activeKey   = testKey("active")
	rotatedKey  = testKey("rotated")
	leakedKey   = testKey("compromised")
	strangerKey = testKey("stranger")
	certifiedAt = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func pub(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func vectorKeys() receipt.Keys {
	rotated := receipt.Certify(rootKey, pub(rotatedKey), certifiedAt)
	r1 := receipt.Retire(rootKey, receipt.IDOf(pub(rotatedKey)), certifiedAt.AddDate(0, 1, 0), receipt.RetiredRotated)
	rotated.Retired = &r1
	leaked := receipt.Certify(rootKey, pub(leakedKey), certifiedAt)
	r2 := receipt.Retire(rootKey, receipt.IDOf(pub(leakedKey)), certifiedAt.AddDate(0, 2, 0), receipt.RetiredCompromised)
	leaked.Retired = &r2
	return receipt.NewKeys(pub(rootKey), receipt.Certify(rootKey, pub(activeKey), certifiedAt), rotated, leaked)
}

func vectorKeySet(t testing.TB) *receipt.KeySet {
	t.Helper()
	set, err := receipt.NewKeySet(vectorKeys(), receipt.Fingerprint(pub(rootKey)))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

type vectorFrame struct {
	vector  frameVector
	sealed  journal.Sealed
	tree    *journal.Tree
	entries []journal.Entry // with content, also where the frame has it erased
}

func vectorFrames(t testing.TB) []vectorFrame {
	names, facts := vectorFacts()
	run := journal.Run(derive("run")[:16])
	var out []vectorFrame
	var prev epro.Digest
	at := time.Date(2026, 3, 1, 0, 30, 3, 0, time.UTC).UnixNano()
	for n, c := range []struct {
		name   string
		pick   []int
		erased []int
	}{
		{"one", []int{3}, nil},
		{"two", []int{4, 5}, nil},
		{"three", []int{0, 1, 2}, nil},
		{"seven", []int{0, 1, 2, 3, 4, 5, 6}, nil},
		{"erased", []int{3, 4, 6}, []int{1}},
	} {
		var picked []epro.Fact
		v := frameVector{Name: c.name, Erased: append([]int{}, c.erased...)}
		for _, i := range c.pick {
			picked, v.Envelopes = append(picked, facts[i]), append(v.Envelopes, names[i])
		}
		h := journal.Header{Shard: 0, Run: run, N: uint64(n), Prev: prev, Time: at + int64(n)*1_000_000}
		f, tree, entries := seal(t, h, picked, c.erased...)
		v.Hex, v.Hash, v.Shard, v.Run, v.N = hx(f.Bytes), f.Hash.String(), 0, run.String(), uint64(n)
		v.Prev, v.Root, v.Count, v.Time = prev.String(), f.Header.Root.String(), f.Header.Count, f.Header.Time
		out = append(out, vectorFrame{v, f, tree, entries})
		prev = f.Hash
	}
	return out
}

func envelopeVectors(t testing.TB) []envelopeVector {
	names, facts := vectorFacts()
	out := make([]envelopeVector, len(facts))
	for i, f := range facts {
		b, err := f.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, offset := f.OccurredAt.Zone()
		out[i] = envelopeVector{
			Name: names[i], Hex: hx(b), Leaf: epro.Leaf(b).String(), Flags: f.Flags, Kind: f.Kind.Name, KindVersion: f.Kind.Version,
			ID: f.ID.String(), Trial: f.Trial, Subject: f.Subject, ActorType: uint8(f.Actor.Type), Actor: f.Actor.ID, Device: f.Actor.Device,
			TokenKey: f.TokenKey, Epoch: f.Epoch, OccurredSeconds: f.OccurredAt.Unix(), OccurredNanos: f.OccurredAt.Nanosecond(),
			OffsetMinutes: offset / 60, ReceivedSeconds: f.ReceivedAt.Unix(), ReceivedNanos: f.ReceivedAt.Nanosecond(),
			BodyDigest: f.BodyDigest.String(), Meaning: f.Meaning.String(), Salt: hx(f.Salt[:]), Body: hx(f.Body),
		}
	}
	return out
}

func receiptVectors(t testing.TB) ([]receiptVector, []batchVector) {
	var out []receiptVector
	var batches []batchVector
	for n, f := range vectorFrames(t) {
		class := journal.Class(n + 1)
		key := activeKey
		if n == 1 {
			key = rotatedKey
		}
		s := sign(key, class, f.sealed, f.tree)
		lines := make([]lineVector, 0, len(f.entries))
		texts := make([]string, 0, len(f.entries))
		for i, e := range f.entries {
			r := s.Receipt(i, e.Envelope, e.Salt)
			out = append(out, receiptVector{
				Frame: f.vector.Name, Index: r.Index, Class: class.String(), KeyID: r.KeyID.String(),
				Path: digests(r.Path), Text: r.String(), Body: hx(e.Body),
			})
			lines = append(lines, lineVector{hx(e.Envelope), hx(e.Salt[:])})
			texts = append(texts, r.String())
		}
		from, to := 0, len(lines)
		if to > 2 {
			from, to = 1, to-1
		}
		batches = append(batches, batchVector{f.vector.Name, s.Batch(from, to), lines[from:to], texts[from:to]})
	}
	return out, batches
}

func treeVectors() []treeVector {
	var out []treeVector
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 13} {
		leaves := make([]epro.Digest, n)
		for i := range leaves {
			leaves[i] = epro.Leaf([]byte{byte(i)})
		}
		tree := journal.NewTree(leaves)
		v := treeVector{Leaves: digests(leaves), Root: tree.Root().String()}
		for i := range leaves {
			v.Paths = append(v.Paths, digests(tree.AppendPath(nil, i)))
		}
		for _, r := range [][2]int{{0, n}, {0, (n + 1) / 2}, {n / 2, n}, {n / 3, n/3 + 1}, {n / 4, n - n/4}} {
			v.Ranges = append(v.Ranges, rangeProof{r[0], r[1], digests(tree.AppendRangeProof(nil, r[0], r[1]))})
		}
		out = append(out, v)
	}
	return out
}

// rebuild gives the text of a receipt's changed binary form, its check sum made to fit again.
func rebuild(b []byte) string {
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.ChecksumIEEE(b[:len(b)-4]))
	return "receipt1." + base64.RawURLEncoding.EncodeToString(b)
}

func binaryOf(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, "receipt1."))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestVectors holds the format still: what this code writes is what testdata/format has. A difference is a new version of the format
// and a break with every receipt in patients' hands, or a bug.
func TestVectors(t *testing.T) {
	receipts, batches := receiptVectors(t)
	var frames []frameVector
	for _, f := range vectorFrames(t) {
		frames = append(frames, f.vector)
	}
	keys := testKeys{
		Warning:     "TEST KEYS, published on purpose: never use them to sign anything, never trust what they signed",
		Fingerprint: receipt.Fingerprint(pub(rootKey)), RootSeed: hx(rootKey.Seed()),
		Seeds: map[string]string{
			"active": hx(activeKey.Seed()), "rotated": hx(rotatedKey.Seed()), "compromised": hx(leakedKey.Seed()), "stranger": hx(strangerKey.Seed()),
		},
	}
	files := []struct {
		name string
		data any
	}{
		{"testkeys.json", keys},
		{"keys.json", vectorKeys()},
		{"envelopes.json", envelopeVectors(t)},
		{"frames.json", frames},
		{"receipts.json", receipts},
		{"batches.json", batches},
		{"trees.json", treeVectors()},
		{"invalid.json", invalidVectors(t)},
		{"meanings.json", meaningVectors(t)},
	}
	for _, f := range files {
		got := marshal(t, f.data)
		path := filepath.Join(vectorDir, f.name)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil { //nolint:gosec // public test data
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path) //nolint:gosec // a fixed path of this repository
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from what this code writes (%s): the format is frozen", f.name, firstDifference(got, want))
		}
	}
}

func firstDifference(got, want []byte) string {
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := 0; i < len(g) && i < len(w); i++ {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d: code %.80s, file %.80s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines from the code, %d in the file", len(g), len(w))
}

// readVectors reads one file of the vectors.
func readVectors[T any](t testing.TB, name string) T {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectorDir, name)) //nolint:gosec // a fixed path of this repository
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
