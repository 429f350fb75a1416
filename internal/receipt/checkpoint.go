package receipt

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// Checkpoint says how far a shard's journal went, and what was in it: one
// tree hash over the headers of all frames of all runs, in their order. Where a
// receipt proves a fact, a checkpoint proves order and completeness: a tail that
// was cut off, a run that was taken out or moved, an old copy that was put back.
//
// The text is a C2SP tlog-checkpoint in a signed note, signed by a certified
// signing key with Ed25519 (signature type 1) under the origin as its name:
//
//	tidegate/<first 16 hex digits of the root's fingerprint>/shard-<n>
//	<frames>
//	<tree hash, base64>
//	position <journal position of the last frame>
//	header <hash of the last frame's header, hex>
//	era <number>
//	time <RFC 3339, UTC>
type Checkpoint struct {
	Root16   string           // first 16 hex digits of the root key's fingerprint
	Shard    uint32           //
	Frames   uint64           // size of the tree, at least 1
	Tree     epro.Digest      // RFC 6962 hash over [FrameLeaf] of every frame, in order
	Position journal.Position // of the last frame
	Header   epro.Digest      // hash of the last frame's header
	Era      uint64           // 1 until an era is opened
	Time     time.Time        // when it was signed; whole seconds
}

// ErrCheckpoint wraps every reason for which bytes are not a checkpoint to rely on.
var ErrCheckpoint = errors.New("not a valid checkpoint")

// MaxCheckpointBytes bounds a signed checkpoint, cosignatures of witnesses included.
const MaxCheckpointBytes = 16 << 10

// FrameLeaf is a frame's leaf in the checkpoint tree: SHA-256(0x00 ‖ header hash).
func FrameLeaf(header epro.Digest) tlog.Hash { return tlog.RecordHash(header[:]) }

// Origin names the tree of a shard: the checkpoint's first line, and the name
// of its signing key.
func Origin(fingerprint string, shard uint32) string {
	return "tidegate/" + short(fingerprint) + "/shard-" + strconv.FormatUint(uint64(shard), 10)
}

// short is the part of a fingerprint that stands in names.
func short(fingerprint string) string { return fingerprint[:min(16, len(fingerprint))] }

// Origin is the checkpoint's first line.
func (c *Checkpoint) Origin() string { return Origin(c.Root16, c.Shard) }

// Text is what is signed.
func (c *Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\nposition %d\nheader %s\nera %d\ntime %s\n", c.Origin(), c.Frames,
		base64.StdEncoding.EncodeToString(c.Tree[:]), c.Position, c.Header, c.Era, c.Time.UTC().Format(time.RFC3339))
}

// ParseCheckpoint reads a checkpoint's text. It takes exactly what
// [Checkpoint.Text] writes, so a checkpoint has one text. It checks no
// signature: see [KeySet.OpenCheckpoint].
func ParseCheckpoint(text string) (Checkpoint, error) {
	bad := func(what string) (Checkpoint, error) { return Checkpoint{}, fmt.Errorf("%w: %s", ErrCheckpoint, what) }
	if len(text) > MaxCheckpointBytes {
		return bad("longer than any checkpoint")
	}
	lines := strings.Split(text, "\n")
	if len(lines) != 8 || lines[7] != "" {
		return bad("must be seven lines")
	}
	var c Checkpoint
	origin, ok := strings.CutPrefix(lines[0], "tidegate/")
	root, shard, ok2 := strings.Cut(origin, "/shard-")
	n, err := strconv.ParseUint(shard, 10, 32)
	if !ok || !ok2 || err != nil || len(root) != 16 {
		return bad("its first line is no origin of Tidegate")
	}
	c.Root16, c.Shard = root, uint32(n)
	if c.Frames, err = strconv.ParseUint(lines[1], 10, 63); err != nil || c.Frames == 0 {
		return bad("its second line is no number of frames")
	}
	tree, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(tree) != len(c.Tree) {
		return bad("its third line is no tree hash")
	}
	c.Tree = epro.Digest(tree)
	position, err1 := strconv.ParseUint(strings.TrimPrefix(lines[3], "position "), 10, 63)
	header, err2 := hex.DecodeString(strings.TrimPrefix(lines[4], "header "))
	era, err3 := strconv.ParseUint(strings.TrimPrefix(lines[5], "era "), 10, 63)
	at, err4 := time.Parse(time.RFC3339, strings.TrimPrefix(lines[6], "time "))
	if errors.Join(err1, err2, err3, err4) != nil || len(header) != len(c.Header) || era == 0 {
		return bad("position, header, era or time is missing or wrong")
	}
	c.Position, c.Header, c.Era, c.Time = journal.Position(position), epro.Digest(header), era, at
	if c.Text() != text {
		return bad("not in canonical form")
	}
	return c, nil
}

// PeekCheckpoint reads the text of a signed checkpoint without checking its
// signature: for a writer that must not replace a newer one by an older.
func PeekCheckpoint(signed []byte) (Checkpoint, error) {
	text, _, ok := strings.Cut(string(signed), "\n\n")
	if !ok || len(signed) > MaxCheckpointBytes {
		return Checkpoint{}, fmt.Errorf("%w: not a signed note", ErrCheckpoint)
	}
	return ParseCheckpoint(text + "\n")
}

