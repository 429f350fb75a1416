package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Shape is how the phones' first tries lie in time.
type Shape string

// The shapes. Phones are independent of one another: each draws its own moment,
// so arrivals cluster as they do in life.
const (
	// ShapeWave is what follows a reminder: a steep rise and a long decay. The
	// density is x·e^(−x/τ) with τ = Over/10: the rate peaks at a tenth of Over,
	// at 3.7 times the mean rate, and half of the phones have sent by 0.17·Over.
	ShapeWave Shape = "wave"
	// ShapeUniform has the same rate throughout.
	ShapeUniform Shape = "uniform"
	// ShapeBurst is one push without any spreading: every phone within the first
	// second, or within Over if that is shorter.
	ShapeBurst Shape = "burst"
)

func (s Shape) valid() bool { return s == ShapeWave || s == ShapeUniform || s == ShapeBurst }

// Schedule draws the moments at which n phones mean to send, counted from the
// start, in ascending order. All lie in [0, over].
func Schedule(shape Shape, n int, over time.Duration, seed uint64) []time.Duration {
	random := rand.New(rand.NewPCG(seed, streamSchedule))
	if shape == ShapeBurst {
		over = min(over, time.Second)
	}
	due := make([]time.Duration, n)
	for i := range due {
		u := random.Float64()
		if shape == ShapeWave {
			u = waveQuantile(u)
		}
		due[i] = time.Duration(u * float64(over))
	}
	slices.Sort(due)
	return due
}

// waveSpan is how many τ of the wave lie in Over; 0.05 % of the curve lies
// behind and is cut off.
const waveSpan = 10

// waveQuantile is the part of Over by which the part u of the phones has sent.
func waveQuantile(u float64) float64 {
	sent := func(x float64) float64 { return 1 - (1+x)*math.Exp(-x) } // of the uncut curve, by x·τ
	u *= sent(waveSpan)
	low, high := 0.0, float64(waveSpan)
	for range 40 { // halves the interval to below a nanosecond of an hour
		if mid := (low + high) / 2; sent(mid) < u {
			low = mid
		} else {
			high = mid
		}
	}
	return low / waveSpan
}

// peakRate is the highest number of first tries due within one second.
func peakRate(due []time.Duration) int {
	peak, from := 0, 0
	for i := range due {
		for due[i]-due[from] >= time.Second {
			from++
		}
		peak = max(peak, i-from+1)
	}
	return peak
}
