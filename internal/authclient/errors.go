package authclient

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reasons that a batch is void. A refusal by gRPC status is "status_" and the
// code in snake case, such as status_not_found.
const (
	reasonInvalidBatch    = "invalid_batch"     // empty or too large: nothing was sent
	reasonInBandError     = "in_band_error"     // an error inside an OK reply
	reasonForeignID       = "foreign_id"        // a user nobody asked for
	reasonUnparsableID    = "unparsable_id"     // an id that is not a UUID
	reasonNoAnswer        = "no_answer"         // OK without a reply
	reasonMessageTooLarge = "message_too_large" // the reply is over the message limit
	reasonTransport       = "transport"         // no connection, or it broke
	reasonDeadline        = "deadline"          // no reply in time
	reasonCancelled       = "cancelled"         // the caller gave up
)

// Reasons are those of a BatchError, but for the statuses.
func Reasons() []string {
	return []string{
		reasonInvalidBatch, reasonInBandError, reasonForeignID, reasonUnparsableID, reasonNoAnswer,
		reasonMessageTooLarge, reasonTransport, reasonDeadline, reasonCancelled,
	}
}

// BatchError says that a batch is void: nothing is known about any of its
// users, so none of them may be touched.
type BatchError struct {
	// Reason is stable, snake case and fit for a metric label.
	Reason string
	// Users is the size of the batch, Attempts how often it was sent.
	Users, Attempts int
	// Err is the cause. A gRPC status keeps its code, see status.Code; the
	// end of the caller's context is found by errors.Is.
	Err error
}

func (e *BatchError) Error() string {
	tries := ""
	if e.Attempts > 1 {
		tries = fmt.Sprintf(" after %d attempts", e.Attempts)
	}
	return fmt.Sprintf("auth-service batch of %d users is void%s (%s): %v", e.Users, tries, e.Reason, e.Err)
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

func void(reason string, users int, err error) *BatchError {
	return &BatchError{Reason: reason, Users: users, Attempts: 1, Err: err}
}

// callFailed turns the error of one gRPC call into a reason. answered says
// whether the server sent anything back. The text of a status comes from
// outside: secret is cut out of it and control characters are quoted.
func callFailed(ctx context.Context, err error, answered bool, secret string) (reason string, cause error) {
	// The caller's own end wins over whatever it did to the call.
	if ctx.Err() != nil {
		return reasonCancelled, context.Cause(ctx)
	}
	code := status.Code(err)
	text := status.Convert(err).Message()
	if secret != "" {
		text = strings.ReplaceAll(text, secret, "[token]")
	}
	cause = status.Error(code, oneLine(text))
	switch {
	case code == codes.DeadlineExceeded:
		return reasonDeadline, cause
	case code == codes.Unavailable && !answered:
		return reasonTransport, cause
	case code == codes.ResourceExhausted && strings.Contains(text, "larger than max"):
		return reasonMessageTooLarge, cause
	}
	return "status_" + snake(code.String()), cause
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

// maxQuoted bounds what a server can put into our log line, in bytes.
const maxQuoted = 300

func quoted(s string) string {
	if len(s) > maxQuoted {
		return strconv.QuoteToASCII(s[:maxQuoted]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

// oneLine is quoted without the outer quotes, and leaves inner quotes alone.
func oneLine(s string) string {
	q := quoted(s)
	cut := strings.HasSuffix(q, "…")
	q = strings.ReplaceAll(strings.TrimSuffix(q, "…"), `\"`, `"`)
	q = q[1 : len(q)-1]
	if cut {
		q += "…"
	}
	return q
}
