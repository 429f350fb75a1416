package load

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// stats are a run's figures, guarded by run.mu.
type stats struct {
	tries, retries, full int64
	answers, failedBy    map[string]int64
	badReceipts          int64
	badReceipt           string
	acked, first         Histogram // from the intended moment
	refused              Histogram // of a try alone
	lag                  Histogram // of the generator itself
	lastAck, elapsed     time.Duration
}

func newStats() stats { return stats{answers: map[string]int64{}, failedBy: map[string]int64{}} }

// Progress is how far a run is.
type Progress struct {
	Elapsed      time.Duration
	Phones, Due  int   // Due: phones that meant to have sent by now
	Acknowledged int64 // phones
	UnderWay     int   // requests
	Waiting      int   // senders between two tries
	Tries        int64 // requests answered or given up
}

// String is one line for a terminal.
func (p Progress) String() string {
	return fmt.Sprintf("%5.1f s  due %d of %d  acknowledged %d  under way %d  waiting to try again %d  tries %d",
		p.Elapsed.Seconds(), p.Due, p.Phones, p.Acknowledged, p.UnderWay, p.Waiting, p.Tries)
}

// progressEvery is often enough to be watched and costs nothing.
const progressEvery = 500 * time.Millisecond

// tell reports progress until ctx is done.
func (r *run) tell(ctx context.Context) {
	if r.opts.Progress == nil {
		return
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.opts.Progress(r.progress())
	}
}

func (r *run) progress() Progress {
	now := r.now()
	due, _ := slices.BinarySearch(r.due, now)
	r.mu.Lock()
	defer r.mu.Unlock()
	return Progress{
		Elapsed: now, Phones: len(r.due), Due: due, Acknowledged: r.stats.acked.Count(), Waiting: len(r.retries),
		Tries: r.stats.tries, UnderWay: r.underWay,
	}
}

// Summary is what became of every phone, and how long it took. Offered is the
// sum of Acknowledged, Refused, Unreached, Unknown, Failed and Unsent.
type Summary struct {
	Target  string  `json:"target"`
	Trial   string  `json:"trial"`
	Shape   Shape   `json:"shape"`
	Seed    uint64  `json:"seed"`
	OverSec float64 `json:"overSeconds"`
	Peak    int     `json:"peakPerSecond"` // most first tries due within one second

	Offered        int              `json:"offered"`
	Acknowledged   int              `json:"acknowledged"` // with a receipt that was checked
	Refused        int              `json:"refused"`      // surely not recorded, as the server said at every try
	Unreached      int              `json:"unreached"`    // surely not recorded: no connection at any try
	Unknown        int              `json:"unknown"`      // may be recorded
	Failed         int              `json:"failed"`       // wrong for good
	Unsent         int              `json:"unsent"`       // the run was stopped before
	FailedByStatus map[string]int64 `json:"failedByStatus,omitempty"`

	Tries       int64            `json:"tries"` // requests
	Retries     int64            `json:"retries"`
	Answers     map[string]int64 `json:"answers"` // of every try, for each report in it
	BadReceipts int64            `json:"badReceipts"`
	BadReceipt  string           `json:"badReceipt,omitempty"` // the first one's fault

	ElapsedSec float64   `json:"elapsedSeconds"`
	Rate       float64   `json:"acknowledgedPerSecond"` // from the start to the last acknowledgement
	Latency    Quantiles `json:"latency"`               // acknowledged, from the intended moment
	FirstTry   Quantiles `json:"firstTry"`              // any answer to a first try, from the intended moment
	RefusedIn  Quantiles `json:"refusedIn"`             // refusals, from the try's own beginning

	SendLag         Quantiles `json:"sendLag"`         // from the moment a try was due to its beginning
	Behind          bool      `json:"behind"`          // the generator itself was late: its lag is part of the latencies
	ConnectionsFull int64     `json:"connectionsFull"` // tries that waited for one of the connections
}

// lagLimit is how late the generator may be at its 99th percentile before it
// says so. Timers and two shared cores give a few milliseconds.
const lagLimit = 10 * time.Millisecond

func (r *run) summary() Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := &r.stats
	s := Summary{
		Target: r.opts.Target, Trial: r.opts.Trial, Shape: r.opts.Shape, Seed: r.opts.Seed,
		OverSec: r.opts.Over.Seconds(), Peak: peakRate(r.due), Offered: len(r.due), FailedByStatus: st.failedBy,
		Tries: st.tries, Retries: st.retries, Answers: st.answers, BadReceipts: st.badReceipts, BadReceipt: st.badReceipt,
		ElapsedSec: st.elapsed.Seconds(), Latency: st.acked.Quantiles(), FirstTry: st.first.Quantiles(),
		RefusedIn: st.refused.Quantiles(), SendLag: st.lag.Quantiles(), ConnectionsFull: st.full,
		Behind: st.lag.Quantile(0.99) > lagLimit,
	}
	if st.lastAck > 0 {
		s.Rate = float64(st.acked.Count()) / st.lastAck.Seconds()
	}
	for i, state := range r.states {
		switch {
		case state == resultAcked:
			s.Acknowledged++
		case state == resultFailed:
			s.Failed++
		case r.doubtful[i]:
			s.Unknown++ // a later refusal does not undo an earlier try
		case state == resultRefused:
			s.Refused++
		case state == resultUnreached:
			s.Unreached++
		default:
			s.Unsent++
		}
	}
	return s
}

// Clean says whether every phone was acknowledged with a good receipt.
func (s *Summary) Clean() bool { return s.Acknowledged == s.Offered && s.BadReceipts == 0 }

// String is the summary for people, some lines with a last line end.
func (s *Summary) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%s of %d phones over %.0f s to %s, trial %s, seed %d", s.Shape, s.Offered, s.OverSec, s.Target, s.Trial, s.Seed)
	line("  offered       %8d   peak %d in one second", s.Offered, s.Peak)
	line("  acknowledged  %8d   %.0f/s, the last within %.1f s", s.Acknowledged, s.Rate, s.ElapsedSec)
	line("  refused       %8d   surely not recorded", s.Refused)
	line("  unreached     %8d   no connection at any try", s.Unreached)
	line("  unknown       %8d   may be recorded", s.Unknown)
	line("  failed        %8d   %s", s.Failed, counts(s.FailedByStatus))
	if s.Unsent > 0 {
		line("  unsent        %8d   stopped before", s.Unsent)
	}
	line("  requests      %8d   of which %d tried again", s.Tries, s.Retries)
	line("  answers       %s", counts(s.Answers))
	if s.BadReceipts > 0 {
		line("  WRONG RECEIPTS %d, the first: %s", s.BadReceipts, s.BadReceipt)
	}
	line("  milliseconds                            P50       P99     P99.9       max")
	figures := func(name string, q Quantiles) {
		if q.Count > 0 {
			line("  %-34s %8.1f  %8.1f  %8.1f  %8.1f", name, q.P50, q.P99, q.P999, q.Max)
		}
	}
	figures("acknowledged, from intended", s.Latency)
	figures("first answer, from intended", s.FirstTry)
	figures("refusal, from its try", s.RefusedIn)
	figures("lag of this generator", s.SendLag)
	if s.Behind {
		line("  The generator fell behind its schedule: its lag above is part of the latencies, the server may be faster than they say.")
	}
	if s.ConnectionsFull > 0 {
		line("  %d tries waited for a free connection; the wait counts in the latencies.", s.ConnectionsFull)
	}
	return b.String()
}

func counts(m map[string]int64) string {
	parts := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s: %d", name, m[name]))
	}
	return strings.Join(parts, ", ")
}
