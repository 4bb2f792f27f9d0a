package database

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// Patience is how often a statement is repeated that somebody stood in the way
// of, and how long each attempt waits for a lock.
type Patience struct {
	Log      *slog.Logger
	Attempts int
	// TimeoutsOnce: a statement that ran into its statement_timeout is not repeated.
	TimeoutsOnce bool
	LockTimeout  time.Duration
	// Retried is told the cause of each repetition, one of Causes. It may be nil.
	Retried func(cause string)
}

// Grace is how much longer this side waits than the server is told to: what the
// server says about a statement that took too long is worth waiting for.
const Grace = 2 * time.Second

// idleLimit bounds how long the server waits for the next statement of a
// transaction: a runner that is frozen in the middle keeps its locks no longer.
const idleLimit = 2 * time.Second

// ReadLimit bounds one reading transaction, on both sides of the wire.
const ReadLimit = time.Minute

// Retry repeats an operation that met a passing error of the database, with
// exponential backoff and jitter, Attempts times at most.
func Retry[T any](ctx context.Context, p Patience, doing string, operation func() (T, error)) (T, error) {
	value, err := backoff.Retry(ctx, func() (T, error) {
		value, err := operation()
		if err != nil && (!Transient(err) || p.TimeoutsOnce && Code(err) == StatementTimeout) {
			err = backoff.Permanent(err)
		}
		return value, err
	},
		backoff.WithBackOff(&backoff.ExponentialBackOff{
			InitialInterval: 50 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 2 * time.Second,
		}),
		backoff.WithMaxTries(uint(p.Attempts)),
		backoff.WithNotify(func(err error, pause time.Duration) {
			if p.Retried != nil {
				p.Retried(Cause(err))
			}
			p.Log.Warn("Database in the way, trying again", "doing", doing, "pause", pause.Round(time.Millisecond).String(), "error", err)
		}))
	if err != nil {
		return value, fmt.Errorf("%s: %w", doing, err)
	}
	return value, nil
}

// Bounded runs queries in one transaction whose waiting and running is bounded
// on both sides of the wire. All settings are local to it, so that a pooler may
// hand the session on.
func Bounded[T any](ctx context.Context, pool *pgxpool.Pool, p Patience, mode pgx.TxAccessMode, limit time.Duration,
	query func(ctx context.Context, q *db.Queries) (T, error),
) (value T, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit+Grace)
	defer cancel()
	between := "BEGIN"
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: mode}, func(tx pgx.Tx) error {
		between = "COMMIT"
		q := Queries(tx)
		if err := q.SettingsApply(ctx, db.SettingsApplyParams{
			LockTimeout: Milliseconds(p.LockTimeout), StatementTimeout: Milliseconds(limit), IdleTimeout: Milliseconds(idleLimit), IsLocal: true,
		}); err != nil {
			return err
		}
		value, err = query(ctx, q)
		return err
	})
	if Code(err) != "" { // of the transaction itself, unless a statement's
		err = ofStatement(between, err)
	}
	return value, addressed(err)
}

// Once is Bounded for what a person or a probe asks: one attempt, and each wait for
// a lock is bounded by the limit or by the function that is called.
func Once[T any](ctx context.Context, pool *pgxpool.Pool, mode pgx.TxAccessMode, query func(ctx context.Context, q *db.Queries) (T, error)) (T, error) {
	return Bounded(ctx, pool, Patience{}, mode, ReadLimit, query)
}

// ForSession gives a session of our own, no pooler's, the settings that Bounded gives
// a transaction, without limits: CREATE INDEX CONCURRENTLY may take hours.
func ForSession(ctx context.Context, conn *pgx.Conn) error {
	err := Queries(conn).SettingsApply(ctx, db.SettingsApplyParams{LockTimeout: "0", StatementTimeout: "0", IdleTimeout: "0"})
	if err != nil {
		return fmt.Errorf("preparing the session: %w", err)
	}
	return nil
}

// Do is Retry of a transaction that is Bounded: what most of the program does
// with the database.
func Do[T any](ctx context.Context, pool *pgxpool.Pool, p Patience, mode pgx.TxAccessMode, limit time.Duration, doing string,
	query func(ctx context.Context, q *db.Queries) (T, error),
) (T, error) {
	return Retry(ctx, p, doing, func() (T, error) { return Bounded(ctx, pool, p, mode, limit, query) })
}

// Milliseconds is a duration as PostgreSQL's settings take it.
func Milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) + "ms" }

// OrNil is a parameter of a query: null where the value is its type's zero.
func OrNil[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}
