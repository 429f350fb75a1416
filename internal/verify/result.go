package verify

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/tidegate/tidegate/internal/journal"
)

// Bounds of what a Result keeps and prints; findings beyond are counted.
const (
	maxKept    = 10_000
	maxPrinted = 20
)

// Finding is one thing that is not as it must be, and its place. It never
// quotes content.
type Finding struct {
	Check    string           `json:"check"` // read, frame, chain, kind, meaning, tree, anchor, era, erased, books, tables, acks
	Shard    uint32           `json:"shard"`
	Position journal.Position `json:"position,omitempty"` // 0 when it has none
	Index    *int             `json:"index,omitempty"`    // the fact in the frame
	Run      string           `json:"run,omitempty"`
	N        *uint64          `json:"n,omitempty"`
	Line     int              `json:"line,omitempty"` // of the acks file
	Trial    string           `json:"trial,omitempty"`
	Text     string           `json:"text"` // a sentence
}

// String is the finding as a person reads it.
func (f *Finding) String() string {
	var at []string
	if f.Line != 0 {
		at = append(at, fmt.Sprintf("line %d of the acks", f.Line))
	}
	if f.Position != 0 {
		at = append(at, fmt.Sprintf("position %d", f.Position))
		if f.Shard != 0 {
			at[len(at)-1] = fmt.Sprintf("shard %d position %d", f.Shard, f.Position)
		}
	}
	if f.Run != "" {
		at = append(at, fmt.Sprintf("run %s n %d", f.Run, *f.N))
	}
	if f.Index != nil {
		at = append(at, fmt.Sprintf("fact %d", *f.Index))
	}
	if f.Trial != "" {
		at = append(at, "trial "+f.Trial)
	}
	if len(at) == 0 {
		return f.Text
	}
	return strings.Join(at, ", ") + ": " + f.Text
}

// Books are the counts of a trial. Accepted is every report fact in the journal.
type Books struct {
	Trial       string `json:"trial,omitempty"`
	Accepted    uint64 `json:"accepted"`
	Recorded    uint64 `json:"recorded"`
	Duplicates  uint64 `json:"duplicates"`
	Conflicts   uint64 `json:"conflicts"`
	Quarantined uint64 `json:"quarantined"`
	Pending     uint64 `json:"pending"` // above the tables' cursor: not yet judged
	Erased      uint64 `json:"erased"`  // reports whose words were destroyed; they count above too
}

func (b *Books) add(o *Books) {
	b.Accepted += o.Accepted
	b.Recorded += o.Recorded
	b.Duplicates += o.Duplicates
	b.Conflicts += o.Conflicts
	b.Quarantined += o.Quarantined
	b.Pending += o.Pending
	b.Erased += o.Erased
}

// Acks is what became of the acknowledgements in the file.
type Acks struct {
	Lines    uint64 `json:"lines"`
	Found    uint64 `json:"found"`    // in the journal, unaltered
	Erased   uint64 `json:"erased"`   // in the journal, the words destroyed by an erased fact
	Unproven uint64 `json:"unproven"` // the line or its receipt proves nothing
	CutLine  bool   `json:"cutLine"`  // the last line is cut: whoever wrote it was stopped
}

// Result is what an audit found.
type Result struct {
	Books                   // of all trials
	Trials        []Books   `json:"trials"`
	Frames        uint64    `json:"frames"`
	Facts         uint64    `json:"facts"`
	Runs          int       `json:"runs"`
	Eras          uint64    `json:"eras"`
	Lost          uint64    `json:"lost"`    // acknowledged, and not in the journal or in no table
	Altered       uint64    `json:"altered"` // acknowledged, and not as it was acknowledged
	Doubled       uint64    `json:"doubled"` // reports counted more than once
	Acks          *Acks     `json:"acks,omitempty"`
	TablesChecked bool      `json:"tablesChecked"` // there were tables to compare with
	RebuildSame   *bool     `json:"rebuildSame,omitempty"`
	AnchorsHeld   int       `json:"anchorsHeld"` // anchors that the journal still holds
	Findings      []Finding `json:"findings"`    // at most 10,000
	FindingCount  uint64    `json:"findingCount"`
	Notes         []string  `json:"notes"` // what a reader must know; no faults
}

