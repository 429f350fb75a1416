package edge

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/store"
)

// principal resolves the staff token of a call: the vault says whose it is, the
// tables say what that person may do now. Tokens of participants, relays and
// operators open nothing here.
func (e *Edge) principal(ctx context.Context) (*auth.Principal, error) {
	token, err := bearer(ctx)
	if err != nil {
		return nil, err
	}
	switch auth.KindOf(token) {
	case auth.KindStaff:
	case auth.KindParticipant, auth.KindRelay, auth.KindOperator:
		return nil, errScope
	default:
		return nil, errToken
	}
	staff, err := auth.VerifyStaff(ctx, e.o.Credentials, token, e.o.Now())
	switch {
	case errors.Is(err, auth.ErrExpired):
		return nil, errExpired
	case err != nil && auth.Refused(err):
		return nil, errToken
	case err != nil:
		return nil, err // the vault cannot answer: that says nothing about the token
	}
	member, err := e.o.Reader.Staff(ctx, staff)
	switch {
	case errors.Is(err, store.ErrNotFound):
		// The credential is older than its facts in the tables: it may do nothing yet.
		p := auth.StaffPrincipal(staff, nil)
		return &p, nil
	case err != nil:
		return nil, err
	case member.Removed:
		return nil, errToken
	}
	grants := make([]auth.Grant, len(member.Grants))
	for i, g := range member.Grants {
		grants[i] = auth.Grant{Role: auth.Role(g.Role), Trial: g.TrialID, Site: g.SiteID}
	}
	p := auth.StaffPrincipal(staff, grants)
	return &p, nil
}

// bearer takes the token out of the metadata, of which there must be exactly one.
func bearer(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	const scheme = "bearer "
	if len(values) != 1 || len(values[0]) <= len(scheme) || !strings.EqualFold(values[0][:len(scheme)], scheme) {
		return "", errNoToken
	}
	return values[0][len(scheme):], nil
}

var (
	errNoToken = &Error{
		Code: codes.Unauthenticated, Reason: "token-missing",
		Text: "This method needs a staff token, as one entry of the metadata: authorization: Bearer TOKEN.",
	}
	errToken = &Error{
		Code: codes.Unauthenticated, Reason: "token-invalid", Text: "The token is not one that this server gave out, or it is no longer in use.",
	}
	errExpired = &Error{
		Code: codes.Unauthenticated, Reason: "token-expired", Text: "The token has expired. Get a new one and send the same again.",
	}
	errScope = &Error{
		Code: codes.PermissionDenied, Reason: "scope-missing", Text: "The token is not made for this service: it takes tokens of staff.",
	}
)

// forbidden is the answer to whoever may not do an action here.
func forbidden(action auth.Action) *Error {
	return &Error{
		Code: codes.PermissionDenied, Reason: "forbidden",
		Text: "Your roles do not allow this here. It takes the role " + auth.RolesFor(action) + ", for all that it touches.",
	}
}
