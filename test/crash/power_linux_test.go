package crash_test

import (
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/fault"
	"github.com/tidegate/tidegate/test/server"
)

// TestPowerLoss cuts the power under the unmodified server: the file system
// that holds its folder is forced down and forgets whatever was not synced.
// Anchors and acks lie on another disk, so a journal that ends too early is
// seen by both.
func TestPowerLoss(t *testing.T) {
	onlyLong(t)
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			cuts := number(t, "TIDEGATE_CUTS", 12)
			r := random(t)
			d := newDisk(t, fs, 512)
			w := newWorld(t, d.dir)
			w.crowd.start(24)
			began := time.Now()
			for cut := range cuts {
				moment := between(r, 0, 800*time.Millisecond)
				s := w.start()
				time.Sleep(moment)
				w.powerCut(d, s)
				d.powerOn()
				a := w.judge(true)
				w.clean(a)
				t.Logf("cut %d of %d, after %s: %s", cut+1, cuts, moment.Round(time.Millisecond), a)
				if t.Failed() {
					t.Fatalf("failed after cut %d\n%s", cut+1, s.Output())
				}
			}
			a := w.end()
			t.Logf("power cuts on %s %d, %s; lost %d, in %s", fs, cuts, w.crowd, a.Lost, time.Since(began).Round(time.Second))
		})
	}
}

// powerCut takes away the network, the disk and the process, in this order.
func (w *world) powerCut(d *disk, s *server.Server) {
	w.t.Helper()
	w.crowd.cut()
	d.powerOff()
	w.kill(s)
}

// TestPowerLossWithoutSyncIsFoundOut is a control: with synchronous=OFF the same
// cuts must lose acknowledged reports, or TestPowerLoss proves nothing.
func TestPowerLossWithoutSyncIsFoundOut(t *testing.T) {
	onlyLong(t)
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			r := random(t)
			d := newDisk(t, fs, 512)
			w := newWorld(t, d.dir)
			w.anchor = "none" // with an anchor the next start refuses: the loss is found twice
			w.crowd.start(24)
			for cut := 1; cut <= 8; cut++ {
				o := w.options("TIDEGATE_FAULT=" + fault.SyncOff)
				o.Tags = faultpoints
				s := server.Start(t, o)
				w.crowd.at(s.URL)
				time.Sleep(between(r, 200*time.Millisecond, time.Second))
				w.powerCut(d, s)
				d.powerOn()
				if a := w.judge(true); a.Lost > 0 {
					if a.code != 1 {
						t.Errorf("reports are lost, and tidegate verify exits %d", a.code)
					}
					t.Logf("found out at cut %d, as it must be: %s", cut, a)
					return
				}
			}
			t.Error("synchronous=OFF lost nothing in eight power cuts: the power loss test proves nothing")
		})
	}
}
