package intake

import "github.com/tidegate/tidegate/internal/epro"

// memory knows the reports in flight and the most recent durable ones, so that
// a phone's retry gets the original receipt and appends nothing. It is bounded;
// what it has forgotten becomes a duplicate that the projector counts.
// Guarded by Intake.mu.
type memory struct {
	limit   int
	held    int // keys of settled pools
	places  map[memoryKey]place
	settled []*pool // oldest first
}

type memoryKey struct {
	trial, subject string
	id             epro.UUID
}

type place struct {
	ticket  ticket
	meaning epro.Digest
}

func newMemory(limit int) memory {
	return memory{limit: limit, places: make(map[memoryKey]place)}
}

// find returns the place of the same report with the same content.
func (m *memory) find(k memoryKey, meaning epro.Digest) (ticket, bool) {
	p, ok := m.places[k]
	if !ok || p.meaning != meaning {
		return ticket{}, false
	}
	t := p.ticket
	t.remembered = true
	return t, true
}

func (m *memory) add(k memoryKey, meaning epro.Digest, t ticket) {
	m.places[k] = place{ticket: t, meaning: meaning}
}

// settle keeps a durable pool's reports, and lets the oldest go over the limit.
func (m *memory) settle(p *pool) {
	m.settled = append(m.settled, p)
	m.held += len(p.keys)
	for m.held > m.limit && len(m.settled) > 0 {
		old := m.settled[0]
		m.settled[0] = nil
		m.settled = m.settled[1:]
		m.held -= len(old.keys)
		m.forget(old)
	}
}

// forget drops a pool's reports, but not those a later pool has taken over.
func (m *memory) forget(p *pool) {
	for i, k := range p.keys {
		if at, ok := m.places[k]; ok && at.ticket.pool == p && at.ticket.index == i {
			delete(m.places, k)
		}
	}
}

// Holds says whether a report with this id is in flight or among the most
// recent durable ones: what the tables do not show yet is then only pending.
func (in *Intake) Holds(trial, subject string, id epro.UUID) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	_, ok := in.recent.places[memoryKey{trial, subject, id}]
	return ok
}
