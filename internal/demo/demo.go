// Package demo fills a throw-away messaging-service with a made-up history.
package demo

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed seed.sql
var seed string

//go:embed living.sql
var living string

// Fill makes conversations and members in messaging-service's tables. One member
// in thirty belongs to a user deleted 31 days ago or longer, two in a hundred to
// one deleted lately. It returns the living users.
func Fill(ctx context.Context, pool *pgxpool.Pool, conversations, members int) ([]uuid.UUID, error) {
	var users []uuid.UUID
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('demo.conversations', $1::integer::text, true), set_config('demo.members', $2::integer::text, true)",
			conversations, members); err != nil {
			return err
		}
		if _, err := tx.Conn().PgConn().Exec(ctx, seed).ReadAll(); err != nil {
			return fmt.Errorf("filling the tables: %w", err)
		}
		rows, err := tx.Query(ctx, living)
		if err != nil {
			return err
		}
		users, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		return err
	})
	if err != nil {
		return nil, err
	}
	// Statistics, as a database at work has them.
	_, err = pool.Exec(ctx, "VACUUM (ANALYZE) conversation_members, users")
	return users, err
}
