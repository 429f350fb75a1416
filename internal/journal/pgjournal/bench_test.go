package pgjournal_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/test/services"
)

// BenchmarkAppend appends frames of 100 reports (about 40 kB) from several
// processes' worth of connections at once, each its own run, as several gateways
// do. An operation is one frame; p50 and p99 are of one append, from its call to
// its answer.
func BenchmarkAppend(b *testing.B) {
	for _, standby := range []bool{false, true} {
		b.Run(fmt.Sprintf("standby=%v", standby), func(b *testing.B) {
			pg := services.Postgres(b, services.PGOptions{Settings: []string{"max_wal_size = '4GB'"}})
			if standby {
				pg.Standby(b)
			}
			for _, writers := range []int{1, 2, 4, 8} {
				b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) { benchAppend(b, fresh(b, pg), writers, 100) })
			}
		})
	}
}

// BenchmarkAppendLarge is the same with frames of 4,000 reports (about 1.6 MB).
func BenchmarkAppendLarge(b *testing.B) {
	pg := services.Postgres(b, services.PGOptions{Settings: []string{"max_wal_size = '4GB'"}})
	benchAppend(b, fresh(b, pg), 1, 4000)
}

func benchAppend(b *testing.B, url string, writers, facts int) {
	const prepared = 200 // sealing a frame is not what is measured
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, writers)
	var ready, wg sync.WaitGroup
	start := make(chan struct{})
	for i := range writers {
		j := open(b, options(url))
		ready.Add(1)
		wg.Go(func() {
			var frames []journal.Sealed
			more := func() { frames = extend(frames, min(prepared, b.N/writers+1), facts) }
			more()
			ready.Done()
			<-start
			for n := 0; left.Add(-1) >= 0; n++ {
				if n == len(frames) {
					last := frames[len(frames)-1]
					frames, n = extend([]journal.Sealed{last}, prepared, facts), 1
				}
				begin := time.Now()
				if _, err := j.Append(context.Background(), frames[n]); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(begin))
			}
		})
	}
	ready.Wait()
	b.ResetTimer()
	close(start)
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	if len(all) == 0 {
		return
	}
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "frames/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(all[len(all)-1].Microseconds())/1000, "max-ms")
}

// extend adds n frames to a run, or begins one.
func extend(frames []journal.Sealed, n, facts int) []journal.Sealed {
	if len(frames) == 0 {
		frames = append(frames, journaltest.Frame(journaltest.NewRun(), 0, nil, facts))
	}
	for range n {
		last := frames[len(frames)-1]
		frames = append(frames, journaltest.Frame(last.Header.Run, last.Header.N+1, &last, facts))
	}
	return frames
}
