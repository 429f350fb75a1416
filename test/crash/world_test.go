package crash_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/server"
)

// world is one data folder, its phones, and what it takes to judge it.
type world struct {
	t      testing.TB
	data   string
	acks   string // outside the data folder and any file system that a test takes down
	anchor string
	keys   string // answer of GET /v1/keys
	root   string
	binary string // the ordinary one, which audits
	phones []phone
	crowd  *crowd
}

// newWorld makes a folder with the demo registry and phones with tokens.
// in is where the folder lies; "" for a temporary one. seed are flags of
// `tidegate seed` in place of those for a small registry.
func newWorld(t testing.TB, in string, seed ...string) *world {
	t.Helper()
	outside := t.TempDir()
	if in == "" {
		in = outside
	}
	w := &world{
		t: t, data: filepath.Join(in, "data"), acks: filepath.Join(outside, "acks.ndjson"), anchor: filepath.Join(outside, "anchor"),
		keys: filepath.Join(outside, "keys.json"), binary: server.Binary(t, ""),
	}
	if len(seed) == 0 {
		seed = []string{"--participants", "20"}
	}
	server.Must(t, w.binary, append([]string{"seed", "--data", w.data}, seed...)...)
	w.readKeys()
	for i := 1; i <= 8; i++ {
		w.phones = append(w.phones, w.phone(fmt.Sprintf("P-%06d", i), "T001"))
	}
	for i := 2; i <= 8; i += 2 { // a second trial, which must get its share
		w.phones = append(w.phones, w.phone(fmt.Sprintf("P-%06d", i), "T002"))
	}
	w.crowd = newCrowd(t, w.acks, w.phones)
	return w
}

func (w *world) phone(patient, trial string) phone {
	w.t.Helper()
	return phone{patient, trial, strings.TrimSpace(server.Must(w.t, w.binary,
		"token", "participant", "--data", w.data, "--patient", patient, "--trial", trial, "--ttl", "24h"))}
}

