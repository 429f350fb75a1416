package journal_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
)

var update = flag.Bool("update", false, "write testdata anew (the format is frozen: only for a new format version)")

// golden is a frame whose every byte is fixed: one participant's report and
// one erased fact.
func golden(t *testing.T) (journal.Header, []journal.Entry, []epro.Digest) {
	t.Helper()
	at := time.Date(2026, 3, 29, 8, 0, 0, 123456789, time.FixedZone("", 2*3600))
	entry := func(e epro.Envelope, body string, salt byte, erased bool) (journal.Entry, epro.Digest) {
		en := journal.Entry{Body: []byte(body), Erased: erased}
		for i := range en.Salt {
			en.Salt[i] = salt
		}
		e.BodyDigest, e.Meaning = epro.BodyDigest(en.Salt, en.Body), epro.PlainMeaning(en.Body)
		b, err := e.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		en.Envelope = b
		if erased {
			en.Salt, en.Body = epro.Salt{}, nil
		}
		return en, epro.Leaf(b)
	}
	a, la := entry(epro.Envelope{
		Flags: epro.FlagClockApart, Kind: epro.KindReport, ID: epro.UUID{1, 2, 3}, Trial: "T001", Subject: "P-000001",
		Actor: epro.Actor{Type: epro.ActorParticipant, ID: "P-000001", Device: "d1"}, TokenKey: 7, Epoch: 3,
		OccurredAt: at, ReceivedAt: at.UTC().Add(1500 * time.Millisecond),
	}, `{"patientId":"P-000001","trialId":"T001","timestamp":"2026-03-29T08:00:00+02:00","qolScore":7}`, 0xa5, false)
	b, lb := entry(epro.Envelope{
		Kind: epro.KindTrialCreated, ID: epro.UUID{9}, Trial: "T001",
		Actor: epro.Actor{Type: epro.ActorStaff, ID: "S-1"}, OccurredAt: at.UTC(), ReceivedAt: at.UTC(),
	}, `{"name":"x"}`, 0x11, true)
	h := journal.Header{Run: journal.Run{0xaa, 15: 0xbb}, N: 1, Prev: epro.Digest{1, 31: 2}, Time: at.Add(2 * time.Second).UnixNano()}
	return h, []journal.Entry{a, b}, []epro.Digest{la, lb}
}

func TestGolden(t *testing.T) {
	h, entries, leaves := golden(t)
	f, err := journal.Seal(h, entries, leaves)
	if err != nil {
		t.Fatal(err)
	}
	const path = "testdata/frame-v1.hex"
	got := f.Hash.String() + "\n" + hex.EncodeToString(f.Bytes) + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the bytes of format version 1 have changed:\n%s\nwant\n%s", got, want)
	}
	_, text, _ := strings.Cut(string(want), "\n")
	b, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := journal.DecodeFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	if faults := decoded.Check(); len(faults) != 0 {
		t.Errorf("faults: %v", faults)
	}
	fact, err := decoded.Entries[0].Fact()
	if err != nil || fact.Subject != "P-000001" || string(fact.Body) != string(entries[0].Body) || fact.OccurredAt.Format(time.RFC3339Nano) != "2026-03-29T08:00:00.123456789+02:00" {
		t.Errorf("fact %+v, %v", fact, err)
	}
	if fact, err = decoded.Entries[1].Fact(); err != nil || !fact.Erased || fact.Body != nil {
		t.Errorf("erased fact %+v, %v", fact, err)
	}
}

