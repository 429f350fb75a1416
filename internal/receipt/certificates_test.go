package receipt_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/receipt"
)

func TestCertificatesKeepTheGraverWord(t *testing.T) {
	_, root, _ := ed25519.GenerateKey(nil)
	pub, _, _ := ed25519.GenerateKey(nil)
	at := time.Unix(1_700_000_000, 0)
	cert := receipt.Certify(root, pub, at)
	id, err := receipt.ParseKeyID(cert.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	fact := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rotated := fact(receipt.Retire(root, id, at, receipt.RetiredRotated))
	compromised := fact(receipt.Retire(root, id, at, receipt.RetiredCompromised))
	for name, c := range map[string]struct {
		retirements [][]byte
		want        string
	}{
		"none":             {nil, ""},
		"rotated":          {[][]byte{rotated}, receipt.RetiredRotated},
		"compromised":      {[][]byte{compromised}, receipt.RetiredCompromised},
		"compromised late": {[][]byte{rotated, compromised}, receipt.RetiredCompromised},
		"rotated late":     {[][]byte{compromised, rotated}, receipt.RetiredCompromised},
	} {
		certs := receipt.NewCertificates(root.Public().(ed25519.PublicKey))
		certs.Retire(receipt.Retire(root, id, at, receipt.RetiredCompromised)) // of a key nobody knows yet: nothing
		stale := cert
		stale.Retired = &receipt.Retirement{KeyID: cert.KeyID, Reason: receipt.RetiredCompromised}
		certs.AddFact(fact(stale), false)
		for _, r := range c.retirements {
			certs.AddFact(r, true)
		}
		certs.Add(cert) // of the keys folder, which knows no retirements
		list := certs.List()
		got := ""
		if len(list) == 1 && list[0].Retired != nil {
			got = list[0].Retired.Reason
		}
		if len(list) != 1 || got != c.want {
			t.Errorf("%s: %d keys, %q, want %q", name, len(list), got, c.want)
		}
		if _, err := receipt.NewKeySet(receipt.NewKeys(root.Public().(ed25519.PublicKey), list...), receipt.Fingerprint(root.Public().(ed25519.PublicKey))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What somebody else put into the journal neither counts, nor stands in the way
// of what the root says, in whatever order they come.
func TestCertificatesOfAnotherRoot(t *testing.T) {
	rootPub, root, _ := ed25519.GenerateKey(nil)
	_, other, _ := ed25519.GenerateKey(nil)
	pub, _, _ := ed25519.GenerateKey(nil)
	otherPub, _, _ := ed25519.GenerateKey(nil)
	at := time.Unix(1_700_000_000, 0)
	own, posing, foreign := receipt.Certify(root, pub, at), receipt.Certify(other, pub, at), receipt.Certify(other, otherPub, at)
	id, err := receipt.ParseKeyID(own.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	certs := receipt.NewCertificates(rootPub)
	certs.AddFact([]byte("{"), false)
	certs.AddFact([]byte("[]"), true)
	for _, c := range []receipt.Certificate{posing, foreign, foreign, own} {
		certs.Add(c)
	}
	certs.Retire(receipt.Retire(other, id, at, receipt.RetiredCompromised))
	list := certs.List()
	if len(list) != 1 || list[0] != own {
		t.Errorf("the root's keys are %+v", list)
	}
	if f := certs.Foreign(); len(f) != 2 || f[0] != posing || f[1] != foreign {
		t.Errorf("the others are %+v", f)
	}
	set, err := receipt.NewKeySet(receipt.NewKeys(rootPub, list...), receipt.Fingerprint(rootPub))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		body    any
		retired bool
		ok      bool
	}{
		"own":                {own, false, true},
		"posing":             {posing, false, false},
		"foreign":            {foreign, false, false},
		"own retirement":     {receipt.Retire(root, id, at, receipt.RetiredRotated), true, true},
		"foreign retirement": {receipt.Retire(other, id, at, receipt.RetiredRotated), true, false},
		"unreadable":         {[]int{}, false, false},
	} {
		b, err := json.Marshal(c.body)
		if err != nil {
			t.Fatal(err)
		}
		if err := set.CheckKeyFact(b, c.retired); (err == nil) != c.ok || err != nil && !errors.Is(err, receipt.ErrKeys) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
