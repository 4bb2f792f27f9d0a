package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fence"
)

// Checker asks auth-service about users: a revert deletes, and only members of
// users whom it leaves out.
type Checker interface {
	// Missing returns those of the ids (1 to 100) that a complete and valid
	// answer left out. Any error means that nothing is known about any of them.
	Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error)
}

// errStale says that an answer grew older than AnswerAge before its delete.
var errStale = errors.New("the answer of auth-service is too old to delete by")

// PreviewRevert says what a restore gave back. It fails with [ErrNoRestore] when
// the run is no ended restore. It only reads.
func (r *Restorer) PreviewRevert(ctx context.Context, of int64) (db.RestoreSummaryRow, error) {
	sum, err := database.Retry(ctx, r.patience(), "reading the restore", func() (db.RestoreSummaryRow, error) {
		return db.New(r.pool).RestoreSummary(ctx, of)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return sum, fmt.Errorf("%w: there is no run %d; see: orphan-cleaner status", ErrNoRestore, of)
	case err != nil:
		return sum, err
	case sum.Kind != "restore" || sum.State == "running":
		return sum, fmt.Errorf("%w: run %d is of kind %s and %s; see: orphan-cleaner status", ErrNoRestore, of, sum.Kind, sum.State)
	}
	return sum, nil
}

// Revert takes the members of a restore again, audited and backed up like any
// deletion: those that are as they were given back, of users whom auth-service
// leaves out, on no hold but the restore's own. Then it lifts that hold. A pause
// stops it, since it deletes.
func (r *Restorer) Revert(ctx context.Context, of int64, checker Checker) (Result, error) {
	if _, err := r.PreviewRevert(ctx, of); err != nil {
		return Result{State: state(err), Error: err.Error()}, err
	}
	return r.asRun(ctx, false, func(ctx context.Context, run *fence.Run, result *Result) error {
		// Paused: before anybody is asked, and before a hold is lifted.
		if _, err := database.Retry(ctx, r.patience(), "looking for a pause", func() (struct{}, error) {
			return struct{}{}, run.Heartbeat(ctx, db.New(r.pool), 0)
		}); err != nil {
			return err
		}
		err := r.eachChunk(ctx, run, of, "restored", func(ctx context.Context, chunk db.RestoreChunksRow) (int64, error) {
			result.MembersLeft += chunk.Members
			return r.revertChunk(ctx, run, of, chunk, checker, result)
		})
		if err != nil {
			return err
		}
		if _, err := database.Retry(ctx, r.patience(), "lifting the restore's holds", func() (int64, error) {
			return db.New(r.pool).HoldRemoveOfRun(ctx, db.HoldRemoveOfRunParams{RunID: of})
		}); err != nil {
			return err
		}
		if result.UsersUnknown > 0 {
			return fmt.Errorf("%w: %d users without a correct answer of auth-service", ErrIncomplete, result.UsersUnknown)
		}
		return nil
	})
}

// revertChunk asks about the users of a chunk batch by batch, and takes the
// members of those whom auth-service leaves out before it asks about the next.
func (r *Restorer) revertChunk(ctx context.Context, run *fence.Run, of int64, chunk db.RestoreChunksRow, checker Checker, result *Result) (taken int64, err error) {
	users, err := database.Retry(ctx, r.patience(), "reading the users of a chunk", func() ([]uuid.UUID, error) {
		return db.New(r.pool).RestoreUsers(ctx, db.RestoreUsersParams{RunID: of, Day: chunk.Day, FirstPage: chunk.FirstPage, Pages: r.cfg.ChunkPages})
	})
	if err != nil {
		return 0, err
	}
	for batch := range slices.Chunk(users, r.cfg.BatchSize) {
		asked := time.Now()
		missing, err := checker.Missing(ctx, batch)
		if ctx.Err() != nil {
			return taken, ctx.Err()
		}
		if err != nil {
			result.UsersUnknown += int64(len(batch))
			r.log.Warn("No correct answer, these users stay as they are", "users", len(batch), "error", err)
			continue
		}
		members, err := r.takeAgain(ctx, run, of, chunk, missing, asked)
		if taken += members; err != nil {
			return taken, err
		}
	}
	r.advance(chunk.Members, 0)
	return taken, nil
}

// takeAgain is one transaction: fence, delete, count proof.
func (r *Restorer) takeAgain(ctx context.Context, run *fence.Run, of int64, chunk db.RestoreChunksRow, users []uuid.UUID, asked time.Time) (int64, error) {
	if len(users) == 0 {
		return 0, nil
	}
	return database.Retry(ctx, r.patience(), "taking members again", func() (int64, error) {
		if time.Since(asked) >= r.cfg.AnswerAge {
			return 0, errStale
		}
		return database.Bounded(ctx, r.pool, r.patience(), pgx.ReadWrite, r.cfg.ChunkLimit, func(ctx context.Context, q *db.Queries) (int64, error) {
			if _, err := q.ChunkSettings(ctx, db.ChunkSettingsParams{
				RunID: run.ID, LockTimeout: database.Milliseconds(r.cfg.LockTimeout), StatementTimeout: database.Milliseconds(r.cfg.ChunkLimit),
			}); err != nil {
				return 0, err
			}
			if err := run.Heartbeat(ctx, q, 0); err != nil {
				return 0, err
			}
			taken, err := q.RevertChunk(ctx, db.RevertChunkParams{
				RunID: run.ID, RevertedRun: of, Day: chunk.Day, FirstPage: chunk.FirstPage, Pages: r.cfg.ChunkPages, UserIds: users,
			})
			if err != nil {
				return 0, err
			}
			if err := fence.Prove(ctx, q, taken); err != nil {
				return 0, err
			}
			return taken, run.Heartbeat(ctx, q, taken)
		})
	})
}
