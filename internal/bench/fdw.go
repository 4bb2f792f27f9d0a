package bench

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

func foreignUsers(ctx context.Context, conn *pgx.Conn, settings map[string]string) error {
	return script(ctx, conn, "making the foreign table (is postgresql-contrib installed?)", fdwUsersSQL, settings)
}

func foreignUnaudited(ctx context.Context, conn *pgx.Conn, settings map[string]string) error {
	if err := triggersOff(ctx, conn, nil); err != nil {
		return err
	}
	return foreignUsers(ctx, conn, settings)
}

// foreign is a DBA's own way, where one server may read the other's tables.
func foreign(ctx context.Context, s Subject) (Outcome, error) {
	tag, err := s.Pool.Exec(ctx, fdwDeleteSQL)
	if err != nil {
		return Outcome{}, fmt.Errorf("deleting over the foreign table: %w", err)
	}
	return Outcome{Deleted: tag.RowsAffected()}, nil
}

func foreignAudited(ctx context.Context, s Subject) (out Outcome, err error) {
	err = pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fdwOpenRunSQL); err != nil {
			return fmt.Errorf("opening a run: %w", err)
		}
		tag, err := tx.Exec(ctx, fdwDeleteSQL)
		if err != nil {
			return fmt.Errorf("deleting over the foreign table: %w", err)
		}
		out.Deleted = tag.RowsAffected()
		return nil
	})
	return out, err
}
