package verify

import (
	"context"
	"errors"
	"iter"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// listing is the stream of a trial's listed reports.
type listing struct {
	trial string
	next  func() (listed, error, bool)
	stop  func()
	head  listed
	has   bool
	begun bool
}

type listed struct {
	Ref         store.Ref
	PatientID   string
	ReportID    epro.UUID
	Disposition epro.Disposition
}

var errEnough = errors.New("enough")

func (l *ledger) list(ctx context.Context, trial string) *listing {
	if s := l.lists[trial]; s != nil {
		return s
	}
	next, stop := iter.Pull2(func(yield func(listed, error) bool) {
		err := l.tables.EachReport(ctx, trial, store.ReportFilter{}, func(r *store.Report) error {
			if !yield(listed{r.Ref, r.PatientID, r.ReportID, r.Disposition}, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(listed{}, err)
		}
	})
	s := &listing{trial: trial, next: next, stop: stop}
	l.lists[trial] = s
	return s
}

func (s *listing) advance() error {
	var err error
	s.head, err, s.has = s.next()
	return err
}

func before(a, b store.Ref) bool {
	return a.Position < b.Position || a.Position == b.Position && a.Index < b.Index
}

// take says what the tables list at ref, and names what they list in front of
// it without a fact.
func (s *listing) take(l *ledger, ref store.Ref) (r listed, found bool, err error) {
	if !s.begun {
		s.begun = true
		if err := s.advance(); err != nil {
			return r, false, err
		}
	}
	for s.has && before(s.head.Ref, ref) {
		l.notAFact(s)
		if err := s.advance(); err != nil {
			return r, false, err
		}
	}
	if !s.has || s.head.Ref != ref {
		return r, false, nil
	}
	r = s.head
	return r, true, s.advance()
}

func (l *ledger) notAFact(s *listing) {
	index := int(s.head.Ref.Index)
	l.res.find(Finding{
		Check: "tables", Position: s.head.Ref.Position, Index: &index, Trial: s.trial,
		Text: "the tables list a report here, and the journal has none",
	})
}
