// Package epro is the domain of electronic patient-reported outcomes: trials,
// participants, instruments, reports, and the facts that say what became true.
//
// It owns the words and the rules, and the canonical bytes of a fact's envelope
// (docs/format.md). It does no input or output and imports only the standard
// library, so that every decision it makes can be made again, later, from the
// same facts.
package epro
