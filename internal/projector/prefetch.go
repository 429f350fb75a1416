package projector

import (
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// prefetch tells a Tx whose questions cost a way over the network each what the
// frames will ask, so that it asks all of it in a few.
func (a *applier) prefetch(tx store.Tx, frames []*frame) error {
	p, ok := tx.(store.Prefetcher)
	if !ok {
		return nil
	}
	n := 0
	for _, f := range frames {
		n += len(f.facts)
	}
	keys := make([]store.Key, 0, n)
	for _, f := range frames {
		for i := range f.facts {
			fact := &f.facts[i]
			k := store.Key{TrialID: fact.Trial, PatientID: fact.Subject, ID: fact.ID, Report: fact.Kind == epro.KindReport}
			if s, ok := a.cache.subject(subjectID{fact.Trial, fact.Subject}); ok {
				k.Subject = s.Key
			}
			keys = append(keys, k)
		}
	}
	return p.Prefetch(keys)
}
