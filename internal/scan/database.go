package scan

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Database is the [Source] of a run: the targets and the ledger. It reads
// in READ ONLY transactions.
type Database struct {
	Pool     *pgxpool.Pool
	Patience database.Patience
	Seen     func(target string, rows int64) // is told how many rows each page has
}

func read[T any](ctx context.Context, d *Database, doing string, query func(ctx context.Context, q *db.Queries) (T, error)) (T, error) {
	return database.Do(ctx, d.Pool, d.Patience, pgx.ReadOnly, database.ReadLimit, doing, query)
}

// Targets are the tables, in the order of the sweep.
func (d *Database) Targets(ctx context.Context) ([]string, error) {
	return read(ctx, d, "reading the targets", func(ctx context.Context, q *db.Queries) ([]string, error) { return q.UserTargets(ctx) })
}

// Page is the next distinct users of a target.
func (d *Database) Page(ctx context.Context, target string, from uuid.UUID, most int64) ([]uuid.UUID, error) {
	page, err := read(ctx, d, "reading user ids", func(ctx context.Context, q *db.Queries) (db.UserPageRow, error) {
		return q.UserPage(ctx, db.UserPageParams{Target: target, FromUser: from, MaxUsers: most})
	})
	d.Seen(target, page.Rows)
	return page.Users, err
}

// Others are candidates, so that the ledger is whole after each run, and users
// without a valid response so far.
func (d *Database) Others(ctx context.Context, from uuid.UUID, most int64) ([]uuid.UUID, error) {
	return read(ctx, d, "reading candidates", func(ctx context.Context, q *db.Queries) ([]uuid.UUID, error) {
		return q.CoverageOthers(ctx, db.CoverageOthersParams{FromUser: from, MaxUsers: most})
	})
}

// Holders are those of the users who have rows.
func (d *Database) Holders(ctx context.Context, users []uuid.UUID) ([]uuid.UUID, error) {
	return read(ctx, d, "reading who has rows", func(ctx context.Context, q *db.Queries) ([]uuid.UUID, error) {
		return q.CoverageHolders(ctx, append([]uuid.UUID{}, users...))
	})
}

// Canaries are users who were alive in ten earlier runs or more.
func (d *Database) Canaries(ctx context.Context, most int32) ([]uuid.UUID, error) {
	return read(ctx, d, "choosing canaries", func(ctx context.Context, q *db.Queries) ([]uuid.UUID, error) {
		return q.RunCanaries(ctx, most)
	})
}

// Rechecks are users whose rows were deleted, behind those of the last run.
func (d *Database) Rechecks(ctx context.Context, most int) ([]uuid.UUID, error) {
	return read(ctx, d, "reading rechecks", func(ctx context.Context, q *db.Queries) ([]uuid.UUID, error) {
		return q.RecheckPage(ctx, int64(most))
	})
}
