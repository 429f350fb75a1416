package crash_test

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/fault"
	"github.com/tidegate/tidegate/test/server"
)

// faultpoints is the build tag of the binary that kills itself where told.
const faultpoints = "faultpoints"

// TestPoints kills the process at each named moment of a report's path.
// "After the write, before its sync" is a system call's moment: see
// TestKilledInSync.
func TestPoints(t *testing.T) {
	// The first frames are those of the start; the later ones are the phones'.
	moments := []struct {
		point string
		short []int
		long  []int
	}{
		{fault.BeforeAppend, []int{20}, []int{1, 2, 3, 10, 50, 200}},
		{fault.AfterAppend, []int{20}, []int{1, 2, 3, 10, 50, 200}},
		{fault.MidProjection, []int{10}, []int{1, 2, 5, 20, 100}},
		{fault.AfterProjection, []int{10}, []int{1, 2, 5, 20, 100}},
		{fault.StartRecovery, []int{1}, []int{1}},
		{fault.MidRebuild, []int{1}, []int{1}},
	}
	w := newWorld(t, "")
	w.crowd.start(24)
	began := time.Now()
	kills := 0
	for _, m := range moments {
		counts := m.short
		if long() {
			counts = m.long
		}
		for _, n := range counts {
			told := fmt.Sprintf("%s:%d", m.point, n)
			if m.point == fault.MidRebuild {
				w.killRebuildAt(told)
			} else {
				w.killServerAt(told)
			}
			kills++
			a := w.judge(true)
			w.clean(a)
			t.Logf("%s: %s", told, a)
			if t.Failed() {
				t.Fatalf("failed after %s", told)
			}
			// The ordinary binary goes on with what is left.
			s := w.start()
			time.Sleep(50 * time.Millisecond)
			w.kill(s)
		}
	}
	a := w.end()
	t.Logf("kills at points %d, %s; lost %d, in %s", kills, w.crowd, a.Lost, time.Since(began).Round(time.Second))
}

// killServerAt runs a server under load until it passes the point.
func (w *world) killServerAt(told string) {
	w.t.Helper()
	o := w.options("TIDEGATE_FAULT=" + told)
	o.Tags = faultpoints
	s := server.Launch(w.t, o)
	if s.Ready(0) == nil { // some points end it before
		w.crowd.at(s.URL)
	}
	w.endsKilled(told, s)
	w.crowd.at("")
}

// endsKilled waits for the process to be killed by its fault point.
func (w *world) endsKilled(told string, s *server.Server) {
	w.t.Helper()
	select {
	case <-s.Ended():
		if s.ExitCode() != -1 {
			w.t.Fatalf("%s: the process was to be killed, but: %v\n%s", told, s.Err(), s.Output())
		}
	case <-time.After(30 * time.Second):
		w.t.Fatalf("%s was not reached in 30 s\n%s", told, s.Output())
	}
}

// killRebuildAt runs a rebuild until it passes the point, which is the first
// time before the new tables take the old ones' place.
func (w *world) killRebuildAt(told string) {
	w.t.Helper()
	cmd := exec.Command(server.Binary(w.t, faultpoints), "rebuild", "--data", w.data)
	cmd.Env = append(server.Environ(), "TIDEGATE_FAULT="+told)
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != -1 {
		w.t.Fatalf("%s: the process was to be killed, but: %v\n%s", told, err, out)
	}
}

// TestAnswerBeforeAppendIsFoundOut is a control: a server that answers before
// the append loses reports when it is killed, and both verifiers must say so.
func TestAnswerBeforeAppendIsFoundOut(t *testing.T) {
	w := newWorld(t, "")
	w.crowd.start(24)
	for try := 1; try <= 10; try++ {
		w.killServerAt(fmt.Sprintf("%s,%s:%d", fault.AnswerFirst, fault.BeforeAppend, 10+try))
		if a := w.judge(true); a.Lost > 0 {
			if a.code != 1 {
				t.Errorf("reports are lost, and tidegate verify exits %d", a.code)
			}
			t.Logf("found out at kill %d, as it must be: %s", try, a)
			return
		}
	}
	t.Error("a server that answers before the append was killed ten times and no loss was found: the crash tests prove nothing")
}
