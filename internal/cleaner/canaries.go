package cleaner

import "github.com/google/uuid"

// canaries are users whose fate is known. They ride in the ordinary batches: one
// that is a member is met by the scan, the others fill up the last batch.
type canaries struct {
	alive, dead map[uuid.UUID]bool
	unmet       map[uuid.UUID]bool
}

func newCanaries(cfg Config) *canaries {
	c := &canaries{alive: map[uuid.UUID]bool{}, dead: map[uuid.UUID]bool{}, unmet: map[uuid.UUID]bool{}}
	for _, id := range cfg.CanaryAlive {
		c.alive[id], c.unmet[id] = true, true
	}
	for _, id := range cfg.CanaryDead {
		c.dead[id], c.unmet[id] = true, true
	}
	return c
}

// judge notes the canaries among the users of a valid answer.
func (c *canaries) judge(f *Facts, asked []uuid.UUID, isMissing func(uuid.UUID) bool) {
	if len(c.alive)+len(c.dead) == 0 {
		return
	}
	for _, id := range asked {
		switch {
		case c.alive[id] && isMissing(id):
			f.AliveMissing = append(f.AliveMissing, id)
		case c.dead[id] && !isMissing(id):
			f.DeadPresent = append(f.DeadPresent, id)
		}
	}
}

// unknown counts the canaries of a void batch: without them nobody can tell
// whether this is the right auth-service.
func (c *canaries) unknown(f *Facts, asked []uuid.UUID) {
	for _, id := range asked {
		if c.alive[id] || c.dead[id] {
			f.CanariesUnknown++
		}
	}
}
