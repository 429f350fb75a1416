package gateway

import (
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
	certs := receipt.NewCertificates(s.root)
	for _, f := range facts {
		certs.AddFact(f.Body, f.Kind == epro.KindKeyRetired)
	}
	if s.opts.Certificates != nil {
		for _, cert := range s.opts.Certificates() {
			certs.Add(cert)
		}
	}
	c.Writer.Header()["Cache-Control"] = []string{"public, max-age=60"}
	return answerJSON(c, http.StatusOK, receipt.NewKeys(s.root, certs.List()...))
}
