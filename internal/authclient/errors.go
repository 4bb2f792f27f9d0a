package authclient

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reasons that there is no valid response. A refusal by gRPC status is "status_"
// and the code in snake case, such as status_not_found; codes that gRPC does not
// define are status_unknown. They are labels of a metric: the list is finite.
const (
	reasonInvalidBatch    = "invalid_batch"     // empty or too large: nothing was sent
	reasonInBandError     = "in_band_error"     // an error inside an OK response
	reasonUnknownField    = "unknown_field"     // a field beside the users that this contract does not know
	reasonForeignID       = "foreign_id"        // a user nobody asked for
	reasonUnparsableID    = "unparsable_id"     // an id that is not a UUID
	reasonMessageTooLarge = "message_too_large" // the response is over the message limit
	reasonTransport       = "transport"         // no connection, or it broke
	reasonDeadline        = "deadline"          // no response in time
	reasonCancelled       = "cancelled"         // the caller gave up
)

// Reasons are those of a BatchError, but for the statuses.
func Reasons() []string {
	return []string{
		reasonInvalidBatch, reasonInBandError, reasonUnknownField, reasonForeignID, reasonUnparsableID,
		reasonMessageTooLarge, reasonTransport, reasonDeadline, reasonCancelled,
	}
}

// BatchError says that there is no valid response for a batch: all of its users are
// unknown, so none of them may be touched.
type BatchError struct {
	// Reason is stable, snake case and fit for a metric label.
	Reason string
	// Users is the size of the batch, Attempts how often it was sent.
	Users, Attempts int
	// Err is the cause. A gRPC status keeps its code, see status.Code; the
	// end of the caller's context is found by errors.Is.
	Err error

	// page: something that is not gRPC answered.
	page bool
}

func (e *BatchError) Error() string {
	tries := ""
	if e.Attempts > 1 {
		tries = fmt.Sprintf(" after %d attempts", e.Attempts)
	}
	return fmt.Sprintf("no valid response of auth-service for a batch of %d users%s (%s): %v", e.Users, tries, e.Reason, e.Err)
}

func (e *BatchError) Unwrap() error { return e.Err }

// transient tells whether another attempt may succeed where this one failed.
func (e *BatchError) transient() bool {
	switch e.Reason {
	case reasonTransport, reasonDeadline, "status_unavailable", "status_resource_exhausted", "status_aborted":
		return true
	}
	return false
}

// Unreachable tells whether there was no connection, or it broke, or what answered
// is not auth-service.
func (e *BatchError) Unreachable() bool { return e.Reason == reasonTransport || e.page }

func failure(reason string, users int, err error) *BatchError {
	return &BatchError{Reason: reason, Users: users, Attempts: 1, Err: err}
}

// callFailed turns the error of one gRPC call into a BatchError. answered says whether
// the server sent anything back. The text of the status comes from outside.
func callFailed(ctx context.Context, err error, answered, inTLS bool, users int, token token) *BatchError {
	// The caller's own end wins over whatever it did to the call.
	if ctx.Err() != nil {
		return failure(reasonCancelled, users, context.Cause(ctx))
	}
	code := status.Code(err)
	text := status.Convert(err).Message()
	cause, isPage := causeOf(text, answered, inTLS, token)
	failed := failure(statusReason(code), users, status.Error(code, cause))
	failed.page = isPage
	switch {
	case code == codes.DeadlineExceeded:
		failed.Reason = reasonDeadline
	case code == codes.Unavailable && !answered:
		failed.Reason = reasonTransport
	case code == codes.ResourceExhausted && strings.Contains(text, "larger than max"):
		failed.Reason = reasonMessageTooLarge
	}
	return failed
}

// statusReason is one of as many reasons as gRPC has codes. A server can send any
// number as its code.
func statusReason(code codes.Code) string {
	if code > codes.Unauthenticated {
		code = codes.Unknown
	}
	return "status_" + snake(code.String())
}

// snake turns NotFound into not_found.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if 'A' <= r && r <= 'Z' {
			if i > 0 && b.String()[b.Len()-1] != '_' && name[i-1] >= 'a' {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
