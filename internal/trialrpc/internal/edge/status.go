package edge

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
)

// Domain is the domain of the reasons in ErrorInfo.
const Domain = "tidegate"

// Error is an answer that is not the one asked for. Its text is for people and
// holds nothing of what was sent but ids.
type Error struct {
	Code       codes.Code
	Reason     string // a word for programs, which never changes its meaning
	Text       string
	Fields     []epro.FieldProblem
	RetryAfter time.Duration
	Command    epro.UUID
	Version    uint64 // of the thing that a command was to change, as it is
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// GRPCStatus is the status with its details.
func (e *Error) GRPCStatus() *status.Status {
	s := status.New(e.Code, e.Text)
	info := &errdetails.ErrorInfo{Reason: e.Reason, Domain: Domain, Metadata: map[string]string{}}
	if !e.Command.IsZero() {
		info.Metadata["commandId"] = e.Command.String()
	}
	if e.Version != 0 {
		info.Metadata["version"] = strconv.FormatUint(e.Version, 10)
	}
	details := []protoadapt.MessageV1{info}
	if e.Fields != nil {
		bad := &errdetails.BadRequest{}
		for _, f := range e.Fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Field, Description: f.Problem})
		}
		details = append(details, bad)
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	if with, err := s.WithDetails(details...); err == nil {
		return with
	}
	return s
}

// invalid is the error of bad fields, nil for none.
func invalid(problems []epro.FieldProblem) error {
	if len(problems) == 0 {
		return nil
	}
	return &Error{
		Code: codes.InvalidArgument, Reason: "invalid", Fields: problems,
		Text: "The request is not valid; every field that is wrong is listed in the details.",
	}
}

// invalidCommand is invalid, of what would have recorded something.
func invalidCommand(problems []epro.FieldProblem) error {
	var bad *Error
	if !errors.As(invalid(problems), &bad) {
		return nil
	}
	bad.Text += " Nothing was recorded."
	return bad
}

// ErrStopping is the answer to whoever is still there when the service stops.
var ErrStopping = &Error{
	Code: codes.Unavailable, Reason: "stopping", RetryAfter: time.Second, Text: "This instance is stopping; another one, or this one in a moment, goes on.",
}

// ErrGone is what a stream ends with whose caller went away.
var ErrGone = &Error{Code: codes.Canceled, Reason: "gone", Text: "The caller went away."}

// spread is a time around d, so that clients do not come back all at once.
func spread(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int64N(int64(d))) //nolint:gosec // jitter needs no secrecy
}

// Status maps any error of a method, once. What is not the caller's fault is
// logged here, with its cause, which the caller does not see.
func Status(ctx context.Context, trouble *Trouble, method string, err error) error {
	if err == nil {
		return nil
	}
	mapped := answer(err)
	if mapped != nil {
		return mapped.GRPCStatus().Err()
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return status.Error(codes.Canceled, "The caller went away.")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "The answer took longer than the call's deadline, or than this service gives a call.")
	}
	trouble.tell(ctx, method, err)
	return (&Error{
		Code: codes.Unavailable, Reason: "unavailable", RetryAfter: spread(2 * time.Second),
		Text: "A part of the server that this needs is not available. Try again later.",
	}).GRPCStatus().Err()
}

// answer is the answer to an error that has one of its own.
func answer(err error) *Error {
	var own *Error
	var fields *registry.InvalidError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &fields):
		errors.As(invalidCommand(fields.Problems), &own)
		return own
	case errors.Is(err, store.ErrNotFound):
		return &Error{Code: codes.NotFound, Reason: "not-found", Text: "There is no such thing here."}
	case errors.Is(err, store.ErrCursor):
		errors.As(invalid([]epro.FieldProblem{{Field: "cursor", Problem: "is not one that this server gave out; begin again without it"}}), &own)
		return own
	}
	return refusal(err)
}

// refusal maps what intake said. Each but ErrUnknown means that nothing was
// recorded.
func refusal(err error) *Error {
	var refused *intake.RefusedError
	switch {
	case errors.As(err, &refused):
		return &Error{
			Code: codes.Unavailable, Reason: "refused-now", RetryAfter: max(refused.RetryAfter, time.Second),
			Text: "The server has no room right now. Nothing was recorded; send the same again later.",
		}
	case errors.Is(err, intake.ErrUnknown):
		return &Error{
			Code: codes.Unavailable, Reason: "outcome-unknown", RetryAfter: spread(2 * time.Second),
			Text: "Whether this was recorded is not known yet. Send the same again, with the same commandId.",
		}
	case errors.Is(err, intake.ErrNotTaken):
		return &Error{
			Code: codes.Unavailable, Reason: "not-kept", RetryAfter: spread(5 * time.Second),
			Text: "The journal could not keep this. Nothing was recorded; send the same again later.",
		}
	case errors.Is(err, intake.ErrStopped):
		return ErrStopping
	}
	return nil
}
