package cleaner

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
)

// callBuckets is how many elements orphan_runs.call_ms_buckets has.
const callBuckets = 61

// callTimes counts batches by how long they took, see the comment on
// orphan_runs.call_ms_buckets.
type callTimes struct {
	mu      sync.Mutex
	buckets [callBuckets]int64
	slowest time.Duration
}

// callBucket is the first element whose bound, 2^(i/4) ms, is not exceeded.
func callBucket(took time.Duration) int {
	i := math.Ceil(4 * math.Log2(took.Seconds()*1000))
	return int(min(max(i, 0), callBuckets-1))
}

// ask is Checker.Missing, timed. A batch that the end of the run cut short does not count.
func (t *callTimes) ask(ctx context.Context, checker Checker, ids []uuid.UUID) ([]uuid.UUID, error) {
	began := time.Now()
	missing, err := checker.Missing(ctx, ids)
	took := time.Since(began)
	if ctx.Err() == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.buckets[callBucket(took)]++
		t.slowest = max(t.slowest, took)
	}
	return missing, err
}

// recorded is what the run's row keeps; nothing where nothing was asked.
func (t *callTimes) recorded() (buckets []int64, slowestMillis *float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slowest == 0 {
		return nil, nil
	}
	return append(buckets, t.buckets[:]...), new(t.slowest.Seconds() * 1000)
}
