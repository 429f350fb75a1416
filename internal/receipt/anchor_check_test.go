package receipt_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/receipt"
)

// shelf is a journal over records that a test puts there.
type shelf struct {
	journal.Journal
	records []journal.Record
	reads   int
	err     error
}

func shelve(frames ...journal.Sealed) *shelf {
	s := &shelf{}
	for i, f := range frames {
		s.records = append(s.records, journal.Record{Position: journal.Position(i + 1), Bytes: f.Bytes})
	}
	return s
}

func (s *shelf) End(context.Context, uint32) (journal.Record, error) {
	if len(s.records) == 0 {
		return journal.Record{}, nil
	}
	return s.records[len(s.records)-1], nil
}

func (s *shelf) Read(_ context.Context, _ uint32, after journal.Position, limit int) ([]journal.Record, error) {
	s.reads++
	if s.err != nil {
		return nil, s.err
	}
	var out []journal.Record
	last := after
	for _, r := range s.records {
		if r.Position <= after || len(out) == limit {
			continue
		}
		if r.Position != last+1 {
			if len(out) > 0 {
				break
			}
			return nil, &journal.GapError{After: after, Next: r.Position}
		}
		out, last = append(out, r), r.Position
	}
	return out, nil
}

func TestCheckAnchor(t *testing.T) {
	r := newRing(t, "")
	frames := journaltest.Chain(6, 2)
	c := r.checkpoint(4)
	c.Position, c.Header = 4, frames[3].Hash
	signed := r.sign(t, c)
	check := func(s *shelf) error { return receipt.CheckAnchor(t.Context(), s, 0, signed, r.keys) }

	whole := shelve(frames...)
	if err := check(whole); err != nil || whole.reads != 1 {
		t.Errorf("the same journal: %v after %d reads", err, whole.reads)
	}
	if err := check(shelve(frames[:4]...)); err != nil {
		t.Errorf("a journal that ends at the anchor: %v", err)
	}

	var below *receipt.BelowAnchorError
	if err := check(shelve(frames[:3]...)); !errors.As(err, &below) || below.Other || below.End != 3 {
		t.Errorf("a journal cut short: %v", err)
	}
	for _, want := range []string{"4 frames", "position 4", "ends at position 3", "2026-03-29T08:00:00Z", "tidegate era open"} {
		if !strings.Contains(below.Error(), want) {
			t.Errorf("the sentence lacks %q: %s", want, below)
		}
	}
	if err := check(shelve()); !errors.As(err, &below) || below.End != 0 {
		t.Errorf("an empty journal: %v", err)
	}
	grown := shelve(append(frames[:3:3], journaltest.Chain(3, 1)...)...)
	if err := check(grown); !errors.As(err, &below) || !below.Other || below.End != 6 {
		t.Errorf("a journal cut short that went on: %v", err)
	}
	gap := shelve(frames...)
	gap.records = append(gap.records[:3:3], gap.records[4:]...)
	if err := check(gap); !errors.As(err, &below) || !below.Other {
		t.Errorf("a journal without that frame: %v", err)
	}
	damaged := shelve(frames...)
	damaged.records[3].Bytes = damaged.records[3].Bytes[:50]
	if err := check(damaged); !errors.As(err, &below) {
		t.Errorf("a journal in which that frame is damaged: %v", err)
	}

	// An era that cites the anchor, and one that cites another.
	for digest, clears := range map[string]bool{receipt.AnchorDigest(signed): true, strings.Repeat("0", 64): false} {
		body, _ := json.Marshal(epro.EraOpened{Reason: "restored", Era: 2, AnchorDigest: digest, AnchorFrames: 4, Frames: 3})
		era := shelve(append(frames[:3:3], eraFrame(t, body))...)
		if err := check(era); (err == nil) != clears {
			t.Errorf("era opened, clears %v: %v", clears, err)
		}
	}

	if err := receipt.CheckAnchor(t.Context(), whole, 1, signed, r.keys); !errors.Is(err, receipt.ErrCheckpoint) {
		t.Errorf("another shard: %v", err)
	}
	other := newRing(t, "")
	if err := receipt.CheckAnchor(t.Context(), whole, 0, signed, other.keys); !errors.Is(err, receipt.ErrCheckpoint) {
		t.Errorf("another root: %v", err)
	}
	broken := shelve(frames...)
	broken.err = errors.New("disk")
	if err := check(broken); err == nil || errors.As(err, &below) {
		t.Errorf("a journal that cannot be read is not one that is below: %v", err)
	}
}

// eraFrame is a frame of one era.opened fact.
func eraFrame(t testing.TB, body []byte) journal.Sealed {
	t.Helper()
	e := journal.Entry{Salt: epro.NewSalt(), Body: body}
	env := epro.Envelope{
		Kind: epro.KindEraOpened, ID: epro.NewUUID(), Actor: epro.Actor{Type: epro.ActorSystem, ID: "operator"},
		BodyDigest: epro.BodyDigest(e.Salt, body), Meaning: epro.PlainMeaning(body),
	}
	var err error
	if e.Envelope, err = env.AppendBinary(nil); err != nil {
		t.Fatal(err)
	}
	f, err := journal.Seal(journal.Header{Run: journaltest.NewRun()}, []journal.Entry{e}, []epro.Digest{epro.Leaf(e.Envelope)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}
