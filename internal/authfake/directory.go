package authfake

import (
	"sync"

	"github.com/google/uuid"
)

// directory is the set of living users. To the caller of GetUsersByIds a user
// who was deleted and one who never was are the same, so both are simply not in
// it. It takes 20 to 40 bytes a user.
type directory struct {
	mu     sync.RWMutex
	living map[uuid.UUID]struct{}
}

func (d *directory) has(id uuid.UUID) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, found := d.living[id]
	return found
}

// Add creates users.
func (d *directory) Add(ids ...uuid.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		d.living[id] = struct{}{}
	}
}

// Delete soft-deletes users.
func (d *directory) Delete(ids ...uuid.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		delete(d.living, id)
	}
}

// Revive undoes a soft delete.
func (d *directory) Revive(ids ...uuid.UUID) { d.Add(ids...) }

// Living is the number of living users.
func (d *directory) Living() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.living)
}
