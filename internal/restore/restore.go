// Package restore brings back what runs deleted, whole rows as they were, and
// reverts that. Which members, what becomes of each and the proof are decided by
// the functions in migrations/.
package restore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/blocked"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/result"
)

// ErrIncomplete is returned when members were left over. What was restored
// stays; the same command goes on from there.
var ErrIncomplete = errors.New("incomplete; hint: run the same command again, it goes on from here")

// ErrNoRestore is returned for a revert of something that is no ended restore.
var ErrNoRestore = errors.New("not a restore that could be reverted")

// Selection says which deletions are meant: those that all fields choose
// together. A zero field chooses everything.
type Selection struct {
	Run           int64
	Users         []uuid.UUID
	Conversations []uuid.UUID
	Since, Until  time.Time // of the deletion; Until is excluded
	Targets       []string
}

// Progress is how far a restore or a revert has come.
type Progress struct{ Done, Of int64 }

// Restorer restores and reverts, one run at a time.
type Restorer struct {
	pool *pgxpool.Pool
	log  *slog.Logger
	cfg  Config

	mu       sync.Mutex
	progress Progress
}

// New returns a Restorer.
func New(pool *pgxpool.Pool, log *slog.Logger, cfg Config) *Restorer {
	return &Restorer{pool: pool, log: log, cfg: cfg}
}

// Progress is safe to call while work is under way.
func (r *Restorer) Progress() Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress
}

func (r *Restorer) advance(done, of int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Done += done
	r.progress.Of += of
}

func (r *Restorer) patience() database.Patience {
	return database.Patience{Log: r.log, Attempts: r.cfg.Attempts, LockTimeout: r.cfg.LockTimeout}
}

// Preview says what a restore would do, by run and day. It only reads.
func (r *Restorer) Preview(ctx context.Context, s Selection) ([]db.RestorePreviewRow, error) {
	return database.Do(ctx, r.pool, r.patience(), pgx.ReadOnly, r.cfg.PlanLimit, "reading the backups", func(ctx context.Context, q *db.Queries) ([]db.RestorePreviewRow, error) {
		return q.RestorePreview(ctx, db.RestorePreviewParams{
			OfRun: database.OrNil(s.Run), OfUsers: s.Users, OfConversations: s.Conversations, Since: database.OrNil(s.Since), Until: database.OrNil(s.Until),
			OfTargets: s.Targets,
		})
	})
}

// Restore brings the chosen members back, in a run of its own that a pause does
// not stop. The result is filled in as far as it came, whatever the error.
func (r *Restorer) Restore(ctx context.Context, s Selection) (Result, error) {
	return r.asRun(ctx, false, func(ctx context.Context, run *fence.Run, so *Result) error {
		if err := r.plan(ctx, run, s, so); err != nil {
			return err
		}
		// Again while that finds more: somebody may have rewritten a partition.
		for done := int64(1); done > 0; {
			chunks, err := r.chunks(ctx, run.ID, "planned")
			if err == nil {
				done, err = r.eachChunk(ctx, run, so, chunks, func(chunk db.RestoreChunksRow) (int64, error) { return r.restoreChunk(ctx, run, chunk) })
			}
			if err != nil {
				return err
			}
		}
		return r.settle(ctx, run)
	})
}

// settle takes the users off the list of rechecks, and is [ErrIncomplete] where a
// member could still be restored.
func (r *Restorer) settle(ctx context.Context, run *fence.Run) error {
	left, err := call(ctx, r, r.cfg.PlanLimit, "settling the restore", func(ctx context.Context, q *db.Queries) (int64, error) {
		if err := q.RecheckSettle(ctx, db.RecheckSettleParams{RunID: run.ID, Token: run.Token}); err != nil {
			return 0, err
		}
		return q.RestoreLeft(ctx, run.ID)
	})
	if err == nil && left > 0 {
		err = fmt.Errorf("%w: %d rows could still be restored", ErrIncomplete, left)
	}
	return err
}

