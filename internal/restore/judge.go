package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/canary"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/result"
)

// Canaries that a revert chooses itself, and the share of them that may be missing:
// some were deleted since the last run.
const (
	chosenCanaries = 100
	missingShare   = 0.10
)

// judgeRevert checks all users of a restore, canaries beside them, and has the
// database judge what would be deleted. A refusal is a [result.Refusal]; an invalid
// response is [ErrIncomplete], since a share of unknown users says nothing.
func (r *Restorer) judgeRevert(ctx context.Context, run *fence.Run, of int64, chunks []db.RestoreChunksRow, checker Checker, so *Result) error {
	var users []uuid.UUID
	for _, chunk := range chunks {
		users = append(users, chunk.UserIds...)
	}
	slices.SortFunc(users, compare)
	users = slices.Compact(users)
	chosen, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadOnly, r.cfg.ChunkLimit, "choosing canaries", func(ctx context.Context, q *db.Queries) ([]uuid.UUID, error) {
		return q.UserCanaries(ctx, chosenCanaries)
	})
	if err != nil {
		return err
	}
	known := canary.New(r.cfg.CanaryAlive, r.cfg.CanaryDead)
	// The restored themselves prove nothing, and the configured ones are judged one by one.
	chosen = slices.DeleteFunc(chosen, func(id uuid.UUID) bool { return contains(users, id) || known.Has(id) })
	known.Choose(chosen, missingShare)
	for _, user := range users {
		known.Met(user)
	}
	var missing []uuid.UUID
	for batch := range slices.Chunk(slices.Concat(users, known.Unmet(), chosen), r.cfg.BatchSize) {
		gone, err := checker.Missing(ctx, batch)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			so.UsersUnknown = int64(len(batch))
			return fmt.Errorf("%w: no valid response to the first check: %w", ErrIncomplete, err)
		}
		known.Judge(batch, gone)
		missing = append(missing, gone...)
	}
	missing = slices.DeleteFunc(missing, func(id uuid.UUID) bool { return !contains(users, id) })
	report, err := json.Marshal(map[string]any{
		"users_checked": len(users) + len(chosen), "alive_missing": known.AliveMissing(), "dead_present": known.DeadPresent,
	})
	if err != nil {
		return fmt.Errorf("writing what was found: %w", err)
	}
	judged, err := call(ctx, r, r.cfg.PlanLimit, "judging the revert", func(ctx context.Context, q *db.Queries) (db.RevertJudgeRow, error) {
		return q.RevertJudge(ctx, db.RevertJudgeParams{
			RunID: run.ID, Token: run.Token, RevertedRun: of, Missing: append([]uuid.UUID{}, missing...), Report: report,
		})
	})
	if err == nil && judged.Breaker != "" {
		err = &result.Refusal{Breaker: judged.Breaker, Message: judged.Message}
	}
	return err
}

// compare orders ids as the database does.
func compare(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }

func contains(sorted []uuid.UUID, id uuid.UUID) bool {
	_, is := slices.BinarySearchFunc(sorted, id, compare)
	return is
}
