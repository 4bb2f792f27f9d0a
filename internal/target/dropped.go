package target

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Droppable is an *[Error] where one of the targets that were printed is in the file no
// more while candidates have rows in it: nobody would clean them. And where the file has a
// target that was not printed into the folder, and is one all the same: its migrations are
// elsewhere.
func (f File) Droppable(ctx context.Context, pool *pgxpool.Pool, printed []string) error {
	return bounded(ctx, pool, pgx.ReadOnly, func(tx pgx.Tx) error {
		left := map[string]bool{}
		for _, name := range printed {
			left[name] = true
		}
		for _, t := range f.Targets {
			if taken, err := database.Queries(tx).TargetTaken(ctx, t.Name); err != nil {
				return fmt.Errorf("looking for target %s: %w", t.Name, err)
			} else if taken != "" && !left[t.Name] {
				return t.Errorf("name", "there is %s in the database, and no migration in the folder makes it: choose another name, or give the folder of its migrations", taken)
			}
			delete(left, t.Name)
		}
		for name := range left {
			statement, err := database.Queries(tx).TargetHolding(ctx, name)
			if err != nil {
				return fmt.Errorf("looking for target %s: %w", name, err)
			}
			var users int64
			if statement != "" { // its migration was applied
				if err := tx.QueryRow(ctx, statement).Scan(&users); err != nil {
					return fmt.Errorf("looking for candidates with rows in %s: %w", name, err)
				}
			}
			if users > 0 {
				return &Error{f.Path, 1, 1, fmt.Sprintf("target %s is gone from the file, and %d candidates have rows in it that nobody would clean any more: put it back until they are cleaned; a row whose age is null is never cleaned: set its age, or delete it", name, users)}
			}
		}
		return nil
	})
}
