package receipt

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

const (
	certificateTag = "tidegate-key-v1"
	retirementTag  = "tidegate-key-retired-v1"
)

// Reasons for which a key is retired.
const (
	RetiredRotated     = "rotated"     // its receipts stay valid
	RetiredCompromised = "compromised" // its receipts prove nothing any more
)

// Fingerprint names a root key: the hexadecimal SHA-256 of its public key. It
// is printed at first start, travels in every activation, and is all that an
// auditor must have received by another way.
func Fingerprint(root ed25519.PublicKey) string {
	sum := sha256.Sum256(root)
	return hex.EncodeToString(sum[:])
}

// Certificate is the root key's word that a key signs receipts. It is the body
// of a key.added fact and an entry of GET /v1/keys.
type Certificate struct {
	KeyID       string      `json:"keyId"`
	PublicKey   string      `json:"publicKey"`   // unpadded base64url of 32 bytes
	NotBefore   int64       `json:"notBefore"`   // seconds since 1970; information, receipts may be older: they are issued anew
	Certificate string      `json:"certificate"` // unpadded base64url of the root's signature
	Retired     *Retirement `json:"retired,omitempty"`
}

// Retirement is the root key's word that a key signs no more. It is the body of
// a key.retired fact.
type Retirement struct {
	KeyID     string `json:"keyId"`
	At        int64  `json:"at"` // seconds since 1970
	Reason    string `json:"reason"`
	Signature string `json:"signature"` // unpadded base64url of the root's signature
}

// Keys is the answer of GET /v1/keys and the file that `tidegate verify
// receipt --keys` reads.
type Keys struct {
	Root struct {
		PublicKey   string `json:"publicKey"`
		Fingerprint string `json:"fingerprint"`
	} `json:"root"`
	Keys []Certificate `json:"keys"`
}

