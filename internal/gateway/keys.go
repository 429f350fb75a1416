package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
)

// getKeys gives everybody the certified keys: GET /v1/keys. They are those of
// the facts, and those of the keys folder: a new key signs at once, but its
// fact may not be in the tables yet. A retirement is in the facts alone, so
// without tables there is no answer rather than one that hides it.
func (s *Server) getKeys(c *gin.Context) error {
	facts, err := s.reader.Keys(c.Request.Context())
	if err != nil {
		return err
	}
	var certs []receipt.Certificate
	at := make(map[string]int)
	add := func(cert receipt.Certificate) {
		if _, twice := at[cert.KeyID]; !twice {
			at[cert.KeyID] = len(certs)
			certs = append(certs, cert)
		}
	}
	for _, f := range facts {
		switch f.Kind {
		case epro.KindKeyAdded:
			var cert receipt.Certificate
			if err := json.Unmarshal(f.Body, &cert); err != nil {
				return fmt.Errorf("read a key.added fact: %w", err)
			}
			cert.Retired = nil // told by a fact of its own
			add(cert)
		case epro.KindKeyRetired:
			var r receipt.Retirement
			if err := json.Unmarshal(f.Body, &r); err != nil {
				return fmt.Errorf("read a key.retired fact: %w", err)
			}
			// A key that was rotated may turn out to be compromised later: the graver word stays.
			if i, known := at[r.KeyID]; known && (certs[i].Retired == nil || certs[i].Retired.Reason == receipt.RetiredRotated) {
				certs[i].Retired = &r
			}
		}
	}
	if s.opts.Certificates != nil {
		for _, cert := range s.opts.Certificates() {
			add(cert)
		}
	}
	c.Writer.Header()["Cache-Control"] = []string{"public, max-age=60"}
	return answerJSON(c, http.StatusOK, receipt.NewKeys(s.root, certs...))
}
