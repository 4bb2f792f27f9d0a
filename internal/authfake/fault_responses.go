package authfake

import (
	"context"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
	commonv1 "github.com/nova-social/orphan-cleaner/gen/nova/common/v1"
)

// Nothing knows nobody.
func Nothing(context.Context, int, []string, func() (*Response, error)) (*Response, error) {
	return &Response{}, nil
}

// Half leaves out every second living user.
func Half(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(response *Response) {
		half := response.Users[:0]
		for i, u := range response.Users {
			if i%2 == 0 {
				half = append(half, u)
			}
		}
		response.Users = half
	})
}

// Flapping is honest on every odd call and knows nobody on every even one.
func Flapping(ctx context.Context, call int, ids []string, honest func() (*Response, error)) (*Response, error) {
	if call%2 == 1 {
		return honest()
	}
	return Nothing(ctx, call, ids, honest)
}

// InBandError sets the error of an OK response and returns no users.
func InBandError(context.Context, int, []string, func() (*Response, error)) (*Response, error) {
	return &Response{Error: inBand()}, nil
}

// InBandErrorWithUsers sets the error beside the true users.
func InBandErrorWithUsers(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(response *Response) { response.Error = inBand() })
}

// EmptyInBandError sets an error that says nothing.
func EmptyInBandError(context.Context, int, []string, func() (*Response, error)) (*Response, error) {
	return &Response{Error: &commonv1.ErrorStatus{}}, nil
}

// ErrorRepeatsToken sets an error that repeats the authorization of the request,
// as the debug messages of some servers do.
func ErrorRepeatsToken(ctx context.Context, _ int, _ []string, _ func() (*Response, error)) (*Response, error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	header := strings.Join(incoming.Get("authorization"), ",")
	return &Response{Error: &commonv1.ErrorStatus{Code: header, Message: "request failed: authorization: " + header}}, nil
}

// newField is a field of the response that the contract does not have.
const newField = 3

// NewField returns all but the last four living users, and says in a new field
// that there is another page.
func NewField(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(response *Response) {
		response.Users = response.Users[:max(0, len(response.Users)-4)]
		page := protowire.AppendTag(nil, newField, protowire.BytesType)
		response.ProtoReflect().SetUnknown(protowire.AppendString(page, "next"))
	})
}

// UsersInAnotherField returns the true users in a new field.
func UsersInAnotherField(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	response, err := honest()
	if err != nil {
		return nil, err
	}
	moved := &Response{}
	field := protowire.AppendTag(nil, newField, protowire.BytesType)
	for _, u := range append(response.Users, user(uuid.New())) { // one at least, so that there is a field
		encoded, err := proto.Marshal(u)
		if err != nil {
			return nil, err
		}
		moved.ProtoReflect().SetUnknown(protowire.AppendBytes(append(moved.ProtoReflect().GetUnknown(), field...), encoded))
	}
	return moved, nil
}

func inBand() *commonv1.ErrorStatus {
	return &commonv1.ErrorStatus{Code: "DATABASE_ERROR", Message: "pool timed out while waiting for an open connection"}
}

// ForeignIDsAdded adds two users whom nobody asked for.
func ForeignIDsAdded(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(response *Response) {
		response.Users = append(response.Users, user(uuid.New()), user(uuid.New()))
	})
}

// OnlyForeignIDs returns as many users as were asked for, all others.
func OnlyForeignIDs(_ context.Context, _ int, ids []string, _ func() (*Response, error)) (*Response, error) {
	response := &Response{}
	for range ids {
		response.Users = append(response.Users, user(uuid.New()))
	}
	return response, nil
}

// UnparsableIDs spoils the id of every user; with no living user asked for, it
// makes one up.
func UnparsableIDs(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return rewriteIDs(honest, func(id string) string { return "u-" + id[2:] })
}

// EmptyIDs removes the id of every user.
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
	return spoil(honest, func(response *Response) {
		for _, u := range response.Users {
			u.Id = strings.ToUpper(u.Id)
		}
	})
}

// Duplicates names every user twice.
func Duplicates(_ context.Context, _ int, _ []string, honest func() (*Response, error)) (*Response, error) {
	return spoil(honest, func(response *Response) { response.Users = append(response.Users, response.Users...) })
}

// spoil changes an honest response.
func spoil(honest func() (*Response, error), change func(*Response)) (*Response, error) {
	response, err := honest()
	if err != nil {
		return nil, err
	}
	change(response)
	return response, nil
}

// rewriteIDs rewrites every id of a response that has at least one.
func rewriteIDs(honest func() (*Response, error), rewrite func(string) string) (*Response, error) {
	return spoil(honest, func(response *Response) {
		if len(response.Users) == 0 {
			response.Users = []*authservicev1.User{user(uuid.New())}
		}
		for _, u := range response.Users {
			u.Id = rewrite(u.Id)
		}
	})
}
