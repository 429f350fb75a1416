package receipt_test

import (
	"crypto/ed25519"
	"encoding/json"
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
		var certs receipt.Certificates
		certs.Retire(receipt.Retire(root, id, at, receipt.RetiredCompromised)) // of a key nobody knows yet: nothing
		stale := cert
		stale.Retired = &receipt.Retirement{KeyID: cert.KeyID, Reason: receipt.RetiredCompromised}
		if err := certs.AddFact(fact(stale), false); err != nil {
			t.Fatal(err)
		}
		for _, r := range c.retirements {
			if err := certs.AddFact(r, true); err != nil {
				t.Fatal(err)
			}
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
	var certs receipt.Certificates
	if certs.AddFact([]byte("{"), false) == nil || certs.AddFact([]byte("[]"), true) == nil {
		t.Error("what cannot be read was taken")
	}
}
