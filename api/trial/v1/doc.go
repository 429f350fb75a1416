// Package trialv1 is the Trial service's contract: trial.proto and the code
// that `make generate` makes from it.
package trialv1
