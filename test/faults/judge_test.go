package faults_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tidegate/tidegate/test/server"
)

// audit is a verdict, and the text that it stood in.
type audit struct {
	server.Audit
	text string
}

// where are the flags that lead an auditor to the journal.
func (w *world) where() []string {
	args := []string{"--data", w.Root(), "--config", w.ConfigFile()}
	if w.judged != "" {
		args = append(args, "--journal", w.judged)
	}
	return args
}

// judge runs `tidegate verify --acks` on PostgreSQL, beside whatever runs.
// rebuild compares the tables with a rebuild too.
func (w *world) judge(rebuild bool) (a audit) {
	w.t.Helper()
	args := append([]string{"verify", "--acks", w.Acks(), "--json"}, w.where()...)
	if !rebuild {
		args = append(args, "--no-rebuild")
	}
	out, err := w.Command(args...)
	// A note about tables or anchors may come before the JSON.
	if at := strings.Index(out, "{"); at < 0 || json.Unmarshal([]byte(out[at:]), &a) != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
	if a.OK != (err == nil) {
		w.t.Errorf("tidegate verify says ok %v and ends with %v", a.OK, err)
	}
	a.text = out
	return a
}

// clean judges, and wants no finding and balanced books.
func (w *world) clean(rebuild bool) audit {
	w.t.Helper()
	a := w.judge(rebuild)
	if !a.OK || a.Lost+a.Altered+a.Doubled+a.Acks.Unproven > 0 || a.Acks.Found != a.Acks.Lines || !a.TablesChecked {
		w.t.Errorf("not clean: %s\n%s", a, a.text)
	}
	if rebuild && (a.RebuildSame == nil || !*a.RebuildSame) {
		w.t.Errorf("the tables are not those of a rebuild: %s", a.text)
	}
	if a.Accepted != a.Recorded+a.Duplicates+a.Conflicts+a.Quarantined+a.Pending {
		w.t.Errorf("the books do not balance: %s", a)
	}
	if a.Conflicts+a.Quarantined > 0 {
		w.t.Errorf("no phone changed a report and none is quarantined, but: %s", a)
	}
	return a
}

// agree lets the second verifier read a copy of the journal, and compares.
func (w *world) agree(a audit) {
	w.t.Helper()
	copied := filepath.Join(w.t.TempDir(), "copy")
	_, err := w.Command(append([]string{"ship", "--once", "--to", copied}, w.where()...)...)
	w.must(err)
	keys, err := w.Operate("keys", "list", "--json")
	w.must(err)
	var list struct{ Root struct{ Fingerprint string } }
	w.must(json.Unmarshal([]byte(keys), &list))
	out, errs, code := server.Run(w.t, server.Verifier2(w.t), "--data", copied, "--acks", w.Acks(),
		"--keys", w.write("keys.json", keys), "--root", list.Root.Fingerprint)
	read := func(prefix, format string, into ...any) {
		w.t.Helper()
		for line := range strings.Lines(out) {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				if _, err := fmt.Sscanf(strings.TrimSpace(rest), format, into...); err == nil {
					return
				}
			}
		}
		w.t.Fatalf("verify2: exit %d, no line %q\n%s%s", code, prefix, out, errs)
	}
	var frames, facts, lines, reports, erased, unproven, lost, altered, doubled uint64
	read("frames ", "%d facts %d", &frames, &facts)
	read("acknowledged ", "%d reports %d erased %d unproven %d", &lines, &reports, &erased, &unproven)
	read("lost ", "%d altered %d doubled %d", &lost, &altered, &doubled)
	if frames != a.Frames || facts != a.Facts || lines != a.Acks.Lines || lost+altered+doubled+unproven != 0 || (code == 0) != a.OK {
		w.t.Errorf("the two verifiers disagree\n%s\n%s", a.text, out)
	}
	for _, trial := range a.Trials {
		var accepted, first, repeated, other uint64
		if !strings.Contains(out, "trial "+trial.Trial+" ") && trial.Accepted == 0 {
			continue
		}
		read("trial "+trial.Trial+" ", "accepted %d first %d repeated %d other %d", &accepted, &first, &repeated, &other)
		if accepted != trial.Accepted || first != trial.Recorded || repeated != trial.Duplicates || other != trial.Conflicts {
			w.t.Errorf("trial %s: the two verifiers disagree on the books\n%s\n%s", trial.Trial, a.text, out)
		}
	}
}
