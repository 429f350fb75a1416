package receipt

import (
	"encoding/base64"
	"fmt"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// Signed is a durable, signed frame as those who waited for it share it. It is
// immutable and safe for concurrent use.
type Signed struct {
	Header    journal.Header
	Class     journal.Class
	KeyID     KeyID
	Signature Signature
	Tree      *journal.Tree
}

// Receipt is the receipt of fact i of the frame. The envelope is not copied.
func (s *Signed) Receipt(i int, envelope []byte, salt epro.Salt) *Receipt {
	return &Receipt{
		Class: s.Class, KeyID: s.KeyID, Signature: s.Signature, Header: s.Header,
		Index: uint32(i), //nolint:gosec // at most journal.MaxFacts
		Path:  s.Tree.AppendPath(make([]epro.Digest, 0, maxPath), i), Salt: salt, Envelope: envelope,
	}
}

// Batch is the part of the receipts of neighbouring facts that they share: the
// signed header once, and one proof for leaves [From, From+n). With envelope
// and salt of each line, [Batch.Receipts] gives each its own receipt.
type Batch struct {
	Header    string   `json:"header"` // unpadded base64url, like all binary here
	Class     string   `json:"class"`
	KeyID     string   `json:"keyId"`
	Signature string   `json:"signature"`
	From      int      `json:"from"`
	Proof     []string `json:"proof"`
}

// Batch is the shared part for the facts [from, to) of the frame.
func (s *Signed) Batch(from, to int) Batch {
	hashes := s.Tree.AppendRangeProof(nil, from, to)
	proof := make([]string, len(hashes))
	for i := range hashes {
		proof[i] = b64(hashes[i][:])
	}
	return Batch{
		Header: b64(s.Header.AppendBinary(nil)), Class: s.Class.String(), KeyID: s.KeyID.String(),
		Signature: b64(s.Signature[:]), From: from, Proof: proof,
	}
}

// Line is one fact's own part beside its [Batch].
type Line struct {
	Envelope []byte
	Salt     epro.Salt
}

// DecodeLine reads a fact's own part as an answer spells it, in unpadded
// base64url. What the envelope says is for [Receipt.Check] to judge.
func DecodeLine(salt, envelope string) (Line, error) {
	s, err := unb64(salt, epro.SaltBytes)
	if err != nil {
		return Line{}, fmt.Errorf("%w: salt %w", ErrReceipt, err)
	}
	e, err := unb64(envelope, base64.RawURLEncoding.DecodedLen(len(envelope)))
	if err != nil {
		return Line{}, fmt.Errorf("%w: envelope %w", ErrReceipt, err)
	}
	return Line{Envelope: e, Salt: epro.Salt(s)}, nil
}

// Receipts gives each of the neighbouring facts, in order, its receipt. They
// are not yet checked against keys: call [Receipt.Check] on each.
func (b *Batch) Receipts(lines []Line) ([]*Receipt, error) {
	header, err := unb64(b.Header, journal.HeaderBytes)
	if err != nil {
		return nil, fmt.Errorf("%w: header %w", ErrReceipt, err)
	}
	h, err := journal.DecodeHeader(header)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	var class journal.Class
	for c := journal.Class(1); c.Valid(); c++ {
		if c.String() == b.Class {
			class = c
		}
	}
	if class == 0 {
		return nil, fmt.Errorf("%w: unknown durability class", ErrReceipt)
	}
	id, err := ParseKeyID(b.KeyID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	sig, err := unb64(b.Signature, len(Signature{}))
	if err != nil {
		return nil, fmt.Errorf("%w: signature %w", ErrReceipt, err)
	}
	proof := make([]epro.Digest, len(b.Proof))
	for i, p := range b.Proof {
		raw, err := unb64(p, len(epro.Digest{}))
		if err != nil {
			return nil, fmt.Errorf("%w: proof is not made of hashes", ErrReceipt)
		}
		proof[i] = epro.Digest(raw)
	}
	leaves := make([]epro.Digest, len(lines))
	for i := range lines {
		leaves[i] = epro.Leaf(lines[i].Envelope)
	}
	root, path, ok := journal.TreeFromRange(leaves, b.From, int(h.Count), proof)
	if !ok || root != h.Root {
		return nil, fmt.Errorf("%w: these lines are not in the signed frame", ErrReceipt)
	}
	out := make([]*Receipt, len(lines))
	for i := range lines {
		out[i] = &Receipt{
			Class: class, KeyID: id, Signature: Signature(sig), Header: h,
			Index: uint32(b.From + i), //nolint:gosec // below Header.Count
			Path:  path(b.From + i), Salt: lines[i].Salt, Envelope: lines[i].Envelope,
		}
	}
	return out, nil
}
