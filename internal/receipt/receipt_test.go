package receipt_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// signedFrame is a frame of n reports under the active key.
func signedFrame(t testing.TB, n int, key ed25519.PrivateKey) (*receipt.Signed, []journal.Entry) {
	t.Helper()
	facts := make([]epro.Fact, n)
	for i := range facts {
		body := fmt.Appendf(nil, `{"qolScore":%d}`, i%11)
		salt := epro.Salt(derive(fmt.Sprint("frame salt ", i))[:16])
		facts[i] = epro.Fact{
			Envelope: epro.Envelope{
				Kind: epro.KindReport, ID: epro.UUID(derive(fmt.Sprint("frame id ", i))[:16]), Trial: "T001", Subject: fmt.Sprintf("P-%06d", i),
				Actor:      epro.Actor{Type: epro.ActorParticipant, ID: fmt.Sprintf("P-%06d", i), Device: "d"},
				OccurredAt: certifiedAt.In(time.FixedZone("", 5*3600+45*60)), ReceivedAt: certifiedAt, BodyDigest: epro.BodyDigest(salt, body),
			},
			Salt: salt, Body: body,
		}
	}
	h := journal.Header{Run: journal.Run(derive("run of tests")[:16]), N: 9, Prev: epro.Digest(derive("prev")), Time: certifiedAt.UnixNano()}
	f, tree, entries := seal(t, h, facts)
	return sign(key, journal.ClassLocalFsync, f, tree), entries
}

func TestEveryFactOfEverySizeHasAReceiptThatHolds(t *testing.T) {
	keys := vectorKeySet(t)
	for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 64, 100} {
		s, entries := signedFrame(t, n, activeKey)
		for i, e := range entries {
			text := s.Receipt(i, e.Envelope, e.Salt).String()
			r, err := receipt.Parse(text)
			if err != nil {
				t.Fatalf("%d of %d: %v", i, n, err)
			}
			if r.String() != text {
				t.Fatalf("%d of %d: another text after parsing", i, n)
			}
			if err := r.Check(keys); err != nil {
				t.Fatalf("%d of %d: %v", i, n, err)
			}
			fact, err := r.Fact()
			if err != nil || fact.Subject != fmt.Sprintf("P-%06d", i) || !r.MatchesBody(e.Body) {
				t.Fatalf("%d of %d: not the receipt of its fact: %v", i, n, err)
			}
			if r.MatchesBody(append(bytes.Clone(e.Body), ' ')) || r.MatchesBody(e.Body[:len(e.Body)-1]) {
				t.Fatalf("%d of %d: matches another body", i, n)
			}
			if len(text) > receipt.MaxTextBytes {
				t.Fatalf("%d of %d: %d bytes of text, over the bound", i, n, len(text))
			}
		}
	}
}

func TestTheLargestReceiptIsWithinTheBound(t *testing.T) {
	r := receipt.Receipt{
		Class: journal.ClassDemo, Header: journal.Header{Count: journal.MaxFacts}, Path: make([]epro.Digest, 16),
		Envelope: envelopeNamed(t, "maximal"),
	}
	text := r.String()
	if _, err := receipt.Parse(text); err != nil || len(text) > receipt.MaxTextBytes {
		t.Fatalf("%d of %d bytes: %v", len(text), receipt.MaxTextBytes, err)
	}
	if _, err := receipt.Parse(text + strings.Repeat("A", 8)); err == nil {
		t.Fatal("a longer text than any receipt was taken")
	}
}

// Every bit of a receipt's binary form and of the report counts: whichever is flipped, reading, proof or body says so. Bits are flipped
// twice over: as an accident would, and with the check sum made to fit again, as a forger would. The one part that only
// the report itself can vouch for is the salt.
func TestEveryFlippedBitIsFound(t *testing.T) {
	keys := vectorKeySet(t)
	for _, n := range []int{1, 2, 33} { // paths of 0, 1 and, for fact 3 of 33, 6; fact 32 of 33 has a path of 1
		s, entries := signedFrame(t, n, activeKey)
		e := entries[min(n-1, 3)]
		flipAll(t, keys, s.Receipt(min(n-1, 3), e.Envelope, e.Salt), e.Body)
	}
	s, entries := signedFrame(t, 32, activeKey) // a path of 5
	flipAll(t, keys, s.Receipt(21, entries[21].Envelope, entries[21].Salt), entries[21].Body)
}

