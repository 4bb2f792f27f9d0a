// Package canary knows users of whom it is certain whether they exist: an
// auth-service that says otherwise is wrong, or another environment's.
package canary

import (
	"maps"
	"slices"

	"github.com/google/uuid"
)

// Canaries ride in the ordinary batches of a run: one that has rows is met by the
// scan, the others fill up the last batch. Not safe for concurrent use.
type Canaries struct {
	alive, dead, unmet map[uuid.UUID]bool
	chosen             map[uuid.UUID]bool
	mayMiss            float64 // share of the chosen

	aliveMissing, chosenMissing int // what responses said, against what is known
	DeadPresent                 int
	Unknown                     int // without a valid response: nobody can tell whether this is the right auth-service
}

// New takes users known to be alive, and users known to be deleted.
func New(alive, dead []uuid.UUID) *Canaries {
	c := &Canaries{alive: map[uuid.UUID]bool{}, dead: map[uuid.UUID]bool{}}
	for _, id := range alive {
		c.alive[id] = true
	}
	for _, id := range dead {
		c.dead[id] = true
	}
	c.unmet = maps.Clone(c.alive)
	maps.Copy(c.unmet, c.dead)
	return c
}

// Choose takes users who were alive for long, of whom only so large a share may be
// missing: some were deleted since. They are judged where they are checked; the
// configured go first.
func (c *Canaries) Choose(users []uuid.UUID, mayMiss float64) {
	c.chosen, c.mayMiss = map[uuid.UUID]bool{}, mayMiss
	for _, id := range users {
		c.chosen[id] = true
	}
}

// Has says whether a user was configured.
func (c *Canaries) Has(id uuid.UUID) bool { return c.alive[id] || c.dead[id] }

// Configured says whether any user known to be alive was.
func (c *Canaries) Configured() bool { return len(c.alive) > 0 }

// AliveMissing is how many are missing: any that was configured, and the chosen ones
// if they are more than ordinary deletions explain.
func (c *Canaries) AliveMissing() int {
	if float64(c.chosenMissing) > c.mayMiss*float64(len(c.chosen)) {
		return c.aliveMissing + c.chosenMissing
	}
	return c.aliveMissing
}

// Met notes that a user is checked anyway.
func (c *Canaries) Met(id uuid.UUID) { delete(c.unmet, id) }

// Unmet are those that nobody has met, in the order of their ids.
func (c *Canaries) Unmet() []uuid.UUID {
	return slices.SortedFunc(maps.Keys(c.unmet), func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
}

// Judge compares a valid response with what is known.
func (c *Canaries) Judge(checked, missing []uuid.UUID) {
	for _, id := range checked {
		switch isMissing := slices.Contains(missing, id); {
		case c.alive[id] && isMissing:
			c.aliveMissing++
		case c.chosen[id] && isMissing:
			c.chosenMissing++
		case c.dead[id] && !isMissing:
			c.DeadPresent++
		}
	}
}

// NoResponse counts the canaries of a batch without a valid response.
func (c *Canaries) NoResponse(checked []uuid.UUID) {
	for _, id := range checked {
		if c.alive[id] || c.dead[id] {
			c.Unknown++
		}
	}
}
