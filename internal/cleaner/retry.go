package cleaner

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// readLimit bounds one reading transaction, on both sides of the wire.
const readLimit = time.Minute

// retry repeats an operation that met a passing error of the database, with
// exponential backoff and jitter, Config.Attempts times at most.
func retry[T any](ctx context.Context, c *Cleaner, doing string, operation func() (T, error)) (T, error) {
	value, err := backoff.Retry(ctx, func() (T, error) {
		value, err := operation()
		if err != nil && !database.Transient(err) {
			err = backoff.Permanent(err)
		}
		return value, err
	},
		backoff.WithBackOff(&backoff.ExponentialBackOff{
			InitialInterval: 50 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 2 * time.Second,
		}),
		backoff.WithMaxTries(uint(c.cfg.Attempts)),
		backoff.WithNotify(func(err error, pause time.Duration) {
			c.log.Warn("Database in the way, trying again", "doing", doing, "pause", pause.Round(time.Millisecond).String(), "error", err)
		}))
	if err != nil {
		return value, fmt.Errorf("%s: %w", doing, err)
	}
	return value, nil
}

// read runs queries in a READ ONLY transaction, so that nothing read by a dry
// run, or by the verification of any run, can change anything.
func read[T any](ctx context.Context, c *Cleaner, doing string, query func(ctx context.Context, q *db.Queries) (T, error)) (T, error) {
	return retry(ctx, c, doing, func() (value T, err error) {
		ctx, cancel := context.WithTimeout(ctx, readLimit)
		defer cancel()
		err = pgx.BeginTxFunc(ctx, c.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			q := db.New(tx)
			if err := q.SettingsForBulk(ctx, db.SettingsForBulkParams{
				LockTimeout: milliseconds(c.cfg.LockTimeout), StatementTimeout: milliseconds(readLimit),
			}); err != nil {
				return err
			}
			value, err = query(ctx, q)
			return err
		})
		return value, err
	})
}