func drawEntry(t *rapid.T) (journal.Entry, epro.Digest) {
	id := rapid.StringMatching(`[!-~]([ -~]{0,20}[!-~])?`)
	at := time.Unix(rapid.Int64Range(-6e10, 2e11).Draw(t, "at"), rapid.Int64Range(0, 999999999).Draw(t, "ns"))
	var uuid epro.UUID
	copy(uuid[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
	e := journal.Entry{Body: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body"), Erased: rapid.Bool().Draw(t, "erased")}
	copy(e.Salt[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "salt"))
	env := epro.Envelope{
		Flags: rapid.Uint16().Draw(t, "flags"), Kind: epro.Kind{Name: id.Draw(t, "kind"), Version: rapid.Uint16().Draw(t, "version")},
		ID: uuid, Trial: id.Draw(t, "trial"), Subject: id.Draw(t, "subject"),
		Actor:    epro.Actor{Type: epro.ActorType(rapid.IntRange(1, 4).Draw(t, "actor")), ID: id.Draw(t, "actor id"), Device: id.Draw(t, "device")}, //nolint:gosec // 1 to 4
		TokenKey: rapid.Uint32().Draw(t, "key"), Epoch: rapid.Uint32().Draw(t, "epoch"),
		OccurredAt: at.In(time.FixedZone("", 60*rapid.IntRange(-1439, 1439).Draw(t, "zone"))), ReceivedAt: at.UTC(),
		BodyDigest: epro.BodyDigest(e.Salt, e.Body), Meaning: epro.PlainMeaning(e.Body),
	}
	b, err := env.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Envelope = b
	if e.Erased {
		e.Salt, e.Body = epro.Salt{}, nil
	}
	return e, epro.Leaf(b)
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "count")
		entries, leaves := make([]journal.Entry, n), make([]epro.Digest, n)
		for i := range entries {
			entries[i], leaves[i] = drawEntry(t)
		}
		h := journal.Header{Shard: rapid.Uint32().Draw(t, "shard"), N: rapid.Uint64().Draw(t, "n"), Time: rapid.Int64().Draw(t, "time")}
		copy(h.Run[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "run"))
		f, err := journal.Seal(h, entries, leaves)
		if err != nil {
			t.Fatal(err)
		}
		d, err := journal.DecodeFrame(f.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if d.Header != f.Header || d.Header.Hash() != f.Hash || len(d.Entries) != n {
			t.Fatal("header")
		}
		if faults := d.Check(); len(faults) != 0 {
			t.Fatal(faults)
		}
		size := 4 + journal.HeaderBytes
		for i := range entries {
			a, b := &entries[i], &d.Entries[i]
			size += b.EncodedBytes()
			if !bytes.Equal(a.Envelope, b.Envelope) || a.Salt != b.Salt || !bytes.Equal(a.Body, b.Body) || a.Erased != b.Erased {
				t.Fatalf("entry %d", i)
			}
		}
		if size != len(f.Bytes) {
			t.Fatalf("EncodedBytes add up to %d, the frame has %d", size, len(f.Bytes))
		}
	})
}

// Every flip of a single bit is found: by the form, by the hashes, or, in the
// header, because it is no longer the header that was signed.
func TestEveryBitFlipIsFound(t *testing.T) {
	chain := journaltest.Chain(1, 3)
	h, entries, leaves := golden(t)
	f, err := journal.Seal(h, entries, leaves)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(chain, f) {
		for i := range len(f.Bytes) * 8 {
			b := bytes.Clone(f.Bytes)
			b[i/8] ^= 1 << (i % 8)
			d, err := journal.DecodeFrame(b)
			if err == nil && len(d.Check()) == 0 && d.Header.Hash() == f.Hash {
				t.Fatalf("bit %d of byte %d (of %d) can be flipped", i%8, i/8, len(b))
			}
		}
	}
}

func TestMovedAndTakenAway(t *testing.T) {
	f, err := journal.DecodeFrame(journaltest.Chain(1, 4)[0].Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Check()) != 0 {
		t.Fatal("a good frame has faults")
	}
	whole := f.Entries
	f.Entries = []journal.Entry{whole[1], whole[0], whole[2], whole[3]}
	if len(f.Check()) == 0 {
		t.Error("two facts have changed places")
	}
	f.Entries = whole[:3]
	if len(f.Check()) == 0 {
		t.Error("a fact was taken away")
	}
	f.Entries = append(whole[:4:4], whole[3])
	if len(f.Check()) == 0 {
		t.Error("a fact was doubled")
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := journaltest.Chain(1, 2)[0].Bytes
	set := func(offset int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[offset:], v)
		return b
	}
	const count = 4 + 96
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"a header only":    good[:4+journal.HeaderBytes],
		"another magic":    set(0, []byte("TGF2")...),
		"another header":   set(4, []byte("TGH2")...),
		"no facts":         set(count, 0, 0, 0, 0),
		"too many facts":   set(count, 0, 1, 0, 1),
		"one fact fewer":   set(count, 0, 0, 0, 1),
		"one fact more":    set(count, 0, 0, 0, 3),
		"a byte after it":  append(bytes.Clone(good), 0),
		"a short envelope": set(4+journal.HeaderBytes, 0, 1),
		"a long envelope":  set(4+journal.HeaderBytes, 0xff, 0xff),
		"too large":        make([]byte, journal.MaxFrameBytes+1),
	} {
		if _, err := journal.DecodeFrame(b); !errors.Is(err, journal.ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := range good {
		if _, err := journal.DecodeFrame(good[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d pass", n, len(good))
		}
	}
}

// A frame that claims many facts is refused before memory is taken for them.
func TestDecodeAllocatesByWhatIsThere(t *testing.T) {
	b := bytes.Clone(journaltest.Chain(1, 1)[0].Bytes)
	for _, count := range []uint32{journal.MaxFacts, 1<<32 - 1} {
		binary.BigEndian.PutUint32(b[100:], count)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			if _, err := journal.DecodeFrame(b); err == nil {
				t.Fatal("passes")
			}
		}
		runtime.ReadMemStats(&after)
		if per := (after.TotalAlloc - before.TotalAlloc) / 100; per > 16<<10 {
			t.Errorf("%d facts claimed: %d bytes allocated for each refusal", count, per)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	e, leaf := journaltest.Entry(1, journaltest.Body(1))
	many := make([]journal.Entry, 300)
	manyLeaves := make([]epro.Digest, 300)
	for i := range many {
		many[i], manyLeaves[i] = e, leaf
		many[i].Body = make([]byte, epro.MaxBodyBytes)
	}
	long := e
	long.Body = make([]byte, epro.MaxBodyBytes+1)
	short := e
	short.Envelope = e.Envelope[:epro.MinEnvelopeBytes-1]
	for name, c := range map[string]struct {
		entries []journal.Entry
		leaves  []epro.Digest
	}{
		"no facts":          {nil, nil},
		"a leaf too few":    {[]journal.Entry{e, e}, []epro.Digest{leaf}},
		"a long body":       {[]journal.Entry{long}, []epro.Digest{leaf}},
		"a short envelope":  {[]journal.Entry{short}, []epro.Digest{leaf}},
		"over MaxFrameByte": {many, manyLeaves},
	} {
		if _, err := journal.Seal(journal.Header{}, c.entries, c.leaves); !errors.Is(err, journal.ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGapError(t *testing.T) {
	for want, e := range map[string]journal.GapError{
		"the journal lacks frame 3: it was taken away or lost":             {After: 2, Next: 4},
		"the journal lacks frames 3 to 9: they were taken away or lost":    {After: 2, Next: 10},
		"the journal lacks frames 1 to 1000: they were taken away or lost": {After: 0, Next: 1001},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
}
