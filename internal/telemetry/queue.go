package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Stats count spans. They may be registered with Prometheus.
type Stats struct {
	Sent     atomic.Uint64 // taken by the collector
	Overflow atomic.Uint64 // dropped because too many waited
	Refused  atomic.Uint64 // dropped because the collector did not take them, or was not asked so soon after
}

var (
	sentDesc    = prometheus.NewDesc("tidegate_tracing_spans_sent_total", "Spans the collector has taken.", nil, nil)
	droppedDesc = prometheus.NewDesc("tidegate_tracing_spans_dropped_total", "Spans that were dropped, by reason.", []string{"reason"}, nil)
)

// Describe implements prometheus.Collector.
func (s *Stats) Describe(ch chan<- *prometheus.Desc) {
	ch <- sentDesc
	ch <- droppedDesc
}

// Collect implements prometheus.Collector.
func (s *Stats) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(sentDesc, s.Sent.Load())
	counter(droppedDesc, s.Overflow.Load(), "queue-full")
	counter(droppedDesc, s.Refused.Load(), "collector")
}

// queue hands ended spans to the exporter, from a goroutine of its own. The
// SDK's own batch processor does nearly the same; it does not say what it drops
// and reads its bounds from the environment.
type queue struct {
	exporter sdktrace.SpanExporter
	stats    *Stats
	log      *slog.Logger

	spans chan sdktrace.ReadOnlySpan
	flush chan chan struct{}
	stop  chan struct{}
	once  sync.Once
	done  chan struct{}
	ctx   context.Context // of exports; ends when a shutdown gives up
	abort context.CancelFunc

	// Owned by run.
	failing    bool
	notBefore  time.Time
	lostBefore uint64 // what was lost when it was last said

	mu   sync.Mutex
	told time.Time // when a failure was last logged
}

func newQueue(exporter sdktrace.SpanExporter, stats *Stats, log *slog.Logger) *queue {
	q := &queue{
		exporter: exporter, stats: stats, log: log,
		spans: make(chan sdktrace.ReadOnlySpan, queueSpans), flush: make(chan chan struct{}), stop: make(chan struct{}), done: make(chan struct{}),
	}
	q.ctx, q.abort = context.WithCancel(context.Background())
	go q.run()
	return q
}

// OnStart implements sdktrace.SpanProcessor.
func (*queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor. It never waits.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	select {
	case q.spans <- s:
	default:
		q.stats.Overflow.Add(1)
	}
}

// run ends when stop is closed and the queue is empty.
func (q *queue) run() {
	defer close(q.done)
	tick := time.NewTicker(batchEvery)
	defer tick.Stop()
	batch := make([]sdktrace.ReadOnlySpan, 0, batchSpans)
	send := func() {
		if len(batch) > 0 {
			q.export(batch)
			clear(batch) // the spans are not held any longer
			batch = batch[:0]
		}
	}
	drain := func() {
		for {
			select {
			case s := <-q.spans:
				if batch = append(batch, s); len(batch) == cap(batch) {
					send()
				}
			default:
				send()
				return
			}
		}
	}
	for {
		select {
		case s := <-q.spans:
			if batch = append(batch, s); len(batch) == cap(batch) {
				send()
			}
		case <-tick.C:
			send()
		case flushed := <-q.flush:
			drain()
			close(flushed)
		case <-q.stop:
			drain()
			return
		}
	}
}

// export sends a batch, or drops it: soon after a failure without trying, so
// that a dead collector costs a time-out now and then and not for each batch.
func (q *queue) export(batch []sdktrace.ReadOnlySpan) {
	now := time.Now()
	if now.Before(q.notBefore) {
		q.stats.Refused.Add(uint64(len(batch)))
		return
	}
	ctx, cancel := context.WithTimeout(q.ctx, exportTimeout)
	defer cancel()
	err := q.exporter.ExportSpans(ctx, batch)
	if err == nil {
		q.stats.Sent.Add(uint64(len(batch)))
		if q.failing {
			q.failing = false
			q.log.Info("the collector takes traces again", "lost", q.lost()-q.lostBefore)
		}
		return
	}
	q.stats.Refused.Add(uint64(len(batch)))
	q.notBefore = time.Now().Add(pauseAfter)
	if !q.failing {
		q.failing = true
		q.lostBefore = q.lost() - uint64(len(batch))
	}
	if q.mayTell() {
		q.log.Warn("the collector does not take traces: they are dropped, nothing else is hurt", "error", err)
	}
}

func (q *queue) lost() uint64 { return q.stats.Overflow.Load() + q.stats.Refused.Load() }

// mayTell says whether a failure may be logged: not when one was not long ago. A
// collector that comes and goes must not fill the log.
func (q *queue) mayTell() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if !q.told.IsZero() && now.Sub(q.told) < tellEvery {
		return false
	}
	q.told = now
	return true
}

// sdkError takes what OpenTelemetry itself has to say.
func (q *queue) sdkError(err error) {
	if q.mayTell() {
		q.log.Warn("a span could not be handled", "error", err)
	}
}

// ForceFlush implements sdktrace.SpanProcessor.
func (q *queue) ForceFlush(ctx context.Context) error {
	flushed := make(chan struct{})
	select {
	case q.flush <- flushed:
	case <-q.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Shutdown implements sdktrace.SpanProcessor. When ctx ends first, what is left
// is dropped; the goroutine has ended either way.
func (q *queue) Shutdown(ctx context.Context) error {
	q.once.Do(func() { close(q.stop) })
	var err error
	select {
	case <-q.done:
	case <-ctx.Done():
		err = errors.New("tracing: the last traces could not be sent in time")
	}
	q.abort()
	<-q.done
	// By now there is nothing to wait for.
	return errors.Join(err, q.exporter.Shutdown(context.WithoutCancel(ctx)))
}