// NewKeys returns a list of keys under a root.
func NewKeys(root ed25519.PublicKey, certs ...Certificate) Keys {
	k := Keys{Keys: certs}
	k.Root.PublicKey = b64(root)
	k.Root.Fingerprint = Fingerprint(root)
	return k
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// unb64 reads exactly n bytes. One value has one spelling: the length is
// checked first because the decoder skips line ends.
func unb64(s string, n int) ([]byte, error) {
	if len(s) != base64.RawURLEncoding.EncodedLen(n) {
		return nil, fmt.Errorf("must be %d bytes in unpadded base64url", n)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != n {
		return nil, fmt.Errorf("must be %d bytes in unpadded base64url", n)
	}
	return b, nil
}

func certificateStatement(pub ed25519.PublicKey, notBefore int64) []byte {
	b := append([]byte(certificateTag), pub...)
	return binary.BigEndian.AppendUint64(b, uint64(notBefore)) //nolint:gosec // two's complement on purpose
}

func retirementStatement(id KeyID, at int64, reason string) []byte {
	b := append([]byte(retirementTag), id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(at)) //nolint:gosec // two's complement on purpose
	return append(b, reason...)
}

// Certify makes the certificate of a signing key.
func Certify(root ed25519.PrivateKey, pub ed25519.PublicKey, notBefore time.Time) Certificate {
	at := notBefore.Unix()
	return Certificate{
		KeyID: IDOf(pub).String(), PublicKey: b64(pub), NotBefore: at,
		Certificate: b64(ed25519.Sign(root, certificateStatement(pub, at))),
	}
}

// Retire makes the retirement of a signing key. The reason is RetiredRotated
// or RetiredCompromised.
func Retire(root ed25519.PrivateKey, id KeyID, at time.Time, reason string) Retirement {
	return Retirement{
		KeyID: id.String(), At: at.Unix(), Reason: reason,
		Signature: b64(ed25519.Sign(root, retirementStatement(id, at.Unix(), reason))),
	}
}

// KeySet is a list of keys whose certificates were checked against a root.
// It is immutable.
type KeySet struct {
	root ed25519.PublicKey
	keys map[KeyID]trusted
}

type trusted struct {
	pub         ed25519.PublicKey
	compromised bool
}

// ErrKeys wraps every reason for which a list of keys is not to be trusted.
var ErrKeys = errors.New("keys are not certified by this root")

// ParseKeys reads the JSON of GET /v1/keys and checks it: the root has the
// given fingerprint, and it certified every key and every retirement.
func ParseKeys(data []byte, fingerprint string) (*KeySet, error) {
	var k Keys
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, fmt.Errorf("%w: not the JSON of GET /v1/keys: %w", ErrKeys, err)
	}
	return NewKeySet(k, fingerprint)
}

// NewKeySet checks a list of keys against the root's fingerprint.
func NewKeySet(k Keys, fingerprint string) (*KeySet, error) {
	root, err := unb64(k.Root.PublicKey, ed25519.PublicKeySize)
	if err != nil {
		return nil, fmt.Errorf("%w: root public key %w", ErrKeys, err)
	}
	if Fingerprint(root) != fingerprint {
		return nil, fmt.Errorf("%w: the root key has the fingerprint %s, expected %s", ErrKeys, Fingerprint(root), fingerprint)
	}
	s := &KeySet{root: root, keys: make(map[KeyID]trusted, len(k.Keys))}
	for i := range k.Keys {
		if err := s.add(&k.Keys[i]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// check says whether the root signed the certificate, and for which key.
func (c *Certificate) check(root ed25519.PublicKey) (KeyID, ed25519.PublicKey, error) {
	pub, err := unb64(c.PublicKey, ed25519.PublicKeySize)
	if err != nil {
		return KeyID{}, nil, fmt.Errorf("%w: key %q: public key %w", ErrKeys, c.KeyID, err)
	}
	id := IDOf(pub)
	if id.String() != c.KeyID {
		return id, nil, fmt.Errorf("%w: key %q: its id is not that of its public key", ErrKeys, c.KeyID)
	}
	sig, err := unb64(c.Certificate, ed25519.SignatureSize)
	if err != nil || !ed25519.Verify(root, certificateStatement(pub, c.NotBefore), sig) {
		return id, nil, fmt.Errorf("%w: key %s: the root did not sign its certificate", ErrKeys, id)
	}
	return id, pub, nil
}

// check says whether the root signed the retirement.
func (r *Retirement) check(root ed25519.PublicKey) error {
	id, err := ParseKeyID(r.KeyID)
	if err != nil {
		return fmt.Errorf("%w: a retirement of key %q: %w", ErrKeys, r.KeyID, err)
	}
	sig, err := unb64(r.Signature, ed25519.SignatureSize)
	if err != nil || !ed25519.Verify(root, retirementStatement(id, r.At, r.Reason), sig) {
		return fmt.Errorf("%w: key %s: the root did not sign its retirement", ErrKeys, id)
	}
	return nil
}

func (s *KeySet) add(c *Certificate) error {
	id, pub, err := c.check(s.root)
	if err != nil {
		return err
	}
	if _, twice := s.keys[id]; twice {
		// A second entry could hide the first one's retirement.
		return fmt.Errorf("%w: key %s is listed twice", ErrKeys, id)
	}
	t := trusted{pub: pub}
	if r := c.Retired; r != nil {
		if r.KeyID != c.KeyID {
			return fmt.Errorf("%w: key %s: the root did not sign its retirement", ErrKeys, id)
		}
		if err := r.check(s.root); err != nil {
			return err
		}
		// An unknown reason is from a newer binary: take the careful reading.
		t.compromised = r.Reason != RetiredRotated
	}
	s.keys[id] = t
	return nil
}

// checkStatement verifies a frame's signature under a certified key.
func (s *KeySet) checkStatement(id KeyID, header epro.Digest, class journal.Class, sig Signature) error {
	key, ok := s.keys[id]
	switch {
	case !ok:
		return fmt.Errorf("%w: signed by key %s, which is not among the certified keys: fetch GET /v1/keys anew", ErrReceipt, id)
	case !ed25519.Verify(key.pub, statement(header, class, id), sig[:]):
		return fmt.Errorf("%w: the signature does not fit: receipt was changed", ErrReceipt)
	case key.compromised:
		return fmt.Errorf("%w: signed by key %s, which was retired as compromised: ask for the receipt anew", ErrReceipt, id)
	}
	return nil
}

// Has says whether the set certifies the key.
func (s *KeySet) Has(id KeyID) bool { _, ok := s.keys[id]; return ok }