func (w *world) readKeys() {
	w.t.Helper()
	text := server.Must(w.t, w.binary, "keys", "list", "--data", w.data, "--json")
	var keys struct{ Root struct{ Fingerprint string } }
	if err := json.Unmarshal([]byte(text), &keys); err != nil || keys.Root.Fingerprint == "" {
		w.t.Fatalf("keys list: %v\n%s", err, text)
	}
	w.root = keys.Root.Fingerprint
	if err := os.WriteFile(w.keys, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// options of a server on this folder; the phones send more than their bucket holds.
func (w *world) options(env ...string) server.Options {
	return server.Options{
		Data: w.data, Serve: true, Args: []string{"--anchor", w.anchor},
		Env: append([]string{"TIDEGATE_INTAKE_BURST=0"}, env...),
	}
}

// start starts the ordinary server on the folder and lets the phones at it.
func (w *world) start(env ...string) *server.Server {
	w.t.Helper()
	s := server.Start(w.t, w.options(env...))
	w.crowd.at(s.URL)
	return s
}

// kill ends a server as a crash does.
func (w *world) kill(s *server.Server) {
	s.Kill()
	w.crowd.at("")
}

// audit is a verdict, its exit code, and the text that it stood in.
type audit struct {
	server.Audit
	code int
	text string
}

// judge runs `tidegate verify --acks` and the second verifier, and fails the
// test if they disagree. rebuild compares the tables with a rebuild too.
func (w *world) judge(rebuild bool) audit {
	w.t.Helper()
	args := []string{"verify", "--data", w.data, "--acks", w.acks, "--anchor", w.anchor, "--json"}
	if !rebuild {
		args = append(args, "--no-rebuild")
	}
	out, errb, code := server.Run(w.t, w.binary, args...)
	a := audit{code: code, text: out + errb}
	// A note about tables or anchors may come before the JSON.
	if at := strings.Index(out, "{"); at < 0 || json.Unmarshal([]byte(out[at:]), &a) != nil {
		w.t.Fatalf("tidegate verify: exit %d\n%s%s", code, out, errb)
	}
	if a.OK != (code == 0) {
		w.t.Errorf("tidegate verify says ok %v and exits %d", a.OK, code)
	}
	w.agree(&a)
	return a
}

// agree asks the second verifier and compares.
func (w *world) agree(a *audit) {
	w.t.Helper()
	out, errb, code := server.Run(w.t, server.Verifier2(w.t), "--data", w.data, "--acks", w.acks, "--keys", w.keys, "--root", w.root)
	read := func(prefix, format string, into ...any) {
		w.t.Helper()
		_, rest, ok := cutLine(out, prefix)
		if _, err := fmt.Sscanf(rest, format, into...); !ok || err != nil {
			w.t.Fatalf("verify2: exit %d, no line %q: %v\n%s%s", code, prefix, err, out, errb)
		}
	}
	var frames, facts, lines, reports, erased, unproven, lost, altered, doubled uint64
	read("frames ", "%d facts %d", &frames, &facts)
	read("acknowledged ", "%d reports %d erased %d unproven %d", &lines, &reports, &erased, &unproven)
	read("lost ", "%d altered %d doubled %d", &lost, &altered, &doubled)
	if frames != a.Frames || facts != a.Facts || lines != a.Acks.Lines || unproven != a.Acks.Unproven ||
		lost != a.Lost || altered != a.Altered || doubled != a.Doubled || (code == 0) != a.OK {
		w.t.Errorf("the two verifiers disagree\n%s\n%s", a.text, out)
	}
	for _, trial := range a.Trials {
		var accepted, first, repeated, other uint64
		if !strings.Contains(out, "trial "+trial.Trial+" ") && trial.Accepted == 0 {
			continue // the tables have outlived its reports, and both verifiers say so
		}
		read("trial "+trial.Trial+" ", "accepted %d first %d repeated %d other %d", &accepted, &first, &repeated, &other)
		if accepted != trial.Accepted {
			w.t.Errorf("trial %s: the two verifiers disagree on accepted\n%s\n%s", trial.Trial, a.text, out)
		}
		// The second verifier has no tables; when nothing is pending its own count must be theirs.
		if a.TablesChecked && trial.Pending == 0 && trial.Quarantined == 0 &&
			(first != trial.Recorded || repeated != trial.Duplicates || other != trial.Conflicts) {
			w.t.Errorf("trial %s: the two verifiers disagree on the books\n%s\n%s", trial.Trial, a.text, out)
		}
	}
}

// clean wants an audit without a finding and with balanced books.
func (w *world) clean(a audit) {
	w.t.Helper()
	if !a.OK || a.Lost+a.Altered+a.Doubled+a.Acks.Unproven > 0 || a.Acks.Found != a.Acks.Lines {
		w.t.Errorf("not clean: %s\n%s", a, a.text)
	}
	if a.Accepted != a.Recorded+a.Duplicates+a.Conflicts+a.Quarantined+a.Pending {
		w.t.Errorf("the books do not balance: %s", a)
	}
	if a.Conflicts+a.Quarantined > 0 {
		w.t.Errorf("no phone changed a report and none is quarantined, but: %s", a)
	}
}

// end lets every phone finish on a last server, waits for the projector, stops
// the server, and wants each report counted exactly once.
func (w *world) end() audit {
	w.t.Helper()
	s := w.start()
	w.crowd.settle(30 * time.Second)
	eventually(w.t, 60*time.Second, "the projector has caught up", func() bool { return w.judge(false).Pending == 0 })
	if took := s.Stop(); s.ExitCode() != 0 || took > 10*time.Second {
		w.t.Errorf("the server stopped with %d after %s\n%s", s.ExitCode(), took, s.Output())
	}
	a := w.judge(true)
	w.clean(a)
	if offered := uint64(w.crowd.offered.Load()); a.Recorded != offered {
		w.t.Errorf("the phones made %d reports, recorded are %d: %s", offered, a.Recorded, a)
	}
	if lines := uint64(w.crowd.acked.Load() + w.crowd.repeated.Load()); a.Acks.Lines != lines {
		w.t.Errorf("the phones wrote %d acknowledgements, the audit read %d", lines, a.Acks.Lines)
	}
	w.crowd.noWrongAnswers()
	return a
}

// cutLine finds the line that begins with prefix.
func cutLine(text, prefix string) (before, rest string, ok bool) {
	for line := range strings.Lines(text) {
		if rest, ok = strings.CutPrefix(line, prefix); ok {
			return before, strings.TrimSpace(rest), true
		}
		before += line
	}
	return before, "", false
}
