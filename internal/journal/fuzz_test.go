package journal_test

import (
	"bytes"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
)

// What decodes is what an encoder writes: sealing it again gives the same
// bytes, but for the root when the leaves do not fit it.
func FuzzDecodeFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add(journaltest.Chain(1, 1)[0].Bytes)
	f.Add(journaltest.Chain(2, 3)[1].Bytes)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := journal.DecodeFrame(b)
		if err != nil {
			return
		}
		faults := d.Check()
		leaves := make([]epro.Digest, len(d.Entries))
		for i := range d.Entries {
			leaves[i] = epro.Leaf(d.Entries[i].Envelope)
			_, _ = d.Entries[i].Fact()
		}
		again, err := journal.Seal(d.Header, d.Entries, leaves)
		if err != nil {
			t.Fatalf("what decodes does not encode: %v", err)
		}
		root := 4 + 64
		copy(b[root:root+32], again.Bytes[root:root+32])
		if !bytes.Equal(again.Bytes, b) {
			t.Fatal("two encodings of one frame")
		}
		if len(faults) == 0 && again.Header != d.Header {
			t.Fatal("no faults, but the root does not fit")
		}
	})
}
