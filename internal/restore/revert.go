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

// Checker checks users with auth-service: a revert deletes, and only members of
// missing users.
type Checker interface {
	// Missing returns those of the ids (1 to 100) that were not in a complete and
	// valid response. Any error means that nothing is known about any of them.
	Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error)
}

// errStale says that a response grew older than ResponseAge before its delete.
var errStale = errors.New("the response of auth-service is too old to delete by")

// RevertPreview is what a restore brought back, and the breaker that would refuse to delete all
// of it again; empty: none would.
type RevertPreview struct {
	db.RestoreSummaryRow
	Breaker string `json:"breaker"`
	Message string `json:"message"`
}

// PreviewRevert says what a restore brought back, and what the breakers would say if auth-service
// returned none of its users. It fails with [ErrNoRestore] when the run is no ended restore. It only reads.
func (r *Restorer) PreviewRevert(ctx context.Context, of int64) (p RevertPreview, err error) {
	if p.RestoreSummaryRow, err = r.ended(ctx, of); err != nil {
		return p, err
	}
	breakers, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadOnly, r.cfg.PlanLimit, "judging the revert", func(ctx context.Context, q *db.Queries) ([]db.RunBreakersRow, error) {
		facts, err := q.RestoreFacts(ctx, of)
		if err != nil {
			return nil, err
		}
		return q.RunBreakers(ctx, db.RunBreakersParams{Settings: r.cfg.Settings, Facts: facts})
	})
	if i := slices.IndexFunc(breakers, func(b db.RunBreakersRow) bool { return b.IsTripped }); i >= 0 {
		p.Breaker, p.Message = breakers[i].Breaker, breakers[i].Message
	}
	return p, err
}

// ended is what became of a restore that is over.
func (r *Restorer) ended(ctx context.Context, of int64) (db.RestoreSummaryRow, error) {
	sum, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadOnly, r.cfg.PlanLimit, "reading the restore", func(ctx context.Context, q *db.Queries) (db.RestoreSummaryRow, error) {
		return q.RestoreSummary(ctx, of)
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

// Revert deletes the members of a restore once more, audited and backed up like any
// deletion: those that are as they were restored, of users who are missing, on no
// hold but the restore's own. Then it lifts that hold. A pause stops it, since it
// deletes.
func (r *Restorer) Revert(ctx context.Context, of int64, checker Checker) (Result, error) {
	if _, err := r.ended(ctx, of); err != nil {
		return Result{State: fence.State(err, ErrIncomplete), Error: err.Error(), Blocked: []Blocked{}}, err
	}
	return r.asRun(ctx, true, func(ctx context.Context, run *fence.Run, so *Result) error {
		chunks, err := r.chunks(ctx, of, "restored")
		if err != nil {
			return err
		}
		if err := r.judgeRevert(ctx, run, of, chunks, checker, so); err != nil {
			return err
		}
		if _, err := r.eachChunk(ctx, run, so, chunks, func(chunk db.RestoreChunksRow) (int64, error) {
			so.MembersLeft += chunk.Members
			return r.revertChunk(ctx, run, of, chunk, checker, so)
		}); err != nil {
			return err
		}
		if _, err := call(ctx, r, r.cfg.ChunkLimit, "lifting the restore's holds", func(ctx context.Context, q *db.Queries) (int64, error) {
			return q.HoldLift(ctx, db.HoldLiftParams{RestoreRun: &of})
		}); err != nil {
			return err
		}
		if so.UsersUnknown > 0 {
			return fmt.Errorf("%w: %d users without a valid response of auth-service", ErrIncomplete, so.UsersUnknown)
		}
		return nil
	})
}

// revertChunk checks the users of a chunk batch by batch, and deletes the members
// of those who are missing before it checks the next.
func (r *Restorer) revertChunk(ctx context.Context, run *fence.Run, of int64, chunk db.RestoreChunksRow, checker Checker, so *Result) (reverted int64, err error) {
	for batch := range slices.Chunk(chunk.UserIds, r.cfg.BatchSize) {
		members, err := database.Retry(ctx, r.patience(), "reverting members", func() (int64, error) {
			return r.revertBatch(ctx, run, of, chunk, batch, checker, so)
		})
		if reverted += members; err != nil {
			return reverted, fence.Sentinel(err)
		}
	}
	r.advance(chunk.Members, 0)
	return reverted, nil
}

// revertBatch is snapshot, check, and one call of the delete function.
func (r *Restorer) revertBatch(ctx context.Context, run *fence.Run, of int64, chunk db.RestoreChunksRow, batch []uuid.UUID, checker Checker, so *Result) (int64, error) {
	checkedFrom, err := database.Bounded(ctx, r.pool, r.patience(), pgx.ReadOnly, r.cfg.ChunkLimit, func(ctx context.Context, q *db.Queries) (string, error) {
		return q.SnapshotOldest(ctx)
	})
	if err != nil {
		return 0, err
	}
	checked := time.Now()
	missing, err := checker.Missing(ctx, batch)
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err != nil:
		so.UsersUnknown += int64(len(batch))
		r.log.Warn("No valid response, these users stay as they are", "users", len(batch), "error", err)
		return 0, nil
	case time.Since(checked) >= r.cfg.ResponseAge:
		return 0, errStale
	case len(missing) == 0:
		return 0, nil
	}
	return database.Bounded(ctx, r.pool, r.patience(), pgx.ReadWrite, r.cfg.ChunkLimit, func(ctx context.Context, q *db.Queries) (int64, error) {
		return q.RevertChunk(ctx, db.RevertChunkParams{
			RunID: run.ID, Token: run.Token, RevertedRun: of, Day: chunk.Day, FirstPage: chunk.FirstPage, Pages: r.cfg.ChunkPages,
			UserIds: missing, CheckedFrom: checkedFrom, Target: chunk.Target,
		})
	})
}
