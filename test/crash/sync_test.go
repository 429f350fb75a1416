package crash_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

// TestKilledInSync kills the process when it asks for a sync: the frame is
// written and not yet durable, and nobody may have been answered.
func TestKilledInSync(t *testing.T) {
	onlyLong(t)
	r := random(t)
	w := newWorld(t, "")
	w.crowd.start(24)
	began := time.Now()
	const kills = 20
	for k := range kills {
		s := w.start()
		time.Sleep(between(r, 0, 200*time.Millisecond))
		nth := 1 + r.IntN(12)
		detach := tamper(t, s.Process.Pid, fmt.Sprintf("signal=SIGKILL:when=%d", nth))
		w.endsKilled(fmt.Sprintf("sync %d of a thread", nth), s)
		w.crowd.at("")
		detach()
		a := w.judge(k%4 == 0)
		w.clean(a)
		t.Logf("kill %d of %d, in sync %d of a thread: %s", k+1, kills, nth, a)
		if t.Failed() {
			t.FailNow()
		}
	}
	a := w.end()
	t.Logf("kills in a sync %d, %s; lost %d, in %s", kills, w.crowd, a.Lost, time.Since(began).Round(time.Second))
}

// journalState is what /status says of the journal.
func journalState(s *server.Server) (ok bool, state string) {
	code, body := s.Status()
	var answer struct {
		Dependencies map[string]struct {
			OK    bool   `json:"ok"`
			State string `json:"state"`
		} `json:"dependencies"`
	}
	if code != http.StatusOK || json.Unmarshal([]byte(body), &answer) != nil {
		return false, "no status"
	}
	j := answer.Dependencies["journal"]
	return j.OK, j.State
}

// reads says whether a participant can still read its own reports.
func (w *world) reads(s *server.Server) {
	w.t.Helper()
	if code, body := s.Get("/v1/patient/reports?limit=1", w.phones[0].token); code != http.StatusOK {
		w.t.Errorf("reading own reports: %d %s", code, body)
	}
}

// TestSyncFails makes every sync fail with EIO for a while. As long as it does,
// no report may be acknowledged; status says so; screens go on; afterwards the
// server goes on by itself or was restarted, and the books balance.
func TestSyncFails(t *testing.T) {
	onlyLong(t)
	r := random(t)
	w := newWorld(t, "")
	w.crowd.start(48)
	began := time.Now()
	calls := 0
	const rounds = 5
	for round := range rounds {
		// Without a memory, every acknowledgement is of an append of its own.
		s := w.start("TIDEGATE_INTAKE_REMEMBER=0")
		time.Sleep(between(r, 50*time.Millisecond, 500*time.Millisecond))
		detach := tamper(t, s.Process.Pid, "error=EIO:when=1+")
		failing := time.Now()
		time.Sleep(200 * time.Millisecond) // answers that were given before are read by now
		before := w.crowd.acked.Load() + w.crowd.repeated.Load()
		eventually(t, 2*time.Second, "status says that the journal does not serve", func() bool {
			ok, _ := journalState(s)
			return !ok
		})
		_, state := journalState(s)
		told := time.Since(failing)
		w.reads(s)
		time.Sleep(between(r, 500*time.Millisecond, 2500*time.Millisecond))
		if after := w.crowd.acked.Load() + w.crowd.repeated.Load(); after != before {
			t.Errorf("%d reports were acknowledged while every sync failed", after-before)
		}
		detach()
		failed := injected(t) - calls
		if calls += failed; failed == 0 {
			t.Error("no sync failed: the round shows nothing")
		}
		how := "goes on by itself"
		select {
		case <-s.Ended():
			how = "had ended: " + s.Err().Error()
		default:
			from := time.Now()
			eventually(t, 15*time.Second, "reports are acknowledged again", func() bool { return w.crowd.acked.Load() > before+50 })
			how += " within " + time.Since(from).Round(10*time.Millisecond).String()
		}
		w.kill(s)
		a := w.judge(true)
		w.clean(a)
		t.Logf("round %d of %d: %d syncs failed, status %q after %s, then the server %s: %s", round+1, rounds, failed, state, told.Round(10*time.Millisecond), how, a)
		if t.Failed() {
			t.Fatalf("failed after round %d\n%s", round+1, tail(s.Output()))
		}
	}
	a := w.end()
	t.Logf("rounds with failing syncs %d, %s; lost %d, in %s", rounds, w.crowd, a.Lost, time.Since(began).Round(time.Second))
}

// TestSlowSync makes every sync 200 ms slower under more phones than fit: those
// that are taken are answered in bounded time, the others get a clean 503, and
// memory stays bounded.
func TestSlowSync(t *testing.T) {
	onlyLong(t)
	w := newWorld(t, "")
	s := w.start("TIDEGATE_INTAKE_MAXFACTS=64")
	detach := tamper(t, s.Process.Pid, "delay_exit=200000")
	w.crowd.start(400)
	time.Sleep(time.Second)
	w.crowd.forget()
	acked, refused := w.crowd.acked.Load(), w.crowd.refused.Load()
	began := time.Now()
	time.Sleep(10 * time.Second)
	acked, refused = w.crowd.acked.Load()-acked, w.crowd.refused.Load()-refused
	took := time.Since(began)
	p50, p99 := w.crowd.quantile(0.5), w.crowd.quantile(0.99)
	peak := kib(s.Process.Pid, "VmHWM")
	w.reads(s)
	detach()
	w.kill(s)
	a := w.judge(true)
	w.clean(a)
	t.Logf("syncs 200 ms slower, 400 phones, frames of 64: %.0f/s acknowledged with P50 %s P99 %s, %.0f/s refused, peak memory %d MiB; %s",
		float64(acked)/took.Seconds(), p50.Round(time.Millisecond), p99.Round(time.Millisecond), float64(refused)/took.Seconds(), peak>>10, a)
	if acked == 0 || refused == 0 {
		t.Errorf("acknowledged %d, refused %d: both were to happen", acked, refused)
	}
	// A report waits for the commit under way, its own, and at times a fold of
	// the -wal with two syncs more.
	if p99 > 2500*time.Millisecond {
		t.Errorf("P99 of those that were taken is %s", p99)
	}
	if peak > 400<<10 {
		t.Errorf("peak memory is %d MiB", peak>>10)
	}
	w.end()
}

// tail is the end of a log.
func tail(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
