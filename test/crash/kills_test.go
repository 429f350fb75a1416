package crash_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

// killsPerFolder bounds how large a folder grows, so that many kills stay quick
// to audit and each new folder's first frames are killed too.
const killsPerFolder = 20

// TestKills kills a real server under load at random moments, and at times
// while it starts or while the tables are made again, and audits after each.
func TestKills(t *testing.T) {
	kills := 6
	if long() {
		kills = 200
	}
	kills = number(t, "TIDEGATE_KILLS", kills)
	r := random(t)
	began := time.Now()
	var acked, lines uint64
	how := map[string]int{}
	for done := 0; done < kills && !t.Failed(); {
		n := min(killsPerFolder, kills-done)
		w := newWorld(t, "")
		w.crowd.start(16)
		for k := range n {
			moment, what := w.killSomewhere(r)
			a := w.judge(k%5 == 0 || kills <= killsPerFolder)
			w.clean(a)
			how[what]++
			t.Logf("kill %d of %d (seed %d), %s after %s: %s", done+k+1, kills, r.seed, what, moment.Round(time.Millisecond), a)
			if t.Failed() {
				t.Fatalf("failed after kill %d; the folder was %s", done+k+1, w.data)
			}
		}
		a := w.end()
		acked += uint64(w.crowd.acked.Load())
		lines += a.Acks.Lines
		t.Logf("every phone is acknowledged: %s; %s", w.crowd, a)
		done += n
	}
	t.Logf("kills %d %v, reports acknowledged %d (%d receipts checked), lost 0, altered 0, doubled 0, in %s",
		kills, how, acked, lines, time.Since(began).Round(time.Second))
}

// killSomewhere runs what may run on the folder and kills it at a random moment.
func (w *world) killSomewhere(r choices) (moment time.Duration, what string) {
	w.t.Helper()
	switch r.IntN(8) {
	case 0:
		// Ready takes some 100 ms here, most of them for recovery.
		moment = between(r, 0, 200*time.Millisecond)
		s := server.Launch(w.t, w.options())
		time.Sleep(moment)
		s.Kill()
		return moment, "while starting"
	case 1:
		moment = between(r, 0, 300*time.Millisecond)
		cmd := exec.Command(w.binary, "rebuild", "--data", w.data)
		cmd.Env = server.Environ()
		if err := cmd.Start(); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(moment)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return moment, "while rebuilding"
	}
	moment = between(r, time.Millisecond, 400*time.Millisecond)
	s := w.start()
	time.Sleep(moment)
	w.kill(s)
	return moment, "under load"
}

// TestKillsAtTheFirstStart kills the very first start on an empty folder, when
// keys, databases and the demo registry are being made: what is left must be a
// folder that the next start can finish.
func TestKillsAtTheFirstStart(t *testing.T) {
	kills := 4
	if long() {
		kills = 40
	}
	r := random(t)
	binary := server.Binary(t, "")
	left := map[int]int{} // by how many files and folders the last kill left
	for k := range kills {
		data := filepath.Join(t.TempDir(), "data")
		var moments []time.Duration
		for range 1 + r.IntN(3) {
			early := r.Float64() // most of what is made is made in the first tenth
			moment := time.Duration(early * early * float64(150*time.Millisecond))
			moments = append(moments, moment)
			s := server.Launch(t, server.Options{Data: data, Participants: 200})
			time.Sleep(moment)
			s.Kill()
		}
		had, _ := os.ReadDir(data)
		left[len(had)]++
		s := server.Launch(t, server.Options{Data: data, Participants: 200})
		if err := s.Ready(0); err != nil {
			t.Fatalf("first start %d, killed after %v, left %v: %v\n%s", k, moments, had, err, s.Output())
		}
		token := s.Token("P-000200", "T002")
		code, answer := s.Post("/v1/patient/report", token, `{"patientId":"P-000200","trialId":"T002","timestamp":"2026-01-02T03:04:05Z","qolScore":0}`)
		if code != 200 {
			t.Fatalf("first start %d, killed after %v: report: %d %s", k, moments, code, answer)
		}
		eventually(t, 20*time.Second, "the report of the last participant is recorded", func() bool {
			out := server.Must(t, binary, "verify", "--data", data, "--no-rebuild")
			_, n, ok := cutLine(out, "recorded ")
			return ok && n == "1"
		})
		if s.Stop(); s.ExitCode() != 0 {
			t.Errorf("stop: %v\n%s", s.Err(), s.Output())
		}
		server.Must(t, binary, "verify", "--data", data)
	}
	t.Logf("first starts %d, each killed one to three times; files left by the last kill, and how often: %v", kills, left)
}
