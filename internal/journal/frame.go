package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
)

// Bounds of the frame format. They are part of the format: a decoder refuses
// what is over them before it allocates.
const (
	MaxFacts      = 1 << 16  // facts in a frame
	MaxFrameBytes = 16 << 20 // bytes of a frame on any journal
)

// HeaderBytes is the fixed length of an encoded header.
const HeaderBytes = 4 + 4 + 16 + 8 + 32 + 32 + 4 + 8

const (
	frameMagic  = "TGF1"
	headerMagic = "TGH1"
	headerTag   = "tidegate-header-v1"
)

// Run names the frames of one process start in one shard, at random, so that
// two writers never share a chain.
type Run [16]byte

// String is the lower-case hexadecimal form.
func (r Run) String() string { return hex.EncodeToString(r[:]) }

// Header is what a frame's hash covers, and so what a receipt signs. Through
// Prev it commits to all that its run took before.
type Header struct {
	Shard uint32
	Run   Run
	N     uint64      // 0 for a run's first frame, then one more each
	Prev  epro.Digest // hash of the run's previous header; for N = 0 of the last header its process read in the shard, zero if none
	Root  epro.Digest // RFC 6962 tree hash of the leaves
	Count uint32      // leaves, at least 1
	Time  int64       // committedAt: ns since 1970, UTC, never before the run's previous
}

// CommittedAt is the header's time.
func (h *Header) CommittedAt() time.Time { return time.Unix(0, h.Time).UTC() }

// AppendBinary appends the canonical HeaderBytes bytes of h.
func (h *Header) AppendBinary(dst []byte) []byte {
	dst = append(dst, headerMagic...)
	dst = binary.BigEndian.AppendUint32(dst, h.Shard)
	dst = append(dst, h.Run[:]...)
	dst = binary.BigEndian.AppendUint64(dst, h.N)
	dst = append(dst, h.Prev[:]...)
	dst = append(dst, h.Root[:]...)
	dst = binary.BigEndian.AppendUint32(dst, h.Count)
	return binary.BigEndian.AppendUint64(dst, uint64(h.Time)) //nolint:gosec // two's complement on purpose
}

// Hash is SHA-256("tidegate-header-v1" ‖ header bytes).
func (h *Header) Hash() epro.Digest {
	var buf [len(headerTag) + HeaderBytes]byte
	b := append(buf[:0], headerTag...)
	return sha256.Sum256(h.AppendBinary(b))
}

// DecodeHeader reads HeaderBytes canonical bytes.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) != HeaderBytes || string(b[:4]) != headerMagic {
		return Header{}, fmt.Errorf("%w: no header of this format version", ErrFrame)
	}
	var h Header
	h.Shard = binary.BigEndian.Uint32(b[4:])
	copy(h.Run[:], b[8:])
	h.N = binary.BigEndian.Uint64(b[24:])
	copy(h.Prev[:], b[32:])
	copy(h.Root[:], b[64:])
	h.Count = binary.BigEndian.Uint32(b[96:])
	h.Time = int64(binary.BigEndian.Uint64(b[100:])) //nolint:gosec // two's complement on purpose
	if h.Count == 0 || h.Count > MaxFacts {
		return Header{}, fmt.Errorf("%w: %d facts, 1 to %d allowed", ErrFrame, h.Count, MaxFacts)
	}
	return h, nil
}

// Entry is one fact in a frame: the envelope that is in the tree, and the salt
// and body beside it that may be erased.
type Entry struct {
	Envelope []byte // canonical bytes
	Salt     epro.Salt
	Body     []byte
	Erased   bool // salt and body are gone
}

// entryOverhead is the bytes of an entry beside envelope and body.
const entryOverhead = 2 + 1 + epro.SaltBytes + 4

// EncodedBytes is the length of the entry in a frame.
func (e *Entry) EncodedBytes() int {
	if e.Erased {
		return 2 + 1 + len(e.Envelope)
	}
	return entryOverhead + len(e.Envelope) + len(e.Body)
}

// Fact decodes the entry. It fails on an envelope that is not canonical; that
// the body fits its digest is for [Entry.BodyMatches] to say.
func (e *Entry) Fact() (epro.Fact, error) {
	env, err := epro.DecodeEnvelope(e.Envelope)
	if err != nil {
		return epro.Fact{}, err
	}
	return epro.Fact{Envelope: env, Salt: e.Salt, Body: e.Body, Erased: e.Erased}, nil
}

// Frame is a batch of facts of one shard, made durable as one.
type Frame struct {
	Header  Header
	Entries []Entry
}

// Sealed is a frame ready to be appended: its header, the header's hash, and
// its bytes, which nobody changes any more.
type Sealed struct {
	Header Header
	Hash   epro.Digest
	Bytes  []byte
}

// ErrFrame wraps every reason for which bytes are not a frame.
var ErrFrame = errors.New("not a frame")

// Seal encodes a frame whose header the caller has filled but for Root and
// Count, which come from the leaves. The leaves are those of the entries, in
// order; passing them saves hashing twice.
func Seal(h Header, entries []Entry, leaves []epro.Digest) (Sealed, error) {
	if len(leaves) == 0 {
		return Sealed{}, fmt.Errorf("%w: no facts", ErrFrame)
	}
	return SealTree(h, entries, NewTree(leaves))
}

