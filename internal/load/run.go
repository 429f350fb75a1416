package load

import (
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	randv2 "math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Run plays the wave and returns when every phone has its receipt, has given
// up, or the time is over: tries begin until Over + Grace, then those under way
// end. A done ctx stops it at once; the summary of what happened is returned
// beside the error. Phones without a receipt are no error: see
// [Summary.Clean]. An error without a summary's figures wraps [ErrOptions] or
// says what could not be opened.
func Run(ctx context.Context, opts Options) (Summary, error) {
	if err := opts.complete(); err != nil {
		return Summary{}, err
	}
	for opts.Seed == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:])                          // never fails: the process ends instead
		opts.Seed = binary.BigEndian.Uint64(b[:]) % 1e9 // short enough to type again
	}
	way, err := opts.transport()
	if err != nil {
		return Summary{}, err
	}
	defer way.CloseIdleConnections()
	check, err := newChecker(opts.Keys, opts.Trial, fetchKeys(way, opts.Target))
	if err != nil {
		return Summary{}, err
	}
	file, err := openAcks(opts.AcksFile)
	if err != nil {
		return Summary{}, err
	}
	r := newRun(&opts, way, check, file)
	err = r.play(ctx)
	return r.summary(), errors.Join(err, file.close())
}

// sender is one phone, or one relay's request for neighbouring phones, that
// waits for its next try.
type sender struct {
	from, to int32 // phones, in the order of the schedule
	tries    int32
	due      time.Duration // since the start
}

type run struct {
	opts   *Options
	way    http.RoundTripper
	check  *checker
	acks   acks
	phones phones
	due    []time.Duration // first tries of the phones, ascending
	slots  chan struct{}   // a token for each request under way
	wake   chan struct{}   // holds a token when retries or underWay changed
	under  sync.WaitGroup

	next int // first phone that never tried; of the dispatcher alone

	mu       sync.Mutex
	retries  senderHeap
	underWay int
	states   []result
	doubtful []bool // some try of this phone may have been recorded
	stats    stats
}

func newRun(opts *Options, way http.RoundTripper, check *checker, file acks) *run {
	due := Schedule(opts.Shape, opts.Phones, opts.Over, opts.Seed)
	return &run{
		opts: opts, way: way, check: check, acks: file, due: due,
		phones: phones{opts: opts, due: due},
		slots:  make(chan struct{}, opts.Connections), wake: make(chan struct{}, 1),
		states: make([]result, opts.Phones), doubtful: make([]bool, opts.Phones), stats: newStats(),
	}
}

// play dispatches every try at its time.
func (r *run) play(parent context.Context) error {
	ctx, stop := context.WithCancelCause(parent)
	defer stop(nil)
	r.phones.start = time.Now()
	r.phones.expires = r.phones.start.Add(r.opts.Over + r.opts.Grace + time.Hour)
	told := make(chan struct{})
	watched, unwatch := context.WithCancel(ctx)
	go func() {
		defer close(told)
		r.tell(watched)
	}()
	err := r.dispatch(ctx, stop)
	r.under.Wait()
	r.stats.elapsed = r.now()
	unwatch()
	<-told
	return err
}

func (r *run) now() time.Duration { return time.Since(r.phones.start) }

func (r *run) dispatch(ctx context.Context, stop context.CancelCauseFunc) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s, found, idle := r.peek()
		if !found && idle {
			return context.Cause(ctx)
		}
		wait := time.Hour
		if found {
			wait = s.due - r.now()
		}
		if wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-r.wake: // an earlier retry, or nothing is left
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			continue
		}
		if err := r.takeSlot(ctx); err != nil {
			return err
		}
		s = r.pop()
		r.under.Add(1)
		go func() {
			defer r.under.Done()
			r.try(ctx, s, stop)
			<-r.slots
		}()
	}
}

