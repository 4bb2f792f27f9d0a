package cleaner

import (
	"context"
	"errors"
	"fmt"
	"math"
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

const (
	// groupBatches is how many batches of due users are asked about again at once.
	// Groups of whole batches keep the calls at ceil(due / batch size).
	groupBatches = 15
	// dueGroups is how many groups are read from the ledger at once.
	dueGroups = 4
)

// sweep deletes the members of due users, group by group, over several
// connections; or gently, over one and a quarter of the time, where others are
// at work. A group is asked about again right before its members go.
func (r *run) sweep(ctx context.Context) error {
	r.enter("sweep")
	// Whoever looks sees the phase, and a run that is over or paused stops here.
	if err := r.fence.Heartbeat(ctx, db.New(r.pool), 0); err != nil {
		return err
	}
	connections := r.cfg.SweepConnections
	if rate := r.lookAround(ctx).busySince(r.around); rate > 0 {
		connections, r.gentle = 1, true
		r.pace.target /= gentleShare
		r.log.Debug("Sweeping gently: others are at work", "their_transactions_per_second", math.Round(rate))
	}
	groups := make(chan []dueUser)
	sweepers, ctx := errgroup.WithContext(ctx)
	sweepers.Go(func() error {
		defer close(groups)
		return r.readDue(ctx, allIDs(), groups)
	})
	for range connections {
		sweepers.Go(func() error {
			for group := range groups {
				if err := r.sweepGroup(ctx, group); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return sweepers.Wait()
}

// readDue cuts the due users of a range into groups.
func (r *run) readDue(ctx context.Context, left idRange, groups chan<- []dueUser) error {
	size := groupBatches * r.cfg.BatchSize
	for more := true; more; {
		page, err := read(ctx, r.Cleaner, "reading due users", func(ctx context.Context, q *db.Queries) ([]db.CandidateDuePageRow, error) {
			if err := q.SettingsForKeys(ctx); err != nil {
				return nil, err
			}
			return q.CandidateDuePage(ctx, db.CandidateDuePageParams{
				RunID: r.id, ApprovedRun: r.approval.RunID, Retention: r.cfg.Retention, FromUser: left.from, ThroughUser: left.through,
				MaxUsers: int64(dueGroups * size),
			})
		})
		if err != nil || len(page) == 0 {
			return err
		}
		// A run across midnight needs the next day's partition; without a place for
		// the backup the delete itself fails.
		if _, err := db.New(r.pool).PartitionEnsure(ctx, daysAhead); err != nil {
			r.log.Warn("Making partitions failed", "error", err)
		}
		for rows := range slices.Chunk(page, size) {
			group := make([]dueUser, len(rows))
			for i, row := range rows {
				group[i] = newDueUser(row)
			}
			select {
			case groups <- group:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if len(page) < dueGroups*size {
			return nil
		}
		left, more = left.after(page[len(page)-1].UserID)
	}
	return nil
}

// errStale says that an answer grew older than AnswerAge before its delete.
var errStale = errors.New("the answer of auth-service is too old to delete by")

// sweepGroup asks, deletes in chunks, and asks anew, for half as many users at a
// time, whenever the answer has grown too old before the last chunk.
func (r *run) sweepGroup(ctx context.Context, group []dueUser) error {
	asked := time.Now()
	missing, alive, err := r.askAgain(ctx, group)
	if err := failpoint.After("second-asking", err); err != nil {
		return err
	}
	if err := r.forgetAlive(ctx, alive); err != nil {
		return err
	}
	for len(missing) > 0 {
		began := time.Now()
		chunk, err := r.nextChunk(ctx, missing)
		if err == nil {
			err = r.deleteChunk(ctx, chunk, asked)
		}
		switch {
		case errors.Is(err, errStale) && len(missing) > r.cfg.BatchSize:
			return r.sweepHalves(ctx, missing)
		case errors.Is(err, errStale), database.Contended(err), errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			r.tally(func(f *Facts) { f.ChunksLeft++; f.Cause = err })
			r.log.Warn("Chunk left for the next run", "users", len(missing), "error", err)
			return nil
		case err != nil:
			return err
		}
		if missing = chunk.rest; r.gentle {
			if err := rest(ctx, time.Since(began)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) sweepHalves(ctx context.Context, users []dueUser) error {
	for half := range slices.Chunk(users, (len(users)+1)/2) {
		if err := r.sweepGroup(ctx, half); err != nil {
			return err
		}
	}
	return nil
}

// askAgain sorts a group of due users into those still missing and those alive.
// Users of a void batch are in neither: they are unknown, and wait.
func (r *run) askAgain(ctx context.Context, group []dueUser) (missing []dueUser, alive []uuid.UUID, err error) {
	var mu sync.Mutex
	askers, ctx := errgroup.WithContext(ctx)
	askers.SetLimit(r.cfg.Concurrency)
	for batch := range slices.Chunk(group, r.cfg.BatchSize) {
		askers.Go(func() error {
			ids := make([]uuid.UUID, len(batch))
			for i, user := range batch {
				ids[i] = user.id
			}
			gone, err := r.calls.ask(ctx, r.checker, ids)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.tally(func(f *Facts) { f.BatchCalls++ })
			r.cfg.Observer.BatchDone(err)
			if err != nil {
				r.tally(func(f *Facts) { f.UsersUnknown += int64(len(batch)); f.Cause = err })
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			for _, user := range batch {
				if slices.Contains(gone, user.id) {
					missing = append(missing, user)
				} else {
					alive = append(alive, user.id)
				}
			}
			return nil
		})
	}
	err = askers.Wait()
	// By id again, as the index has them, and not as the answers came.
	slices.SortFunc(missing, func(a, b dueUser) int { return compare(a.id, b.id) })
	return missing, alive, err
}

// deleteChunk is one transaction: settings, delete, count proof, ledger, fence,
// commit. The fence comes last: what it locks is locked for the COMMIT alone,
// so that chunks of several connections stand in each other's way no longer.
// A run that was taken over finds out there, and its chunk is rolled back.
func (r *run) deleteChunk(ctx context.Context, c chunk, asked time.Time) error {
	before := "it took too long to come" // what the last attempt met
	deleted, err := retry(ctx, r.Cleaner, "deleting a chunk", func() (deleted int64, err error) {
		// Each attempt: a retry must not outlive the answer it deletes by.
		if time.Since(asked) >= r.cfg.AnswerAge {
			return 0, fmt.Errorf("%w: %s", errStale, before)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(ctx, r.cfg.ChunkLimit+database.Grace)
		defer cancel()
		err = pgx.BeginTxFunc(ctx, r.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			q := db.New(tx)
			if err := r.openChunk(ctx, q); err != nil {
				return err
			}
			deleted, err = q.MemberDeleteDue(ctx, db.MemberDeleteDueParams{
				RunID: r.id, ApprovedRun: r.approval.RunID, Retention: r.cfg.Retention,
				UserIds: c.users, FromConversation: c.from, ThroughConversation: c.through,
			})
			if err := failpoint.After("delete", err); err != nil {
				return err
			}
			if err := failpoint.After("proof", fence.Prove(ctx, q, deleted)); err != nil {
				return err
			}
			_, err := q.CandidateForget(ctx, db.CandidateForgetParams{RunID: r.id, UserIds: c.users, Certain: deleted == c.members})
			if err := failpoint.After("forget", err); err != nil {
				return err
			}
			return failpoint.After("chunk-counted", r.fence.Heartbeat(ctx, q, deleted))
		})
		if err == nil {
			r.pace.note(deleted, time.Since(began))
		}
		if err = failpoint.After("commit", err); err != nil {
			before = err.Error()
		}
		return deleted, err
	})
	if err == nil && deleted > 0 {
		r.report(func(p *Progress) { p.MembersDeleted += deleted })
		r.cfg.Observer.ChunkDone(deleted)
	}
	return err
}

// openChunk makes the settings of a chunk's transaction.
func (r *run) openChunk(ctx context.Context, q *db.Queries) error {
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
	return failpoint.After("fence", q.SettingsForChunk(ctx))
}

// forgetAlive takes users out of the ledger who turned out to be alive.
func (r *run) forgetAlive(ctx context.Context, users []uuid.UUID) error {
	if len(users) == 0 {
		return nil
	}
	r.tally(func(f *Facts) { f.UsersReturned += int64(len(users)) })
	_, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadWrite, database.ReadLimit, "taking users out of the ledger", func(ctx context.Context, q *db.Queries) (int64, error) {
		if err := q.SettingsForChunk(ctx); err != nil {
			return 0, err
		}
		return q.CandidateForget(ctx, db.CandidateForgetParams{RunID: r.id, UserIds: users, Certain: true})
	})
	return err
}
