package faults_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/cluster"
	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

// wavePhones is the wave of the issue. The product's load tool gives them tokens
// of scope submit only, as phones have after idle hours.
const wavePhones = "10000"

// wave is the load tool at work.
type wave struct {
	w    *world
	cmd  *exec.Cmd
	said bytes.Buffer
}

func (w *world) wave(over time.Duration) *wave {
	w.t.Helper()
	v := &wave{w: w}
	v.cmd = exec.Command(server.Binary(w.t, ""), "load", "--target", w.Named("gateway-1").URL(), "--data", w.Root(),
		"--phones", wavePhones, "--over", over.String(), "--retry", "--acks", w.Acks()) //nolint:gosec // a test's own command
	v.cmd.Env, v.cmd.Stdout, v.cmd.Stderr = server.Environ(), &v.said, &v.said
	w.must(v.cmd.Start())
	w.t.Cleanup(func() { _ = v.cmd.Process.Kill() })
	return v
}

// wait waits until every phone is acknowledged.
func (v *wave) wait() {
	v.w.t.Helper()
	if err := v.cmd.Wait(); err != nil {
		v.w.t.Errorf("load: %v", err)
	}
	v.w.t.Logf("the load tool says:\n%s", strings.TrimSpace(v.said.String()))
}

// recorded wants the wave in the journal and in the tables, each report once.
func (w *world) recorded() {
	w.t.Helper()
	w.settled()
	a := w.clean(true)
	if a.Recorded != 10_000 || a.Acks.Lines != 10_000 {
		w.t.Errorf("%s phones, recorded %d, acknowledged %d", wavePhones, a.Recorded, a.Acks.Lines)
	}
	w.must(w.StopAll())
	w.agree(a)
	w.t.Logf("%s phones: %s", wavePhones, a)
}

// TestWaveWithNothingButTheJournal sends the wave at a gateway that was started
// while tables, vault, Trial service, projector and etcd are away, and stay so
// for the whole wave. Then everything comes back, and all is recorded.
func TestWaveWithNothingButTheJournal(t *testing.T) {
	onlyLong(t)
	others := services.Postgres(t, services.PGOptions{})
	w := newWorld(t, services.Postgres(t, services.PGOptions{}), options{
		participants: 10_000, store: others.NewDatabase(t), vault: others.NewDatabase(t),
	})
	eventually(t, time.Minute, "the gateway has the directory", func() bool {
		s, err := w.Named("gateway-1").Status()
		return err == nil && s.Dependencies["directory"].OK
	})
	phone := w.phone("P-000002", "T002")
	trials := w.get("/v1/patient/trials", phone.Token)
	w.must(w.StopAll())
	w.etcd.Kill()
	others.Stop()

	w.again("gateway-1")
	v := w.wave(20 * time.Second)
	w.onlyTheJournal()
	// A patient still sees its trial: the gateway kept its copy of the directory.
	if now := w.get("/v1/patient/trials", phone.Token); !strings.Contains(now, `"T002"`) || !strings.Contains(trials, `"T002"`) {
		t.Errorf("the patient's trial before: %s\nand now: %s", trials, now)
	}
	v.wait()

	others.Start()
	w.etcd.Start()
	for _, role := range []string{cluster.Trial, cluster.Projector} {
		w.again(role + "-1")
	}
	w.recorded()
}

// onlyTheJournal wants the gateway to be ready and to say that all else is away.
func (w *world) onlyTheJournal() {
	w.t.Helper()
	var wrong string
	defer func() {
		if w.t.Failed() {
			w.t.Log(wrong)
		}
	}()
	eventually(w.t, 15*time.Second, "the gateway says that all but the journal is away", func() bool {
		s, err := w.Named("gateway-1").Status()
		w.must(err)
		if wrong = s.NotReady; !s.Ready {
			return false
		}
		for name, d := range s.Dependencies {
			if d.OK != (name == "journal") {
				wrong = fmt.Sprintf("%s is %q: %s", name, d.State, d.Note)
				return false
			}
		}
		return true
	})
}

// get reads a path at the first gateway.
func (w *world) get(path, token string) string {
	w.t.Helper()
	req, err := http.NewRequest(http.MethodGet, w.Named("gateway-1").URL()+path, nil)
	w.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	w.must(err)
	if resp.StatusCode != http.StatusOK {
		w.t.Errorf("GET %s: %d %s", path, resp.StatusCode, b)
	}
	return string(b)
}

// TestWaveThroughKills kills one gateway, one Trial service, the active
// projector and PostgreSQL once each during the wave; all come back.
func TestWaveThroughKills(t *testing.T) {
	onlyLong(t)
	pg := services.Postgres(t, services.PGOptions{})
	w := newWorld(t, pg, options{participants: 10_000, gateways: 2, trials: 2, projectors: 2})
	active := w.active().Name
	const over = 30 * time.Second
	v := w.wave(over)
	for _, name := range []string{active, "trial-1", "gateway-1"} {
		time.Sleep(over / 8)
		w.Named(name).Kill()
		time.Sleep(500 * time.Millisecond)
		w.again(name)
	}
	time.Sleep(over / 8)
	pg.Kill()
	time.Sleep(500 * time.Millisecond)
	pg.Start()
	v.wait()
	w.recorded()
}
