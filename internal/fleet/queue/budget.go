package queue

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	generated "github.com/nova-social/orphan-cleaner/gen/control"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/wait"
)

// Budget shares the calls of a second with all other workers. It takes them from the
// control database in bundles, as many as there are callers waiting: each bundle has a
// time of its own in which nobody else's calls are, and spreads its calls over it. While
// the control database is away nobody calls.
type Budget struct {
	perSecond float64
	// take gets a bundle of so many calls, and says in what time it begins.
	take func(ctx context.Context, calls int) (time.Duration, error)

	waiting atomic.Int32
	mu      sync.Mutex
	next    time.Time // of the bundle at hand: when its next call may be made
	calls   int       // left of it
}

// Budget of so many calls a second.
func (c *Control) Budget(perSecond float64) *Budget {
	return &Budget{perSecond: perSecond, take: func(ctx context.Context, calls int) (time.Duration, error) { return c.takeCalls(ctx, calls, perSecond) }}
}

// Wait returns when the next call may be made.
func (b *Budget) Wait(ctx context.Context) error {
	b.waiting.Add(1)
	at, err := b.slot(ctx)
	if err != nil {
		return err
	}
	return wait.For(ctx, time.Until(at))
}

// slot is the time of the next call. One whose time is over, as that of a caller who went
// away, is lost: made up for later, the calls of many workers would come at once.
func (b *Budget) slot(ctx context.Context) (time.Time, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	distance := time.Duration(float64(time.Second) / b.perSecond)
	for b.calls > 0 && time.Since(b.next) > distance {
		b.next, b.calls = b.next.Add(distance), b.calls-1
	}
	bundle := int(b.waiting.Add(-1)) + 1
	if b.calls == 0 {
		startsIn, err := b.take(ctx, bundle)
		if err != nil {
			return time.Time{}, err
		}
		b.next, b.calls = time.Now().Add(startsIn), bundle
	}
	at := b.next
	b.next, b.calls = b.next.Add(distance), b.calls-1
	return at, nil
}

// takeCalls gets a bundle, however long that takes.
func (c *Control) takeCalls(ctx context.Context, calls int, perSecond float64) (time.Duration, error) {
	pause := &backoff.ExponentialBackOff{InitialInterval: 50 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 2 * time.Second}
	startsIn, err := backoff.Retry(ctx, func() (float64, error) {
		startsIn, err := call(ctx, c, pgx.ReadWrite, func(ctx context.Context, q *generated.Queries) (float64, error) {
			return q.FleetTakeCalls(ctx, generated.FleetTakeCallsParams{Wanted: int64(calls), PerSecond: perSecond})
		})
		if err != nil && !database.Transient(err) {
			err = backoff.Permanent(err)
		}
		return startsIn, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, pause time.Duration) {
		c.log.Warn("No calls are made while the control database is away", "pause", pause.Round(time.Millisecond).String(), "error", err)
	}))
	return seconds(startsIn), err
}
