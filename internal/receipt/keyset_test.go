package receipt_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/receipt"
)

func receiptUnder(t *testing.T, key ed25519.PrivateKey) *receipt.Receipt {
	t.Helper()
	s, entries := signedFrame(t, 3, key)
	return s.Receipt(1, entries[1].Envelope, entries[1].Salt)
}

func TestWhichKeysProve(t *testing.T) {
	keys := vectorKeySet(t)
	for _, c := range []struct {
		name string
		key  ed25519.PrivateKey
		want string // a part of the error, "" for a receipt that holds
	}{
		{"active", activeKey, ""},
		{"retired as rotated", rotatedKey, ""},
		{"retired as compromised", leakedKey, "compromised"},
		{"never certified", strangerKey, "not among the certified keys"},
		{"the root itself", rootKey, "not among the certified keys"},
	} {
		err := receiptUnder(t, c.key).Check(keys)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, receipt.ErrReceipt) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, must contain %q", c.name, err, c.want)
		}
		if has := keys.Has(receipt.IDOf(pub(c.key))); has != (c.want == "" || c.want == "compromised") {
			t.Errorf("%s: Has is %v", c.name, has)
		}
	}
}

// A receipt stays as it is when its key is rotated: only the list of keys changes.
func TestRotationKeepsOldReceipts(t *testing.T) {
	r := receiptUnder(t, activeKey)
	cert := receipt.Certify(rootKey, pub(activeKey), certifiedAt)
	gone := receipt.Retire(rootKey, receipt.IDOf(pub(activeKey)), certifiedAt, receipt.RetiredRotated)
	cert.Retired = &gone
	keys, err := receipt.NewKeySet(receipt.NewKeys(pub(rootKey), cert, receipt.Certify(rootKey, pub(rotatedKey), certifiedAt)), receipt.Fingerprint(pub(rootKey)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(keys); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownReasonOfRetirementIsReadCarefully(t *testing.T) {
	cert := receipt.Certify(rootKey, pub(activeKey), certifiedAt)
	gone := receipt.Retire(rootKey, receipt.IDOf(pub(activeKey)), certifiedAt, "something-new")
	cert.Retired = &gone
	keys, err := receipt.NewKeySet(receipt.NewKeys(pub(rootKey), cert), receipt.Fingerprint(pub(rootKey)))
	if err != nil {
		t.Fatal(err)
	}
	if err := receiptUnder(t, activeKey).Check(keys); !errors.Is(err, receipt.ErrReceipt) {
		t.Fatalf("error %v", err)
	}
}

func TestAnotherRootIsRefused(t *testing.T) {
	data, err := json.Marshal(vectorKeys())
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := receipt.Fingerprint(pub(rootKey))
	for _, f := range []string{"", receipt.Fingerprint(pub(strangerKey)), fingerprint[:63], fingerprint + "0", strings.ToUpper(fingerprint)} {
		if _, err := receipt.ParseKeys(data, f); !errors.Is(err, receipt.ErrKeys) {
			t.Errorf("fingerprint %q: error %v, must be ErrKeys", f, err)
		}
	}
	// A whole list of another root is fine in itself and refused under this fingerprint.
	forged := receipt.NewKeys(pub(strangerKey), receipt.Certify(strangerKey, pub(activeKey), certifiedAt))
	forged.Root.Fingerprint = fingerprint
	if _, err := receipt.NewKeySet(forged, fingerprint); !errors.Is(err, receipt.ErrKeys) {
		t.Errorf("another root that calls itself this one: error %v", err)
	}
	if _, err := receipt.NewKeySet(forged, receipt.Fingerprint(pub(strangerKey))); err != nil {
		t.Errorf("a good list: %v", err)
	}
}

// No bit flipped in the JSON of GET /v1/keys gives a list that trusts other than the true one: it is refused, or
// trusts less, or the bit was in what proves nothing (the printed fingerprint, white space, a name that reading ignores).
func TestTamperedKeysNeverTrustMore(t *testing.T) {
	data, err := json.Marshal(vectorKeys())
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := receipt.Fingerprint(pub(rootKey))
	good := receiptUnder(t, activeKey)
	stranger, leaked := receiptUnder(t, strangerKey), receiptUnder(t, leakedKey)
	refused, retirementGone := 0, 0
	const stride = 5 // every byte, every place in a byte: each bit costs five signatures to check
	for bit := 0; bit < len(data)*8; bit += stride {
		flipped := bytes.Clone(data)
		flipped[bit/8] ^= 1 << (bit % 8)
		keys, err := receipt.ParseKeys(flipped, fingerprint)
		if err != nil {
			refused++
			continue
		}
		if stranger.Check(keys) == nil {
			t.Fatalf("bit %d of byte %d: a key never certified is trusted", bit%8, bit/8)
		}
		if leaked.Check(keys) == nil {
			// A name such as "retired" that no longer reads takes the entry away. Leaving out a retirement is what a list's sender can
			// always do: lists are fetched from the server over TLS, and docs/format.md §6 says so.
			if name := string(data[max(0, bit/8-16):min(len(data), bit/8+16)]); !strings.Contains(name, "retired") {
				t.Fatalf("bit %d of byte %d: a compromised key is trusted", bit%8, bit/8)
			}
			retirementGone++
		}
		_ = good.Check(keys)
	}
	if refused < len(data)*4/stride {
		t.Fatalf("only %d of %d flips were refused", refused, len(data)*8/stride)
	}
	t.Logf("%d of %d flips refused, %d lost a retirement by its name", refused, len(data)*8/stride, retirementGone)
}

func TestKeyIDForms(t *testing.T) {
	id := receipt.IDOf(pub(activeKey))
	if got, err := receipt.ParseKeyID(id.String()); err != nil || got != id {
		t.Fatalf("%v, %v", got, err)
	}
	for _, s := range []string{"", id.String()[:15], id.String() + "0", id.String() + "00", "0x" + id.String()[2:], strings.Repeat("g", 16), "ABCDEF0123456789"} {
		if _, err := receipt.ParseKeyID(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}
