package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/internal/receipt"
)

// unsignedAnchorError says that a journal ends below what an anchor says, and
// that the anchor's signature could not be checked: what would tell who signs
// for this installation is missing too.
type unsignedAnchorError struct{ below error }

// Error is what the operator reads.
func (e *unsignedAnchorError) Error() string {
	return fmt.Sprintf("%v. On PostgreSQL with --config FILE and the root folder as --data. The anchor's signature could not be checked, since neither tables nor journal know its signer: "+
		"most likely this is not the database that the anchor is of, so look at postgres.url first; only if the anchor is not of this installation's journal, move it away", e.below)
}

// Unwrap implements error.
func (e *unsignedAnchorError) Unwrap() error { return e.below }

// checkAnchorText compares the journal with what an anchor says, whoever signed it.
func (n *node) checkAnchorText(ctx context.Context, signed []byte) error {
	err := receipt.CheckAnchorText(ctx, n.journal, shard, signed, n.keys.Fingerprint())
	var below *receipt.BelowAnchorError
	if errors.As(err, &below) {
		return &unsignedAnchorError{err}
	}
	return err
}

// checkAnchorTexts is checkAnchorText for every anchor that can be read.
func (n *node) checkAnchorTexts(ctx context.Context) error {
	for _, a := range n.anchors {
		signed, err := a.Read(ctx)
		if err != nil {
			continue // the log was told, or is when it is compared in full
		}
		if err := n.checkAnchorText(ctx, signed); err != nil {
			return fmt.Errorf("anchor %s: %w", a, err)
		}
	}
	return nil
}
