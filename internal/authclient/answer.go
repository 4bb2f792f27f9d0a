package authclient

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/uuid"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
)

// AnswerNotes are oddities of a valid answer. They change nothing and are only
// worth a line at debug level.
type AnswerNotes struct {
	// Uppercase and Duplicates count users.
	Uppercase, Duplicates int
	// UnknownFields is set when the reply itself, not a user in it, carries
	// fields that this contract does not know. Such a field could say that the
	// answer is only a part.
	UnknownFields bool
}

// missingFrom returns the asked ids that the answer leaves out, in the order
// asked, each once. The answer is believed whole or not at all: with an error,
// which is a *BatchError, missing is nil.
func missingFrom(asked []uuid.UUID, answer *authservicev1.GetUsersByIdsResponse) (missing []uuid.UUID, notes AnswerNotes, err error) {
	if answer == nil {
		return nil, notes, void(reasonNoAnswer, len(asked), fmt.Errorf("there is no reply"))
	}
	// Users beside an error may be all or some of them: nobody can tell.
	if e := answer.GetError(); e != nil {
		return nil, notes, void(reasonInBandError, len(asked), fmt.Errorf(
			"the OK reply carries an error, code %s, message %s", quoted(e.GetCode()), quoted(e.GetMessage())))
	}

	// order holds positions in asked, sorted by id: a set that needs no map
	// and, up to MaxBatch, no allocation.
	var orderRoom [MaxBatch]int
	var presentRoom [MaxBatch]bool
	order, present := orderRoom[:0], presentRoom[:0]
	for i := range asked {
		order, present = append(order, i), append(present, false)
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare(asked[a][:], asked[b][:]) })
	find := func(id uuid.UUID) (at int, found bool) {
		return slices.BinarySearchFunc(order, id, func(i int, id uuid.UUID) int { return bytes.Compare(asked[i][:], id[:]) })
	}

	for _, user := range answer.GetUsers() {
		text := user.GetId()
		id, upper, ok := parseID(text)
		if !ok {
			return nil, AnswerNotes{}, void(reasonUnparsableID, len(asked), fmt.Errorf("the reply holds a user whose id %s is not a UUID", quoted(text)))
		}
		at, found := find(id)
		if !found {
			return nil, AnswerNotes{}, void(reasonForeignID, len(asked), fmt.Errorf("the reply holds user %s, who was not asked for", id))
		}
		if upper {
			notes.Uppercase++
		}
		if present[at] {
			notes.Duplicates++
		}
		present[at] = true
	}
	notes.UnknownFields = len(answer.ProtoReflect().GetUnknown()) > 0

	for _, id := range asked {
		at, _ := find(id)
		if !present[at] {
			missing = append(missing, id)
			present[at] = true // asked twice, reported once
		}
	}
	return missing, notes, nil
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
