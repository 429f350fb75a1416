package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// checkAnchors refuses a journal that ends below what an anchor saw. An anchor
// that cannot be reached cannot speak; that is said in the log.
func (n *node) checkAnchors(ctx context.Context) error {
	var certs []receipt.Certificate
	if n.cfg.inPostgres() { // other processes sign too
		told, err := certificatesOfTables(ctx, n.store, n.keys.RootPublic())
		if err != nil {
			return err
		}
		certs = told.List()
	}
	err := n.checkAnchorsWith(ctx, certs)
	if !n.cfg.inPostgres() || !errors.Is(err, receipt.ErrCheckpoint) {
		return err
	}
	return n.signerUnknown(ctx, err)
}

// signerError says that an anchor may be signed by a key that the tables do not
// know yet. It is an [receipt.ErrCheckpoint].
type signerError struct{ applied, end journal.Position }

// Error is what the operator reads.
func (e *signerError) Error() string {
	return fmt.Sprintf("an anchor is signed by a key that is not known here, and the tables, which tell the keys of other processes, are behind the journal (at position %d of %d): "+
		"wait until a projector has caught up, or name the root folder with --data, which knows the keys that were issued from it", e.applied, e.end)
}

// Unwrap implements error.
func (e *signerError) Unwrap() error { return receipt.ErrCheckpoint }

// signerUnknown is err, or what explains it while tables are behind.
func (n *node) signerUnknown(ctx context.Context, err error) error {
	lag, lagErr := n.projector.Lag(ctx)
	if lagErr != nil || lag.Applied >= lag.End {
		return err
	}
	return &signerError{applied: lag.Applied, end: lag.End}
}

// signersOfAnchors are the keys that anchors may be signed with, whatever the
// tables know yet: on PostgreSQL other processes sign.
func (n *node) signersOfAnchors(ctx context.Context) (*receipt.KeySet, error) {
	if !n.cfg.inPostgres() {
		return n.keySet()
	}
	certs, err := certificatesIn(ctx, n.journal, n.keys.RootPublic())
	if err != nil {
		return nil, err
	}
	return n.keySet(certs.List()...)
}

func (n *node) checkAnchorsWith(ctx context.Context, certs []receipt.Certificate) error {
	keys, err := n.keySet(certs...)
	if err != nil {
		return err
	}
	for _, a := range n.anchors {
		signed, err := a.Read(ctx)
		if errors.Is(err, receipt.ErrNoAnchor) {
			continue
		}
		if err != nil {
			n.log.Warn("an anchor could not be read: a journal cut short would go unseen", "anchor", a.String(), "error", err)
			continue
		}
		err = receipt.CheckAnchor(ctx, n.journal, shard, signed, keys)
		if n.cfg.inPostgres() && errors.Is(err, receipt.ErrCheckpoint) {
			if alarm := n.checkAnchorText(ctx, signed); alarm != nil {
				err = alarm
			}
		}
		if err != nil {
			return fmt.Errorf("anchor %s: %w", a, err)
		}
	}
	return n.checkEarlierAnchors(ctx, keys)
}

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
