package receipt_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

func linesOf(entries []journal.Entry) []receipt.Line {
	lines := make([]receipt.Line, len(entries))
	for i, e := range entries {
		lines[i] = receipt.Line{Envelope: e.Envelope, Salt: e.Salt}
	}
	return lines
}

// The shared part and a line give the very receipt the fact would have had alone, for every range of every size.
func TestBatchGivesEachLineItsReceipt(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17} {
		s, entries := signedFrame(t, n, activeKey)
		want := make([]string, n)
		for i, e := range entries {
			want[i] = s.Receipt(i, e.Envelope, e.Salt).String()
		}
		for from := range n {
			for to := from + 1; to <= n; to++ {
				b := s.Batch(from, to)
				got, err := b.Receipts(linesOf(entries[from:to]))
				if err != nil {
					t.Fatalf("[%d, %d) of %d: %v", from, to, n, err)
				}
				for i, r := range got {
					if r.String() != want[from+i] {
						t.Fatalf("[%d, %d) of %d: line %d has another receipt than alone", from, to, n, i)
					}
				}
			}
		}
	}
}

// holds says whether every line gets a receipt that its keys and body confirm.
func batchHolds(b receipt.Batch, lines []receipt.Line, entries []journal.Entry, keys *receipt.KeySet) bool {
	receipts, err := b.Receipts(lines)
	if err != nil {
		return false
	}
	for i, r := range receipts {
		if r.Check(keys) != nil || !r.MatchesBody(entries[i].Body) {
			return false
		}
	}
	return true
}

func TestBatchFindsEveryFlippedBit(t *testing.T) {
	keys := vectorKeySet(t)
	s, all := signedFrame(t, 13, activeKey)
	entries := all[3:7]
	if !batchHolds(s.Batch(3, 7), linesOf(entries), entries, keys) {
		t.Fatal("the batch does not hold before a bit is flipped: this test would prove nothing")
	}
	flipText := func(name string, field func(b *receipt.Batch) *string) {
		b := s.Batch(3, 7)
		for i := range len(*field(&b)) {
			for bit := range 8 {
				b := s.Batch(3, 7)
				text := []byte(*field(&b))
				text[i] ^= 1 << bit
				*field(&b) = string(text)
				if batchHolds(b, linesOf(entries), entries, keys) {
					t.Errorf("%s: bit %d of character %d flipped was not found", name, bit, i)
				}
			}
		}
		for _, more := range []string{"=", "\n", "\r\n", " ", "A"} {
			b := s.Batch(3, 7)
			*field(&b) += more
			if batchHolds(b, linesOf(entries), entries, keys) {
				t.Errorf("%s: %q behind it was not found", name, more)
			}
		}
	}
	flipText("header", func(b *receipt.Batch) *string { return &b.Header })
	flipText("class", func(b *receipt.Batch) *string { return &b.Class })
	flipText("key id", func(b *receipt.Batch) *string { return &b.KeyID })
	flipText("signature", func(b *receipt.Batch) *string { return &b.Signature })
	for i := range s.Batch(3, 7).Proof {
		flipText(fmt.Sprint("proof ", i), func(b *receipt.Batch) *string { return &b.Proof[i] })
	}
	for i := range entries {
		for bit := range len(entries[i].Envelope) * 8 {
			lines := linesOf(entries)
			lines[i].Envelope = with(lines[i].Envelope, func(b []byte) { b[bit/8] ^= 1 << (bit % 8) })
			b := s.Batch(3, 7)
			if _, err := b.Receipts(lines); !errors.Is(err, receipt.ErrReceipt) {
				t.Errorf("line %d: bit %d of the envelope flipped was not found", i, bit)
			}
		}
		for bit := range epro.SaltBytes * 8 {
			lines := linesOf(entries)
			lines[i].Salt[bit/8] ^= 1 << (bit % 8)
			if batchHolds(s.Batch(3, 7), lines, entries, keys) {
				t.Errorf("line %d: bit %d of the salt flipped was not found", i, bit)
			}
		}
	}
}

func TestBatchRefusesOtherLines(t *testing.T) {
	s, entries := signedFrame(t, 13, activeKey)
	good := linesOf(entries[3:7])
	for _, c := range []struct {
		name   string
		lines  []receipt.Line
		change func(b *receipt.Batch)
	}{
		{"none", nil, func(*receipt.Batch) {}},
		{"one fewer", good[:3], func(*receipt.Batch) {}},
		{"one more", linesOf(entries[3:8]), func(*receipt.Batch) {}},
		{"swapped", []receipt.Line{good[1], good[0], good[2], good[3]}, func(*receipt.Batch) {}},
		{"from 2", good, func(b *receipt.Batch) { b.From = 2 }},
		{"from -1", good, func(b *receipt.Batch) { b.From = -1 }},
		{"from beyond", good, func(b *receipt.Batch) { b.From = 12 }},
		{"from the largest", good, func(b *receipt.Batch) { b.From = math.MaxInt }},
		// The sum of from and the number of lines overflows, and the root alone would be the whole proof.
		{"from the largest, root as proof", good, func(b *receipt.Batch) {
			b.From, b.Proof = math.MaxInt, []string{encode64(s.Header.Root[:])}
		}},
		{"proof one more", good, func(b *receipt.Batch) { b.Proof = append(b.Proof, b.Proof[0]) }},
		{"proof one fewer", good, func(b *receipt.Batch) { b.Proof = b.Proof[1:] }},
		{"class unknown", good, func(b *receipt.Batch) { b.Class = "unknown" }},
	} {
		b := s.Batch(3, 7)
		c.change(&b)
		if _, err := b.Receipts(c.lines); !errors.Is(err, receipt.ErrReceipt) {
			t.Errorf("%s: error %v, must be ErrReceipt", c.name, err)
		}
	}
}
