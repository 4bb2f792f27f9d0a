package authclient

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// fill adds the users of a response to the answer about so many, or says why the
// response is invalid. token was sent with the request.
func fill(answer *source.Answer, users int, response *authservicev1.GetUsersByIdsResponse, token source.Token) *source.BatchError {
	// Users beside an error may be all or some of them: nobody can tell.
	if e := response.GetError(); e != nil {
		return source.Failed(source.InBandError, users, fmt.Errorf("the OK response carries an error, code %q, message %q", token.Clean(e.GetCode()), token.Clean(e.GetMessage())))
	}
	// A new field may be the token of the next page, or hold the other users. One
	// inside a user says nothing about who is there.
	if unknown := response.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		field, _, _ := protowire.ConsumeTag(unknown)
		return source.Failed(source.UnknownField, users, fmt.Errorf("the response has the unknown field %d, so it may be a part of the whole; compare proto/ with the contract of auth-service", field))
	}
	for _, user := range response.GetUsers() {
		if invalid := answer.Add(user.GetId(), token.Clean); invalid != nil {
			return invalid
		}
	}
	return nil
}
