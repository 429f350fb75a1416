//go:build unix

package sqlitejournal_test

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
)

// BenchmarkAppend tells the wall time and the processor time of one append, on
// the disk of the temporary folder.
func BenchmarkAppend(b *testing.B) {
	for _, facts := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("facts=%d", facts), func(b *testing.B) {
			j := must(sqlitejournal.Open(b.Context(), filepath.Join(b.TempDir(), "journal.db"), sqlitejournal.Options{}))(b)
			defer j.Close()
			frames := make([]journal.Sealed, b.N)
			run := journaltest.NewRun()
			// Sealing is not what is measured: the entries are made once.
			entries, leaves := sealedEntries(facts)
			h := journal.Header{Run: run}
			for i := range frames {
				h.N, h.Time = uint64(i), int64(i) //nolint:gosec // small
				f, err := journal.Seal(h, entries, leaves)
				if err != nil {
					b.Fatal(err)
				}
				frames[i], h.Prev = f, f.Hash
			}
			b.SetBytes(int64(len(frames[0].Bytes)))
			b.ReportAllocs()
			before := cpu()
			b.ResetTimer()
			for i := range frames {
				if _, err := j.Append(b.Context(), frames[i]); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

func sealedEntries(n int) ([]journal.Entry, []epro.Digest) {
	entries, leaves := make([]journal.Entry, n), make([]epro.Digest, n)
	for i := range entries {
		entries[i], leaves[i] = journaltest.Entry(i, journaltest.Body(i))
	}
	return entries, leaves
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
