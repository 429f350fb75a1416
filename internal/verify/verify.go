// Package verify is the auditor: it reads the whole journal again, re-hashes
// every frame, and compares what it finds with everything that others hold
// about it: the tables, the anchors, and the receipts that phones were given.
//
// It trusts nothing but the certified keys. It changes nothing, and it may run
// beside a server that goes on: what it judges is the journal up to the end it
// had when the audit began.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
)

// Tables are what the auditor asks of a store; every [store.Store] is one.
type Tables interface {
	store.Reader
	TreeHashes(ctx context.Context, shard uint32, indexes []int64) ([]epro.Digest, error)
	TrialBooks(ctx context.Context) ([]store.Books, error)
	Dump(ctx context.Context, w io.Writer) error
}

// Rebuild projects the journal into an empty temporary store, each shard up to
// and with the given position, and returns the hash of its tables.
type Rebuild func(ctx context.Context, upTo map[uint32]journal.Position, progress func(done, total uint64)) (epro.Digest, error)

// Anchor is a signed checkpoint, and the name of where it was kept.
type Anchor struct {
	Name   string
	Signed []byte
}

// Progress is how far a stage of the audit is.
type Progress struct {
	Stage       string // "acks", "journal", "tables", "rebuild"
	Done, Total uint64 // Total is 0 when it is not known
}

// Input is what there is to audit. Only the journal is needed; what is absent
// is not checked, and the result says so.
type Input struct {
	Journal journal.Journal
	Tables  Tables  // nil: books and dispositions are not checked
	Rebuild Rebuild // nil: the tables are not compared with a rebuild
	Keys    *receipt.KeySet
	// MeaningKey gives a trial's meaning key; nil: the meaning digests of reports
	// are not recomputed.
	MeaningKey func(trial string) epro.MeaningKey
	Anchors    []Anchor
	Acks       io.Reader // nil: no acknowledgements to look for; see [Ack]
	AcksBytes  uint64    // length of Acks for the progress, 0 if not known
	Progress   func(Progress)
}

// damaged is a journal that was opened although it had to be refused.
type damaged interface{ Damage() error }

// Run audits. An error means that the audit could not be done; what is wrong
// with the data is in the result. Memory: about 110 bytes for each
// acknowledgement, 24 bytes for each report when there are tables, 50 bytes for
// each frame.
func Run(ctx context.Context, in Input) (*Result, error) {
	if in.Keys == nil && (in.Acks != nil || len(in.Anchors) > 0) {
		return nil, errors.New("verify: receipts and anchors need the certified keys to be checked against")
	}
	a := &audit{in: in, res: &Result{Findings: []Finding{}, Notes: []string{}, Trials: []Books{}}, trials: map[string]*Books{}}
	if a.in.Progress == nil {
		a.in.Progress = func(Progress) {}
	}
	// The order matters beside a live server: what was acknowledged before the
	// end was looked up is below it, and so is what the tables have applied.
	if in.Acks != nil {
		if err := a.readAcks(ctx); err != nil {
			return nil, err
		}
	}
	if j, ok := in.Journal.(damaged); ok && j.Damage() != nil {
		a.general("read", "%v", j.Damage())
	}
	shards := in.Journal.Properties().Shards
	if in.Tables != nil {
		if err := a.openBooks(ctx, shards); err != nil {
			return nil, err
		}
		defer a.books.close()
	}
	a.openAnchors()
	for shard := range shards {
		if err := a.walk(ctx, shard); err != nil {
			return nil, err
		}
	}
	if err := a.closeErased(ctx); err != nil {
		return nil, err
	}
	a.closeAnchors()
	if in.Tables != nil {
		if err := a.closeBooks(ctx); err != nil {
			return nil, err
		}
	}
	a.closeAcks()
	a.total()
	if in.Tables != nil && in.Rebuild != nil {
		if err := a.compareRebuild(ctx); err != nil {
			return nil, err
		}
	}
	return a.res, nil
}

// audit is the state of one Run.
type audit struct {
	in     Input
	res    *Result
	trials map[string]*Books

	books    *ledger
	acks     *ackIndex
	anchors  []*anchorCheck
	eras     map[string]uint64 // anchor digests that era.opened facts cite, to the era
	eraFacts map[epro.UUID]struct{}
	shards   map[uint32]uint64 // frames of each shard, for anchors
	ends     map[uint32]journal.Position

	erasedContent map[epro.Digest]place   // leaves whose content is gone
	erasedFacts   map[epro.Digest]erasure // leaves that erased facts name
}

// place is where a fact or a frame lies.
type place struct {
	shard    uint32
	position journal.Position
	index    int // -1 for the frame
	header   *journal.Header
}

func (p place) finding(check, format string, args ...any) Finding {
	f := Finding{Check: check, Shard: p.shard, Position: p.position, Text: fmt.Sprintf(format, args...)}
	if p.index >= 0 {
		f.Index = &p.index
	}
	if p.header != nil {
		n := p.header.N
		f.Run, f.N = p.header.Run.String(), &n
	}
	return f
}

func (a *audit) find(p place, check, format string, args ...any) {
	a.res.find(p.finding(check, format, args...))
}

// general is a finding that no frame is the place of.
func (a *audit) general(check, format string, args ...any) {
	a.res.find(Finding{Check: check, Text: fmt.Sprintf(format, args...)})
}

func (a *audit) trial(id string) *Books {
	b := a.trials[id]
	if b == nil {
		b = &Books{Trial: id}
		a.trials[id] = b
	}
	return b
}

func (a *audit) total() {
	for _, b := range a.trials {
		a.res.Trials = append(a.res.Trials, *b)
		a.res.Books.add(b)
	}
	slices.SortFunc(a.res.Trials, func(x, y Books) int { return strings.Compare(x.Trial, y.Trial) })
}

// erasure is an erased fact.
type erasure struct {
	place
	id epro.UUID
}

// closeErased compares what was erased with the facts that say so.
func (a *audit) closeErased(ctx context.Context) error {
	for leaf, p := range a.erasedContent {
		if _, ok := a.erasedFacts[leaf]; !ok {
			a.find(p, "erased", "salt and body are gone, and no erased fact says why")
		}
	}
	for leaf, e := range a.erasedFacts {
		if _, ok := a.erasedContent[leaf]; ok {
			continue
		}
		rejected, err := a.rejected(ctx, e.id)
		if err != nil {
			return err
		}
		if !rejected {
			a.find(e.place, "erased", "this erased fact names a fact (leaf %s) whose content is still there, or that is not in the journal", leaf)
		}
	}
	return nil
}

// rejected says whether the projector rejected a command, which then changed
// nothing. Without tables nobody knows.
func (a *audit) rejected(ctx context.Context, id epro.UUID) (bool, error) {
	if a.in.Tables == nil {
		return false, nil
	}
	o, err := a.in.Tables.Outcome(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, tablesError(err)
	}
	return !o.Applied, nil
}
