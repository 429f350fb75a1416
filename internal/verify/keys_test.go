package verify_test

import (
	"crypto/ed25519"
	"slices"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/verify"
)

// TestKeysOfAnotherRoot: a certificate or retirement that the root did not sign
// is named; without keys nobody can tell.
func TestKeysOfAnotherRoot(t *testing.T) {
	w := newWorld(t)
	rootPub, root, _ := ed25519.GenerateKey(nil)
	_, other, _ := ed25519.GenerateKey(nil)
	pub, _, _ := ed25519.GenerateKey(nil)
	keys, err := receipt.NewKeySet(receipt.NewKeys(rootPub), receipt.Fingerprint(rootPub))
	w.must(err)
	s := &sketch{world: w}
	for _, key := range []ed25519.PrivateKey{root, other} {
		s.frame(nil, w.command(epro.KindKeyAdded, receipt.Certify(key, pub, w.clock)))
		s.frame(nil, w.command(epro.KindKeyRetired, receipt.Retire(key, receipt.IDOf(pub), w.clock, receipt.RetiredRotated)))
	}
	s.frame(nil, w.command(epro.KindKeyAdded, map[string]int{"keyId": 1}))
	for _, c := range []struct {
		keys *receipt.KeySet
		want []string
	}{
		{keys, []string{"key@3", "key@4", "key@5"}},
		{nil, nil},
	} {
		res, err := verify.Run(t.Context(), verify.Input{Journal: s.j, Keys: c.keys})
		w.must(err)
		if got := found(res); !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
			t.Errorf("found %v, want %v:%s", got, c.want, list(res))
		}
	}
}
