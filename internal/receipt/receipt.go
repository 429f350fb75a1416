// Package receipt makes and checks the proof that a fact was made durable: the
// envelope, its place in a frame's tree, and one signature over the frame.
//
// A receipt is checked offline, with nothing but the certified keys and the
// root key's fingerprint. It proves what was received under which token, when,
// and with which durability; not who pressed the button (SECURITY.md).
package receipt

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// KeyID names a signing key: the first 8 bytes of SHA-256(public key).
type KeyID [8]byte

// String is the lower-case hexadecimal form.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// IDOf is the id of a public key.
func IDOf(pub ed25519.PublicKey) KeyID {
	sum := sha256.Sum256(pub)
	return KeyID(sum[:8])
}

// Signature is an Ed25519 signature (RFC 8032).
type Signature [ed25519.SignatureSize]byte

// ErrReceipt wraps every reason for which a text is not a valid receipt.
var ErrReceipt = errors.New("not a valid receipt")

const (
	textPrefix    = "receipt1."
	statementTag  = "tidegate-receipt-v1"
	formatVersion = 1
	maxPath       = 16 // log2(journal.MaxFacts)
)

// MaxTextBytes bounds the text of a receipt.
const MaxTextBytes = len(textPrefix) + (1+1+8+64+journal.HeaderBytes+4+1+maxPath*32+epro.SaltBytes+2+epro.MaxEnvelopeBytes+4)*4/3 + 4

// Statement is what is signed once for a frame:
// "tidegate-receipt-v1" ‖ header hash ‖ class ‖ key id.
func statement(header epro.Digest, class journal.Class, key KeyID) []byte {
	b := make([]byte, 0, len(statementTag)+32+1+8)
	b = append(b, statementTag...)
	b = append(b, header[:]...)
	b = append(b, byte(class))
	return append(b, key[:]...)
}

// Signer signs frames with one certified key. It is safe for concurrent use.
type Signer struct {
	id  KeyID
	key ed25519.PrivateKey
}

// NewSigner returns a signer for the key, which must be an Ed25519 private key.
func NewSigner(key ed25519.PrivateKey) *Signer {
	return &Signer{id: IDOf(key.Public().(ed25519.PublicKey)), key: key}
}

// KeyID names the signer's key.
func (s *Signer) KeyID() KeyID { return s.id }

// Sign signs the statement of a frame that is durable with the given class. It
// MUST NOT be called before the journal said so.
func (s *Signer) Sign(header epro.Digest, class journal.Class) Signature {
	return Signature(ed25519.Sign(s.key, statement(header, class, s.id)))
}

// Receipt proves that one fact lies in one durable frame.
type Receipt struct {
	Class     journal.Class
	KeyID     KeyID
	Signature Signature
	Header    journal.Header
	Index     uint32
	Path      []epro.Digest
	Salt      epro.Salt
	Envelope  []byte // canonical bytes
}

// AppendText appends the one canonical text form, "receipt1." and unpadded
// base64url of the binary form (docs/format.md §5).
func (r *Receipt) AppendText(dst []byte) []byte {
	b := make([]byte, 0, 1+1+8+64+journal.HeaderBytes+4+1+len(r.Path)*32+epro.SaltBytes+2+len(r.Envelope)+4)
	b = append(b, formatVersion, byte(r.Class))
	b = append(b, r.KeyID[:]...)
	b = append(b, r.Signature[:]...)
	b = r.Header.AppendBinary(b)
	b = binary.BigEndian.AppendUint32(b, r.Index)
	b = append(b, byte(len(r.Path))) //nolint:gosec // at most 16 hashes: a frame has at most journal.MaxFacts leaves
	for i := range r.Path {
		b = append(b, r.Path[i][:]...)
	}
	b = append(b, r.Salt[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Envelope))) //nolint:gosec // at most MaxEnvelopeBytes
	b = append(b, r.Envelope...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	dst = append(dst, textPrefix...)
	return base64.RawURLEncoding.AppendEncode(dst, b)
}

// String is the canonical text form.
func (r *Receipt) String() string { return string(r.AppendText(nil)) }

