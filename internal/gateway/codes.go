package gateway

import (
	"errors"
	"net/http"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/store"
)

// Codes of problems: the last part of the type URN. They are part of the API
// (api/openapi.yaml) and never change their meaning.
const (
	codeInvalid       = "invalid"
	codeNoToken       = "token-missing"
	codeToken         = "token-invalid"
	codeExpired       = "token-expired"
	codeScope         = "scope-missing"
	codeNotYours      = "not-yours"
	codeForbidden     = "forbidden"
	codeNotFound      = "not-found"
	codeNoRoute       = "no-such-path"
	codeMethod        = "method-not-allowed"
	codeMediaType     = "content-type"
	codeTooLarge      = "too-large"
	codeTooSlow       = "too-slow"
	codeUnreadable    = "unreadable"
	codeTooFast       = "too-fast"
	codeRefused       = "refused-now"
	codeNotKept       = "not-kept"
	codeUnknown       = "outcome-unknown"
	codeStopping      = "stopping"
	codeUnavailable   = "unavailable"
	codeInternal      = "internal"
	codeCursor        = "cursor"
	codeConflict      = "conflict"
	codeUnprocessable = "unprocessable"

	codeDirectoryEmpty = "directory-empty"
)

var (
	problemNoToken = &problem{
		status: http.StatusUnauthorized, code: codeNoToken,
		detail: "Send your token as one header: Authorization: Bearer TOKEN.",
	}
	problemToken = &problem{
		status: http.StatusUnauthorized, code: codeToken,
		detail: "The token is not one that this server gave out.",
	}
	problemExpired = &problem{
		status: http.StatusUnauthorized, code: codeExpired,
		detail: "The token has expired. Get a new one and send the same again.",
	}
	problemRevoked = &problem{
		status: http.StatusUnauthorized, code: codeToken,
		detail: "The token is no longer in use. Get a new one and send the same again.",
	}
	problemScope = &problem{
		status: http.StatusForbidden, code: codeScope,
		detail: "The token is not made for this request.",
	}
	problemNoRoute = &problem{
		status: http.StatusNotFound, code: codeNoRoute,
		detail: "There is nothing at this path.",
	}
	problemMethod = &problem{
		status: http.StatusMethodNotAllowed, code: codeMethod,
		detail: "This path does not take this method; see the Allow header.",
	}
	problemStopping = &problem{
		status: http.StatusServiceUnavailable, code: codeStopping, accepted: acceptedFalse,
		detail: "The server is stopping. Nothing was recorded; send the same again later.",
	}
)

// forbidden is the answer to staff who may not do an action here.
func forbidden(action auth.Action) error {
	return &problem{
		status: http.StatusForbidden, code: codeForbidden,
		detail: "Your roles do not allow this here. It takes the role " + auth.RolesFor(action) + ", for all that it touches.",
	}
}

// refusalProblem maps what intake said. Each but ErrUnknown means that nothing
// was recorded.
func refusalProblem(err error) *problem {
	var refused *intake.RefusedError
	switch {
	case errors.As(err, &refused) && errors.Is(err, intake.ErrTooFast):
		return &problem{
			status: http.StatusTooManyRequests, code: codeTooFast, accepted: acceptedFalse, retryAfter: refused.RetryAfter,
			detail: "Too many reports from this participant. Nothing was recorded; send the same again after the time in Retry-After.",
		}
	case errors.As(err, &refused):
		return &problem{
			status: http.StatusServiceUnavailable, code: codeRefused, accepted: acceptedFalse, retryAfter: refused.RetryAfter,
			detail: "The server has no room right now. Nothing was recorded; send the same again after the time in Retry-After.",
		}
	case errors.Is(err, intake.ErrUnknown):
		return &problem{
			status: http.StatusServiceUnavailable, code: codeUnknown, accepted: acceptedUnknown, retryAfter: spread(2 * time.Second),
			detail: "Whether this was recorded is not known yet. Send the same again, with the same id, after the time in Retry-After.",
		}
	case errors.Is(err, intake.ErrNotTaken):
		return &problem{
			status: http.StatusServiceUnavailable, code: codeNotKept, accepted: acceptedFalse, retryAfter: spread(5 * time.Second),
			detail: "The journal could not keep this. Nothing was recorded; send the same again after the time in Retry-After.",
		}
	case errors.Is(err, intake.ErrStopped):
		p := problemStopping.with(acceptedFalse)
		p.retryAfter = spread(5 * time.Second)
		return p
	}
	return nil
}

// problemOf maps any error of a handler, once. writes says whether the request
// could have recorded something.
func problemOf(err error, writes bool) *problem {
	p := mapError(err)
	switch {
	case !writes:
		p = p.with(acceptedNothing)
	case p.accepted == acceptedNothing:
		// Only what the mapping knows to be unknown is unknown: a handler returns
		// an error of its own before it submits, or maps what Submit said.
		p = p.with(acceptedFalse)
	}
	return p
}

func mapError(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	if p := refusalProblem(err); p != nil {
		return p
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &problem{status: http.StatusNotFound, code: codeNotFound, detail: "There is no such thing here."}
	case errors.Is(err, store.ErrCursor):
		return &problem{
			status: http.StatusBadRequest, code: codeCursor, detail: "The cursor is not one that this server gave out: begin again without it.",
			fields: fieldProblem("cursor", "is not one that this server gave out; begin again without it"),
		}
	}
	// A dependency that is down is never a 4xx: an app might throw a report away.
	return &problem{
		status: http.StatusServiceUnavailable, code: codeUnavailable, cause: err, retryAfter: spread(5 * time.Second),
		detail: "A part of the server that this needs is not available. Try again after the time in Retry-After.",
	}
}
