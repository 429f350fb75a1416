package directory_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/store"
)

// standing is empty tables whose cursor is where it was put.
type standing struct {
	store.Reader
	at journal.Position
}

func (s *standing) Cursor(context.Context, uint32) (store.Cursor, error) {
	return store.Cursor{Position: s.at}, nil
}

func (*standing) Trials(context.Context, store.Page) ([]store.Trial, string, error) {
	return nil, "", nil
}

// BenchmarkFollowReports is what following costs a report: frames of 500 are
// read in SQLite and looked through. An iteration is 100,000 reports.
func BenchmarkFollowReports(b *testing.B) {
	const frames, perFrame = 200, 500
	j, err := sqlitejournal.Open(b.Context(), filepath.Join(b.TempDir(), "journal.db"), sqlitejournal.Options{})
	must(b, err)
	defer j.Close()
	body := []byte(`{"patientId":"P-000001","trialId":"T001","reportId":"7b0c1f6e-3a5d-4c1e-9d5b-0a4f6f2f9a11","timestamp":"2026-03-01T08:30:00+01:00","qolScore":7,"comments":"slept well"}`)
	var prev epro.Digest
	for n := range uint64(frames) {
		entries, leaves := make([]journal.Entry, perFrame), make([]epro.Digest, perFrame)
		for i := range entries {
			patient := fmt.Sprintf("P-%06d", i)
			env, err := (&epro.Envelope{
				Kind: epro.KindReport, ID: epro.NewUUID(), Trial: "T001", Subject: patient, OccurredAt: when, ReceivedAt: when,
				Actor: epro.Actor{Type: epro.ActorParticipant, ID: patient, Device: "phone-1"},
			}).AppendBinary(nil)
			must(b, err)
			entries[i], leaves[i] = journal.Entry{Envelope: env, Body: body}, epro.Leaf(env)
		}
		f, err := journal.Seal(journal.Header{Run: journal.Run{1}, N: n, Prev: prev, Time: int64(n)}, entries, leaves)
		must(b, err)
		_, err = j.Append(b.Context(), f)
		must(b, err)
		prev = f.Hash
	}
	start := follow(b, directory.NewFeed(j, &standing{}, nil), nil, nil).version
	b.ReportAllocs()
	for b.Loop() {
		got := follow(b, directory.NewFeed(j, &standing{at: frames}, nil), start, nil)
		if got.snapshot || got.version.Position(0) != frames {
			b.Fatalf("%+v", got)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(frames*perFrame), "ns/report")
}
