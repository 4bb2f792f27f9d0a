package authfake

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
	commonv1 "github.com/nova-social/orphan-cleaner/gen/nova/common/v1"
)

// FaultFunc replies in place of the honest server. call counts from 1; honest
// computes the true reply, which the fault may spoil.
type FaultFunc func(ctx context.Context, call int, ids []string, honest func() (*Response, error)) (*Response, error)

// Expect is what a caller who validates every answer must make of a fault.
type Expect int

const (
	// Void: the batch is void, nobody is missing.
	Void Expect = iota
	// Lie: the answer is valid in form and false. No caller can tell from one
	// call; breakers, canaries and the retention have to hold.
	Lie
	// Truth: the answer is odd but true.
	Truth
)

// Fault is a way of auth-service to go wrong.
type Fault struct {
	// Name is snake case, About one line.
	Name, About string
	Expect      Expect
	// Hangs: the reply comes only when the caller's deadline has passed.
	Hangs bool
	// Reply is the fault itself.
	Reply FaultFunc
}

// SetFault makes the server reply by f; Fault{} makes it honest again. Calls
// that are being answered keep what they began with.
func (s *Server) SetFault(f Fault) { s.SetFaultFunc(f.Reply) }

// SetFaultFunc is SetFault for a fault without a name; nil is honest.
func (s *Server) SetFaultFunc(f FaultFunc) {
	if f == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&f)
}

// Faults is the table of all faults, for tests that range over it.
func Faults() []Fault {
	faults := []Fault{
		{Name: "nothing", About: "an empty answer to any question", Expect: Lie, Reply: Nothing},
		{Name: "half", About: "every second user left out", Expect: Lie, Reply: Half},
		{Name: "other_environment", About: "the database of another environment: nobody asked for is known", Expect: Lie, Reply: Nothing},
		{Name: "flapping", About: "the truth and an empty answer in turn", Expect: Lie, Reply: Flapping},
		{Name: "in_band_error", About: "an error inside an OK reply, without users", Reply: InBandError},
		{Name: "in_band_error_with_users", About: "an error inside an OK reply, with users", Reply: InBandErrorWithUsers},
		{Name: "empty_in_band_error", About: "an error with neither code nor message", Reply: EmptyInBandError},
		{Name: "foreign_ids_added", About: "the truth and users nobody asked for", Reply: ForeignIDsAdded},
		{Name: "only_foreign_ids", About: "only users nobody asked for", Reply: OnlyForeignIDs},
		{Name: "unparsable_ids", About: "ids that are not UUIDs", Reply: UnparsableIDs},
		{Name: "empty_ids", About: "users without an id", Reply: EmptyIDs},
		{Name: "bare_hex_ids", About: "UUIDs without dashes", Reply: BareHexIDs},
		{Name: "over_message_limit", About: "a reply of 8 MiB", Reply: OverMessageLimit},
		{Name: "never_answers", About: "silence until the caller hangs up", Hangs: true, Reply: NeverAnswers},
		{Name: "goaway_mid_call", About: "GOAWAY and a closed connection in mid-call", Reply: GoAwayMidCall},
		{Name: "drop_mid_call", About: "a connection closed in mid-call without a word", Reply: DropMidCall},
		{Name: "upper_case_ids", About: "the truth with ids in upper case", Expect: Truth, Reply: UpperCaseIDs},
		{Name: "duplicates", About: "the truth with every user twice", Expect: Truth, Reply: Duplicates},
		{Name: "slow", About: "the truth after 50 ms", Expect: Truth, Reply: Slow(50 * time.Millisecond)},
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		faults = append(faults, Fault{
			Name:  "status_" + strings.ToLower(code.String()),
			About: "gRPC status " + code.String(),
			Reply: Status(code, "injected"),
		})
	}
	return faults
}

// Named finds a fault of the table.
func Named(name string) (Fault, bool) {
	for _, f := range Faults() {
		if f.Name == name {
			return f, true
		}
	}
	return Fault{}, false
}

// Nothing knows nobody.
func Nothing(context.Context, int, []string, func() (*Response, error)) (*Response, error) {
	return &Response{}, nil
}

