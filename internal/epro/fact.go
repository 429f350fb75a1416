package epro

import (
	"crypto/rand"
	"crypto/sha256"
)

// SaltBytes is the length of the random salt that keeps a body's digest from
// being guessed: a score has eleven values.
const SaltBytes = 16

// Salt is the random value hashed in front of a body.
type Salt [SaltBytes]byte

// NewSalt returns a fresh random salt.
func NewSalt() Salt {
	var s Salt
	_, _ = rand.Read(s[:]) // never fails: the process ends instead
	return s
}

// Fact is something that became true: an envelope, and the words it commits to.
type Fact struct {
	Envelope
	Salt   Salt
	Body   []byte // for a report: the exact bytes received; for others: canonical JSON
	Erased bool   // salt and body were destroyed after an `erased` fact; the envelope stays
}

// MaxBodyBytes bounds the body of any fact.
const MaxBodyBytes = 64 << 10

// BodyDigest is SHA-256(salt ‖ body).
func BodyDigest(salt Salt, body []byte) Digest {
	h := sha256.New()
	h.Write(salt[:])
	h.Write(body)
	var d Digest
	h.Sum(d[:0])
	return d
}

// MeaningKey keys the meaning digests of one trial's reports. It is secret:
// without it, an erased score cannot be found again by trying all eleven.
type MeaningKey [32]byte

// ReportMeaning is the meaning digest of a report: HMAC-SHA-256 under the
// trial's meaning key, of the canonical meaning ([Report.AppendMeaning]).
func ReportMeaning(key MeaningKey, canonical []byte) Digest {
	// RFC 2104 with one-shot hashes: crypto/hmac allocates seven times, and this
	// is done for every report. Most meanings fit the buffer on the stack.
	var buf [1024]byte
	var pad [sha256.BlockSize]byte
	copy(pad[:], key[:])
	for i := range pad {
		pad[i] ^= 0x36
	}
	inner := sha256.Sum256(append(append(buf[:0], pad[:]...), canonical...))
	for i := range pad {
		pad[i] ^= 0x36 ^ 0x5c
	}
	return sha256.Sum256(append(append(buf[:0], pad[:]...), inner[:]...))
}

// PlainMeaning is the meaning digest of every other fact: SHA-256 of its
// canonical body.
func PlainMeaning(body []byte) Digest { return sha256.Sum256(body) }
