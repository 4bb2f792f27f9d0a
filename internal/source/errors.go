package source

import (
	"context"
	"errors"
	"fmt"
)

// Reasons that there is no valid response. A refusal is "status_" and the name of a
// gRPC status in snake case, such as status_not_found, whatever the source speaks;
// what none of them says is status_unknown. They are labels of a metric: the list is
// finite.
const (
	InvalidBatch    = "invalid_batch"     // empty or too large: nothing was sent
	InBandError     = "in_band_error"     // an error inside an OK response
	UnknownField    = "unknown_field"     // a field that this contract does not know
	Malformed       = "malformed"         // not in the form that was agreed on
	NotComplete     = "not_complete"      // it does not say that it is the whole answer
	ForeignID       = "foreign_id"        // a user nobody asked for
	UnparsableID    = "unparsable_id"     // an id that is not a UUID
	TooManyUsers    = "too_many_users"    // more of them than were asked for
	Lagging         = "lagging"           // a standby that is too far behind
	MessageTooLarge = "message_too_large" // the response is over the message limit
	Transport       = "transport"         // no connection, or it broke
	Deadline        = "deadline"          // no response in time
	Cancelled       = "cancelled"         // the caller gave up
)

// Reasons are those of a BatchError, but for the statuses.
func Reasons() []string {
	return append([]string{InvalidBatch, Lagging, MessageTooLarge, Transport, Deadline, Cancelled}, invalid()...)
}

// invalid are the reasons of a response that arrived and does not add up.
func invalid() []string {
	return []string{InBandError, UnknownField, Malformed, NotComplete, ForeignID, UnparsableID, TooManyUsers}
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
	// Page: what answered does not speak the source's language.
	Page bool
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
	// A quiet standby is behind for as long as it replays a record that it has just received.
	case Transport, Deadline, Lagging, "status_unavailable", "status_resource_exhausted", "status_aborted":
		return true
	}
	return false
}

// Unreachable tells whether there was no connection, or it broke, or what answered
// is not the source.
func (e *BatchError) Unreachable() bool { return e.Reason == Transport || e.Page }

// Failed is the BatchError of one attempt.
func Failed(reason string, users int, err error) *BatchError {
	return &BatchError{Reason: reason, Users: users, Attempts: 1, Err: err}
}

// Ended is the reason and the cause of an attempt that failed because time was up:
// the caller's, or with call its own. Otherwise the reason is empty.
func Ended(ctx, call context.Context, timeout any) (reason string, cause error) {
	switch {
	case ctx.Err() != nil: // it wins over whatever it did to the call
		return Cancelled, context.Cause(ctx)
	case errors.Is(call.Err(), context.DeadlineExceeded):
		return Deadline, fmt.Errorf("no response within %s", timeout)
	}
	return "", nil
}