// Parse reads the canonical text form. Any other spelling of the same receipt
// is refused, so a receipt has one text. It checks form only: see
// [Receipt.Check].
func Parse(text string) (*Receipt, error) {
	if len(text) > MaxTextBytes {
		return nil, fmt.Errorf("%w: longer than any receipt", ErrReceipt)
	}
	if len(text) < len(textPrefix) || text[:len(textPrefix)] != textPrefix {
		return nil, fmt.Errorf("%w: does not begin with %q", ErrReceipt, textPrefix)
	}
	// The decoder skips line ends, which would give a receipt a second text.
	for i := len(textPrefix); i < len(text); i++ {
		if text[i] == '\r' || text[i] == '\n' {
			return nil, fmt.Errorf("%w: contains a line end", ErrReceipt)
		}
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text[len(textPrefix):])
	if err != nil {
		return nil, fmt.Errorf("%w: not canonical base64url", ErrReceipt)
	}
	return decode(b)
}

func decode(b []byte) (*Receipt, error) {
	const fixed = 1 + 1 + 8 + 64 + journal.HeaderBytes + 4 + 1
	if len(b) < fixed+4 {
		return nil, fmt.Errorf("%w: cut short", ErrReceipt)
	}
	// The sum finds damage in the one part that no hash covers unless the report
	// is at hand too: the salt.
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.ChecksumIEEE(body) != sum {
		return nil, fmt.Errorf("%w: damaged: its check sum does not fit", ErrReceipt)
	}
	b = body
	if b[0] != formatVersion {
		return nil, fmt.Errorf("%w: format version %d, this program reads %d", ErrReceipt, b[0], formatVersion)
	}
	r := &Receipt{Class: journal.Class(b[1])}
	if !r.Class.Valid() {
		return nil, fmt.Errorf("%w: unknown durability class %d", ErrReceipt, b[1])
	}
	copy(r.KeyID[:], b[2:])
	copy(r.Signature[:], b[10:])
	var err error
	if r.Header, err = journal.DecodeHeader(b[74 : 74+journal.HeaderBytes]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	r.Index = binary.BigEndian.Uint32(b[74+journal.HeaderBytes:])
	n := int(b[fixed-1])
	b = b[fixed:]
	if r.Index >= r.Header.Count || n != journal.PathLength(int(r.Index), int(r.Header.Count)) {
		return nil, fmt.Errorf("%w: index or path does not fit the frame", ErrReceipt)
	}
	if len(b) < n*32+epro.SaltBytes+2 {
		return nil, fmt.Errorf("%w: cut short", ErrReceipt)
	}
	r.Path = make([]epro.Digest, n)
	for i := range r.Path {
		copy(r.Path[i][:], b[i*32:])
	}
	b = b[n*32:]
	copy(r.Salt[:], b)
	size := int(binary.BigEndian.Uint16(b[epro.SaltBytes:]))
	b = b[epro.SaltBytes+2:]
	if len(b) != size {
		return nil, fmt.Errorf("%w: wrong length", ErrReceipt)
	}
	r.Envelope = b
	if _, err := epro.DecodeEnvelope(b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	return r, nil
}

// Fact is the receipt's envelope, decoded.
func (r *Receipt) Fact() (epro.Envelope, error) { return epro.DecodeEnvelope(r.Envelope) }

// Check verifies the proof: the envelope's path leads to the header's root, and
// a certified key signed that header with this class. A nil error means that
// the holder of the key said: this fact is durable, in this place.
func (r *Receipt) Check(keys *KeySet) error {
	root, ok := journal.RootFromPath(epro.Leaf(r.Envelope), int(r.Index), int(r.Header.Count), r.Path)
	if !ok || root != r.Header.Root {
		return fmt.Errorf("%w: the envelope is not in the signed frame: receipt or envelope was changed", ErrReceipt)
	}
	return keys.checkStatement(r.KeyID, r.Header.Hash(), r.Class, r.Signature)
}

// MatchesBody says whether body is, to the byte, what this receipt was given
// for.
func (r *Receipt) MatchesBody(body []byte) bool {
	env, err := r.Fact()
	return err == nil && epro.BodyDigest(r.Salt, body) == env.BodyDigest
}

// ParseKeyID reads the hexadecimal form of a key id.
func ParseKeyID(s string) (KeyID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(KeyID{}) || KeyID(b).String() != s {
		return KeyID{}, errors.New("key id must be 16 lower-case hexadecimal digits")
	}
	return KeyID(b), nil
}