// OK says that nothing was found.
func (r *Result) OK() bool { return r.FindingCount == 0 }

func (r *Result) find(f Finding) {
	r.FindingCount++
	if len(r.Findings) < maxKept {
		r.Findings = append(r.Findings, f)
	}
}

func (r *Result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// WriteJSON writes the result as one JSON object and a line end. Without
// acknowledgements nothing can be said to be lost or altered, so "lost" and
// "altered" are left out then: a 0 would claim what was not looked at.
func (r *Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	out := struct {
		OK bool `json:"ok"`
		*Result
		// These hide the fields of the same name in Result.
		Lost    *uint64 `json:"lost,omitempty"`
		Altered *uint64 `json:"altered,omitempty"`
	}{OK: r.OK(), Result: r}
	if r.Acks != nil {
		out.Lost, out.Altered = &r.Lost, &r.Altered
	}
	if err := e.Encode(out); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// WriteText writes the result for a person.
func (r *Result) WriteText(out io.Writer) error {
	w := bufio.NewWriter(out)
	line := func(name string, v any) { fmt.Fprintf(w, "%-12s %v\n", name, v) }
	fmt.Fprintf(w, "%d frames of %d runs, %d facts re-hashed\n\n", r.Frames, r.Runs, r.Facts)
	line("accepted", r.Accepted)
	if r.TablesChecked {
		line("recorded", r.Recorded)
		line("duplicates", r.Duplicates)
		line("conflicts", r.Conflicts)
		line("quarantined", r.Quarantined)
	}
	line("pending", r.Pending)
	line("erased", r.Erased)
	if r.Acks != nil {
		line("acks", r.Acks.Lines)
		line("lost", r.Lost)
		line("altered", r.Altered)
	} else {
		line("lost", "not asked: give --acks FILE")
		line("altered", "not asked: give --acks FILE")
	}
	if r.TablesChecked {
		line("doubled", r.Doubled)
	}
	if len(r.Trials) > 0 && r.TablesChecked {
		fmt.Fprintf(w, "\n%-16s %10s %10s %10s %10s %11s %9s %8s\n", "trial", "accepted", "recorded", "duplicates", "conflicts", "quarantined", "pending", "erased")
		for _, b := range r.Trials {
			fmt.Fprintf(w, "%-16s %10d %10d %10d %10d %11d %9d %8d\n", b.Trial, b.Accepted, b.Recorded, b.Duplicates, b.Conflicts, b.Quarantined, b.Pending, b.Erased)
		}
	}
	if len(r.Notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	fmt.Fprintln(w)
	for i := range r.Findings[:min(len(r.Findings), maxPrinted)] {
		fmt.Fprintf(w, "FINDING %s\n", r.Findings[i].String())
	}
	switch {
	case r.FindingCount > maxPrinted:
		fmt.Fprintf(w, "%d findings, the first %d are shown\n", r.FindingCount, maxPrinted)
	case r.FindingCount > 0:
		fmt.Fprintf(w, "%d findings\n", r.FindingCount)
	default:
		fmt.Fprintln(w, "no findings: "+r.verdict())
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// verdict says what the absence of findings means, and no more.
func (r *Result) verdict() string {
	said := []string{"every frame fits its hashes and its run"}
	if r.AnchorsHeld > 0 {
		said = append(said, "the journal holds what its anchors saw")
	}
	if r.TablesChecked {
		said = append(said, "the books balance")
	}
	if r.RebuildSame != nil {
		said = append(said, "the tables are those that the journal gives")
	}
	if r.Acks != nil {
		said = append(said, "every acknowledged report is there, unaltered, counted once")
	}
	return strings.Join(said, "; ")
}
