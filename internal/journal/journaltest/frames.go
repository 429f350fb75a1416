package journaltest

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// NewRun returns a run at random.
func NewRun() journal.Run {
	var r journal.Run
	_, _ = rand.Read(r[:])
	return r
}

// Entry returns a valid entry of a report with this body, about a participant
// numbered i, and its leaf.
func Entry(i int, body []byte) (journal.Entry, epro.Digest) {
	e := journal.Entry{Salt: epro.NewSalt(), Body: body}
	at := time.Date(2026, 3, 29, 8, 0, 0, 0, time.FixedZone("", 2*3600)).Add(time.Duration(i) * time.Second)
	envelope := epro.Envelope{
		Kind: epro.KindReport, ID: epro.NewUUID(), Trial: "T001", Subject: fmt.Sprintf("P-%06d", i),
		Actor:    epro.Actor{Type: epro.ActorParticipant, ID: fmt.Sprintf("P-%06d", i), Device: "d1"},
		TokenKey: 1, Epoch: 1, OccurredAt: at, ReceivedAt: at.UTC().Add(time.Second),
		BodyDigest: epro.BodyDigest(e.Salt, body), Meaning: epro.PlainMeaning(body),
	}
	b, err := envelope.AppendBinary(nil)
	if err != nil {
		panic(err) // every field above is in bounds
	}
	e.Envelope = b
	return e, epro.Leaf(b)
}

// Body returns a report's body of about 200 bytes.
func Body(i int) []byte {
	return fmt.Appendf(nil, `{"patientId":"P-%06d","trialId":"T001","timestamp":"2026-03-29T08:00:00+02:00","qolScore":%d,"comments":"Slept well, walked to the market and back, a little tired in the evening."}`, i, i%11)
}

// Frame returns a sealed frame of count reports of shard 0, which follows prev
// (nil: the frame is its run's first whatever n says).
func Frame(run journal.Run, n uint64, prev *journal.Sealed, count int) journal.Sealed {
	return FrameOf(0, run, n, prev, count, 0)
}

// FrameOf is [Frame] for a shard, with bodies of bodyBytes bytes (0: as they
// come).
func FrameOf(shard uint32, run journal.Run, n uint64, prev *journal.Sealed, count, bodyBytes int) journal.Sealed {
	h := journal.Header{Shard: shard, Run: run, N: n, Time: time.Now().UnixNano()}
	if prev != nil {
		h.Prev = prev.Hash
		h.Time = max(h.Time, prev.Header.Time)
	}
	entries := make([]journal.Entry, count)
	leaves := make([]epro.Digest, count)
	for i := range entries {
		body := Body(i)
		if bodyBytes > 0 {
			body = make([]byte, bodyBytes)
			_, _ = rand.Read(body)
		}
		entries[i], leaves[i] = Entry(i, body)
	}
	f, err := journal.Seal(h, entries, leaves)
	if err != nil {
		panic(err) // the caller asked for more than a frame holds
	}
	return f
}

// Chain returns length frames of one new run, of count reports each.
func Chain(length, count int) []journal.Sealed {
	run := NewRun()
	frames := make([]journal.Sealed, length)
	for i := range frames {
		var prev *journal.Sealed
		if i > 0 {
			prev = &frames[i-1]
		}
		frames[i] = Frame(run, uint64(i), prev, count) //nolint:gosec // small
	}
	return frames
}

// MustAppend appends the frames in order and ends the test when one fails.
func MustAppend(t testing.TB, j journal.Journal, frames ...journal.Sealed) {
	t.Helper()
	for i, f := range frames {
		if _, err := j.Append(t.Context(), f); err != nil {
			t.Fatalf("append frame %d of %d: %v", i+1, len(frames), err)
		}
	}
}

// ReadAll walks shard 0 in steps of step records and returns what it saw.
func ReadAll(t testing.TB, j journal.Journal, step int) []journal.Record {
	t.Helper()
	var all []journal.Record
	for after := journal.Position(0); ; {
		records, err := j.Read(t.Context(), 0, after, step)
		if err != nil {
			t.Fatalf("read after %d: %v", after, err)
		}
		if len(records) == 0 {
			return all
		}
		all = append(all, records...)
		after = records[len(records)-1].Position
	}
}

// Key names a frame by its run and number, as a text for messages and maps.
func Key(run journal.Run, n uint64) string {
	return run.String() + "/" + fmt.Sprint(n)
}

// number reads the run and number out of stored bytes.
func number(t testing.TB, b []byte) (journal.Run, uint64) {
	t.Helper()
	if len(b) < 36 {
		t.Fatalf("a record of %d bytes", len(b))
	}
	return journal.Run(b[12:28]), binary.BigEndian.Uint64(b[28:])
}