// SealTree is [Seal] for a caller that needs the tree itself too.
func SealTree(h Header, entries []Entry, tree *Tree) (Sealed, error) {
	if len(entries) == 0 || len(entries) > MaxFacts || len(entries) != tree.Len() {
		return Sealed{}, fmt.Errorf("%w: %d facts with %d leaves, 1 to %d allowed", ErrFrame, len(entries), tree.Len(), MaxFacts)
	}
	h.Root = tree.Root()
	h.Count = uint32(len(entries)) //nolint:gosec // bounded above
	size := len(frameMagic) + HeaderBytes
	for i := range entries {
		size += entries[i].EncodedBytes()
	}
	if size > MaxFrameBytes {
		return Sealed{}, fmt.Errorf("%w: %d bytes, at most %d", ErrFrame, size, MaxFrameBytes)
	}
	b := make([]byte, 0, size)
	b = append(b, frameMagic...)
	b = h.AppendBinary(b)
	for i := range entries {
		env := entries[i].Envelope
		if len(env) < epro.MinEnvelopeBytes || len(env) > epro.MaxEnvelopeBytes {
			return Sealed{}, fmt.Errorf("%w: envelope of %d bytes", ErrFrame, len(env))
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(env))) //nolint:gosec // bounded above
		b = append(b, env...)
	}
	for i := range entries {
		var err error
		if b, err = appendContent(b, &entries[i]); err != nil {
			return Sealed{}, err
		}
	}
	return Sealed{Header: h, Hash: h.Hash(), Bytes: b}, nil
}

// States of an entry's content, the part outside the tree.
const (
	contentPresent = 1
	contentErased  = 2
)

func appendContent(b []byte, e *Entry) ([]byte, error) {
	if e.Erased {
		return append(b, contentErased), nil
	}
	if len(e.Body) > epro.MaxBodyBytes {
		return nil, fmt.Errorf("%w: body of %d bytes, at most %d", ErrFrame, len(e.Body), epro.MaxBodyBytes)
	}
	b = append(b, contentPresent)
	b = append(b, e.Salt[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Body))) //nolint:gosec // bounded above
	return append(b, e.Body...), nil
}

// DecodeFrame reads the bytes of a frame. It checks the form and every bound
// before it allocates, never panics, and refuses bytes that an encoder would
// not have written. It does not check hashes: [Frame.Check] does. Envelopes and
// bodies alias b.
func DecodeFrame(b []byte) (Frame, error) {
	if len(b) > MaxFrameBytes || len(b) < len(frameMagic)+HeaderBytes {
		return Frame{}, fmt.Errorf("%w: %d bytes", ErrFrame, len(b))
	}
	if string(b[:len(frameMagic)]) != frameMagic {
		return Frame{}, fmt.Errorf("%w: does not begin with %s: another format version?", ErrFrame, frameMagic)
	}
	b = b[len(frameMagic):]
	h, err := DecodeHeader(b[:HeaderBytes])
	if err != nil {
		return Frame{}, err
	}
	b = b[HeaderBytes:]
	// The smallest entry bounds how many there can be in what is left.
	if int64(h.Count)*(2+1+epro.MinEnvelopeBytes) > int64(len(b)) {
		return Frame{}, fmt.Errorf("%w: too short for its %d facts", ErrFrame, h.Count)
	}
	entries := make([]Entry, h.Count)
	for i := range entries {
		if len(b) < 2 {
			return Frame{}, fmt.Errorf("%w: ends in envelope %d", ErrFrame, i)
		}
		n := int(binary.BigEndian.Uint16(b))
		if n < epro.MinEnvelopeBytes || n > epro.MaxEnvelopeBytes || len(b)-2 < n {
			return Frame{}, fmt.Errorf("%w: envelope %d has a wrong length", ErrFrame, i)
		}
		entries[i].Envelope = b[2 : 2+n : 2+n]
		b = b[2+n:]
	}
	for i := range entries {
		if b, err = readContent(b, &entries[i]); err != nil {
			return Frame{}, fmt.Errorf("%w: content %d: %w", ErrFrame, i, err)
		}
	}
	if len(b) != 0 {
		return Frame{}, fmt.Errorf("%w: %d bytes after its end", ErrFrame, len(b))
	}
	return Frame{Header: h, Entries: entries}, nil
}

func readContent(b []byte, e *Entry) ([]byte, error) {
	if len(b) < 1 {
		return nil, errors.New("is missing")
	}
	switch b[0] {
	case contentErased:
		e.Erased = true
		return b[1:], nil
	case contentPresent:
		b = b[1:]
		if len(b) < epro.SaltBytes+4 {
			return nil, errors.New("is cut short")
		}
		copy(e.Salt[:], b)
		n := binary.BigEndian.Uint32(b[epro.SaltBytes:])
		b = b[epro.SaltBytes+4:]
		if n > epro.MaxBodyBytes || n > math.MaxInt32 || len(b) < int(n) {
			return nil, errors.New("has a wrong length")
		}
		e.Body = b[:n:n]
		return b[n:], nil
	}
	return nil, fmt.Errorf("has the unknown state %d", b[0])
}

// Fault is something in a frame that does not fit its hashes.
type Fault struct {
	Index  int    // the fact, or -1 for the frame as a whole
	Reason string // a sentence; it never quotes content
}

// Check re-hashes the frame: leaves against the root, bodies against their
// digests, envelopes for canonical form. It returns every fault found.
func (f *Frame) Check() []Fault {
	var faults []Fault
	leaves := make([]epro.Digest, len(f.Entries))
	for i := range f.Entries {
		e := &f.Entries[i]
		leaves[i] = epro.Leaf(e.Envelope)
		env, err := epro.DecodeEnvelope(e.Envelope)
		if err != nil {
			faults = append(faults, Fault{i, err.Error()})
			continue
		}
		if !e.Erased && epro.BodyDigest(e.Salt, e.Body) != env.BodyDigest {
			faults = append(faults, Fault{i, "the body is not the one that was received: it does not fit its digest"})
		}
	}
	if TreeRoot(leaves) != f.Header.Root {
		faults = append(faults, Fault{-1, "the facts do not fit the header's root: an envelope was changed, moved, added or taken away"})
	}
	return faults
}
