package projector

import "github.com/tidegate/tidegate/internal/store"

// cacheHalf is how many participants a generation of the cache holds: two of
// them take about 60 MiB when full, whatever the trial's size.
const cacheHalf = 1 << 17

type subjectID struct{ trial, patient string }

// cache remembers what the tables say about trials and participants, so that
// most reports cost no query. Only this projector writes the tables, and the
// cursor's compare-and-set shows when that was not so: then, as after every
// failed transaction, all is forgotten.
type cache struct {
	trials     map[string]*store.Trial // nil for none
	young, old map[subjectID]store.Subject
}

func newCache() *cache {
	return &cache{trials: map[string]*store.Trial{}, young: map[subjectID]store.Subject{}}
}

func (c *cache) subject(id subjectID) (store.Subject, bool) {
	if s, ok := c.young[id]; ok {
		return s, true
	}
	s, ok := c.old[id]
	if ok {
		c.put(id, s)
	}
	return s, ok
}

func (c *cache) put(id subjectID, s store.Subject) {
	if len(c.young) >= cacheHalf {
		c.young, c.old = make(map[subjectID]store.Subject, cacheHalf), c.young
	}
	c.young[id] = s
}
