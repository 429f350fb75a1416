package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets whose width grows with the value, so
// that a quantile is right within 0.8 % from a microsecond to days, in a fixed
// 35 KB. It is not safe for concurrent use. The zero value is ready.
type Histogram struct {
	counts [histogramBuckets]int64
	count  int64
	max    time.Duration
}

const (
	histogramBits    = 7 // 2^7 buckets for each doubling
	histogramHalf    = 1 << histogramBits
	histogramBuckets = histogramHalf * (40 - histogramBits + 1) // up to 2^40 µs, 12 days
)

func bucketOf(us uint64) int {
	if us < 2*histogramHalf {
		return int(us)
	}
	shift := bits.Len64(us) - histogramBits - 1
	return min(shift*histogramHalf+int(us>>shift), histogramBuckets-1)
}

// bucketEnd is the largest microsecond of a bucket.
func bucketEnd(i int) uint64 {
	if i < 2*histogramHalf {
		return uint64(i)
	}
	shift := i/histogramHalf - 1
	return uint64(i-shift*histogramHalf+1)<<shift - 1
}

// Record counts one duration. Negative ones count as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d.Microseconds()))]++
	h.count++
	h.max = max(h.max, d)
}

// Count is how many durations were recorded.
func (h *Histogram) Count() int64 { return h.count }

// Quantile is the duration that the part q of all does not exceed (nearest
// rank), 0 when nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int64(q*float64(h.count) + 0.999999)
	rank = min(max(rank, 1), h.count)
	var seen int64
	for i, n := range h.counts {
		seen += n
		if n > 0 && seen >= rank {
			return min(time.Duration(bucketEnd(i))*time.Microsecond, h.max)
		}
	}
	return h.max
}

// Quantiles are the figures of one kind of duration, in milliseconds.
type Quantiles struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50Ms"`
	P99   float64 `json:"p99Ms"`
	P999  float64 `json:"p999Ms"`
	Max   float64 `json:"maxMs"`
}

// Quantiles sums the histogram up.
func (h *Histogram) Quantiles() Quantiles {
	return Quantiles{
		Count: h.count, P50: millis(h.Quantile(0.5)), P99: millis(h.Quantile(0.99)),
		P999: millis(h.Quantile(0.999)), Max: millis(h.max),
	}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Add counts all that other has counted, too.
func (h *Histogram) Add(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.count += other.count
	h.max = max(h.max, other.max)
}
