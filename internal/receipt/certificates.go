package receipt

import (
	"encoding/json"
	"fmt"
)

// Certificates gathers what key.added and key.retired facts, and a keys folder,
// say of the signing keys. The zero value is empty. Not for concurrent use.
type Certificates struct {
	list []Certificate
	at   map[string]int // index in list, by key id
}

// Add adds a certificate; one that is there already stays as it is. Whether a
// key is retired is told by [Certificates.Retire] alone.
func (c *Certificates) Add(cert Certificate) {
	if c.at == nil {
		c.at = map[string]int{}
	}
	if _, twice := c.at[cert.KeyID]; twice {
		return
	}
	cert.Retired = nil
	c.at[cert.KeyID] = len(c.list)
	c.list = append(c.list, cert)
}

// Retire notes a retirement of a key that was added before. A key that was
// rotated may turn out to be compromised later: the graver word stays.
func (c *Certificates) Retire(r Retirement) {
	if i, known := c.at[r.KeyID]; known && (c.list[i].Retired == nil || c.list[i].Retired.Reason == RetiredRotated) {
		c.list[i].Retired = &r
	}
}

// AddFact reads the body of a key.added or, with retired, of a key.retired fact.
func (c *Certificates) AddFact(body []byte, retired bool) error {
	if retired {
		var r Retirement
		if err := json.Unmarshal(body, &r); err != nil {
			return fmt.Errorf("read a key.retired fact: %w", err)
		}
		c.Retire(r)
		return nil
	}
	var cert Certificate
	if err := json.Unmarshal(body, &cert); err != nil {
		return fmt.Errorf("read a key.added fact: %w", err)
	}
	c.Add(cert)
	return nil
}

// List is what was gathered, in the order of adding.
func (c *Certificates) List() []Certificate { return c.list }
