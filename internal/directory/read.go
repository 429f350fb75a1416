package directory

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// errBroken says that what lies between two versions cannot be known from the
// journal: a frame is missing, damaged, or another than before. Finding out why
// is the auditor's work; the tables still say what holds now.
var errBroken = errors.New("directory: the journal does not lead from one version to the other")

// Bounds of one reading of the journal, so that memory is bounded too.
const (
	readFrames = 64
	readBytes  = 4 << 20 // aimed at; a frame may be larger
)

type personID struct{ trial, patient string }

// touched is what some frames named, and how far they led.
type touched struct {
	version Version
	trials  map[string]bool
	sites   map[string]bool // trials whose sites are to be told
	people  map[personID]bool
}

// headerOf reads the header of a frame.
func headerOf(b []byte) (journal.Header, error) {
	const magic = 4
	if len(b) < magic+journal.HeaderBytes {
		return journal.Header{}, journal.ErrFrame
	}
	return journal.DecodeHeader(b[magic : magic+journal.HeaderBytes])
}

// read reads frames of a shard after a version, up to a position or until there
// were many, and says what they named. That the frame at the version itself is
// still the same shows that the journal was not exchanged.
func (f *Feed) read(ctx context.Context, shard uint32, from Version, to journal.Position) (*touched, error) {
	t := &touched{version: from, trials: map[string]bool{}, sites: map[string]bool{}, people: map[personID]bool{}}
	at, known := from.Position(shard), true
	if mark := from.mark(shard); mark != 0 {
		at, known = at-1, false
	}
	limit, total := 2, 0
	for {
		records, err := f.journal.Read(ctx, shard, at, limit)
		var gap *journal.GapError
		switch {
		case errors.As(err, &gap):
			return nil, fmt.Errorf("%w: %w", errBroken, err)
		case err != nil:
			return nil, fmt.Errorf("directory: read the journal: %w", err)
		case len(records) == 0:
			return nil, fmt.Errorf("%w: it ends at position %d, the tables are at %d", errBroken, at, to)
		}
		size := 0
		for _, rec := range records {
			at = rec.Position
			size += len(rec.Bytes)
			frame, err := journal.DecodeFrame(rec.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%w: position %d: %w", errBroken, at, err)
			}
			mark := markOf(frame.Header.Hash())
			if !known {
				if at != from.Position(shard) || mark != from.mark(shard) {
					return nil, fmt.Errorf("%w: position %d holds another frame than before, or none", errBroken, from.Position(shard))
				}
				known = true
				continue
			}
			if at > to {
				return nil, fmt.Errorf("%w: position %d is in the tables and not in the journal", errBroken, to)
			}
			if err := t.scan(&frame); err != nil {
				return nil, fmt.Errorf("%w: position %d, %w", errBroken, at, err)
			}
			t.version = t.version.with(shard, at, mark)
			if total += len(rec.Bytes); at == to || total >= readBytes || len(t.people) >= chunk {
				return t, nil
			}
		}
		limit = min(max(readBytes*len(records)/max(size, 1), 1), readFrames)
	}
}

// scan notes what the facts of a frame are about. Reports, by far the most of
// them, cost a comparison each.
func (t *touched) scan(frame *journal.Frame) error {
	for i := range frame.Entries {
		env := frame.Entries[i].Envelope
		if isReport(env) {
			continue
		}
		e, err := epro.DecodeEnvelope(env)
		if err != nil {
			return fmt.Errorf("fact %d: %w", i, err)
		}
		t.fact(&e)
	}
	return nil
}

// isReport looks at the kind's name alone, which stands behind one byte of
// version and two of flags (docs/format.md §2).
func isReport(envelope []byte) bool {
	const at = 3
	name := epro.KindReport.Name
	return len(envelope) > at+len(name) && int(envelope[at]) == len(name) && string(envelope[at+1:at+1+len(name)]) == name
}

// fact notes what a fact that is no report is about. A kind that this binary
// does not know may change anything it names.
func (t *touched) fact(e *epro.Envelope) {
	switch e.Kind {
	case epro.KindReportResolved, epro.KindErased, epro.KindStaffAdded, epro.KindStaffRoleGranted, epro.KindStaffRoleRevoked,
		epro.KindStaffRemoved, epro.KindKeyAdded, epro.KindKeyRetired, epro.KindRulesActivated, epro.KindEraOpened:
		return
	case epro.KindTrialStatusChanged, epro.KindInstrumentPublished, epro.KindTrialCreated:
	case epro.KindParticipantEnrolled, epro.KindParticipantWithdrew, epro.KindTokensRevoked:
		t.people[personID{e.Trial, e.Subject}] = true
		return
	case epro.KindSiteCreated:
		t.sites[e.Trial] = true
	default:
		t.sites[e.Trial] = true
		t.people[personID{e.Trial, e.Subject}] = true
	}
	t.trials[e.Trial] = true
}

// states reads what was touched as it is now. What is not there was named by a
// command that was rejected.
func (f *Feed) states(ctx context.Context, t *touched) ([]Change, error) {
	b := builder{version: t.version}
	for id := range t.trials {
		trial, err := f.store.Trial(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("directory: read a trial: %w", err)
		}
		b.open().Trials = append(b.open().Trials, trial)
	}
	for trial := range t.sites {
		err := each(ctx, func(ctx context.Context, p store.Page) ([]store.Site, string, error) {
			return f.store.Sites(ctx, trial, p)
		},
			func(list []store.Site) error {
				b.open().Sites = append(b.open().Sites, list...)
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	for id := range t.people {
		e, err := f.store.Participant(ctx, id.trial, id.patient)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("directory: read an enrolment: %w", err)
		}
		b.open().Enrollments = append(b.open().Enrollments, e)
	}
	if len(b.changes) == 0 {
		return nil, nil
	}
	if err := f.notBack(ctx, t.version); err != nil {
		return nil, err
	}
	b.changes[len(b.changes)-1].Done = true
	return b.changes, nil
}

// builder cuts states into changes.
type builder struct {
	version Version
	changes []Change
}

// open is the change that still has room.
func (b *builder) open() *Change {
	if n := len(b.changes); n == 0 || b.changes[n-1].size() >= chunk {
		b.changes = append(b.changes, Change{Version: b.version})
	}
	return &b.changes[len(b.changes)-1]
}
