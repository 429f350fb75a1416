package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
)

// audit is the walk over a whole journal and what it found. It keeps about
// 250 bytes for each report.
type audit struct {
	frames, facts int64
	end           int64 // last position
	trials        map[string]*books
	faults        faults

	headers map[hash]int64 // of every frame, to its position
	runs    map[[16]byte]*run
	reports map[hash][]version // by trial, participant and report id
	erased  map[hash]place     // leaves whose content is gone
	told    map[hash]bool      // leaves that an erased fact names
	tail    bool               // the log ends in something that is not a frame of it
}

type run struct {
	n    uint64
	hash hash
	time int64
}

type place struct {
	position int64
	index    int
}

// version is one fact that carries a report.
type version struct {
	place
	leaf    hash
	meaning hash // as the envelope has it: keyed
	content hash // of the canonical meaning as this program reads the body; zero when erased
	body    hash // of the body's bytes
	erased  bool
}

// books count a trial's report facts as the journal alone can: what the
// projector set aside it cannot know.
type books struct {
	accepted, first, repeated, other, erased int64
}

// faults keeps the first findings in words and counts the rest.
type faults struct {
	list  []string
	count int64
}

const faultsKept = 100

// kinds are those of docs/format.md §9, all of version 1.
var kinds = map[string]bool{
	"report": true, "trial.created": true, "trial.status-changed": true, "site.created": true, "participant.enrolled": true,
	"participant.withdrawn": true, "participant.tokens-revoked": true, "instrument.published": true, "report.resolved": true,
	"staff.added": true, "staff.role-granted": true, "staff.role-revoked": true, "staff.removed": true,
	"key.added": true, "key.retired": true, "rules.activated": true, "era.opened": true, "erased": true,
}

func (f *faults) add(format string, args ...any) {
	f.count++
	if len(f.list) < faultsKept {
		f.list = append(f.list, fmt.Sprintf(format, args...))
	}
}

// auditData walks journal.db in a data folder.
func auditData(dir string) (*audit, error) {
	s, err := openSQLite(filepath.Join(dir, "journal.db"))
	if err != nil {
		return nil, err
	}
	defer s.close()
	a := &audit{
		trials: map[string]*books{}, headers: map[hash]int64{}, runs: map[[16]byte]*run{},
		reports: map[hash][]version{}, erased: map[hash]place{}, told: map[hash]bool{},
	}
	for {
		rows, err := s.rows(a.end, 256, 8<<20)
		for _, r := range rows {
			a.frame(r)
		}
		if err != nil {
			// Rows behind the damage cannot be told apart from rows that were never there.
			a.faults.add("the file cannot be read behind frame %d: %v", a.end, err)
			break
		}
		if len(rows) == 0 {
			break
		}
	}
	a.tail = s.wal.torn
	for leaf, p := range a.erased {
		if !a.told[leaf] {
			a.faults.add("frame %d, fact %d: its content is gone, and no erased fact says so", p.position, p.index)
		}
	}
	for _, versions := range a.reports {
		if why := doubled(versions); why != "" {
			a.faults.add("a report would count twice: %s", why)
		}
	}
	return a, nil
}

func (a *audit) frame(r row) {
	if r.position != a.end+1 {
		a.faults.add("frames %d to %d are not there", a.end+1, r.position-1)
	}
	a.end = r.position
	a.frames++
	if r.err != nil {
		a.faults.add("frame %d: %v", r.position, r.err)
		return
	}
	h, facts, err := readFrame(r.frame)
	if err != nil {
		a.faults.add("frame %d: %v", r.position, err)
		return
	}
	for _, f := range check(h, facts) {
		a.faults.add("frame %d: %s", r.position, f)
	}
	a.chain(r.position, h)
	for i := range facts {
		a.facts++
		if facts[i].bad == nil {
			a.fact(place{r.position, i}, &facts[i])
		}
	}
}

