package telemetry

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// refresh reads anew what has grown old. A failure is kept as long as a success
// would be, so that scrapes do not queue up behind a database that is down, and
// is one line in the log until a reading succeeds.
func refresh[T any](ctx context.Context, c *State, what *cached[T], fresh, limit time.Duration, query func(context.Context, *db.Queries) (T, error)) {
	if time.Now().Before(what.until) {
		return
	}
	before := what.err
	what.value, what.err = readOnly(ctx, c.pool, limit, query)
	what.until = time.Now().Add(fresh)
	if what.err != nil && before == nil {
		c.log.Warn("Reading the metrics of the database failed; they are left out until it succeeds", "error", what.err)
	}
}

func readOnly[T any](ctx context.Context, pool *pgxpool.Pool, limit time.Duration, query func(context.Context, *db.Queries) (T, error)) (value T, err error) {
	if pool == nil {
		return value, errors.New("there is no connection to the database")
	}
	return database.Bounded(ctx, pool, database.Patience{LockTimeout: limit}, pgx.ReadOnly, limit, query)
}

func readState(ctx context.Context, q *db.Queries) (s state, err error) {
	if s.MetricsStateRow, err = q.MetricsState(ctx); err != nil {
		return s, err
	}
	if s.runs, err = q.MetricsRuns(ctx); err != nil {
		return s, err
	}
	if s.events, err = q.EventBacklog(ctx); err != nil {
		return s, err
	}
	if s.targets, err = q.MetricsTargets(ctx); err != nil {
		return s, err
	}
	s.partitions, err = q.MetricsPartitions(ctx)
	return s, err
}

func readBacklog(ctx context.Context, q *db.Queries, retention time.Duration) (b backlog, err error) {
	if b.MetricsDueRow, err = q.MetricsDue(ctx, retention); err != nil {
		return b, err
	}
	b.breakers, err = q.MetricsBreakers(ctx, b.DueMembersJudged)
	return b, err
}
