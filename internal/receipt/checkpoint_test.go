package receipt_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
)

// ring is a root key, a signing key under it, and the set an auditor has.
type ring struct {
	root   ed25519.PrivateKey
	pub    ed25519.PublicKey
	signer *receipt.Signer
	keys   *receipt.KeySet
}

func newRing(t testing.TB, retired string) ring {
	t.Helper()
	_, root, _ := ed25519.GenerateKey(nil)
	pub, key, _ := ed25519.GenerateKey(nil)
	cert := receipt.Certify(root, pub, time.Now())
	if retired != "" {
		r := receipt.Retire(root, receipt.IDOf(pub), time.Now(), retired)
		cert.Retired = &r
	}
	rootPub := root.Public().(ed25519.PublicKey)
	keys, err := receipt.NewKeySet(receipt.NewKeys(rootPub, cert), receipt.Fingerprint(rootPub))
	if err != nil {
		t.Fatal(err)
	}
	return ring{root, pub, receipt.NewSigner(key), keys}
}

func (r ring) checkpoint(frames uint64) receipt.Checkpoint {
	return receipt.Checkpoint{
		Root16: r.keys.Fingerprint()[:16], Frames: frames, Tree: sha256.Sum256([]byte("tree")), Position: 7,
		Header: sha256.Sum256([]byte("header")), Era: 1, Time: time.Date(2026, 3, 29, 8, 0, 0, 123, time.UTC),
	}
}

