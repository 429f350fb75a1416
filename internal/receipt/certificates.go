package receipt

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
)

// Certificates gathers what key.added and key.retired facts, and a keys folder,
// say of the signing keys of one root. Anybody who can write to a journal can
// put a certificate into it; what the root did not sign is passed over, so that
// it neither stops nor deceives whoever reads on, and is listed apart. Not for
// concurrent use.
type Certificates struct {
	root    ed25519.PublicKey
	list    []Certificate
	at      map[string]int // index in list, by key id
	foreign []Certificate
}

// NewCertificates returns an empty list of keys under a root.
func NewCertificates(root ed25519.PublicKey) *Certificates {
	return &Certificates{root: root, at: map[string]int{}}
}

// Add adds a certificate; one that is there already stays as it is. Whether a
// key is retired is told by [Certificates.Retire] alone.
func (c *Certificates) Add(cert Certificate) {
	if _, twice := c.at[cert.KeyID]; twice {
		return
	}
	cert.Retired = nil
	if _, _, err := cert.check(c.root); err != nil {
		if !slices.Contains(c.foreign, cert) {
			c.foreign = append(c.foreign, cert)
		}
		return
	}
	c.at[cert.KeyID] = len(c.list)
	c.list = append(c.list, cert)
}

// Retire notes a retirement of a key that was added before. A key that was
// rotated may turn out to be compromised later: the graver word stays.
func (c *Certificates) Retire(r Retirement) {
	i, known := c.at[r.KeyID]
	if !known || r.check(c.root) != nil {
		return
	}
	if c.list[i].Retired == nil || c.list[i].Retired.Reason == RetiredRotated {
		c.list[i].Retired = &r
	}
}

// AddFact reads the body of a key.added or, with retired, of a key.retired
// fact. One that cannot be read certifies nothing, and retires nothing.
func (c *Certificates) AddFact(body []byte, retired bool) {
	if retired {
		var r Retirement
		if json.Unmarshal(body, &r) == nil {
			c.Retire(r)
		}
		return
	}
	var cert Certificate
	if json.Unmarshal(body, &cert) == nil {
		c.Add(cert)
	}
}

// List is what the root signed, in the order of adding.
func (c *Certificates) List() []Certificate { return c.list }

// Foreign lists the certificates that the root did not sign: their keys prove
// nothing.
func (c *Certificates) Foreign() []Certificate { return c.foreign }

// CheckKeyFact says why the body of a key.added or, with retired, of a
// key.retired fact is not the word of the root of s, or nil. The error is an
// [ErrKeys].
func (s *KeySet) CheckKeyFact(body []byte, retired bool) error {
	if retired {
		var r Retirement
		if err := json.Unmarshal(body, &r); err != nil {
			return fmt.Errorf("%w: no retirement can be read in it", ErrKeys)
		}
		return r.check(s.root)
	}
	var cert Certificate
	if err := json.Unmarshal(body, &cert); err != nil {
		return fmt.Errorf("%w: no certificate can be read in it", ErrKeys)
	}
	_, _, err := cert.check(s.root)
	return err
}
