package directory

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// holdings is what a directory holds: of 100,000 participants about 20 MB.
type holdings struct {
	trials   map[string]*trial
	people   map[string][]person // by participant, each in the order of trial ids
	words    map[string]string   // ids of sites and statuses: one copy each
	sites    int
	enrolled int
}

type trial struct {
	store.Trial
	sites map[string]store.Site
}

// person is an enrolment in little room.
type person struct {
	trial               *trial
	site, status        string
	version             uint64
	enrolled, withdrawn int64 // see nanos
	minEpoch            uint32
}

func newHoldings() *holdings {
	return &holdings{trials: map[string]*trial{}, people: map[string][]person{}, words: map[string]string{}}
}

func (h *holdings) put(c *Change) {
	for i := range c.Trials {
		h.trial(c.Trials[i].ID).Trial = c.Trials[i]
	}
	for i := range c.Sites {
		s := &c.Sites[i]
		t := h.trial(s.TrialID)
		if _, ok := t.sites[s.ID]; !ok {
			h.sites++
		}
		t.sites[s.ID] = *s
	}
	for i := range c.Enrollments {
		e := &c.Enrollments[i]
		h.putPerson(e.PatientID, person{
			trial: h.trial(e.TrialID), site: h.word(e.SiteID), status: h.word(string(e.Status)), version: e.Version,
			enrolled: nanos(e.EnrolledAt), withdrawn: nanos(e.WithdrawnAt), minEpoch: e.MinEpoch,
		})
	}
}

// trial is the place of a trial, made when it is first named.
func (h *holdings) trial(id string) *trial {
	t, ok := h.trials[id]
	if !ok {
		t = &trial{Trial: store.Trial{ID: id}, sites: map[string]store.Site{}}
		h.trials[id] = t
	}
	return t
}

func (h *holdings) putPerson(patient string, p person) {
	list := h.people[patient]
	at, found := slices.BinarySearchFunc(list, p.trial.ID, func(q person, id string) int { return cmp.Compare(q.trial.ID, id) })
	if found {
		list[at] = p
		return
	}
	h.people[patient] = slices.Insert(slices.Clip(list), at, p)
	h.enrolled++
}

func (h *holdings) word(s string) string {
	if w, ok := h.words[s]; ok {
		return w
	}
	h.words[s] = s
	return s
}

func (p *person) enrollment(patient string) store.Enrollment {
	return store.Enrollment{
		TrialID: p.trial.ID, PatientID: patient, SiteID: p.site, Status: epro.EnrollmentStatus(p.status), MinEpoch: p.minEpoch,
		Version: p.version, EnrolledAt: instant(p.enrolled), WithdrawnAt: instant(p.withdrawn),
	}
}

// noTime stands for the zero time.
const noTime = math.MinInt64

// nanos is an instant in one number. Those of the registry are committedAt of
// frames, which are such numbers.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return noTime
	}
	return t.UnixNano()
}

func instant(n int64) time.Time {
	if n == noTime {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