// chain checks the frame's place in its run.
func (a *audit) chain(position int64, h header) {
	if h.shard != 0 {
		a.faults.add("frame %d: shard %d in a file that has shard 0 only", position, h.shard)
	}
	if first, ok := a.headers[h.hash]; ok {
		a.faults.add("frame %d: the same frame as %d", position, first)
		return
	}
	last := a.runs[h.run]
	switch {
	case last == nil && h.n != 0:
		a.faults.add("frame %d: begins its run with number %d", position, h.n)
	case last == nil && h.prev == hash{}: // it was, when the run's process looked
	case last == nil:
		if _, ok := a.headers[h.prev]; !ok {
			a.faults.add("frame %d: begins a run after a frame that is not in front of it", position)
		}
	case h.n != last.n+1:
		a.faults.add("frame %d: number %d of its run, must be %d", position, h.n, last.n+1)
	case h.prev != last.hash:
		a.faults.add("frame %d: does not follow its run's frame %d as it is", position, last.n)
	case h.time < last.time:
		a.faults.add("frame %d: is earlier than its run's frame before", position)
	}
	a.headers[h.hash] = position
	a.runs[h.run] = &run{h.n, h.hash, h.time}
}

func (a *audit) fact(at place, f *fact) {
	if f.erased {
		a.erased[f.leaf] = at
	}
	e := &f.decoded
	fault := func(text string) { a.faults.add("frame %d, fact %d: %s", at.position, at.index, text) }
	if !kinds[e.kind] || e.version != 1 {
		fault("a kind or version this verifier does not know: use a newer one")
		return
	}
	if e.kind != "report" {
		if !f.erased && sha256.Sum256(f.body) != e.meaning {
			fault("its meaning digest is not its body's")
		}
		if e.kind == "erased" && !f.erased {
			var body struct {
				Leaf string `json:"leaf"`
			}
			leaf, err := []byte(nil), json.Unmarshal(f.body, &body)
			if err == nil {
				leaf, err = hex.DecodeString(body.Leaf)
			}
			if err != nil || len(leaf) != len(hash{}) {
				fault("it names no leaf that was erased")
				return
			}
			a.told[hash(leaf)] = true
		}
		return
	}
	v := version{place: at, leaf: f.leaf, meaning: e.meaning, erased: f.erased}
	if !f.erased {
		v.body = sha256.Sum256(f.body)
		r, err := readReport(f.body)
		switch {
		case err != nil:
			fault(err.Error())
		case r.trial != e.trial || r.patient != e.subject:
			fault("its body names another trial or participant than its envelope")
		case r.id != e.id || r.derived != (e.flags&2 != 0):
			fault("its id is not the one its body has or gives")
		case r.at != e.occurred || r.offset != e.offset:
			fault("its device time is not its body's")
		}
		v.content = sha256.Sum256(r.meaning)
	}
	a.count(e, v)
}

// count keeps the books and looks for one report that would count twice.
func (a *audit) count(e *envelope, v version) {
	b := a.trials[e.trial]
	if b == nil {
		b = &books{}
		a.trials[e.trial] = b
	}
	b.accepted++
	if v.erased {
		b.erased++
	}
	k := reportKey(e.trial, e.subject, e.id)
	known := a.reports[k]
	same := false
	for _, o := range known {
		same = same || o.meaning == v.meaning
	}
	switch {
	case len(known) == 0:
		b.first++
	case same:
		b.repeated++
	default:
		b.other++
	}
	a.reports[k] = append(known, v)
}

// doubled says why a report would be counted more than once, "" when it would
// not: one content under two meanings, or one and the same fact in two places.
func doubled(versions []version) string {
	if len(versions) < 2 {
		return ""
	}
	leaves := make(map[hash]int64, len(versions))
	meanings, contents := map[hash]version{}, map[hash]version{}
	for _, v := range versions {
		if at, ok := leaves[v.leaf]; ok {
			return fmt.Sprintf("one fact lies in frame %d and in frame %d", at, v.position)
		}
		leaves[v.leaf] = v.position
		if v.erased {
			continue
		}
		if o, ok := contents[v.content]; ok && o.meaning != v.meaning {
			return fmt.Sprintf("frames %d and %d hold one content as if it were two", o.position, v.position)
		}
		if o, ok := meanings[v.meaning]; ok && o.content != v.content {
			return fmt.Sprintf("frames %d and %d hold two contents as if they were one", o.position, v.position)
		}
		contents[v.content], meanings[v.meaning] = v, v
	}
	return ""
}

func reportKey(trial, patient string, id [16]byte) hash {
	b := appendSized(nil, []byte(trial))
	b = appendSized(b, []byte(patient))
	return sha256.Sum256(append(b, id[:]...))
}
