package model_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// tally counts what histories did, for whoever watches a soak.
type tally struct {
	histories, runs, deleted, restored int

	mu                               sync.Mutex
	operations, faults, points, ways map[string]int
}

func newTally() *tally {
	return &tally{operations: map[string]int{}, faults: map[string]int{}, points: map[string]int{}, ways: map[string]int{}}
}

func (c *tally) count(in map[string]int, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in[what]++
}

func (c *tally) operation(name string)       { c.count(c.operations, name) }
func (c *tally) fault(name string)           { c.count(c.faults, name) }
func (c *tally) ends(how string)             { c.count(c.ways, how) }
func (c *tally) converged(deleted string)    { c.count(c.ways, "history deleted somebody: "+deleted) }
func (c *tally) disturbed(wants disturbance) { c.count(c.points, wants.kind+" @ "+wants.at) }

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "histories %d, runs %d, members deleted %d, restored %d\n", c.histories, c.runs, c.deleted, c.restored)
	for _, part := range []struct {
		name  string
		table map[string]int
	}{{"operations", c.operations}, {"runs ended", c.ways}, {"faults of auth-service", c.faults}, {"disturbances", c.points}} {
		fmt.Fprintf(&b, "%s:", part.name)
		for _, name := range slices.Sorted(maps.Keys(part.table)) {
			fmt.Fprintf(&b, " %s %d;", name, part.table[name])
		}
		b.WriteString("\n")
	}
	return b.String()
}
