package projector_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
)

// generated is a journal that makes its frames when they are read: reports
// with random ids, wave after wave through all participants, 500 a frame.
type generated struct {
	journal.Journal
	seed    []journal.Record // of a world
	n       uint64
	prev    epro.Digest
	run     journal.Run
	now     time.Time
	people  int
	frames  uint64
	reports int
	r       *rand.Rand
	spent   time.Duration // making frames
}

func (g *generated) End(context.Context, uint32) (journal.Record, error) {
	return journal.Record{Position: journal.Position(uint64(len(g.seed)) + g.frames)}, nil
}

func (g *generated) Read(_ context.Context, _ uint32, after journal.Position, limit int) ([]journal.Record, error) {
	began := cpuTime()
	defer func() { g.spent += cpuTime() - began }()
	var out []journal.Record
	for p := uint64(after) + 1; len(out) < limit && p <= uint64(len(g.seed))+g.frames; p++ {
		if p <= uint64(len(g.seed)) {
			out = append(out, journal.Record{Position: journal.Position(p), Bytes: g.seed[p-1].Bytes})
			continue
		}
		entries, leaves := make([]journal.Entry, 500), make([]epro.Digest, 500)
		g.now = g.now.Add(time.Second)
		for i := range entries {
			patient := fmt.Sprintf("P-%d", 1+g.reports%g.people)
			g.reports++
			e := epro.Envelope{
				Kind: epro.KindReport, Trial: "T001", Subject: patient, Actor: epro.Actor{Type: epro.ActorParticipant, ID: patient, Device: "phone-0001"},
				Epoch: 1, OccurredAt: g.now, ReceivedAt: g.now,
			}
			binary.BigEndian.PutUint64(e.ID[:], g.r.Uint64())
			binary.BigEndian.PutUint64(e.ID[8:], g.r.Uint64())
			body := fmt.Appendf(nil, `{"patientId":%q,"trialId":"T001","timestamp":%q,"qolScore":%d,"reportId":%q,"comments":"slept well, a little tired in the afternoon"}`,
				patient, g.now.Format(time.RFC3339), g.reports%11, e.ID)
			e.Meaning, e.BodyDigest = sha256.Sum256(e.ID[:]), epro.BodyDigest(epro.Salt{}, body)
			env, err := e.AppendBinary(nil)
			if err != nil {
				return nil, err
			}
			entries[i], leaves[i] = journal.Entry{Envelope: env, Body: body}, epro.Leaf(env)
		}
		f, err := journal.Seal(journal.Header{Run: g.run, N: g.n, Prev: g.prev, Time: g.now.UnixNano()}, entries, leaves)
		if err != nil {
			return nil, err
		}
		g.n++
		g.prev = f.Hash
		out = append(out, journal.Record{Position: journal.Position(p), Bytes: f.Bytes})
	}
	return out, nil
}

// TestScale projects TIDEGATE_SCALE reports of 100,000 participants and tells
// what a report costs as the tables grow. It takes minutes, so it runs only
// when asked for:
//
//	TIDEGATE_SCALE=10000000 go test ./internal/projector -run TestScale -v -timeout 1h
//
// TIDEGATE_SCALE_URL names an empty PostgreSQL database to project into instead
// of a file; its server's processor time is not counted then.
func TestScale(t *testing.T) {
	total, _ := strconv.Atoi(os.Getenv("TIDEGATE_SCALE"))
	if total == 0 {
		t.Skip("set TIDEGATE_SCALE to a number of reports")
	}
	w := newWorld(t)
	w.seed(100_000)
	seed, err := w.journal.Read(t.Context(), 0, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	g := &generated{seed: seed, n: w.n, prev: w.prev, run: w.run, now: w.now, people: 100_000, r: rand.New(rand.NewPCG(1, 2))}
	for i := range g.seed {
		g.seed[i].Position = journal.Position(i + 1)
	}
	path := filepath.Join(t.TempDir(), "store.db")
	if dir := os.Getenv("TIDEGATE_SCALE_DIR"); dir != "" {
		path = filepath.Join(dir, "store.db")
	}
	var s store.Store
	if url := os.Getenv("TIDEGATE_SCALE_URL"); url != "" {
		s, err = pgstore.Open(t.Context(), pgstore.Options{Postgres: postgres.Options{URL: url}})
	} else {
		s, err = sqlitestore.Open(t.Context(), path)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := projector.Rebuild(t.Context(), g, s, 0, projector.Options{}, nil); err != nil {
		t.Fatal(err)
	}
	const step = 500_000
	for done := 0; done < total; done += step {
		g.frames += step / 500
		cpu, began := cpuTime(), time.Now()
		g.spent = 0
		if err := projector.Rebuild(t.Context(), g, s, 0, projector.Options{}, nil); err != nil {
			t.Fatal(err)
		}
		size := int64(0)
		if info, err := os.Stat(path); err == nil {
			size = info.Size()
		}
		t.Logf("%d reports: %.1f cpu-µs, %.1f µs a report, file %d MiB", done+step,
			float64((cpuTime()-cpu).Microseconds())/step, float64(time.Since(began).Microseconds())/step, size>>20)
	}
	b, err := s.Books(t.Context(), "T001")
	if err != nil || b != (store.Books{TrialID: "T001", Recorded: uint64((total + step - 1) / step * step)}) {
		t.Errorf("books %+v, %v", b, err)
	}
}
