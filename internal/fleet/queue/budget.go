package queue

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	generated "github.com/nova-social/orphan-cleaner/gen/control"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/wait"
)

// Budget shares the calls of a second with all other workers. It takes them from the
// control database in bundles: each has a time of its own in which nobody else's calls
// are, and spreads its calls over it. While the control database is away nobody calls.
type Budget struct {
	control   *Control
	perSecond float64

	mu    sync.Mutex
	next  time.Time // of the bundle at hand: when its next call may be made
	calls int       // left of it
}

// Budget of so many calls a second.
func (c *Control) Budget(perSecond float64) *Budget { return &Budget{control: c, perSecond: perSecond} }

// bundleTime is what a bundle lasts: the database is asked four times a second, and a
// worker that is killed takes no more with it.
const bundleTime = 250 * time.Millisecond

func (b *Budget) bundle() int { return max(1, int(b.perSecond*bundleTime.Seconds())) }

// Wait returns when the next call may be made.
func (b *Budget) Wait(ctx context.Context) error {
	at, err := b.slot(ctx)
	if err != nil {
		return err
	}
	return wait.For(ctx, time.Until(at))
}

// slot is the time of the next call. A call whose time is over is lost: made up for later,
// the calls of many workers would come at once.
func (b *Budget) slot(ctx context.Context) (time.Time, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	distance := time.Duration(float64(time.Second) / b.perSecond)
	for b.calls > 0 && time.Since(b.next) > distance {
		b.next, b.calls = b.next.Add(distance), b.calls-1
	}
	if b.calls == 0 {
		startsIn, err := b.take(ctx)
		if err != nil {
			return time.Time{}, err
		}
		b.next, b.calls = time.Now().Add(startsIn), b.bundle()
	}
	at := b.next
	b.next, b.calls = b.next.Add(distance), b.calls-1
	return at, nil
}

// take gets a bundle, however long that takes.
func (b *Budget) take(ctx context.Context) (time.Duration, error) {
	pause := &backoff.ExponentialBackOff{InitialInterval: 50 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 2 * time.Second}
	var seconds float64
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := b.control.once(ctx, pgx.ReadWrite, func(ctx context.Context, _ pgx.Tx, q *generated.Queries) (err error) {
			seconds, err = q.FleetTakeCalls(ctx, generated.FleetTakeCallsParams{Wanted: int32(b.bundle()), PerSecond: b.perSecond})
			return err
		})
		if err != nil && !database.Transient(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, pause time.Duration) {
		b.control.log.Warn("No calls are made while the control database is away", "pause", pause.Round(time.Millisecond).String(), "error", err)
	}))
	return time.Duration(seconds * float64(time.Second)), err
}
