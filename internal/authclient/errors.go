package authclient

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nova-social/orphan-cleaner/internal/source"
)

// callFailed turns the error of one gRPC call into a BatchError. answered says whether
// the server sent anything back. The text of the status comes from outside.
func callFailed(ctx context.Context, err error, answered, inTLS bool, users int, token source.Token) *source.BatchError {
	// The caller's own end wins over whatever it did to the call.
	if ctx.Err() != nil {
		return source.Failed(source.Cancelled, users, context.Cause(ctx))
	}
	code := status.Code(err)
	text := status.Convert(err).Message()
	cause, isPage := causeOf(text, answered, inTLS, token)
	failed := source.Failed(statusReason(code), users, status.Error(code, cause))
	failed.Page = isPage
	switch {
	case code == codes.DeadlineExceeded:
		failed.Reason = source.Deadline
	case code == codes.Unavailable && !answered:
		failed.Reason = source.Transport
	case code == codes.ResourceExhausted && strings.Contains(text, "larger than max"):
		failed.Reason = source.MessageTooLarge
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
