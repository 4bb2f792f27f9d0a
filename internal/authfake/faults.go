package authfake

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// FaultFunc responds in place of the honest server. call counts from 1; honest
// computes the true response, which the fault may spoil.
type FaultFunc func(ctx context.Context, call int, ids []string, honest func() (*Response, error)) (*Response, error)

// Expect is what a caller who validates every response must make of a fault.
type Expect int

const (
	// Invalid: all users of the batch are unknown, nobody is missing.
	Invalid Expect = iota
	// Lie: the response is valid in form and false. No caller can tell from one
	// call; breakers, canaries and the retention have to hold.
	Lie
	// Truth: the response is odd but true.
	Truth
)

// Fault is a way of auth-service to go wrong.
type Fault struct {
	// Name is snake case, About one line.
	Name, About string
	Expect      Expect
	// Hangs: the response comes only when the caller's deadline has passed.
	Hangs bool
	// Reply is the fault itself.
	Reply FaultFunc
}

// SetFault makes the server respond by f; Fault{} makes it honest again. Calls
// in flight keep what they began with.
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
		{Name: "nothing", About: "an empty response to any request", Expect: Lie, Reply: Nothing},
		{Name: "half", About: "every second user left out", Expect: Lie, Reply: Half},
		{Name: "other_environment", About: "the database of another environment: nobody asked for is known", Expect: Lie, Reply: Nothing},
		{Name: "flapping", About: "the truth and an empty response, alternating", Expect: Lie, Reply: Flapping},
		{Name: "in_band_error", About: "an error inside an OK response, without users", Reply: InBandError},
		{Name: "in_band_error_with_users", About: "an error inside an OK response, with users", Reply: InBandErrorWithUsers},
		{Name: "empty_in_band_error", About: "an error with neither code nor message", Reply: EmptyInBandError},
		{Name: "error_repeats_token", About: "an error that repeats the request's authorization", Reply: ErrorRepeatsToken},
		{Name: "new_field", About: "a part of the truth and the token of the next page in a new field", Reply: NewField},
		{Name: "users_in_another_field", About: "the truth in a field that the contract does not have", Reply: UsersInAnotherField},
		{Name: "foreign_ids_added", About: "the truth and users nobody asked for", Reply: ForeignIDsAdded},
		{Name: "only_foreign_ids", About: "only users nobody asked for", Reply: OnlyForeignIDs},
		{Name: "unparsable_ids", About: "ids that are not UUIDs", Reply: UnparsableIDs},
		{Name: "empty_ids", About: "users without an id", Reply: EmptyIDs},
		{Name: "bare_hex_ids", About: "UUIDs without dashes", Reply: BareHexIDs},
		{Name: "over_message_limit", About: "a response of 5 MiB", Reply: OverMessageLimit},
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
	return append(faults, Fault{Name: "status_4711", About: "a gRPC status that does not exist", Reply: Status(4711, "injected")})
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
