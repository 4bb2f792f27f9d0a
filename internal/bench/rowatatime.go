package bench

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/wait"
)

// rowAtATime is the algorithm of the first implementation, with the index on
// user_id that it did not have.
func rowAtATime(ctx context.Context, s Subject) (Outcome, error) {
	var out Outcome
	rows, err := s.Pool.Query(ctx, rowUsersSQL)
	if err != nil {
		return out, err
	}
	users, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return out, fmt.Errorf("reading all users: %w", err)
	}
	for batch := range slices.Chunk(users, s.Config.BatchSize) {
		missing, err := s.Client.Missing(ctx, batch)
		if err != nil {
			return out, fmt.Errorf("asking auth-service: %w", err)
		}
		before := out.Deleted
		for _, user := range missing {
			tag, err := s.Pool.Exec(ctx, rowDeleteSQL, user)
			if err != nil {
				return out, fmt.Errorf("deleting the members of a user: %w", err)
			}
			out.Deleted += tag.RowsAffected()
		}
		if out.Deleted == before {
			continue
		}
		out.Pauses++
		if err := wait.For(ctx, s.Pause); err != nil {
			return out, err
		}
	}
	return out, nil
}