// plan writes down what is to be restored, and what becomes of the rest.
func (r *Restorer) plan(ctx context.Context, run *fence.Run, s Selection, so *Result) error {
	rows, err := call(ctx, r, r.cfg.PlanLimit, "planning the restore", func(ctx context.Context, q *db.Queries) ([]db.RestoreStoreRow, error) {
		return q.RestoreStore(ctx, db.RestoreStoreParams{
			RunID: run.ID, Token: run.Token, OfRun: database.OrNil(s.Run), OfUsers: s.Users, OfConversations: s.Conversations,
			Since: database.OrNil(s.Since), Until: database.OrNil(s.Until), OfTargets: s.Targets,
		})
	})
	for _, row := range rows {
		switch row.Verdict {
		case "restore":
			so.MembersLeft = row.Members
		case "there":
			so.There = row.Members
		case "there_differs":
			so.ThereDiffers = row.Members
		case "conversation_gone":
			so.ConversationGone = row.Members
		case "left_since":
			so.LeftSince = row.Members
		}
	}
	return err
}

// eachChunk does something with pages of the backup on which rows of a restore lie, and says
// with how many rows. A chunk whose rows are not taken is split by its users until the cause
// is alone; one that somebody keeps standing in the way of is left over.
func (r *Restorer) eachChunk(ctx context.Context, run *fence.Run, so *Result, chunks []db.RestoreChunksRow, do func(chunk db.RestoreChunksRow) (int64, error)) (done int64, err error) {
	for _, chunk := range chunks {
		r.advance(0, chunk.Members)
	}
	var splits blocked.Splits
	left := 0
	var cause error
	for ; len(chunks) > 0; chunks = chunks[1:] {
		chunk := chunks[0]
		members, err := do(chunk)
		done += members
		switch half := len(chunk.UserIds) / 2; {
		case err == nil:
		case ctx.Err() != nil || !passing(err):
			return done, err
		case half > 0 && database.OfRows(err) && splits.May(err):
			r.advance(chunk.Members, 0)
			one, other := chunk, chunk
			one.UserIds, one.Members = chunk.UserIds[:half], 0
			other.UserIds, other.Members = chunk.UserIds[half:], 0
			chunks = slices.Insert(chunks, 1, one, other)
		case half == 0 && database.OfRows(err):
			so.block(chunk.UserIds[0], err)
			cause = err
			run.Log.Warn("User blocked: the database does not take their rows", "target", chunk.Target, "user", chunk.UserIds[0], "error", err)
		default:
			left++
			cause = err
			run.Log.Warn("Chunk left over", "target", chunk.Target, "day", chunk.Day, "first_page", chunk.FirstPage, "users", len(chunk.UserIds), "error", err)
		}
	}
	switch {
	case len(so.Blocked) > 0:
		return done, fmt.Errorf("%w: %d users are blocked, and %d chunks left over; put right what the cause names first; last cause: %w", ErrIncomplete, len(so.Blocked), left, cause)
	case left > 0:
		return done, fmt.Errorf("%w: %d chunks left over; last cause: %w", ErrIncomplete, left, cause)
	}
	return done, nil
}

func (r *Restorer) chunks(ctx context.Context, of int64, state string) ([]db.RestoreChunksRow, error) {
	return database.Do(ctx, r.pool, r.patience(), pgx.ReadOnly, r.cfg.PlanLimit, "finding the backup rows", func(ctx context.Context, q *db.Queries) ([]db.RestoreChunksRow, error) {
		return q.RestoreChunks(ctx, db.RestoreChunksParams{RunID: of, State: state, Pages: r.cfg.ChunkPages})
	})
}

// passing errors leave a chunk over: somebody stood in the way for too long, or
// its rows are not taken.
func passing(err error) bool {
	return database.Contended(err) || database.OfRows(err) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStale)
}