func (r ring) sign(t testing.TB, c receipt.Checkpoint) []byte {
	t.Helper()
	signed, err := r.signer.SignCheckpoint(c)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestCheckpointText(t *testing.T) {
	r := newRing(t, "")
	c := r.checkpoint(5)
	c.Shard = 3
	tree := sha256.Sum256([]byte("tree"))
	want := fmt.Sprintf("tidegate/%s/shard-3\n5\n%s\nposition 7\nheader %x\nera 1\ntime 2026-03-29T08:00:00Z\n",
		r.keys.Fingerprint()[:16], base64.StdEncoding.EncodeToString(tree[:]), sha256.Sum256([]byte("header")))
	if c.Text() != want {
		t.Errorf("text %q, want %q", c.Text(), want)
	}
	signed := r.sign(t, c)
	got, err := r.keys.OpenCheckpoint(signed)
	c.Time = c.Time.Truncate(time.Second)
	if err != nil || got != c {
		t.Errorf("opened %+v, %v", got, err)
	}
	// Any tool for signed notes reads it: the key is an ordinary verifier key.
	vkey, err := note.NewEd25519VerifierKey(c.Origin(), r.pub)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil || n.Text != want {
		t.Errorf("as a signed note: %v", err)
	}
}

func TestCheckpointEveryBit(t *testing.T) {
	r := newRing(t, "")
	signed := r.sign(t, r.checkpoint(5))
	for i := range len(signed) * 8 {
		b := append([]byte(nil), signed...)
		b[i/8] ^= 1 << (i % 8)
		if _, err := r.keys.OpenCheckpoint(b); err == nil {
			t.Errorf("bit %d of byte %d (%q) flipped, and still valid", i%8, i/8, signed[i/8])
		}
	}
	// The unused bits of the signature's last character, whatever it is.
	last := len(signed) - len("=\n") - 1
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for bits := 1; bits < 4; bits++ {
		b := append([]byte(nil), signed...)
		b[last] = alphabet[strings.IndexByte(alphabet, b[last])|bits]
		if _, err := r.keys.OpenCheckpoint(b); err == nil {
			t.Errorf("the signature has a second text")
		}
	}
	for n := range signed {
		if _, err := r.keys.OpenCheckpoint(signed[:n]); err == nil {
			t.Errorf("cut to %d bytes, and still valid", n)
		}
	}
}

func TestCheckpointOfOthers(t *testing.T) {
	r, other := newRing(t, ""), newRing(t, "")
	c := r.checkpoint(5)
	for name, signed := range map[string][]byte{
		"another installation": other.sign(t, other.checkpoint(5)),
		"an uncertified key":   other.sign(t, c),
		"unsigned":             []byte(c.Text()),
		"empty":                nil,
		"very long":            []byte(strings.Repeat("x", 100<<10)),
	} {
		if _, err := r.keys.OpenCheckpoint(signed); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if bad := newRing(t, receipt.RetiredCompromised); true {
		if _, err := bad.keys.OpenCheckpoint(bad.sign(t, bad.checkpoint(5))); err == nil {
			t.Error("a compromised key's checkpoint is taken")
		}
	}
	if old := newRing(t, receipt.RetiredRotated); true {
		if _, err := old.keys.OpenCheckpoint(old.sign(t, old.checkpoint(5))); err != nil {
			t.Errorf("a rotated key's checkpoint is refused: %v", err)
		}
	}
	if _, err := r.signer.SignCheckpoint(r.checkpoint(0)); err == nil {
		t.Error("an empty tree is signed")
	}
	// A witness may sign beside us.
	skey, _, err := note.GenerateKey(nil, "witness.example")
	if err != nil {
		t.Fatal(err)
	}
	w, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := note.Open(r.sign(t, c), mustVerifiers(t, c.Origin(), r.pub))
	cosigned, err := note.Sign(n, w)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.keys.OpenCheckpoint(cosigned); err != nil {
		t.Errorf("with a witness's signature: %v", err)
	}
}

func mustVerifiers(t testing.TB, name string, pub ed25519.PublicKey) note.Verifiers {
	t.Helper()
	vkey, err := note.NewEd25519VerifierKey(name, pub)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return note.VerifierList(v)
}

func TestParseCheckpointIsStrict(t *testing.T) {
	r := newRing(t, "")
	c := r.checkpoint(5)
	text := c.Text()
	lines := strings.SplitAfter(text, "\n")
	for name, bad := range map[string]string{
		"leading zero":     strings.Replace(text, "\n5\n", "\n05\n", 1),
		"plus sign":        strings.Replace(text, "\n5\n", "\n+5\n", 1),
		"no frames":        strings.Replace(text, "\n5\n", "\n0\n", 1),
		"one line more":    text + "more\n",
		"one line less":    strings.Join(lines[:6], ""),
		"lines swapped":    strings.Join([]string{lines[0], lines[1], lines[2], lines[4], lines[3], lines[5], lines[6]}, ""),
		"capital header":   strings.ToUpper(text),
		"time with offset": strings.Replace(text, "Z\n", "+00:00\n", 1),
		"carriage returns": strings.ReplaceAll(text, "\n", "\r\n"),
		"era zero":         strings.Replace(text, "era 1", "era 0", 1),
		"no line end":      strings.TrimSuffix(text, "\n"),
	} {
		if _, err := receipt.ParseCheckpoint(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if got, err := receipt.ParseCheckpoint(text); err != nil || got.Text() != text {
		t.Errorf("refused: %v", err)
	}
}

// treeOf are the stored hashes over headers.
type treeOf []tlog.Hash

func (s treeOf) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = s[x]
	}
	return out, nil
}

func growTree(t testing.TB, headers []epro.Digest) treeOf {
	t.Helper()
	var s treeOf
	for n, h := range headers {
		more, err := tlog.StoredHashesForRecordHash(int64(n), receipt.FrameLeaf(h), s)
		if err != nil {
			t.Fatal(err)
		}
		s = append(s, more...)
	}
	return s
}

func TestConsistency(t *testing.T) {
	r := newRing(t, "")
	headers := make([]epro.Digest, 13)
	for i := range headers {
		headers[i] = sha256.Sum256([]byte{byte(i)})
	}
	whole := growTree(t, headers)
	at := func(s treeOf, n int) receipt.Checkpoint {
		c := r.checkpoint(uint64(n))
		root, err := tlog.TreeHash(int64(n), s)
		if err != nil {
			t.Fatal(err)
		}
		c.Tree = epro.Digest(root)
		return c
	}
	for m := 1; m <= 13; m++ {
		for n := m; n <= 13; n++ {
			if err := receipt.CheckConsistency(at(whole, m), at(whole, n), whole); err != nil {
				t.Errorf("%d in %d: %v", m, n, err)
			}
		}
	}
	if err := receipt.CheckConsistency(at(whole, 9), at(whole, 5), whole); err == nil {
		t.Error("a newer checkpoint with fewer frames is taken")
	}
	for changed := range 5 {
		other := append([]epro.Digest(nil), headers...)
		other[changed][0] ^= 1
		forged := growTree(t, other)
		if err := receipt.CheckConsistency(at(whole, 5), at(forged, 13), forged); err == nil {
			t.Errorf("frame %d changed, and still consistent", changed)
		}
	}
}
