package projector_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/store"
)

// BenchmarkProject projects 100,000 reports of 20,000 participants in frames
// of 250 into an empty store on disk. µs/report is time, cpu-µs/report the
// processor time of the whole process, checking and decoding included.
func BenchmarkProject(b *testing.B) {
	benchmarkProject(b, openSQLite, projector.Options{}, 100_000, 250)
}

// BenchmarkProjectSmallFrames is the same with frames of 5 reports.
func BenchmarkProjectSmallFrames(b *testing.B) {
	benchmarkProject(b, openSQLite, projector.Options{}, 100_000, 5)
}

// BenchmarkProjectPostgres is BenchmarkProject into PostgreSQL with its own
// settings, on this machine; its processor time is not in cpu-µs/report.
func BenchmarkProjectPostgres(b *testing.B) {
	benchmarkProject(b, openPostgres, projector.Options{}, 100_000, 250)
}

// BenchmarkProjectPostgresSingly has a transaction for every report, as when
// there is nothing to catch up: µs/report is what a transaction takes.
func BenchmarkProjectPostgresSingly(b *testing.B) {
	benchmarkProject(b, openPostgres, projector.Options{BatchFacts: 1}, 2_000, 1)
}

func benchmarkProject(b *testing.B, open func(testing.TB) store.Store, opts projector.Options, reports, perFrame int) {
	w := newWorld(b)
	const participants = 20_000
	w.seed(participants)
	seeded := w.journal
	end, err := seeded.End(b.Context(), 0)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range reports {
		var id epro.UUID
		binary.BigEndian.PutUint64(id[:], r.Uint64())
		binary.BigEndian.PutUint64(id[8:], r.Uint64())
		w.tell(w.report("T001", fmt.Sprintf("P-%d", 1+i%participants), id, i%11))
		if i%perFrame == perFrame-1 {
			w.commit()
		}
	}
	var cpu time.Duration
	for b.Loop() {
		b.StopTimer()
		s := open(b)
		// The registry first: it is not what is measured.
		if err := projector.Rebuild(b.Context(), upTo{seeded, end}, s, 0, projector.Options{}, nil); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		before := cpuTime()
		if err := projector.Rebuild(b.Context(), w.journal, s, 0, opts, nil); err != nil {
			b.Fatal(err)
		}
		cpu += cpuTime() - before
		b.StopTimer()
		books, err := s.Books(b.Context(), "T001")
		if err != nil || books.Recorded != uint64(reports) {
			b.Fatal(books, err)
		}
		b.StartTimer()
	}
	n := float64(b.N) * float64(reports)
	b.ReportMetric(float64(b.Elapsed().Microseconds())/n, "µs/report")
	b.ReportMetric(float64(cpu.Microseconds())/n, "cpu-µs/report")
}

// upTo is a journal that ends earlier.
type upTo struct {
	journal.Journal
	end journal.Record
}

func (j upTo) End(context.Context, uint32) (journal.Record, error) { return j.end, nil }

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
