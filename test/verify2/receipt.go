package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// receipt is docs/format.md §5.
type receipt struct {
	class     byte
	key       [8]byte
	signature []byte
	header    header
	index     int
	path      []hash
	salt      []byte
	raw       []byte // the envelope's bytes
	envelope  envelope
}

// readBase64 reads the one spelling of exactly n bytes, or of any number when n
// is negative.
func readBase64(s string, n int) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	// Writing it again is the whole test of spelling: padding, line ends, unused bits.
	if err != nil || n >= 0 && len(b) != n || base64.RawURLEncoding.EncodeToString(b) != s {
		return nil, errors.New("not the one base64url spelling")
	}
	return b, nil
}

func readReceipt(text string) (*receipt, error) {
	rest, ok := strings.CutPrefix(text, "receipt1.")
	if !ok || len(text) > 4096 {
		return nil, errors.New("it does not look like a receipt")
	}
	b, err := readBase64(rest, -1)
	if err != nil {
		return nil, err
	}
	if len(b) < 8 {
		return nil, errors.New("it is cut short")
	}
	end := len(b) - 4
	if crc32.ChecksumIEEE(b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		return nil, errors.New("its check sum does not fit")
	}
	r := reader{b: b[:end]}
	version := r.uint(1)
	out := &receipt{class: byte(r.uint(1))}
	copy(out.key[:], r.bytes(8))
	out.signature = r.bytes(64)
	if out.header, err = readHeader(r.bytes(headerBytes)); err != nil {
		return nil, err
	}
	out.index = int(r.uint(4))
	n := int(r.uint(1))
	for range n {
		out.path = append(out.path, r.hash())
	}
	out.salt = r.bytes(saltBytes)
	size := int(r.uint(2))
	if r.fail || version != 1 || out.class < 1 || out.class > 5 || size != len(r.b) {
		return nil, errors.New("it is not in canonical form")
	}
	// Only the length of the path is form; where it leads is proof.
	if _, ok := pathRoot(hash{}, out.index, int(out.header.count), out.path); !ok {
		return nil, errors.New("its index or its path does not fit the frame")
	}
	out.raw = r.b
	out.envelope, err = readEnvelope(out.raw)
	return out, err
}

// proves says whether the envelope lies in the frame whose header it carries.
func (r *receipt) proves() bool {
	root, ok := pathRoot(leafHash(r.raw), r.index, int(r.header.count), r.path)
	return ok && root == r.header.root
}

func statement(header hash, class byte, key [8]byte) []byte {
	b := append([]byte("tidegate-receipt-v1"), header[:]...)
	return append(append(b, class), key[:]...)
}

// key is a certified signing key.
type key struct {
	public      ed25519.PublicKey
	compromised bool
}

type keyList map[[8]byte]key

// signed says why the receipt's signature proves nothing, or nil.
func (l keyList) signed(r *receipt) error {
	k, ok := l[r.key]
	switch {
	case !ok:
		return errors.New("it is signed by a key that is not certified")
	case !ed25519.Verify(k.public, statement(r.header.hash, r.class, r.key), r.signature):
		return errors.New("its signature does not fit")
	case k.compromised:
		return errors.New("its key was retired as compromised")
	}
	return nil
}

// readKeys reads the answer of GET /v1/keys and checks it against the root key's
// fingerprint (docs/format.md §6).
func readKeys(data []byte, fingerprint string) (keyList, error) {
	var in struct {
		Root struct {
			PublicKey string `json:"publicKey"`
		} `json:"root"`
		Keys []struct {
			KeyID       string `json:"keyId"`
			PublicKey   string `json:"publicKey"`
			NotBefore   int64  `json:"notBefore"`
			Certificate string `json:"certificate"`
			Retired     *struct {
				KeyID     string `json:"keyId"`
				At        int64  `json:"at"`
				Reason    string `json:"reason"`
				Signature string `json:"signature"`
			} `json:"retired"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, errors.New("the keys are not the JSON of GET /v1/keys")
	}
	root, err := readBase64(in.Root.PublicKey, ed25519.PublicKeySize)
	if err != nil {
		return nil, fmt.Errorf("the root's public key is %w", err)
	}
	if sum := sha256.Sum256(root); hex.EncodeToString(sum[:]) != fingerprint {
		return nil, errors.New("the root key has another fingerprint than --root says")
	}
	signedByRoot := func(signature string, parts ...[]byte) bool {
		sig, err := readBase64(signature, ed25519.SignatureSize)
		var b []byte
		for _, p := range parts {
			b = append(b, p...)
		}
		return err == nil && ed25519.Verify(root, b, sig)
	}
	seconds := func(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }
	list := keyList{}
	for i, k := range in.Keys {
		public, err := readBase64(k.PublicKey, ed25519.PublicKeySize)
		if err != nil {
			return nil, fmt.Errorf("key %d of the list: its public key is %w", i, err)
		}
		sum := sha256.Sum256(public)
		id := [8]byte(sum[:8])
		if hex.EncodeToString(id[:]) != k.KeyID {
			return nil, fmt.Errorf("key %d of the list: its id is not its public key's", i)
		}
		if _, twice := list[id]; twice {
			return nil, fmt.Errorf("key %d of the list is listed twice", i)
		}
		if !signedByRoot(k.Certificate, []byte("tidegate-key-v1"), public, seconds(k.NotBefore)) {
			return nil, fmt.Errorf("key %d of the list: the root did not certify it", i)
		}
		trusted := key{public: public}
		if g := k.Retired; g != nil {
			if g.KeyID != k.KeyID || !signedByRoot(g.Signature, []byte("tidegate-key-retired-v1"), id[:], seconds(g.At), []byte(g.Reason)) {
				return nil, fmt.Errorf("key %d of the list: the root did not sign its retirement", i)
			}
			trusted.compromised = g.Reason != "rotated"
		}
		list[id] = trusted
	}
	return list, nil
}
