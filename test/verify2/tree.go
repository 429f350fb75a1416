package main

import "crypto/sha256"

// The tree of RFC 6962 §2.1, written as its recursive definition, which is slow
// and plain on purpose.

func leafHash(data []byte) hash {
	return sha256.Sum256(append([]byte{0}, data...))
}

func nodeHash(left, right hash) hash {
	b := append([]byte{1}, left[:]...)
	return sha256.Sum256(append(b, right[:]...))
}

// splitAt is the largest power of two below n, for n over 1.
func splitAt(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func rootHash(leaves []hash) hash {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	}
	k := splitAt(len(leaves))
	return nodeHash(rootHash(leaves[:k]), rootHash(leaves[k:]))
}

// pathRoot is the root over n leaves that leaf m has with a path that begins at
// the leaf; false when the path has not the one length it must have.
func pathRoot(leaf hash, m, n int, path []hash) (hash, bool) {
	if m < 0 || m >= n {
		return hash{}, false
	}
	if n == 1 {
		return leaf, len(path) == 0
	}
	if len(path) == 0 {
		return hash{}, false
	}
	last := path[len(path)-1]
	k := splitAt(n)
	if m < k {
		h, ok := pathRoot(leaf, m, k, path[:len(path)-1])
		return nodeHash(h, last), ok
	}
	h, ok := pathRoot(leaf, m-k, n-k, path[:len(path)-1])
	return nodeHash(last, h), ok
}

// rangeRoot is the root over n leaves of which those from lo on are given, with
// the hashes of the largest subtrees beside them from left to right. It returns
// what is left of proof.
func rangeRoot(leaves []hash, lo, from, n int, proof []hash) (h hash, rest []hash, ok bool) {
	to := from + len(leaves)
	switch {
	case lo+n <= from || to <= lo:
		if len(proof) == 0 {
			return h, nil, false
		}
		return proof[0], proof[1:], true
	case n == 1:
		return leaves[lo-from], proof, true
	}
	k := splitAt(n)
	left, proof, ok1 := rangeRoot(leaves, lo, from, k, proof)
	if !ok1 {
		return h, nil, false
	}
	right, proof, ok2 := rangeRoot(leaves, lo+k, from, n-k, proof)
	return nodeHash(left, right), proof, ok2
}