// noteKey is the signer and the verifier of a signed note under one key.
type noteKey struct {
	name    string
	pub     ed25519.PublicKey
	private ed25519.PrivateKey
}

// KeyHash is the id of a signed note's key: the first four bytes of
// SHA-256(name ‖ "\n" ‖ 0x01 ‖ public key), big-endian.
func (k noteKey) KeyHash() uint32 {
	sum := sha256.Sum256(append([]byte(k.name+"\n\x01"), k.pub...))
	return binary.BigEndian.Uint32(sum[:])
}
func (k noteKey) Name() string                    { return k.name }
func (k noteKey) Verify(msg, sig []byte) bool     { return ed25519.Verify(k.pub, msg, sig) }
func (k noteKey) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.private, msg), nil }

// SignCheckpoint signs c. The caller vouches that the frames were read back and
// hashed. No other statement of this key begins like an origin.
func (s *Signer) SignCheckpoint(c Checkpoint) ([]byte, error) {
	c.Time = c.Time.UTC().Truncate(time.Second)
	text := c.Text()
	if _, err := ParseCheckpoint(text); err != nil {
		return nil, fmt.Errorf("sign a checkpoint: %w", err)
	}
	signed, err := note.Sign(&note.Note{Text: text}, noteKey{c.Origin(), s.key.Public().(ed25519.PublicKey), s.key})
	if err != nil {
		return nil, fmt.Errorf("sign a checkpoint: %w", err)
	}
	return signed, nil
}

// Fingerprint names the root key under which the keys of the set are certified.
func (s *KeySet) Fingerprint() string { return Fingerprint(s.root) }

// noteVerifiers finds certified keys by the ids that signed notes use.
type noteVerifiers struct {
	set  *KeySet
	used *KeyID
}

func (v noteVerifiers) Verifier(name string, hash uint32) (note.Verifier, error) {
	for id, key := range v.set.keys {
		if k := (noteKey{name: name, pub: key.pub}); k.KeyHash() == hash {
			*v.used = id
			return k, nil
		}
	}
	return nil, &note.UnknownVerifierError{Name: name, KeyHash: hash}
}

// OpenCheckpoint checks that a certified key signed the checkpoint, for this
// root. Signatures of others beside it, such as witnesses, are passed over.
func (s *KeySet) OpenCheckpoint(signed []byte) (Checkpoint, error) {
	c, err := PeekCheckpoint(signed)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Root16 != short(s.Fingerprint()) {
		return Checkpoint{}, fmt.Errorf("%w: it is of the installation with the root key %s…, not of this one (%s…)", ErrCheckpoint, c.Root16, short(s.Fingerprint()))
	}
	var id KeyID
	n, err := note.Open(signed, noteVerifiers{s, &id})
	var unverified *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unverified):
		return Checkpoint{}, fmt.Errorf("%w: it is signed by no certified key", ErrCheckpoint)
	case err != nil:
		return Checkpoint{}, fmt.Errorf("%w: its signature does not fit: it was changed", ErrCheckpoint)
	case n.Text != c.Text() || len(n.Sigs) != 1 || n.Sigs[0].Name != c.Origin():
		return Checkpoint{}, fmt.Errorf("%w: it is not signed once under its origin", ErrCheckpoint)
	case !canonicalBase64(n.Sigs[0].Base64):
		// The note's decoder passes over the last unused bits.
		return Checkpoint{}, fmt.Errorf("%w: its signature is not in canonical form", ErrCheckpoint)
	case s.keys[id].compromised:
		return Checkpoint{}, fmt.Errorf("%w: signed by key %s, which was retired as compromised", ErrCheckpoint, id)
	}
	return c, nil
}

func canonicalBase64(s string) bool {
	_, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil
}

// CheckConsistency checks that the newer checkpoint's tree is the older one's
// with more frames behind it, and that both are trees over the hashes that r
// reads. Checkpoints of different eras need not be consistent.
func CheckConsistency(older, newer Checkpoint, r tlog.HashReader) error {
	switch {
	case older.Origin() != newer.Origin():
		return fmt.Errorf("%w: the two are of different trees", ErrCheckpoint)
	case older.Frames > newer.Frames:
		return fmt.Errorf("%w: the newer one has fewer frames (%d) than the older (%d)", ErrCheckpoint, newer.Frames, older.Frames)
	case older.Position > newer.Position:
		return fmt.Errorf("%w: the newer one ends at position %d, before the older (%d)", ErrCheckpoint, newer.Position, older.Position)
	}
	n, t := int64(older.Frames), int64(newer.Frames) //nolint:gosec // read as 63 bits
	proof, err := tlog.ProveTree(t, n, r)
	if err != nil {
		return fmt.Errorf("prove that a checkpoint follows another: %w", err)
	}
	if err := tlog.CheckTree(proof, t, tlog.Hash(newer.Tree), n, tlog.Hash(older.Tree)); err != nil {
		return fmt.Errorf("%w: frames that the older one covers were changed, taken away or moved", ErrCheckpoint)
	}
	return nil
}
