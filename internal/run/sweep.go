package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/blocked"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/failpoint"
	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/throttle"
)

// duePage is how many due users are read at once.
const duePage = 10_000

// sweep deletes the rows of due users, in the order of their ids, chunk by chunk,
// over several connections. The users of a chunk are checked again right before
// it is deleted.
func (r *run) sweep(ctx context.Context) error {
	r.enter("sweep")
	if _, err := database.Retry(ctx, r.patience(), "sending a heartbeat", func() (struct{}, error) { return struct{}{}, r.fence.Heartbeat(ctx) }); err != nil {
		return err
	}
	r.throttle = &throttle.Throttle{
		ChunkTime: r.cfg.ChunkTime, MaxRows: int64(r.cfg.ChunkRows), NiceRatio: r.cfg.NiceRatio, MaxLag: r.cfg.MaxLag,
		Lag: throttle.ReplicationLag(r.pool, r.patience()), Sleeping: r.sleeping,
	}
	chunks := make(chan []db.RunDuePageRow)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(chunks)
		return r.cutChunks(ctx, chunks)
	})
	for range r.cfg.SweepConnections {
		group.Go(func() error {
			for chunk := range chunks {
				if err := r.sweepChunk(ctx, chunk); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// cutChunks cuts the due users into chunks of whole batches with as many rows as
// the throttle allows, one batch at least. Who was blocked before comes last, apart.
func (r *run) cutChunks(ctx context.Context, chunks chan<- []db.RunDuePageRow) error {
	var next []db.RunDuePageRow
	var rows int64
	send := func() error {
		if r.rows.Waits = !r.cfg.Window.Open(time.Now()); r.rows.Waits {
			r.log.Info("Outside the window: the rows that are due wait", "window", r.cfg.Window.String(), "opens_at", r.cfg.Window.Next(time.Now()).UTC())
			return nil
		}
		select {
		case chunks <- next:
			next, rows = nil, 0
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for due := (db.RunDuePageParams{RunID: r.fence.ID, MaxUsers: duePage}); ; {
		page, err := read(ctx, r, "reading due users", func(ctx context.Context, q *db.Queries) ([]db.RunDuePageRow, error) {
			return q.RunDuePage(ctx, due)
		})
		if err != nil {
			return err
		}
		for batch := range slices.Chunk(page, r.cfg.BatchSize) {
			more := int64(0)
			for _, user := range batch {
				more += result.Rows(user.RowsDue).Sum()
			}
			if len(next) > 0 && rows+more > r.throttle.Rows() {
				if err := send(); err != nil || r.rows.Waits {
					return err
				}
			}
			next, rows = append(next, batch...), rows+more
		}
		if len(page) == duePage {
			due.After = page[len(page)-1].UserID
			continue
		}
		if len(next) > 0 {
			if err := send(); err != nil || r.rows.Waits {
				return err
			}
		}
		if due.IsBlocked {
			return nil
		}
		due.After, due.IsBlocked = uuid.Nil, true
	}
}

// sweepChunk checks the users of a chunk again, deletes the rows of those still
// missing, and splits a chunk that fails for a reason of its own until the users
// that cause it are alone: they are blocked, and everybody else is cleaned.
func (r *run) sweepChunk(ctx context.Context, chunk []db.RunDuePageRow) error {
	patience := r.patience()
	patience.TimeoutsOnce = len(chunk) > 1 || chunk[0].IsBlocked
	for pieces := [][]db.RunDuePageRow{chunk}; len(pieces) > 0; pieces = pieces[1:] {
		piece, due := pieces[0], result.Rows{}
		for _, user := range piece {
			due = due.Plus(user.RowsDue)
		}
		deleted, err := r.deleteChunk(ctx, piece, patience)
		if len(piece) == 1 && !piece[0].IsBlocked && database.OfRows(err) {
			// A row that changed at that moment does not fail twice.
			more, again := r.deleteChunk(ctx, piece, patience)
			deleted, err = deleted.Plus(more), again
		}
		switch half := len(piece) / 2; {
		case err == nil:
			r.tally(func(*result.Run) { r.rows.Settled = r.rows.Settled.Plus(due) })
			r.splits.Worked(patience.Attempts == 1)
		case ctx.Err() != nil || !database.Contended(err) && !database.OfRows(err) && !errors.Is(err, context.DeadlineExceeded):
			return err
		case half > 0 && database.OfRows(err) && r.splits.May(err):
			pieces = slices.Insert(pieces, 1, piece[:half], piece[half:])
		case half > 0 && database.Contended(err) && r.splits.May(err): // it has waited: both halves, before either is split
			patience.Attempts, pieces = 1, append(pieces, piece[:half], piece[half:])
		default:
			if err := r.block(piece, due, deleted, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// block leaves users for the next run, which tries them again.
func (r *run) block(chunk []db.RunDuePageRow, due, deleted result.Rows, cause error) error {
	left, none := due.Minus(deleted), false
	so := r.tally(func(did *result.Run) {
		did.UsersBlocked += int64(len(chunk))
		r.rows.Blocked, none = r.rows.Blocked.Plus(left), r.rows.Deleted.Sum() == 0
		did.Blocked = blocked.Name(did.Blocked, chunk, due.Sum(), cause)
		r.rows.Settled, r.cause = r.rows.Settled.Plus(deleted), cause
	})
	r.report(func(p *result.Progress) { p.UsersBlocked = so.UsersBlocked })
	r.log.Warn("Users blocked: the database refuses to delete their rows", "users", len(chunk), "first", chunk[0].UserID, "rows", left.Sum(), "error", cause)
	if so.UsersBlocked >= blocked.Everybody && none && !chunk[0].IsBlocked {
		return fmt.Errorf("%w: %d users are blocked and no row could be deleted, stopped; last cause: %w; hint: orphan-cleaner check", ErrIncomplete, so.UsersBlocked, cause)
	}
	return nil
}

// deleteChunk deletes in parts of at most ChunkRows, for users with many rows. A
// part that is tried again, as with a response too old, is checked anew; only users
// still missing are in the next.
func (r *run) deleteChunk(ctx context.Context, chunk []db.RunDuePageRow, patience database.Patience) (deleted result.Rows, err error) {
	users := make([]uuid.UUID, len(chunk))
	for i, user := range chunk {
		users[i] = user.UserID
	}
	for whole := false; !whole; {
		part, err := database.Retry(ctx, patience, "deleting a chunk", func() (part db.RunSweepChunkRow, err error) {
			part, users, err = r.deletePart(ctx, users)
			return part, err
		})
		if err != nil {
			return deleted, err
		}
		deleted, whole = deleted.Plus(part.RowsDeleted), part.IsWhole
	}
	return deleted, nil
}

// deletePart is rest, snapshot, second check, and one call of the delete function.
// It returns the users who were still missing.
func (r *run) deletePart(ctx context.Context, users []uuid.UUID) (done db.RunSweepChunkRow, missing []uuid.UUID, err error) {
	if err := r.throttle.Rest(ctx); err != nil {
		return done, users, err
	}
	checkedFrom, err := read(ctx, r, "taking a snapshot", func(ctx context.Context, q *db.Queries) (string, error) { return q.SnapshotOldest(ctx) })
	if err := failpoint.After("snapshot", err); err != nil {
		return done, users, err
	}
	checked := time.Now()
	missing, alive, err := r.checkAgain(ctx, users)
	if err := failpoint.After("checked-again", err); err != nil {
		return done, users, err
	}
	if len(alive) > 0 {
		if _, err := write(ctx, r, "taking users out of the ledger", func(ctx context.Context, q *db.Queries) (struct{}, error) {
			return struct{}{}, q.RunSweepReturned(ctx, db.RunSweepReturnedParams{RunID: r.fence.ID, Token: r.fence.Token, UserIds: alive})
		}); err != nil {
			return done, users, err
		}
		r.tally(func(did *result.Run) { did.UsersReturned += int64(len(alive)) })
	}
	if len(missing) == 0 {
		done.IsWhole = true
		return done, nil, nil
	}
	var began time.Time
	err = r.throttle.Transaction(func() error {
		if began = time.Now(); began.Sub(checked) >= r.cfg.ResponseAge {
			return fmt.Errorf("the response of auth-service is too old to delete by: %w", context.DeadlineExceeded)
		}
		done, err = database.Bounded(ctx, r.pool, r.patience(), pgx.ReadWrite, r.cfg.ChunkLimit, func(ctx context.Context, q *db.Queries) (db.RunSweepChunkRow, error) {
			row, err := q.RunSweepChunk(ctx, db.RunSweepChunkParams{
				RunID: r.fence.ID, Token: r.fence.Token, UserIds: missing, CheckedFrom: checkedFrom, MaxRows: int64(r.cfg.ChunkRows),
			})
			return row, failpoint.After("chunk", err)
		})
		return err
	})
	if err := failpoint.After("commit", fence.Sentinel(err)); err != nil {
		return done, missing, err
	}
	rows := result.Rows(done.RowsDeleted)
	if rows.Sum() > 0 {
		r.tally(func(*result.Run) { r.rows.Deleted = r.rows.Deleted.Plus(rows) })
		r.report(func(p *result.Progress) { p.MembersDeleted += r.rows.Members(rows) })
		r.observer.ChunkDone(r.rows.Members(rows))
	}
	r.throttle.Note(rows.Sum(), time.Since(began))
	return done, missing, nil
}

// checkAgain sorts due users into those still missing and those alive. Users of an
// invalid response are in neither: they are unknown, and wait.
func (r *run) checkAgain(ctx context.Context, users []uuid.UUID) (missing, alive []uuid.UUID, err error) {
	callers, ctx := errgroup.WithContext(ctx)
	callers.SetLimit(max(r.cfg.Concurrency/r.cfg.SweepConnections, 1))
	for batch := range slices.Chunk(users, r.cfg.BatchSize) {
		callers.Go(func() error {
			gone, err := r.users.Missing(ctx, batch)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.observer.BatchDone(err)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.did.BatchCalls++
			if err != nil {
				r.did.UsersUnknown += int64(len(batch))
				r.cause = err
				return nil
			}
			for _, user := range batch {
				if slices.Contains(gone, user) {
					missing = append(missing, user)
				} else {
					alive = append(alive, user)
				}
			}
			return nil
		})
	}
	err = callers.Wait()
	return notNull(missing), alive, err
}

func (r *run) sleeping(reason string, pause time.Duration) {
	r.report(func(p *result.Progress) { p.Throttled = reason })
	if reason != "" {
		r.observer.Throttled(reason, pause)
	}
}
