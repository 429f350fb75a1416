package journal

import (
	"crypto/sha256"
	"math/bits"

	"github.com/tidegate/tidegate/internal/epro"
)

// node is the inner hash of RFC 6962 §2.1: SHA-256(0x01 ‖ left ‖ right).
func node(left, right epro.Digest) epro.Digest {
	var b [65]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

// split is the largest power of two smaller than n (n ≥ 2).
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

// TreeRoot is the RFC 6962 tree hash of one or more leaf hashes.
func TreeRoot(leaves []epro.Digest) epro.Digest {
	if len(leaves) == 0 {
		return sha256.Sum256(nil)
	}
	return NewTree(leaves).Root()
}

// Tree keeps every level of the hashes over a frame's leaves, so that each
// waiter cuts its own path without hashing again. It is immutable and safe for
// concurrent use.
type Tree struct {
	levels [][]epro.Digest // levels[0] are the leaves; an odd last node moves up unchanged
}

// NewTree hashes the levels over the leaves, of which there must be at least
// one. The leaves are kept, not copied.
func NewTree(leaves []epro.Digest) *Tree {
	t := &Tree{levels: make([][]epro.Digest, 1, 1+bits.Len(uint(len(leaves))))}
	t.levels[0] = leaves
	for level := leaves; len(level) > 1; {
		up := make([]epro.Digest, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			up[i/2] = node(level[i], level[i+1])
		}
		if len(level)%2 == 1 {
			// RFC 6962 splits at the largest power of two, which is the same as
			// letting an odd last node rise until it finds a left sibling.
			up[len(up)-1] = level[len(level)-1]
		}
		t.levels = append(t.levels, up)
		level = up
	}
	return t
}

// Root is the tree's hash.
func (t *Tree) Root() epro.Digest { return t.levels[len(t.levels)-1][0] }

// Len is the number of leaves.
func (t *Tree) Len() int { return len(t.levels[0]) }

// AppendPath appends the audit path of leaf i (RFC 6962 §2.1.1), from the leaf
// up, to dst.
func (t *Tree) AppendPath(dst []epro.Digest, i int) []epro.Digest {
	for _, level := range t.levels[:len(t.levels)-1] {
		if sibling := i ^ 1; sibling < len(level) {
			dst = append(dst, level[sibling])
		}
		i /= 2
	}
	return dst
}

// PathLength is the number of hashes in the path of leaf i of count.
func PathLength(i, count int) int {
	n := 0
	for ; count > 1; count = (count + 1) / 2 {
		if i^1 < count {
			n++
		}
		i /= 2
	}
	return n
}

// RootFromPath is the root that leaf i of count has with this path; false when
// the path has not the one length it must have.
func RootFromPath(leaf epro.Digest, i, count int, path []epro.Digest) (epro.Digest, bool) {
	if i < 0 || i >= count || len(path) != PathLength(i, count) {
		return epro.Digest{}, false
	}
	h := leaf
	for ; count > 1; count = (count + 1) / 2 {
		switch {
		case i%2 == 1:
			h, path = node(path[0], h), path[1:]
		case i+1 < count:
			h, path = node(h, path[0]), path[1:]
		}
		i /= 2
	}
	return h, true
}

// AppendRangeProof appends the hashes outside leaves [from, to) that, with
// those leaves, give the root: for a tree that splits as RFC 6962 says, walked
// from left to right, the hash of each largest subtree that holds none of them.
func (t *Tree) AppendRangeProof(dst []epro.Digest, from, to int) []epro.Digest {
	return t.rangeProof(dst, 0, t.Len(), from, to)
}

func (t *Tree) rangeProof(dst []epro.Digest, lo, hi, from, to int) []epro.Digest {
	if from <= lo && hi <= to {
		return dst
	}
	if hi <= from || to <= lo {
		return append(dst, t.subtree(lo, hi))
	}
	mid := lo + split(hi-lo)
	return t.rangeProof(t.rangeProof(dst, lo, mid, from, to), mid, hi, from, to)
}

// subtree is the stored hash over leaves [lo, hi), which must be a subtree.
func (t *Tree) subtree(lo, hi int) epro.Digest {
	level := bits.Len(uint(hi - lo - 1)) // 0 for a single leaf
	return t.levels[level][lo>>level]
}

// TreeFromRange rebuilds enough of a tree of count leaves from the leaves
// [from, from+len(leaves)) and their range proof to give each of them its
// path. The root it returns is to be compared with the header's; false means
// that the proof has not the length it must have.
func TreeFromRange(leaves []epro.Digest, from, count int, proof []epro.Digest) (root epro.Digest, path func(i int) []epro.Digest, ok bool) {
	to := from + len(leaves)
	if len(leaves) == 0 || from < 0 || count > MaxFacts || from > count-len(leaves) { // so that to cannot overflow
		return epro.Digest{}, nil, false
	}
	known := map[[2]int]epro.Digest{}
	var fill func(lo, hi int) (epro.Digest, bool)
	fill = func(lo, hi int) (epro.Digest, bool) {
		var h epro.Digest
		switch {
		case hi <= from || to <= lo:
			if len(proof) == 0 {
				return h, false
			}
			h, proof = proof[0], proof[1:]
		case hi-lo == 1:
			h = leaves[lo-from]
		default:
			mid := lo + split(hi-lo)
			l, ok1 := fill(lo, mid)
			r, ok2 := fill(mid, hi)
			if !ok1 || !ok2 {
				return h, false
			}
			h = node(l, r)
		}
		known[[2]int{lo, hi}] = h
		return h, true
	}
	root, ok = fill(0, count)
	if !ok || len(proof) != 0 {
		return epro.Digest{}, nil, false
	}
	path = func(i int) []epro.Digest {
		var down []epro.Digest
		for lo, hi := 0, count; hi-lo > 1; {
			mid := lo + split(hi-lo)
			if i < mid {
				down = append(down, known[[2]int{mid, hi}])
				hi = mid
			} else {
				down = append(down, known[[2]int{lo, mid}])
				lo = mid
			}
		}
		for l, r := 0, len(down)-1; l < r; l, r = l+1, r-1 {
			down[l], down[r] = down[r], down[l]
		}
		return down
	}
	return root, path, true
}
