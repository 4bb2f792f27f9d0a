package authfake

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// OverMessageLimit responds with 5 MiB, more than a caller should accept.
func OverMessageLimit(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(response *Response) {
		if len(response.Users) == 0 {
			response.Users = append(response.Users, user(uuid.New()))
		}
		response.Users[0].Email = strings.Repeat("x", 5<<20)
	})
}

// NeverAnswers returns when the caller, or Stop, ends the call.
func NeverAnswers(ctx context.Context, _ int, _ []string, _ func() (*Response, error)) (*Response, error) {
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

// GoAwayMidCall sends GOAWAY, claiming the call, and closes the connection
// without a response.
func GoAwayMidCall(ctx context.Context, call int, ids []string, honest func() (*Response, error)) (*Response, error) {
	if conn, _ := ctx.Value(connKey{}).(*trackedConn); conn != nil {
		conn.goAway()
	}
	return DropMidCall(ctx, call, ids, honest)
}

// DropMidCall closes the connection without a response.
func DropMidCall(ctx context.Context, call int, ids []string, honest func() (*Response, error)) (*Response, error) {
	if conn, _ := ctx.Value(connKey{}).(*trackedConn); conn != nil {
		_ = conn.Close()
	}
	return NeverAnswers(ctx, call, ids, honest)
}

// Slow tells the truth after d.
func Slow(d time.Duration) FaultFunc {
	return func(ctx context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
		if err := pause(ctx, d); err != nil {
			return nil, err
		}
		return honest()
	}
}

// Status refuses every call.
func Status(code codes.Code, message string) FaultFunc {
	return func(context.Context, int, []string, func() (*Response, error)) (*Response, error) {
		return nil, status.Error(code, message)
	}
}

// Until applies f to the first n calls and is honest afterwards.
func Until(n int, f FaultFunc) FaultFunc {
	return func(ctx context.Context, call int, ids []string, honest func() (*Response, error)) (*Response, error) {
		if call > n {
			return honest()
		}
		return f(ctx, call, ids, honest)
	}
}
