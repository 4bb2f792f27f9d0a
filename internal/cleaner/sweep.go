package cleaner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/failpoint"
	"github.com/nova-social/orphan-cleaner/internal/fence"
)

// groupBatches is how many batches of due users are asked about again at once.
// Groups of whole batches keep the calls at ceil(due / batch size).
const groupBatches = 10

// sweep deletes the members of due users, group by group. A group is asked
// about again right before its members go.
func (r *run) sweep(ctx context.Context) error {
	r.enter("sweep")
	left := allUsers()
	for more := true; more; {
		group, err := r.dueGroup(ctx, left)
		if err != nil || len(group) == 0 {
			return err
		}
		// A run across midnight needs the next day's partition; without a place for
		// the backup the delete itself fails.
		if _, err := db.New(r.pool).PartitionEnsure(ctx, daysAhead); err != nil {
			r.log.Warn("Making partitions failed", "error", err)
		}
		if err := r.sweepGroup(ctx, group); err != nil {
			return err
		}
		left, more = left.after(group[len(group)-1])
	}
	return nil
}

func (r *run) dueGroup(ctx context.Context, left userRange) ([]uuid.UUID, error) {
	return retry(ctx, r.Cleaner, "reading due users", func() ([]uuid.UUID, error) {
		return db.New(r.pool).CandidateDuePage(ctx, db.CandidateDuePageParams{
			RunID: r.id, ApprovedRun: r.approval.RunID, Retention: r.cfg.Retention, FromUser: left.from, ThroughUser: left.through,
			MaxUsers: int64(groupBatches * r.cfg.BatchSize),
		})
	})
}

// errStale says that an answer grew older than AnswerAge before its delete.
var errStale = errors.New("the answer of auth-service is too old to delete by")

// sweepGroup asks, deletes in chunks, and asks anew, for half as many users at a
// time, whenever the answer has grown too old before the last chunk.
func (r *run) sweepGroup(ctx context.Context, group []uuid.UUID) error {
	asked := time.Now()
	missing, alive, err := r.askAgain(ctx, group)
	if err := failpoint.After("second-asking", err); err != nil {
		return err
	}
	if err := r.forget(ctx, alive, true); err != nil {
		return err
	}
	r.facts.UsersReturned += int64(len(alive))
	for len(missing) > 0 {
		chosen, err := r.deleteChunk(ctx, missing, asked)
		switch {
		case errors.Is(err, errStale) && len(missing) > r.cfg.BatchSize:
			return r.sweepHalves(ctx, missing)
		case errors.Is(err, errStale), database.Contended(err), errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			r.facts.ChunksLeft++
			r.facts.Cause = err
			r.log.Warn("Chunk left for the next run", "users", len(missing), "error", err)
			return nil
		case err != nil:
			return err
		case chosen < int64(r.cfg.ChunkRows):
			return failpoint.After("forget", r.forget(ctx, missing, false))
		}
	}
	return nil
}

func (r *run) sweepHalves(ctx context.Context, users []uuid.UUID) error {
	for half := range slices.Chunk(users, (len(users)+1)/2) {
		if err := r.sweepGroup(ctx, half); err != nil {
			return err
		}
	}
	return nil
}

// askAgain sorts a group of due users into those still missing and those alive.
// Users of a void batch are in neither: they are unknown, and wait.
func (r *run) askAgain(ctx context.Context, group []uuid.UUID) (missing, alive []uuid.UUID, err error) {
	var mu sync.Mutex
	askers, ctx := errgroup.WithContext(ctx)
	askers.SetLimit(r.cfg.Concurrency)
	for batch := range slices.Chunk(group, r.cfg.BatchSize) {
		askers.Go(func() error {
			gone, err := r.calls.ask(ctx, r.checker, batch)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			r.facts.BatchCalls++
			r.cfg.Observer.BatchDone(err)
			if err != nil {
				r.facts.UsersUnknown += int64(len(batch))
				r.facts.Cause = err
				return nil
			}
			missing = append(missing, gone...)
			for _, user := range batch {
				if !slices.Contains(gone, user) {
					alive = append(alive, user)
				}
			}
			return nil
		})
	}
	// Wait first: the operands of one return have no order.
	err = askers.Wait()
	return missing, alive, err
}

// deleteChunk is one transaction: fence, delete, count proof, commit. It returns
// how many members the statement chose; fewer than ChunkRows means that no more
// are left for these users.
func (r *run) deleteChunk(ctx context.Context, users []uuid.UUID, asked time.Time) (int64, error) {
	return retry(ctx, r.Cleaner, "deleting a chunk", func() (chosen int64, err error) {
		// Each attempt: a retry must not outlive the answer it deletes by.
		if time.Since(asked) >= r.cfg.AnswerAge {
			return 0, errStale
		}
		ctx, cancel := context.WithTimeout(ctx, r.cfg.ChunkLimit)
		defer cancel()
		err = pgx.BeginTxFunc(ctx, r.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			q := db.New(tx)
			session, err := q.ChunkSettings(ctx, db.ChunkSettingsParams{
				RunID: r.id, LockTimeout: database.Milliseconds(r.cfg.LockTimeout), StatementTimeout: database.Milliseconds(r.cfg.ChunkLimit),
			})
			if err != nil {
				return err
			}
			// A session opened since the preflight: "nobody is due" would be no success.
			if session.ReplicationRole != "origin" {
				return fmt.Errorf("session_replication_role is %s by now; look closer with: orphan-cleaner check", session.ReplicationRole)
			}
			if err := failpoint.After("fence", r.fence.Heartbeat(ctx, q, 0)); err != nil {
				return err
			}
			row, err := q.MemberDeleteDue(ctx, db.MemberDeleteDueParams{
				RunID: r.id, ApprovedRun: r.approval.RunID, UserIds: users, Retention: r.cfg.Retention, MaxRows: int64(r.cfg.ChunkRows),
			})
			if err := failpoint.After("delete", err); err != nil {
				return err
			}
			if chosen = row.Chosen; chosen == 0 {
				return nil
			}
			if err := failpoint.After("proof", fence.Prove(ctx, q, row.Chosen, row.Deleted)); err != nil {
				return err
			}
			return failpoint.After("chunk-counted", r.fence.Heartbeat(ctx, q, row.Deleted))
		})
		if err == nil && chosen > 0 {
			r.report(func(p *Progress) { p.MembersDeleted += chosen })
			r.cfg.Observer.ChunkDone(chosen)
		}
		return chosen, failpoint.After("commit", err)
	})
}

func (r *run) forget(ctx context.Context, users []uuid.UUID, alive bool) error {
	if len(users) == 0 {
		return nil
	}
	_, err := retry(ctx, r.Cleaner, "taking users out of the ledger", func() (int64, error) {
		return db.New(r.pool).CandidateForget(ctx, db.CandidateForgetParams{RunID: r.id, UserIds: users, Alive: alive})
	})
	return err
}
