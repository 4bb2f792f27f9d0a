package cleaner

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Users whose members went are asked about again, to notice one who is alive: in
// the free places of the last batch, and in a tenth as many batches more.
const (
	lookBackShare = 10     // one batch for so many of the scan
	lookBackUsers = 10_000 // at most, in one run
	lookBackLines = 10     // users named in the log one by one
)

// askAgainAbout appends departed users to the last batch and sends those that
// follow.
func (r *run) askAgainAbout(ctx context.Context, next batch, sent int, send func(batch) error) error {
	room := 0
	if len(next.ids) > 0 {
		room = r.cfg.BatchSize - len(next.ids)
		sent++
	}
	room = min(room+sent/lookBackShare*r.cfg.BatchSize, lookBackUsers)
	var departed []uuid.UUID
	if room > 0 && !r.cfg.DryRun {
		var err error
		if departed, err = read(ctx, r.Cleaner, "reading who departed", func(ctx context.Context, q *db.Queries) ([]uuid.UUID, error) {
			return q.DepartedPage(ctx, int64(room))
		}); err != nil {
			return err
		}
	}
	if len(departed) > 0 {
		r.back.through = departed[len(departed)-1]
	}
	for _, user := range departed {
		if slices.Contains(next.ids, user) { // a member again, or a canary
			continue
		}
		next.ids = append(next.ids, user)
		if next.departed++; len(next.ids) == r.cfg.BatchSize {
			if err := send(next); err != nil {
				return err
			}
			next = r.newBatch()
		}
	}
	if len(next.ids) == 0 {
		return nil
	}
	return send(next)
}

// lookBack writes down what became of the departed, and names those who are
// alive again while members that a run deleted could be given back.
func (r *run) lookBack(ctx context.Context) error {
	if len(r.back.alive)+len(r.back.missing) == 0 {
		return nil
	}
	risen, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadWrite, mergeLimit, "looking back at departed users", func(ctx context.Context, q *db.Queries) ([]db.DepartedCheckRow, error) {
		// Empty, not null: null would stand for everybody.
		return q.DepartedCheck(ctx, db.DepartedCheckParams{
			RunID: r.id, AskedThrough: r.back.through,
			Alive: append([]uuid.UUID{}, r.back.alive...), Missing: append([]uuid.UUID{}, r.back.missing...),
		})
	})
	if err != nil {
		// What was to be deleted is deleted; who was to be looked at waits.
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	r.facts.UsersResurrected = int64(len(risen))
	for _, user := range risen[:min(len(risen), lookBackLines)] {
		r.log.Error("A user whose members were deleted is alive again", "user", user.UserID, "members", user.Members,
			"restore", "orphan-cleaner restore --user "+user.UserID.String()+" --execute")
	}
	if more := len(risen) - lookBackLines; more > 0 {
		r.log.Error("More users whose members were deleted are alive again", "users", more,
			"restore", "orphan-cleaner restore --resurrected --execute")
	}
	return nil
}

// departed are users that a correct answer spoke about again.
type departed struct {
	alive, missing []uuid.UUID
	through        uuid.UUID // the last one asked about: the next run goes on behind it
}

// note sorts the departed users of a batch by its answer.
func (d *departed) note(a answer) {
	for _, user := range a.ids[len(a.ids)-a.departed:] {
		if slices.Contains(a.missing, user) {
			d.missing = append(d.missing, user)
		} else {
			d.alive = append(d.alive, user)
		}
	}
}
