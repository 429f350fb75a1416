package gateway

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
)

// Tokens checks participants' and relays' tokens without any input or output.
// *auth.Keys is one.
type Tokens interface {
	Verify(token string, now time.Time) (auth.Claims, error)
}

// bearer takes the token out of the Authorization header, of which there must
// be exactly one.
func bearer(r *http.Request) (string, error) {
	values := r.Header["Authorization"]
	if len(values) == 0 {
		return "", problemNoToken
	}
	const scheme = "bearer "
	v := values[0]
	if len(values) > 1 || len(v) <= len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) {
		return "", problemNoToken
	}
	return v[len(scheme):], nil
}

// claims checks the token of a participant or relay.
func (s *Server) claims(r *http.Request, now time.Time) (auth.Claims, error) {
	token, err := bearer(r)
	if err != nil {
		return auth.Claims{}, err
	}
	switch auth.KindOf(token) {
	case auth.KindParticipant, auth.KindRelay:
	case auth.KindStaff, auth.KindOperator:
		return auth.Claims{}, problemScope
	default:
		return auth.Claims{}, problemToken
	}
	claims, err := s.tokens.Verify(token, now)
	if err != nil {
		return auth.Claims{}, tokenProblem(err)
	}
	return claims, nil
}

// tokenProblem maps why a credential is refused. What says nothing about the
// credential itself is no 401: an app might forget its token.
func tokenProblem(err error) error {
	switch {
	case errors.Is(err, auth.ErrExpired):
		return problemExpired
	case errors.Is(err, auth.ErrUnknownKey), errors.Is(err, auth.ErrRevoked):
		return problemRevoked
	case auth.Refused(err):
		return problemToken
	}
	return err
}

// maySubmit says whether a token is made for sending reports.
func maySubmit(c *auth.Claims) bool {
	return c.Scope.Has(auth.ScopeSubmit) || (c.Kind == auth.KindRelay && c.Scope.Has(auth.ScopeRelay))
}
