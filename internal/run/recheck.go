package run

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// recheckLines is how many users are named in the log one by one.
const recheckLines = 10

// writeRechecks writes down what the rechecks found, and names those who are
// alive again while their deleted rows can be restored.
func (r *run) writeRechecks(ctx context.Context, f *found) error {
	if len(f.risen)+len(f.stillMissing) == 0 {
		return nil
	}
	risen, err := write(ctx, r, "writing rechecks", func(ctx context.Context, q *db.Queries) ([]db.RecheckWriteRow, error) {
		return q.RecheckWrite(ctx, db.RecheckWriteParams{RunID: r.fence.ID, Token: r.fence.Token, Reached: f.Rechecked, Alive: notNull(f.risen), Missing: notNull(f.stillMissing)})
	})
	if err != nil {
		// What was to be deleted is deleted; who was to be rechecked waits.
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	r.did.UsersResurrected = int64(len(risen))
	for _, user := range risen[:min(len(risen), recheckLines)] {
		r.log.Error("A user whose members were deleted is alive again", "user", user.UserID, "members", user.Members,
			"restore", "orphan-cleaner restore --user "+user.UserID.String()+" --execute")
	}
	if more := len(risen) - recheckLines; more > 0 {
		r.log.Error("More users whose members were deleted are alive again", "users", more, "restore", "orphan-cleaner restore --resurrected --execute")
	}
	return nil
}

// notNull is an array that the database can tell from null.
func notNull(ids []uuid.UUID) []uuid.UUID { return append([]uuid.UUID{}, ids...) }
