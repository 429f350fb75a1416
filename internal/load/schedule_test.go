package load_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

func TestScheduleShapes(t *testing.T) {
	const n, over = 20_000, time.Minute
	part := func(due []time.Duration, until time.Duration) float64 {
		i, _ := slices.BinarySearch(due, until)
		return float64(i) / n
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 0.015 {
			t.Errorf("%s: %.3f, want about %.3f", what, got, want)
		}
	}
	for _, shape := range []load.Shape{load.ShapeWave, load.ShapeUniform, load.ShapeBurst} {
		due := load.Schedule(shape, n, over, 1)
		if len(due) != n || !slices.IsSorted(due) || due[0] < 0 || due[n-1] > over {
			t.Errorf("%s: %d moments from %v to %v, want %d in order within %v", shape, len(due), due[0], due[n-1], n, over)
		}
		if !slices.Equal(due, load.Schedule(shape, n, over, 1)) {
			t.Errorf("%s: the same seed gives another schedule", shape)
		}
		if slices.Equal(due, load.Schedule(shape, n, over, 2)) {
			t.Errorf("%s: another seed gives the same schedule", shape)
		}
	}
	uniform := load.Schedule(load.ShapeUniform, n, over, 3)
	for i := 1; i <= 4; i++ {
		near("uniform, by quarter", part(uniform, over/4*time.Duration(i)), float64(i)/4)
	}
	burst := load.Schedule(load.ShapeBurst, n, over, 3)
	if burst[n-1] > time.Second {
		t.Errorf("the burst lasts %v", burst[n-1])
	}
	// 1 − (1+x)e^(−x) at x = 1, 2, 5: one tenth, two tenths, half of the time.
	wave := load.Schedule(load.ShapeWave, n, over, 3)
	near("wave, first tenth", part(wave, over/10), 0.264)
	near("wave, first fifth", part(wave, over/5), 0.594)
	near("wave, first half", part(wave, over/2), 0.960)
	// It rises steeply: the rate in the second around the peak is far above the first's.
	first, peak := part(wave, time.Second), part(wave, 6500*time.Millisecond)-part(wave, 5500*time.Millisecond)
	if peak < 3*first {
		t.Errorf("the rate rises from %.4f only to %.4f of all per second", first, peak)
	}
}

func TestHistogram(t *testing.T) {
	var h load.Histogram
	if q := h.Quantiles(); q != (load.Quantiles{}) {
		t.Errorf("empty: %+v", q)
	}
	for i := 1; i <= 100_000; i++ {
		h.Record(time.Duration(i) * 10 * time.Microsecond)
	}
	h.Record(-time.Second) // a clock's whim is no figure
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond, 0.999: 999 * time.Millisecond, 1: time.Second} {
		if got := h.Quantile(q); math.Abs(float64(got-want)) > 0.008*float64(want) {
			t.Errorf("quantile %v: %v, want %v within 0.8 %%", q, got, want)
		}
	}
	// One value alone comes back as itself, whatever its size.
	for d := time.Microsecond; d < 200*time.Hour; d *= 3 {
		var one load.Histogram
		one.Record(d)
		if got := one.Quantile(0.5); got > d || float64(got) < 0.99*float64(d) {
			t.Errorf("%v came back as %v", d, got)
		}
	}
	// The largest of a thousand is the 99.9th percentile's successor, not the 99th's.
	var tail load.Histogram
	for range 999 {
		tail.Record(time.Millisecond)
	}
	tail.Record(time.Hour)
	if q := tail.Quantiles(); q.P99 > 1.01 || q.P999 > 1.01 || q.Max != 3_600_000 {
		t.Errorf("tail: %+v", q)
	}
}