// takeSlot waits for a free connection.
func (r *run) takeSlot(ctx context.Context) error {
	select {
	case r.slots <- struct{}{}:
		return nil
	default:
	}
	r.stats.full++ // of the dispatcher alone until the end
	select {
	case r.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// firstSender is the next one that never tried. A relay sends when its last
// report is due.
func (r *run) firstSender() (sender, bool) {
	if r.next == len(r.due) {
		return sender{}, false
	}
	to := min(r.next+max(r.opts.Bulk, 1), len(r.due))
	return sender{from: int32(r.next), to: int32(to), due: r.due[to-1]}, true
}

// peek returns whoever is due next; idle says that nothing is under way.
func (r *run) peek() (s sender, found, idle bool) {
	first, more := r.firstSender()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.retries) > 0 && (!more || r.retries[0].due < first.due) {
		return r.retries[0], true, false
	}
	return first, more, r.underWay == 0
}

// pop takes whoever is due next, which may be an earlier one than peek saw.
func (r *run) pop() sender {
	first, more := r.firstSender()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.underWay++
	if len(r.retries) > 0 && (!more || r.retries[0].due < first.due) {
		return heap.Pop(&r.retries).(sender)
	}
	r.next = int(first.to)
	return first
}

// try makes one try of a sender and decides what follows. An acknowledgement
// that cannot be written down stops the run.
func (r *run) try(ctx context.Context, s sender, stop context.CancelCauseFunc) {
	lag := r.now() - s.due
	intended := r.due[s.to-1]
	s.tries++
	var longest time.Duration // of what the answers ask to wait
	again := false
	settle := func(i int, a answer) {
		if r.settle(i, int(s.tries), r.now()-intended, a) {
			again = true
			longest = max(longest, a.retryAfter)
		}
	}
	var err error
	if r.opts.Bulk > 0 {
		err = r.tryMany(ctx, int(s.from), int(s.to), settle)
	} else {
		var a answer
		if a, err = r.tryOne(ctx, int(s.from)); err == nil {
			settle(int(s.from), a)
		}
	}
	if err != nil {
		stop(err)
	}
	s.due = r.now() + r.pause(int(s.tries), longest)
	again = again && r.opts.Retry && s.due <= r.opts.Over+r.opts.Grace
	r.mu.Lock()
	r.stats.lag.Record(lag)
	r.stats.tries++
	if s.tries > 1 {
		r.stats.retries++
	}
	r.underWay--
	if again {
		heap.Push(&r.retries, s)
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// pause is how long a phone waits before its next try: a random part of an
// exponential back-off, so that phones refused together do not return together.
// What the server asks for comes first and the random part, at most a quarter
// of it, on top.
func (r *run) pause(tries int, asked time.Duration) time.Duration {
	limit := r.opts.BackoffCap
	if shift := tries - 1; shift < 20 {
		limit = min(limit, r.opts.BackoffBase<<shift)
	}
	if asked > 0 {
		return asked + randv2.N(min(asked/4, limit)+1)
	}
	return randv2.N(limit + 1)
}

// settle writes down what a try meant for phone i, late after its intended
// moment, and says whether it wants another.
func (r *run) settle(i, tries int, late time.Duration, a answer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := &r.stats
	st.answers[a.what]++
	if a.result == resultUnknown {
		r.doubtful[i] = true
	}
	r.states[i] = a.result
	if tries == 1 && a.status != 0 {
		st.first.Record(late)
	}
	switch a.result {
	case resultAcked:
		st.acked.Record(late)
		st.lastAck = r.now()
	case resultRefused:
		st.refused.Record(a.took)
	case resultFailed:
		st.failedBy[a.what]++
	default: // counted as an answer is all
	}
	return a.result.again()
}

// settled says whether phone i needs no further try.
func (r *run) settled(i int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.states[i] == resultAcked || r.states[i] == resultFailed
}

// senderHeap orders senders by their time.
type senderHeap []sender

func (h senderHeap) Len() int           { return len(h) }
func (h senderHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h senderHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *senderHeap) Push(x any) { *h = append(*h, x.(sender)) }

// Pop implements heap.Interface.
func (h *senderHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
