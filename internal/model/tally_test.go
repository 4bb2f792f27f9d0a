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
	mu     sync.Mutex
	totals map[string]int
	tables map[string]map[string]int
}

const (
	operations   = "operations"
	tableRows    = "rows"
	runEnds      = "ends of runs"
	authFaults   = "faults of auth-service"
	disturbances = "disturbances of runs"
)

func newTally() *tally {
	return &tally{totals: map[string]int{}, tables: map[string]map[string]int{
		operations: {}, tableRows: {}, runEnds: {}, authFaults: {}, disturbances: {},
	}}
}

// add counts into a total.
func (c *tally) add(total string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.totals[total] += n
}

// count counts one of its kind into a table.
func (c *tally) count(table, kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tables[table][kind]++
}

func (c *tally) disturbed(wants disturbance) { c.count(disturbances, wants.kind+" @ "+wants.at) }

// line is the tally in one line: kinds of operations, and sums of the rest.
func (c *tally) line() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := func(table string) string {
		total := 0
		for _, n := range c.tables[table] {
			total += n
		}
		return fmt.Sprintf("%d %s of %d kinds", total, table, len(c.tables[table]))
	}
	return fmt.Sprintf("histories %d, violations %d, runs %d; %s; %s; %s; %s (%s)",
		c.totals["histories"], c.totals["violations"], c.totals["runs"], kinds(c.tables[tableRows]),
		sum(authFaults), sum(disturbances), sum(operations), kinds(c.tables[operations]))
}

func kinds(table map[string]int) string {
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(table)) {
		list = append(list, fmt.Sprintf("%s %d", kind, table[kind]))
	}
	return strings.Join(list, ", ")
}

// String is all of the tally.
func (c *tally) String() string {
	text := c.line()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, table := range []string{runEnds, authFaults, disturbances} {
		text += fmt.Sprintf("\n%s: %s", table, kinds(c.tables[table]))
	}
	return text
}