func flipAll(t *testing.T, keys *receipt.KeySet, r *receipt.Receipt, body []byte) {
	t.Helper()
	b := binaryOf(t, r.String())
	holds := func(text string, body []byte) bool {
		r, err := receipt.Parse(text)
		return err == nil && r.Check(keys) == nil && r.MatchesBody(body)
	}
	if !holds(r.String(), body) {
		t.Fatal("the receipt does not hold before a bit is flipped: this test would prove nothing")
	}
	for bit := range len(b) * 8 {
		flipped := bytes.Clone(b)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := receipt.Parse("receipt1." + encode64(flipped)); err == nil {
			t.Errorf("path %d: bit %d of byte %d flipped by accident was not found by reading alone", len(r.Path), bit%8, bit/8)
		}
		if bit/8 < len(b)-4 && holds(rebuild(flipped), body) {
			t.Errorf("path %d: bit %d of byte %d flipped, check sum made to fit, was not found", len(r.Path), bit%8, bit/8)
		}
	}
	for bit := range len(body) * 8 {
		flipped := bytes.Clone(body)
		flipped[bit/8] ^= 1 << (bit % 8)
		if r.MatchesBody(flipped) {
			t.Errorf("bit %d of byte %d of the report flipped was not found", bit%8, bit/8)
		}
	}
	for i := range len(r.String()) {
		for bit := range 8 {
			text := []byte(r.String())
			text[i] ^= 1 << bit
			if holds(string(text), body) {
				t.Errorf("bit %d of character %d of the text flipped was not found", bit, i)
			}
		}
	}
}

// A receipt has one text: no other spelling of the same bytes is read.
func TestOneTextForm(t *testing.T) {
	s, entries := signedFrame(t, 5, activeKey)
	for i, e := range entries {
		text := s.Receipt(i, e.Envelope, e.Salt).String()
		spellings := map[string]string{
			"padding": text + "=", "two paddings": text + "==", "line end": text + "\n", "CRLF": text + "\r\n", "inner line end": text[:20] + "\n" + text[20:],
			"leading space": " " + text, "trailing space": text + " ", "inner space": text[:20] + " " + text[20:], "NUL": text + "\x00",
			"no prefix": text[9:], "two prefixes": "receipt1." + text, "capital prefix": "RECEIPT1." + text[9:], "upper case": strings.ToUpper(text), "lower case": strings.ToLower(text),
			"std alphabet": strings.NewReplacer("-", "+", "_", "/").Replace(text), "cut": text[:len(text)-1], "one more": text + "A", "BOM": "\ufeff" + text,
			"twice": text + text, "byte order of dot": strings.Replace(text, ".", ",", 1),
		}
		// Every other last character: those that differ only in bits that belong to no byte are the ones a lax decoder takes.
		for _, c := range base64URL {
			spellings["last "+string(c)] = text[:len(text)-1] + string(c)
		}
		for name, other := range spellings {
			if other == text {
				continue
			}
			if _, err := receipt.Parse(other); !errors.Is(err, receipt.ErrReceipt) {
				t.Errorf("fact %d: spelling %q: error %v, must be ErrReceipt", i, name, err)
			}
		}
	}
}

func TestErrorsHoldNothingOfTheReceipt(t *testing.T) {
	for _, v := range readVectors[[]invalidVector](t, "invalid.json") {
		if v.What != "receipt" {
			continue
		}
		r, err := receipt.Parse(v.Data)
		if err == nil {
			err = r.Check(vectorKeySet(t))
		}
		if err == nil {
			t.Errorf("%s: no error", v.Name)
			continue
		}
		for _, secret := range []string{"P-0000", "8c2f", "qolScore", "relay-S01"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error names content: %v", v.Name, err)
			}
		}
	}
}

// FuzzParse: no text makes Parse panic, and what it takes has exactly the text it was given.
func FuzzParse(f *testing.F) {
	for _, v := range readVectors[[]receiptVector](f, "receipts.json") {
		f.Add(v.Text)
	}
	for _, v := range readVectors[[]invalidVector](f, "invalid.json") {
		if v.What == "receipt" {
			f.Add(v.Data)
		}
	}
	keys := vectorKeySet(f)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := receipt.Parse(text)
		if err != nil {
			return
		}
		if r.String() != text {
			t.Fatalf("a second text for one receipt")
		}
		_ = r.Check(keys)
		_ = r.MatchesBody(nil)
	})
}

// FuzzBinary fuzzes behind the check sum, which a mutated text almost never passes.
func FuzzBinary(f *testing.F) {
	for _, v := range readVectors[[]receiptVector](f, "receipts.json") {
		f.Add(binaryOf(f, v.Text))
	}
	keys := vectorKeySet(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 4 {
			return
		}
		text := rebuild(bytes.Clone(b))
		r, err := receipt.Parse(text)
		if err != nil {
			return
		}
		if r.String() != text {
			t.Fatalf("a second text for one receipt")
		}
		_ = r.Check(keys)
	})
}
