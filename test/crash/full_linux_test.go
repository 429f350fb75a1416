package crash_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

// TestDiskFull fills the disk under a loaded server: below the floor everything
// is refused as surely not recorded, screens go on, and so do reports when there
// is room again, with no restart. Then the same without a floor, so that SQLite
// itself meets the full disk.
func TestDiskFull(t *testing.T) {
	onlyLong(t)
	for _, c := range []struct {
		name, floor string
		left        uint64 // bytes that the ballast leaves
	}{
		{"floor", "24", 8 << 20},
		{"to the last byte", "0", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDisk(t, "ext4", 400) // above the default floor when it is empty
			w := newWorld(t, d.dir)
			w.crowd.start(24)
			defer func() {
				if t.Failed() {
					t.Log(w.crowd)
				}
			}()
			s := w.start("TIDEGATE_INTAKE_DISKFLOORMB="+c.floor, "TIDEGATE_INTAKE_WAITLIMIT=4s", "TIDEGATE_INTAKE_REMEMBER=0")
			eventually(t, 10*time.Second, "reports are taken", func() bool { return w.crowd.acked.Load() > 200 })
			d.fill(c.left)
			filled := time.Now()
			// On a disk that is full to the last byte a commit may fail in a way that leaves
			// its outcome open: then the phones of that frame hear "unknown", and those
			// who come while it is repeated are refused.
			eventually(t, 60*time.Second, "reports are not taken for want of room", func() bool {
				return w.crowd.refused.Load() > 50 || (c.left == 0 && w.crowd.refused.Load()+w.crowd.unknown.Load() > 50)
			})
			told := time.Since(filled)
			time.Sleep(time.Second)
			ok, state := journalState(s)
			t.Logf("status after the disk was full: ok %v, %q", ok, state)
			unknown, noAnswer := w.crowd.unknown.Load(), w.crowd.noAnswer.Load()
			before := w.crowd.acked.Load() + w.crowd.repeated.Load()
			time.Sleep(time.Second)
			if after := w.crowd.acked.Load() + w.crowd.repeated.Load(); after != before {
				t.Errorf("%d reports were acknowledged on a full disk", after-before)
			}
			w.reads(s)
			if c.left > 0 {
				if w.crowd.unknown.Load() > 0 {
					t.Errorf("%d tries have an unknown outcome: the floor decides before anything is taken", unknown)
				}
				if ok {
					t.Error("status says that the journal serves, but every report is refused")
				}
			}
			d.empty()
			from := time.Now()
			eventually(t, 15*time.Second, "reports are taken again", func() bool { return w.crowd.acked.Load() > before+50 })
			t.Logf("refused %s after the disk was full, taken again %s after there was room; %s; no answer %d",
				told.Round(10*time.Millisecond), time.Since(from).Round(10*time.Millisecond), w.crowd, noAnswer)
			if t.Failed() {
				t.Log(tail(s.Output()))
			}
			w.kill(s)
			w.clean(w.judge(true))
			w.startOnAFullDisk(d)
			w.end()
		})
	}
}

// startOnAFullDisk wants a server that cannot start to say so in a sentence, or
// one that starts and refuses; and nothing harmed.
func (w *world) startOnAFullDisk(d *disk) {
	w.t.Helper()
	d.fill(0)
	s := server.Launch(w.t, w.options())
	if err := s.Ready(15 * time.Second); err == nil {
		w.reads(s)
		s.Kill()
	} else {
		s.Kill()
		lines := strings.Split(strings.TrimSpace(s.Output()), "\n")
		w.t.Logf("on a full disk: %s", lines[len(lines)-1])
		if strings.Contains(s.Output(), "goroutine ") {
			w.t.Errorf("a stack trace instead of a sentence:\n%s", s.Output())
		}
		if s.ExitCode() != 1 {
			w.t.Errorf("exit %d instead of 1\n%s", s.ExitCode(), s.Output())
		}
	}
	d.empty()
	w.clean(w.judge(true))
}