// Half leaves out every second living user.
func Half(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(reply *Response) {
		half := reply.Users[:0]
		for i, u := range reply.Users {
			if i%2 == 0 {
				half = append(half, u)
			}
		}
		reply.Users = half
	})
}

// Flapping is honest on every odd call and knows nobody on every even one.
func Flapping(ctx context.Context, call int, ids []string, honest func() (*Response, error)) (*Response, error) {
	if call%2 == 1 {
		return honest()
	}
	return Nothing(ctx, call, ids, honest)
}

// InBandError sets the error of an OK reply and returns no users.
func InBandError(context.Context, int, []string, func() (*Response, error)) (*Response, error) {
	return &Response{Error: inBand()}, nil
}

// InBandErrorWithUsers sets the error beside the true users.
func InBandErrorWithUsers(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(reply *Response) { reply.Error = inBand() })
}

// EmptyInBandError sets an error that says nothing.
func EmptyInBandError(context.Context, int, []string, func() (*Response, error)) (*Response, error) {
	return &Response{Error: &commonv1.ErrorStatus{}}, nil
}

func inBand() *commonv1.ErrorStatus {
	return &commonv1.ErrorStatus{Code: "DATABASE_ERROR", Message: "pool timed out while waiting for an open connection"}
}

// ForeignIDsAdded adds two users whom nobody asked for.
func ForeignIDsAdded(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(reply *Response) {
		reply.Users = append(reply.Users, user(uuid.New()), user(uuid.New()))
	})
}

// OnlyForeignIDs answers with as many users as were asked for, all others.
func OnlyForeignIDs(_ context.Context, _ int, ids []string, _ func() (*Response, error)) (*Response, error) {
	reply := &Response{}
	for range ids {
		reply.Users = append(reply.Users, user(uuid.New()))
	}
	return reply, nil
}

// UnparsableIDs spoils the id of every user; with no living user asked for, it
// makes one up.
func UnparsableIDs(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return rewriteIDs(honest, func(id string) string { return "u-" + id[2:] })
}

// EmptyIDs takes the id of every user away.
func EmptyIDs(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return rewriteIDs(honest, func(string) string { return "" })
}

// BareHexIDs writes ids without dashes: a UUID to many parsers, but not what
// auth-service writes.
func BareHexIDs(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return rewriteIDs(honest, func(id string) string { return strings.ReplaceAll(id, "-", "") })
}

// UpperCaseIDs writes true ids in upper case.
func UpperCaseIDs(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(reply *Response) {
		for _, u := range reply.Users {
			u.Id = strings.ToUpper(u.Id)
		}
	})
}

// Duplicates names every user twice.
func Duplicates(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(reply *Response) { reply.Users = append(reply.Users, reply.Users...) })
}

// OverMessageLimit answers with 8 MiB, twice what a caller should take.
func OverMessageLimit(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(reply *Response) {
		if len(reply.Users) == 0 {
			reply.Users = append(reply.Users, user(uuid.New()))
		}
		reply.Users[0].Email = strings.Repeat("x", 8<<20)
	})
}

// NeverAnswers returns when the caller, or Stop, ends the call.
func NeverAnswers(ctx context.Context, _ int, _ []string, _ func() (*Response, error)) (*Response, error) {
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

// GoAwayMidCall sends GOAWAY, claiming the call, and closes the connection
// without a reply.
func GoAwayMidCall(ctx context.Context, call int, ids []string, honest func() (*Response, error)) (*Response, error) {
	if conn, _ := ctx.Value(connKey{}).(*trackedConn); conn != nil {
		conn.goAway()
	}
	return DropMidCall(ctx, call, ids, honest)
}

// DropMidCall closes the connection without a reply.
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

// spoil changes an honest reply.
func spoil(honest func() (*Response, error), change func(*Response)) (*Response, error) {
	reply, err := honest()
	if err != nil {
		return nil, err
	}
	change(reply)
	return reply, nil
}

// rewriteIDs rewrites every id of a reply that has at least one.
func rewriteIDs(honest func() (*Response, error), rewrite func(string) string) (*Response, error) {
	return spoil(honest, func(reply *Response) {
		if len(reply.Users) == 0 {
			reply.Users = []*authservicev1.User{user(uuid.New())}
		}
		for _, u := range reply.Users {
			u.Id = rewrite(u.Id)
		}
	})
}
