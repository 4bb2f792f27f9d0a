package authclient

import (
	"fmt"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
)

// oddities of a valid response count users. They change nothing and are only worth
// a line at debug level.
type oddities struct{ uppercase, duplicates int }

// missingFrom returns the ids of asked that the response leaves out, in the order
// asked, each once. The response is believed whole or not at all: where it is
// invalid, missing is nil. token was sent with the request.
func missingFrom(asked []uuid.UUID, response *authservicev1.GetUsersByIdsResponse, token token) (missing []uuid.UUID, odd oddities, invalid *BatchError) {
	fail := func(reason, format string, args ...any) ([]uuid.UUID, oddities, *BatchError) {
		return nil, oddities{}, failure(reason, len(asked), fmt.Errorf(format, args...))
	}
	// Users beside an error may be all or some of them: nobody can tell.
	if e := response.GetError(); e != nil {
		return fail(reasonInBandError, "the OK response carries an error, code %q, message %q", token.clean(e.GetCode()), token.clean(e.GetMessage()))
	}
	// A new field may be the token of the next page, or hold the other users. One
	// inside a user says nothing about who is there.
	if unknown := response.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		field, _, _ := protowire.ConsumeTag(unknown)
		return fail(reasonUnknownField, "the response has the unknown field %d, so it may be a part of the whole; compare proto/ with the contract of auth-service", field)
	}

	present := make(map[uuid.UUID]bool, len(asked))
	for _, id := range asked {
		present[id] = false
	}
	for _, user := range response.GetUsers() {
		text := user.GetId()
		id, upper, ok := parseID(text)
		if !ok {
			return fail(reasonUnparsableID, "the response holds a user whose id %q is not a UUID", token.clean(text))
		}
		again, found := present[id]
		if !found {
			return fail(reasonForeignID, "the response holds user %s, who was not asked for", token.clean(text))
		}
		if upper {
			odd.uppercase++
		}
		if again {
			odd.duplicates++
		}
		present[id] = true
	}

	for _, id := range asked {
		if !present[id] {
			missing = append(missing, id)
			present[id] = true // asked twice, reported once
		}
	}
	return missing, odd, nil
}

// parseID reads the canonical form only, xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
// in either case. uuid.Parse alone would also take URNs, braces and bare hex,
// none of which auth-service writes.
func parseID(text string) (id uuid.UUID, upper, ok bool) {
	if len(text) != 36 {
		return id, false, false
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return uuid.UUID{}, false, false
	}
	for i := range len(text) {
		upper = upper || ('A' <= text[i] && text[i] <= 'F')
	}
	return id, upper, true
}
