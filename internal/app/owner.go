package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/internal/receipt"
)

// Whose journal it is. Nothing is ever taken out of a journal, so keys of another
// installation are refused before they append anything.

// ownerFrames bounds the look for the first certificate: whoever begins a
// journal writes it within the first few frames.
const ownerFrames = 1024

// otherInstallationError says that a journal was begun with another root's keys.
type otherInstallationError struct {
	first string // id of the journal's first signing key
	root  string // fingerprint of the root of the keys at hand
	dir   string // where those are
}

// Error is what the operator reads.
func (e *otherInstallationError) Error() string {
	return fmt.Sprintf("this journal belongs to another installation: its first signing key, %s, was not certified by root %s, of which the keys in %s are. Nothing was written. "+
		"Give this process keys that were issued from the root folder with which the journal was begun (tidegate keys issue), or name another database", e.first, e.root, e.dir)
}

func isOtherInstallation(err error) bool {
	var other *otherInstallationError
	return errors.As(err, &other)
}

// ownJournal returns an *[otherInstallationError] if the first certificate in
// the journal is not of this folder's root. Later ones do not count: anybody who
// could write may have put them there. A journal without any is nobody's yet.
func (n *node) ownJournal(ctx context.Context) error {
	root := n.keys.RootPublic()
	var err error
	scanErr := keyFacts(ctx, n.journal, ownerFrames, func(body []byte, retired bool) bool {
		var cert receipt.Certificate
		if retired || json.Unmarshal(body, &cert) != nil || cert.KeyID == "" {
			return true
		}
		certs := receipt.NewCertificates(root)
		if certs.Add(cert); len(certs.List()) == 0 {
			err = &otherInstallationError{first: cert.KeyID, root: n.keys.Fingerprint(), dir: n.dir}
		}
		return false
	})
	if scanErr != nil {
		return fmt.Errorf("find whose journal it is: %w", scanErr)
	}
	return err
}

// warnForeign tells, once for each, of keys in the journal that this root did
// not certify.
func (f *folder) warnForeign(certs *receipt.Certificates) {
	for _, c := range certs.Foreign() {
		if _, told := f.foreign.LoadOrStore(c.Certificate, struct{}{}); !told {
			f.log.Warn("the journal holds a signing key that this root did not certify: it is passed over, and what it signs proves nothing; find out who wrote it (tidegate verify names its frame)", "keyId", c.KeyID)
		}
	}
}
