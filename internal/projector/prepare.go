package projector

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/registry"
)

// Reasons for which a projector stops; test with errors.Is.
var (
	// ErrNewer: a fact of a kind or version that this binary does not know.
	ErrNewer = errors.New("this journal was written by a newer tidegate: install that version; nothing of this frame was applied")
	// ErrDamaged: a frame that does not fit its hashes, its run or the journal.
	ErrDamaged = errors.New("the journal is damaged or was tampered with here: run `tidegate verify`; nothing of this frame was applied")
	// errPanic: a fault of this program.
	errPanic = errors.New("a rule panicked: this is a fault in tidegate, please report it; nothing of this frame was applied")
	// ErrRules: no rule set, or one that this binary does not have.
	ErrRules = errors.New("facts cannot be judged without the journal's rule set; nothing of this frame was applied")
)

// StopError says where and why a projector stopped. It holds no content.
type StopError struct {
	Shard    uint32
	Position journal.Position
	Index    int    // the fact in its frame, or -1 for the frame as a whole
	Kind     string // of the fact, "" where it does not matter
	Reason   string
	Err      error // ErrNewer, ErrDamaged or ErrRules
}

// Error names the place.
func (e *StopError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "projector stopped at shard %d, position %d", e.Shard, e.Position)
	if e.Index >= 0 {
		fmt.Fprintf(&b, ", fact %d", e.Index)
	}
	if e.Kind != "" {
		fmt.Fprintf(&b, " (%s)", e.Kind)
	}
	fmt.Fprintf(&b, ": %s: %v", e.Reason, e.Err)
	return b.String()
}

// Unwrap gives the reason's kind.
func (e *StopError) Unwrap() error { return e.Err }

// frame is a checked and decoded frame: all that can be known without the
// tables, so that it can be made beside the transaction before it.
type frame struct {
	position journal.Position
	header   journal.Header
	hash     epro.Digest
	facts    []fact
	reports  int // how many of the facts
}

// fact is a decoded fact.
type fact struct {
	epro.Fact
	report   epro.Report // of a report, when readable
	readable bool
	body     any                 // of a command, when there are no problems
	problems []epro.FieldProblem // of a command
}

// prepare checks the bytes of a frame against their hashes and decodes its
// facts. An error is a [*StopError].
func prepare(shard uint32, rec journal.Record) (_ *frame, err error) {
	stop := func(index int, kind, reason string, err error) error {
		return &StopError{Shard: shard, Position: rec.Position, Index: index, Kind: kind, Reason: reason, Err: err}
	}
	defer func() {
		if r := recover(); r != nil { // never its value: it may hold content
			err = stop(-1, "", fmt.Sprintf("%T", r), errPanic)
		}
	}()
	f, err := journal.DecodeFrame(rec.Bytes)
	if err != nil {
		return nil, stop(-1, "", err.Error(), ErrDamaged)
	}
	if f.Header.Shard != shard {
		return nil, stop(-1, "", fmt.Sprintf("the frame belongs to shard %d", f.Header.Shard), ErrDamaged)
	}
	if faults := f.Check(); len(faults) > 0 {
		return nil, stop(faults[0].Index, "", faults[0].Reason, ErrDamaged)
	}
	out := &frame{position: rec.Position, header: f.Header, hash: f.Header.Hash(), facts: make([]fact, len(f.Entries))}
	for i := range f.Entries {
		p := &out.facts[i]
		if p.Fact, err = f.Entries[i].Fact(); err != nil {
			return nil, stop(i, "", err.Error(), ErrDamaged)
		}
		switch {
		case !p.Kind.Known():
			return nil, stop(i, p.Kind.String(), "the kind is unknown", ErrNewer)
		case p.Kind == epro.KindReport:
			out.reports++
			if !p.Erased {
				p.report, p.readable = readReport(&p.Fact)
			}
		case p.Erased:
			return nil, stop(i, p.Kind.String(), "the body of a fact that is no report is gone: only words of reports are ever erased", ErrDamaged)
		default:
			p.body, p.problems = readCommand(&p.Fact)
		}
	}
	return out, nil
}

// readReport decodes the body of a report. What cannot be read, or says
// something else than its envelope, is not readable: the report will be
// quarantined, its neighbours are not hurt.
//
// A panic counts as unreadable. Parsing is a function of the bytes alone, so
// it would panic at every reading and a rebuild comes to the same tables. This
// holds for parsing only: a panic where the tables are at hand goes up, rolls
// the transaction back and stops the projector.
func readReport(f *epro.Fact) (r epro.Report, readable bool) {
	defer func() {
		if recover() != nil {
			r, readable = epro.Report{}, false
		}
	}()
	r, problems := parseReport(f.Body)
	if problems != nil || r.TrialID != f.Trial || r.PatientID != f.Subject || r.ID() != f.ID {
		return epro.Report{}, false
	}
	return r, true
}

// parseReport is replaced by the test of panics.
var parseReport = epro.ParseReport

// readCommand decodes the body of any other fact. It must be canonical, and
// about what the envelope says.
func readCommand(f *epro.Fact) (any, []epro.FieldProblem) {
	body, problems := registry.Decode(f.Kind, f.Body)
	if problems != nil {
		return nil, problems
	}
	bad := func(problem string) (any, []epro.FieldProblem) {
		return nil, []epro.FieldProblem{{Field: "body", Problem: problem}}
	}
	canonical, err := registry.Body(body)
	if err != nil || !bytes.Equal(canonical, f.Body) {
		return bad("is not canonical JSON")
	}
	if trial, subject := registry.About(body); trial != f.Trial || subject != f.Subject {
		return bad("names another trial or participant than the envelope")
	}
	return body, nil
}
