package store

import "github.com/tidegate/tidegate/internal/epro"

// Key is what a fact will be asked about inside a transaction.
type Key struct {
	TrialID   string
	PatientID string     // "" for a fact about no participant
	Subject   SubjectKey // of that participant, where the caller knows it; 0 otherwise
	ID        epro.UUID  // of the report or the command
	Report    bool       // it is a report; a command otherwise
}

// Prefetcher is a Tx of an engine where each question costs a way over the
// network. Prefetch asks the questions that the facts with these keys will
// bring, many in one go; the Tx answers from what came back. It changes no
// answer, and a Tx works without it too.
type Prefetcher interface {
	Prefetch(keys []Key) error
}
