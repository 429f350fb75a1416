package epro_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/internal/epro"
)

func envelope() epro.Envelope {
	return epro.Envelope{
		Flags: epro.FlagDerivedID, Kind: epro.KindReport, ID: epro.UUID{1, 2, 3}, Trial: "T001", Subject: "P-000001",
		Actor: epro.Actor{Type: epro.ActorParticipant, ID: "P-000001", Device: "d1"}, TokenKey: 7, Epoch: 3,
		OccurredAt: time.Date(2026, 3, 1, 8, 30, 0, 5, time.FixedZone("", 8*3600)), ReceivedAt: time.Date(2026, 3, 1, 0, 30, 2, 9, time.UTC),
		BodyDigest: epro.Digest{4}, Meaning: epro.Digest{5},
	}
}

func same(a, b epro.Envelope) bool {
	_, ao := a.OccurredAt.Zone()
	_, bo := b.OccurredAt.Zone()
	if ao != bo || !a.OccurredAt.Equal(b.OccurredAt) || !a.ReceivedAt.Equal(b.ReceivedAt) {
		return false
	}
	a.OccurredAt, a.ReceivedAt, b.OccurredAt, b.ReceivedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return a == b
}

func genEnvelope(t *rapid.T) epro.Envelope {
	text := rapid.StringMatching(`[ -~]{0,64}`)
	instant := func(name string) time.Time {
		return time.Unix(rapid.Int64Range(-62167219200, 253402300799).Draw(t, name), rapid.Int64Range(0, 999_999_999).Draw(t, name+" ns"))
	}
	return epro.Envelope{
		Flags: rapid.Uint16().Draw(t, "flags"),
		Kind:  epro.Kind{Name: rapid.StringMatching(`[a-z][a-z.-]{0,63}`).Draw(t, "kind"), Version: rapid.Uint16().Draw(t, "version")},
		ID:    epro.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
		Trial: text.Draw(t, "trial"), Subject: text.Draw(t, "subject"),
		Actor: epro.Actor{
			Type: epro.ActorType(rapid.IntRange(1, 4).Draw(t, "type")), //nolint:gosec // 1 to 4
			ID:   text.Draw(t, "actor"), Device: text.Draw(t, "device"),
		},
		TokenKey: rapid.Uint32().Draw(t, "key"), Epoch: rapid.Uint32().Draw(t, "epoch"),
		OccurredAt: instant("occurred").In(time.FixedZone("", 60*rapid.IntRange(-1439, 1439).Draw(t, "offset"))),
		ReceivedAt: instant("received").UTC(),
		BodyDigest: epro.Digest(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest")),
		Meaning:    epro.Digest(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "meaning")),
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := genEnvelope(t)
		b, err := e.AppendBinary([]byte("in front"))
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.TrimPrefix(b, []byte("in front"))
		if len(b) < epro.MinEnvelopeBytes || len(b) > epro.MaxEnvelopeBytes {
			t.Fatalf("%d bytes", len(b))
		}
		got, err := epro.DecodeEnvelope(b)
		if err != nil {
			t.Fatal(err)
		}
		if !same(got, e) {
			t.Fatalf("read %+v, wrote %+v", got, e)
		}
	})
}

// A decoder that took a byte string no encoder writes would let one fact have two leaves.
func TestEveryChangedByteIsAnotherEnvelopeOrNone(t *testing.T) {
	e := envelope()
	b, err := e.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		for bit := range 8 {
			c := bytes.Clone(b)
			c[i] ^= 1 << bit
			got, err := epro.DecodeEnvelope(c)
			if err != nil {
				continue
			}
			again, err := got.AppendBinary(nil)
			if err != nil || !bytes.Equal(again, c) {
				t.Errorf("byte %d, bit %d: taken, but written otherwise (%v)", i, bit, err)
			}
		}
	}
	for n := range b {
		if _, err := epro.DecodeEnvelope(b[:n]); !errors.Is(err, epro.ErrEnvelope) {
			t.Errorf("cut to %d bytes: error %v", n, err)
		}
	}
}

func TestEnvelopeDoesNotAliasItsBytes(t *testing.T) {
	e := envelope()
	b, _ := e.AppendBinary(nil)
	got, err := epro.DecodeEnvelope(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !same(got, e) {
		t.Fatal("the envelope changed with the buffer it was read from")
	}
}

// What a writer lets through, every reader must be able to read: an envelope in the journal that no one reads stops the projector.
func TestEnvelopeOutOfBoundsIsNotWritten(t *testing.T) {
	for name, change := range map[string]func(e *epro.Envelope){
		"no kind":            func(e *epro.Envelope) { e.Kind.Name = "" },
		"long trial":         func(e *epro.Envelope) { e.Trial = strings.Repeat("t", 65) },
		"very long trial":    func(e *epro.Envelope) { e.Trial = strings.Repeat("t", 256) },
		"accent in subject":  func(e *epro.Envelope) { e.Subject = "é" },
		"control in device":  func(e *epro.Envelope) { e.Actor.Device = "a\nb" },
		"no actor type":      func(e *epro.Envelope) { e.Actor.Type = 0 },
		"unknown actor type": func(e *epro.Envelope) { e.Actor.Type = 5 },
		"offset in seconds":  func(e *epro.Envelope) { e.OccurredAt = e.OccurredAt.In(time.FixedZone("", 30)) },
		"offset of a day":    func(e *epro.Envelope) { e.OccurredAt = e.OccurredAt.In(time.FixedZone("", 24*3600)) },
		// 2^16 minutes: would come out as offset 0 if it were cut to 16 bits.
		"offset of 2^16 minutes": func(e *epro.Envelope) { e.OccurredAt = e.OccurredAt.In(time.FixedZone("", 65536*60)) },
		"device year 10001":      func(e *epro.Envelope) { e.OccurredAt = time.Date(10001, 1, 1, 0, 0, 0, 0, time.UTC) },
		"device year -2":         func(e *epro.Envelope) { e.OccurredAt = time.Date(-2, 1, 1, 0, 0, 0, 0, time.UTC) },
		"gateway year 10001":     func(e *epro.Envelope) { e.ReceivedAt = time.Date(10001, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		e := envelope()
		change(&e)
		b, err := e.AppendBinary(nil)
		if !errors.Is(err, epro.ErrEnvelope) || b != nil {
			t.Errorf("%s: %d bytes and error %v, must be none and ErrEnvelope", name, len(b), err)
		}
	}
}

func TestLeafIsTheLeafHashOfRFC6962(t *testing.T) {
	for _, n := range []int{0, 1, epro.MaxEnvelopeBytes, epro.MaxEnvelopeBytes + 1, 1000} {
		b := bytes.Repeat([]byte{7}, n)
		if got := epro.Leaf(b); got != epro.Digest(sha256.Sum256(append([]byte{0}, b...))) {
			t.Errorf("%d bytes: %s", n, got)
		}
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	e := envelope()
	b, err := e.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := epro.DecodeEnvelope(b)
		if err != nil {
			return
		}
		again, err := e.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("taken, but written otherwise: %v", err)
		}
	})
}
