package journal_test

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// The tree as RFC 6962 §2.1 writes it down, recursively and with nothing kept.

func naiveSplit(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func naiveRoot(d []epro.Digest) epro.Digest {
	switch len(d) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return d[0]
	}
	k := naiveSplit(len(d))
	l, r := naiveRoot(d[:k]), naiveRoot(d[k:])
	return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
}

func naivePath(m int, d []epro.Digest) []epro.Digest {
	if len(d) <= 1 {
		return nil
	}
	if k := naiveSplit(len(d)); m < k {
		return append(naivePath(m, d[:k]), naiveRoot(d[k:]))
	} else {
		return append(naivePath(m-k, d[k:]), naiveRoot(d[:k]))
	}
}

// naiveRange lists, from left to right, the largest subtrees without a leaf of
// [from, to).
func naiveRange(d []epro.Digest, at, from, to int) []epro.Digest {
	switch {
	case at+len(d) <= from || to <= at:
		return []epro.Digest{naiveRoot(d)}
	case len(d) == 1:
		return nil
	}
	k := naiveSplit(len(d))
	return append(naiveRange(d[:k], at, from, to), naiveRange(d[k:], at+k, from, to)...)
}

func leaves(n int) []epro.Digest {
	d := make([]epro.Digest, n)
	for i := range d {
		d[i] = sha256.Sum256(binary.BigEndian.AppendUint32([]byte{0}, uint32(i))) //nolint:gosec // small
	}
	return d
}

func equal(a, b []epro.Digest) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestTreeIsRFC6962(t *testing.T) {
	if journal.TreeRoot(nil) != naiveRoot(nil) {
		t.Error("root of nothing")
	}
	for n := 1; n <= 70; n++ {
		d := leaves(n)
		root := naiveRoot(d)
		tree := journal.NewTree(d)
		if journal.TreeRoot(d) != root || tree.Root() != root || tree.Len() != n {
			t.Fatalf("n=%d: root", n)
		}
		for i := range n {
			want := naivePath(i, d)
			path := tree.AppendPath(nil, i)
			if !equal(path, want) || journal.PathLength(i, n) != len(want) {
				t.Fatalf("n=%d i=%d: path", n, i)
			}
			if got, ok := journal.RootFromPath(d[i], i, n, path); !ok || got != root {
				t.Fatalf("n=%d i=%d: the path does not lead to the root", n, i)
			}
			wrongPaths(t, d[i], i, n, path, root)
		}
	}
}

// wrongPaths checks what must not lead to the root.
func wrongPaths(t *testing.T, leaf epro.Digest, i, n int, path []epro.Digest, root epro.Digest) {
	t.Helper()
	if _, ok := journal.RootFromPath(leaf, i, n, append(path[:len(path):len(path)], root)); ok {
		t.Fatalf("n=%d i=%d: a path with one hash too many passes", n, i)
	}
	if len(path) > 0 {
		if _, ok := journal.RootFromPath(leaf, i, n, path[1:]); ok {
			t.Fatalf("n=%d i=%d: a path with one hash too few passes", n, i)
		}
	}
	for k := range path {
		changed := append([]epro.Digest(nil), path...)
		changed[k][k%32] ^= 1 << (k % 8)
		if got, ok := journal.RootFromPath(leaf, i, n, changed); ok && got == root {
			t.Fatalf("n=%d i=%d: hash %d of the path does not count", n, i, k)
		}
	}
	for other := range n {
		if got, ok := journal.RootFromPath(leaf, other, n, path); other != i && ok && got == root {
			t.Fatalf("n=%d: leaf %d passes for leaf %d", n, i, other)
		}
	}
	for _, bad := range []int{-1, n, n + 1} {
		if _, ok := journal.RootFromPath(leaf, bad, n, path); ok {
			t.Fatalf("n=%d: index %d passes", n, bad)
		}
	}
}

func TestRangeProofs(t *testing.T) {
	for n := 1; n <= 70; n++ {
		d := leaves(n)
		tree := journal.NewTree(d)
		root := tree.Root()
		paths := make([][]epro.Digest, n)
		for i := range paths {
			paths[i] = tree.AppendPath(nil, i)
		}
		for from := range n {
			for to := from + 1; to <= n; to++ {
				proof := tree.AppendRangeProof(nil, from, to)
				if n <= 20 && !equal(proof, naiveRange(d, 0, from, to)) {
					t.Fatalf("n=%d [%d,%d): proof", n, from, to)
				}
				got, path, ok := journal.TreeFromRange(d[from:to], from, n, proof)
				if !ok || got != root {
					t.Fatalf("n=%d [%d,%d): the proof does not lead to the root", n, from, to)
				}
				for i := from; i < to; i++ {
					if !equal(path(i), paths[i]) {
						t.Fatalf("n=%d [%d,%d): path of %d", n, from, to, i)
					}
				}
				if n <= 12 {
					wrongProofs(t, d, from, to, proof, root)
				}
			}
		}
	}
}

func wrongProofs(t *testing.T, d []epro.Digest, from, to int, proof []epro.Digest, root epro.Digest) {
	t.Helper()
	n := len(d)
	if _, _, ok := journal.TreeFromRange(d[from:to], from, n, append(proof[:len(proof):len(proof)], root)); ok {
		t.Fatalf("n=%d [%d,%d): a proof with one hash too many passes", n, from, to)
	}
	for k := range proof {
		if got, _, ok := journal.TreeFromRange(d[from:to], from, n, append(append([]epro.Digest(nil), proof[:k]...), proof[k+1:]...)); ok && got == root {
			t.Fatalf("n=%d [%d,%d): hash %d of the proof is not needed", n, from, to, k)
		}
		changed := append([]epro.Digest(nil), proof...)
		changed[k][0] ^= 1
		if got, _, ok := journal.TreeFromRange(d[from:to], from, n, changed); ok && got == root {
			t.Fatalf("n=%d [%d,%d): hash %d of the proof does not count", n, from, to, k)
		}
	}
	for i := from; i < to; i++ {
		changed := append([]epro.Digest(nil), d[from:to]...)
		changed[i-from][31] ^= 0x80
		if got, _, ok := journal.TreeFromRange(changed, from, n, proof); ok && got == root {
			t.Fatalf("n=%d [%d,%d): leaf %d does not count", n, from, to, i)
		}
	}
}

func TestTreeFromRangeBounds(t *testing.T) {
	d := leaves(4)
	root := journal.TreeRoot(d)
	for _, c := range []struct{ from, count, n int }{
		{-1, 4, 2}, {3, 4, 2}, {4, 4, 1}, {0, 4, 0}, {0, 0, 1}, {0, journal.MaxFacts + 1, 2}, {math.MaxInt, math.MaxInt, 2}, {math.MaxInt, 4, 2}, {math.MinInt, 4, 2},
	} {
		// The root itself as the only hash: what a forger gives who wants leaves to
		// pass that are not in the tree at all.
		for _, proof := range [][]epro.Digest{nil, {root}} {
			if _, _, ok := journal.TreeFromRange(d[:c.n], c.from, c.count, proof); ok {
				t.Errorf("%+v with %d hashes passes", c, len(proof))
			}
		}
	}
}
