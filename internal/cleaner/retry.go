package cleaner

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

func (c *Cleaner) patience() database.Patience {
	return database.Patience{Log: c.log, Attempts: c.cfg.Attempts, LockTimeout: c.cfg.LockTimeout, Retried: c.cfg.Observer.Retried}
}

func retry[T any](ctx context.Context, c *Cleaner, doing string, operation func() (T, error)) (T, error) {
	return database.Retry(ctx, c.patience(), doing, operation)
}

// read runs queries in a READ ONLY transaction, so that nothing read by a dry
// run, or by the verification of any run, can change anything.
func read[T any](ctx context.Context, c *Cleaner, doing string, query func(ctx context.Context, q *db.Queries) (T, error)) (T, error) {
	return database.Do(ctx, c.pool, c.patience(), pgx.ReadOnly, database.ReadLimit, doing, query)
}