// restoreChunk is one call: members, the holds of their users, and the count.
func (r *Restorer) restoreChunk(ctx context.Context, run *fence.Run, chunk db.RestoreChunksRow) (int64, error) {
	restored, err := call(ctx, r, r.cfg.ChunkLimit, "restoring members", func(ctx context.Context, q *db.Queries) (int64, error) {
		return q.RestoreChunk(ctx, db.RestoreChunkParams{
			RunID: run.ID, Token: run.Token, Day: chunk.Day, FirstPage: chunk.FirstPage, Pages: r.cfg.ChunkPages, UserIds: chunk.UserIds, Hold: r.cfg.Hold, Target: chunk.Target,
		})
	})
	if err == nil {
		r.advance(chunk.Members, 0)
	}
	return restored, err
}

// call is one of our functions, in a transaction of its own.
func call[T any](ctx context.Context, r *Restorer, limit time.Duration, doing string, function func(ctx context.Context, q *db.Queries) (T, error)) (T, error) {
	value, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadWrite, limit, doing, function)
	return value, fence.Sentinel(err)
}

// finishLimit bounds the last writes, made even when the work was interrupted.
const finishLimit = 2 * time.Minute

// asRun does work in a run of kind restore, and ends the run's row.
func (r *Restorer) asRun(ctx context.Context, isRevert bool, work func(ctx context.Context, run *fence.Run, so *Result) error) (Result, error) {
	started := time.Now()
	so := Result{Blocked: []Blocked{}}
	run, err := fence.Begin(ctx, r.pool, fence.Options{
		Kind: "restore", Phase: "restore", Lease: r.cfg.Lease, Host: r.cfg.Host, Version: r.cfg.Version,
		Settings: r.cfg.Settings, IsRevert: isRevert, Patience: r.patience(),
	})
	if err == nil {
		so.RunID = run.ID
		alive, stop := run.KeepAlive(ctx)
		err = work(alive, run, &so)
		switch {
		case err != nil && ctx.Err() != nil:
			err = fmt.Errorf("interrupted: %w", ErrIncomplete)
		case err != nil && alive.Err() != nil:
			err = context.Cause(alive)
		}
		stop()
		if !errors.Is(err, fence.ErrTakenOver) {
			err = r.finish(ctx, run, &so, err)
		}
	}
	so.State, so.Seconds = fence.State(err, ErrIncomplete), time.Since(started).Seconds()
	if err != nil {
		so.Error, so.DatabaseError = err.Error(), database.SaidIn(err)
	}
	return so, err
}

// finish ends the run's row, and reads what the transactions themselves wrote
// down, not what was believed.
func (r *Restorer) finish(ctx context.Context, run *fence.Run, so *Result, workErr error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishLimit)
	defer cancel()
	var message, breaker *string
	if workErr != nil {
		message = new(workErr.Error())
	}
	if refusal, is := errors.AsType[*result.Refusal](workErr); is {
		breaker = &refusal.Breaker
	}
	so.Breaker = breaker
	ended, err := call(ctx, r, finishLimit, "finishing the run", func(ctx context.Context, q *db.Queries) (db.RunFinishRow, error) {
		return q.RunFinish(ctx, db.RunFinishParams{RunID: run.ID, Token: run.Token, State: fence.State(workErr, ErrIncomplete), Breaker: breaker, Error: message, Counts: []byte("{}")})
	})
	if err != nil {
		return errors.Join(workErr, err)
	}
	if ended.State != fence.State(workErr, ErrIncomplete) {
		workErr = errors.Join(fmt.Errorf("%w: %s; hint: orphan-cleaner status", fence.ErrProof, ended.Error), workErr)
	}
	so.MembersRestored, so.MembersReverted, so.Conversations = ended.MembersRestored, ended.MembersDeleted, ended.Conversations
	done, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadOnly, finishLimit, "reading what was done", func(ctx context.Context, q *db.Queries) (db.RestoreSummaryRow, error) {
		return q.RestoreSummary(ctx, run.ID)
	})
	so.Users = max(done.Users, so.Users)
	so.RowsRestored, so.RowsReverted = done.Restored, done.RowsDeleted
	so.MembersLeft = max(0, so.MembersLeft-done.Restored-so.RowsReverted)
	return errors.Join(workErr, err)
}
