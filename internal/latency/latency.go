// Package latency counts how long the batches of a run took.
package latency

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
)

// buckets is how many elements runs.call_ms_buckets has: element i counts
// batches of at most 2^((i-1)/4) ms, the last one all others.
const buckets = 61

// bucket is the first element whose bound, 2^(i/4) ms, is not exceeded.
func bucket(took time.Duration) int {
	i := math.Ceil(4 * math.Log2(took.Seconds()*1000))
	return int(min(max(i, 0), buckets-1))
}

// Checker is a checker of users whose batches are timed.
type Checker struct {
	Next interface {
		Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error)
	}

	mu      sync.Mutex
	counts  [buckets]int64
	slowest time.Duration
}

// Missing is Next.Missing. A batch that the end of the run cut short does not count.
func (c *Checker) Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	began := time.Now()
	missing, err := c.Next.Missing(ctx, ids)
	took := time.Since(began)
	if ctx.Err() == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.counts[bucket(took)]++
		c.slowest = max(c.slowest, took)
	}
	return missing, err
}

// Recorded is what the run's row keeps; nothing where nothing was checked.
func (c *Checker) Recorded() (counts []int64, slowestMillis *float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slowest == 0 {
		return nil, nil
	}
	return append(counts, c.counts[:]...), new(c.slowest.Seconds() * 1000)
}
