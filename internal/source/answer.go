package source

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// Answer gathers who of the users asked for exists. It is believed whole or not at
// all: after an error it is of no use. Not safe for concurrent use.
type Answer struct {
	// Uppercase and Duplicates count users. They change nothing and are only worth a
	// line at debug level.
	Uppercase, Duplicates int

	asked   []uuid.UUID
	present map[uuid.UUID]bool // a key for each of asked
}

// NewAnswer is an answer in which nobody exists yet.
func NewAnswer(asked []uuid.UUID) *Answer {
	a := &Answer{asked: asked, present: make(map[uuid.UUID]bool, len(asked))}
	for _, id := range asked {
		a.present[id] = false
	}
	return a
}

// Add says that a user exists, by the canonical form of the id, in either case. clean
// makes what came from outside fit to be shown.
func (a *Answer) Add(text string, clean func(string) string) *BatchError {
	id, upper, ok := parseID(text)
	if !ok {
		return Failed(UnparsableID, len(a.asked), fmt.Errorf("the response holds a user whose id %q is not a UUID", clean(text)))
	}
	if upper {
		a.Uppercase++
	}
	if !a.AddID(id) {
		return Failed(ForeignID, len(a.asked), fmt.Errorf("the response holds user %s, who was not asked for", clean(text)))
	}
	return nil
}

// AddID is Add of a typed id; false: the user was not asked for.
func (a *Answer) AddID(id uuid.UUID) bool {
	again, found := a.present[id]
	if !found {
		return false
	}
	if again {
		a.Duplicates++
	}
	a.present[id] = true
	return true
}

// Missing are the ids that the answer leaves out, in the order asked, each once. It
// is to be called once, when the answer is complete.
func (a *Answer) Missing() (missing []uuid.UUID) {
	for _, id := range a.asked {
		if !a.present[id] {
			missing = append(missing, id)
			a.present[id] = true // asked twice, reported once
		}
	}
	return missing
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

// Texts are ids as they are sent.
func (cfg Config) Texts(ids []uuid.UUID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		if out[i] = id.String(); cfg.UpperCase {
			out[i] = strings.ToUpper(out[i])
		}
	}
	return out
}
