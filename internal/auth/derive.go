package auth

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
)

// The info strings of HKDF-SHA-256. Each ends in the one part that varies, so
// no two purposes can ever derive the same key.
const (
	meaningInfo  = "tidegate-meaning-v1|"
	macInfo      = "tidegate-token-v1|"
	operatorInfo = "tidegate-operator-v1"
)

// derive is HKDF-SHA-256 without salt: the secrets are uniform already.
func derive(secret []byte, info, trial string) [secretBytes]byte {
	key, err := hkdf.Key(sha256.New, secret, nil, info+trial, secretBytes)
	if err != nil {
		panic("auth: HKDF refused a fixed length") // cannot happen: 32 bytes are far below its limit
	}
	return [secretBytes]byte(key)
}

// maxDerived bounds a cache of derived keys. A trial that falls out costs one
// derivation (about 2 µs), nothing else.
const maxDerived = 4096

// derivedKeys remembers the keys derived for trials. Reading takes no lock and
// allocates nothing. Only a trial's own authentic traffic fills it: see
// [Keys.Verify]. The zero value is empty and ready.
type derivedKeys[K any] struct {
	byTrial atomic.Pointer[map[string]K]
	mu      sync.Mutex // writers
}

func (c *derivedKeys[K]) get(trial string) (key K, ok bool) {
	if m := c.byTrial.Load(); m != nil {
		key, ok = (*m)[trial]
	}
	return key, ok
}

func (c *derivedKeys[K]) put(trial string, key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[string]K)
	// Full: begin anew. It keeps the cost of an entry bounded without a clock on the reading side.
	if m := c.byTrial.Load(); m != nil && len(*m) < maxDerived {
		next = maps.Clone(*m)
	}
	next[strings.Clone(trial)] = key // the text may be part of a whole token
	c.byTrial.Store(&next)
}

// macKey computes HMAC-SHA-256 under one key. It keeps spare states, because
// preparing one costs more than a token's own hashing.
type macKey struct{ spare sync.Pool }

type macState struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newMACKey(key [secretBytes]byte) *macKey {
	return &macKey{spare: sync.Pool{New: func() any { return &macState{mac: hmac.New(sha256.New, key[:])} }}}
}

func (k *macKey) append(dst, message []byte) []byte {
	s := k.spare.Get().(*macState)
	defer k.spare.Put(s)
	s.mac.Reset()
	s.mac.Write(message)
	return s.mac.Sum(dst)
}

// verify compares in constant time.
func (k *macKey) verify(message, mac []byte) bool {
	s := k.spare.Get().(*macState)
	defer k.spare.Put(s)
	s.mac.Reset()
	s.mac.Write(message)
	s.mac.Sum(s.sum[:0])
	return subtle.ConstantTimeCompare(s.sum[:], mac) == 1
}
