package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

// Bounds of docs/format.md §1.
const (
	maxFrameBytes    = 16 << 20
	maxFacts         = 65536
	maxBodyBytes     = 65536
	maxString        = 64
	minEnvelopeBytes = 125
	maxEnvelopeBytes = 445
	headerBytes      = 108
	saltBytes        = 16
)

type hash = [32]byte

// header is docs/format.md §3, with its bytes.
type header struct {
	shard uint32
	run   [16]byte
	n     uint64
	prev  hash
	root  hash
	count uint32
	time  int64
	hash  hash
}

// envelope is docs/format.md §2, what of it a verifier uses.
type envelope struct {
	flags          uint16
	kind           string
	version        uint16
	id             [16]byte
	trial, subject string
	actorType      byte
	actor, device  string
	tokenKey       uint32
	epoch          uint32
	occurred       instant
	offset         int16 // minutes
	received       instant
	bodyDigest     hash
	meaning        hash
}

type instant struct {
	seconds int64
	nanos   uint32
}

// fact is one fact of a frame.
type fact struct {
	raw     []byte // the envelope's bytes
	leaf    hash
	erased  bool
	salt    []byte
	body    []byte
	decoded envelope
	bad     error // why the envelope cannot be read, nil if it can
}

// reader takes big-endian fields off the front of b; it fails once and for all.
type reader struct {
	b    []byte
	fail bool
}

func (r *reader) bytes(n int) []byte {
	if r.fail || n > len(r.b) {
		r.fail = true
		return make([]byte, min(n, maxString))
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint(n int) uint64 {
	var v uint64
	for _, c := range r.bytes(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *reader) hash() (h hash) { copy(h[:], r.bytes(32)); return }

func (r *reader) text() string {
	n := int(r.uint(1))
	if n > maxString {
		r.fail = true
		return ""
	}
	s := r.bytes(n)
	for _, c := range s {
		if c < ' ' || c > '~' {
			r.fail = true
		}
	}
	return string(s)
}

func (r *reader) instant() instant {
	i := instant{int64(r.uint(8)), uint32(r.uint(4))}
	if i.nanos > 999999999 || i.seconds < -62167305600 || i.seconds > 253402387199 {
		r.fail = true
	}
	return i
}

func readEnvelope(b []byte) (envelope, error) {
	r := reader{b: b}
	var e envelope
	if v := r.uint(1); v != 1 {
		return e, errors.New("its envelope has another version than 1")
	}
	e.flags = uint16(r.uint(2))
	e.kind, e.version = r.text(), uint16(r.uint(2))
	copy(e.id[:], r.bytes(16))
	e.trial, e.subject = r.text(), r.text()
	e.actorType = byte(r.uint(1))
	e.actor, e.device = r.text(), r.text()
	e.tokenKey, e.epoch = uint32(r.uint(4)), uint32(r.uint(4))
	e.occurred, e.offset = r.instant(), int16(r.uint(2))
	e.received = r.instant()
	e.bodyDigest, e.meaning = r.hash(), r.hash()
	if r.fail || len(r.b) > 0 || e.kind == "" || e.actorType < 1 || e.actorType > 4 || e.offset < -1439 || e.offset > 1439 {
		return e, errors.New("its envelope is not in canonical form")
	}
	return e, nil
}

func readHeader(b []byte) (header, error) {
	var h header
	if len(b) != headerBytes || string(b[:4]) != "TGH1" {
		return h, errors.New("it has no header of this version")
	}
	r := reader{b: b[4:]}
	h.shard = uint32(r.uint(4))
	copy(h.run[:], r.bytes(16))
	h.n = r.uint(8)
	h.prev, h.root = r.hash(), r.hash()
	h.count = uint32(r.uint(4))
	h.time = int64(r.uint(8))
	if h.count < 1 || h.count > maxFacts {
		return h, errors.New("its header names an impossible number of facts")
	}
	h.hash = sha256.Sum256(append([]byte("tidegate-header-v1"), b...))
	return h, nil
}

// readFrame reads a frame's form and hashes its leaves; what does not fit its
// hashes is for check to say.
func readFrame(b []byte) (header, []fact, error) {
	if len(b) < 4+headerBytes || len(b) > maxFrameBytes || string(b[:4]) != "TGF1" {
		return header{}, nil, errors.New("it is not a frame of this version")
	}
	h, err := readHeader(b[4 : 4+headerBytes])
	if err != nil {
		return h, nil, err
	}
	r := reader{b: b[4+headerBytes:]}
	if int(h.count)*(2+minEnvelopeBytes+1) > len(r.b) {
		return h, nil, errors.New("it is shorter than its facts")
	}
	facts := make([]fact, h.count)
	for i := range facts {
		n := int(r.uint(2))
		if n < minEnvelopeBytes || n > maxEnvelopeBytes || n > len(r.b) {
			return h, nil, fmt.Errorf("the envelope of fact %d has an impossible length", i)
		}
		facts[i].raw = r.bytes(n)
		facts[i].leaf = leafHash(facts[i].raw)
		facts[i].decoded, facts[i].bad = readEnvelope(facts[i].raw)
	}
	for i := range facts {
		switch r.uint(1) {
		case 1:
			facts[i].salt = r.bytes(saltBytes)
			n := int(r.uint(4))
			if n > maxBodyBytes || n > len(r.b) {
				return h, nil, fmt.Errorf("the body of fact %d has an impossible length", i)
			}
			facts[i].body = r.bytes(n)
		case 2:
			facts[i].erased = true
		default:
			return h, nil, fmt.Errorf("the content of fact %d has an unknown state", i)
		}
	}
	if r.fail || len(r.b) > 0 {
		return h, nil, errors.New("it has not the length its parts add up to")
	}
	return h, facts, nil
}

// check names what in a frame does not fit its hashes.
func check(h header, facts []fact) []string {
	var out []string
	leaves := make([]hash, len(facts))
	for i := range facts {
		f := &facts[i]
		leaves[i] = f.leaf
		if f.bad != nil {
			out = append(out, fmt.Sprintf("fact %d: %v", i, f.bad))
		} else if !f.erased && saltedHash(f.salt, f.body) != f.decoded.bodyDigest {
			out = append(out, fmt.Sprintf("fact %d: its body is not the one received", i))
		}
	}
	if rootHash(leaves) != h.root {
		out = append(out, "its facts do not add up to its root")
	}
	return out
}

func saltedHash(salt, body []byte) hash {
	return sha256.Sum256(append(append(make([]byte, 0, len(salt)+len(body)), salt...), body...))
}
