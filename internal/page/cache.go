package page

import (
	"context"
	"sync"
	"time"
)

// cached is what was read last, for all who ask at the same time and a while longer.
type cached[T any] struct {
	mu    sync.Mutex
	value T
	err   error
	until time.Time
}

const (
	// fresh is how long an answer is good for at least.
	fresh = 5 * time.Second
	// rest is how many times as long as reading took nothing is read again: whoever
	// reloads the page keeps the database busy for a twentieth of the time at most.
	rest = 20
)

// get reads anew what has grown old. A failure is kept as a success is, so that
// nobody queues up behind a database that is down.
func (c *cached[T]) get(ctx context.Context, read func(context.Context) (T, error)) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if began := time.Now(); began.After(c.until) {
		// The answer is for everybody, also if this one goes away; read bounds itself.
		c.value, c.err = read(context.WithoutCancel(ctx))
		ended := time.Now()
		c.until = ended.Add(max(fresh, rest*ended.Sub(began)))
	}
	return c.value, c.err
}

// cachedRuns are the runs that were looked at last. One is read at a time.
type cachedRuns struct {
	mu   sync.Mutex
	runs map[int64]*cached[run]
	one  sync.Mutex
}

const maxRuns = 100

func (c *cachedRuns) get(ctx context.Context, id int64, read func(context.Context) (run, error)) (run, error) {
	return c.entry(id).get(ctx, func(ctx context.Context) (run, error) {
		c.one.Lock()
		defer c.one.Unlock()
		return read(ctx)
	})
}

func (c *cachedRuns) entry(id int64) *cached[run] {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, is := c.runs[id]
	if !is {
		if c.runs == nil || len(c.runs) >= maxRuns {
			c.runs = map[int64]*cached[run]{}
		}
		entry = &cached[run]{}
		c.runs[id] = entry
	}
	return entry
}
