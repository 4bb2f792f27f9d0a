// Package restore gives back what runs deleted, whole rows as they were, and
// takes a restore back. Which members, what becomes of each and the proof are
// decided in the SQL of queries/ and migrations/.
package restore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fence"
)

// ErrIncomplete is returned when members were left over. What was given back
// stays; the same command goes on from there.
var ErrIncomplete = errors.New("incomplete; give the same command again, it goes on from here")

// ErrNoRestore is returned for a revert of something that is no ended restore.
var ErrNoRestore = errors.New("not a restore that could be reverted")

// Selection says which deletions are meant: those that all fields choose
// together. A zero field chooses everything.
type Selection struct {
	Run           int64
	Users         []uuid.UUID
	Conversations []uuid.UUID
	Since, Until  time.Time // of the deletion; Until is excluded
}

// Config is what a restore goes by.
type Config struct {
	Lease       time.Duration
	LockTimeout time.Duration
	ChunkLimit  time.Duration // statement_timeout of a chunk
	PlanLimit   time.Duration // statement_timeout of the one statement that reads all backups in question
	Attempts    int           // of a statement that meets a passing error
	ChunkPages  int32         // pages of the backup (8 KiB each) per transaction
	Hold        time.Duration // how long the users given back are kept from the next runs
	AnswerAge   time.Duration // a revert deletes by no older answer of auth-service
	BatchSize   int           // users per call of a revert

	Host     string // host:pid
	Version  string
	Settings []byte // JSON, kept with the run
}

// DefaultConfig has the documented defaults.
func DefaultConfig() Config {
	return Config{
		Lease: time.Minute, LockTimeout: 2 * time.Second, ChunkLimit: 30 * time.Second, PlanLimit: 10 * time.Minute,
		Attempts: 5, ChunkPages: 32, Hold: 30 * 24 * time.Hour, AnswerAge: 10 * time.Second, BatchSize: 100,
	}
}

// Result is what a restore or a revert did.
type Result struct {
	RunID            int64   `json:"run_id"`
	State            string  `json:"state"`
	MembersRestored  int64   `json:"members_restored"`
	MembersReverted  int64   `json:"members_reverted"`
	Users            int64   `json:"users"`
	Conversations    int64   `json:"conversations"`
	There            int64   `json:"there"`             // back already, the same
	ThereDiffers     int64   `json:"there_differs"`     // back already, with other values: left as they are
	ConversationGone int64   `json:"conversation_gone"` // left in the backup
	LeftSince        int64   `json:"left_since"`        // given back before and gone since by other hands
	MembersLeft      int64   `json:"members_left"`      // chosen, but left as they are when their turn came
	UsersUnknown     int64   `json:"users_unknown"`     // revert: no correct answer of auth-service
	Seconds          float64 `json:"seconds"`
	Error            string  `json:"error,omitempty"`
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
		})
	})
}

// Restore gives the chosen members back, in a run of its own that a pause does
// not stop. The result is filled in as far as it came, whatever the error.
func (r *Restorer) Restore(ctx context.Context, s Selection) (Result, error) {
	return r.asRun(ctx, true, func(ctx context.Context, run *fence.Run, result *Result) error {
		plan, err := r.plan(ctx, run, s)
		if err != nil {
			return err
		}
		result.There, result.ThereDiffers, result.ConversationGone, result.LeftSince = plan.There, plan.ThereDiffers, plan.ConversationGone, plan.LeftSince
		result.MembersLeft = plan.Restore
		if err := r.eachChunk(ctx, run, run.ID, "planned", func(ctx context.Context, chunk db.RestoreChunksRow) (int64, error) {
			return r.giveBack(ctx, run, chunk)
		}); err != nil {
			return err
		}
		return r.settle(ctx, run)
	})
}

// settle takes the users off the list of those to be asked about again, and is
// [ErrIncomplete] where a member could still be given back.
func (r *Restorer) settle(ctx context.Context, run *fence.Run) error {
	left, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadWrite, r.cfg.PlanLimit, "settling the restore", func(ctx context.Context, q *db.Queries) (int64, error) {
		if _, err := q.DepartedSettle(ctx, run.ID); err != nil {
			return 0, err
		}
		return q.RestoreLeft(ctx, run.ID)
	})
	if err == nil && left > 0 {
		err = fmt.Errorf("%w: %d members could still be given back", ErrIncomplete, left)
	}
	return err
}

// plan writes down what is to be given back.
func (r *Restorer) plan(ctx context.Context, run *fence.Run, s Selection) (db.RestoreStoreRow, error) {
	return database.Do(ctx, r.pool, r.patience(), pgx.ReadWrite, r.cfg.PlanLimit, "planning the restore", func(ctx context.Context, q *db.Queries) (db.RestoreStoreRow, error) {
		return q.RestoreStore(ctx, db.RestoreStoreParams{
			RunID: run.ID, OfRun: database.OrNil(s.Run), OfUsers: s.Users, OfConversations: s.Conversations, Since: database.OrNil(s.Since), Until: database.OrNil(s.Until),
		})
	})
}

// eachChunk goes through the pages of the backup on which rows of a restore lie,
// and of a restore again while that finds more: somebody may have rewritten a partition. A
// chunk that somebody keeps standing in the way of is left over.
func (r *Restorer) eachChunk(ctx context.Context, run *fence.Run, of int64, state string, do func(ctx context.Context, chunk db.RestoreChunksRow) (int64, error)) error {
	for first := true; ; first = false {
		chunks, err := r.chunks(ctx, of, state)
		if err != nil {
			return err
		}
		if first {
			for _, chunk := range chunks {
				r.advance(0, chunk.Members)
			}
		}
		var done int64
		left := 0
		var cause error
		for _, chunk := range chunks {
			members, err := do(ctx, chunk)
			done += members
			switch {
			case err == nil:
			case ctx.Err() == nil && passing(err):
				left++
				cause = err
				run.Log.Warn("Chunk left over", "day", chunk.Day, "first_page", chunk.FirstPage, "members", chunk.Members, "error", err)
			default:
				return err
			}
		}
		if left > 0 {
			return fmt.Errorf("%w: %d of %d chunks left over; last cause: %w", ErrIncomplete, left, len(chunks), cause)
		}
		if done == 0 || state != "planned" {
			return nil
		}
	}
}

func (r *Restorer) chunks(ctx context.Context, of int64, state string) ([]db.RestoreChunksRow, error) {
	return database.Do(ctx, r.pool, r.patience(), pgx.ReadOnly, r.cfg.PlanLimit, "finding the backup rows", func(ctx context.Context, q *db.Queries) ([]db.RestoreChunksRow, error) {
		return q.RestoreChunks(ctx, db.RestoreChunksParams{RunID: of, State: state, Pages: r.cfg.ChunkPages})
	})
}

// passing errors leave a chunk over: somebody stood in the way for too long, or
// a conversation went while its members came back.
func passing(err error) bool {
	return database.Contended(err) || database.Code(err) == database.ForeignKeyViolation ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStale)
}

// giveBack is one transaction: fence, members and their users' holds, count.
func (r *Restorer) giveBack(ctx context.Context, run *fence.Run, chunk db.RestoreChunksRow) (int64, error) {
	given, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadWrite, r.cfg.ChunkLimit, "giving members back", func(ctx context.Context, q *db.Queries) (int64, error) {
		if err := run.Heartbeat(ctx, q, 0); err != nil {
			return 0, err
		}
		given, err := q.RestoreChunk(ctx, db.RestoreChunkParams{
			RunID: run.ID, Day: chunk.Day, FirstPage: chunk.FirstPage, Pages: r.cfg.ChunkPages, Hold: r.cfg.Hold,
		})
		if err != nil {
			return 0, err
		}
		return given, q.RunRestored(ctx, db.RunRestoredParams{RunID: run.ID, Restored: given})
	})
	if err == nil {
		r.advance(chunk.Members, 0)
	}
	return given, err
}

// finishLimit bounds the last writes, made even when the work was interrupted.
const finishLimit = 2 * time.Minute

// asRun does work in a run of kind restore, which a pause may stop or not, and
// ends the run's row.
func (r *Restorer) asRun(ctx context.Context, throughPause bool, work func(ctx context.Context, run *fence.Run, result *Result) error) (Result, error) {
	started := time.Now()
	var result Result
	run, err := fence.Begin(ctx, r.pool, fence.Options{
		Kind: "restore", Phase: "restore", Lease: r.cfg.Lease, Host: r.cfg.Host, Version: r.cfg.Version,
		Settings: r.cfg.Settings, ThroughPause: throughPause, Patience: r.patience(),
	})
	if err == nil {
		result.RunID = run.ID
		alive, stop := run.KeepAlive(ctx)
		err = work(alive, run, &result)
		switch {
		case err != nil && ctx.Err() != nil:
			err = fmt.Errorf("interrupted: %w", ErrIncomplete)
		case err != nil && alive.Err() != nil:
			err = context.Cause(alive)
		}
		stop()
		err = r.finish(ctx, run, &result, err)
	}
	result.State, result.Seconds = state(err), time.Since(started).Seconds()
	if err != nil {
		result.Error = err.Error()
	}
	return result, err
}

func state(err error) string {
	switch {
	case err == nil:
		return "succeeded"
	case errors.Is(err, ErrIncomplete), errors.Is(err, fence.ErrPaused):
		return "incomplete"
	default:
		return "failed"
	}
}

func (r *Restorer) finish(ctx context.Context, run *fence.Run, result *Result, workErr error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishLimit)
	defer cancel()
	err := workErr
	if !errors.Is(workErr, fence.ErrTakenOver) {
		err = r.end(ctx, run, result, workErr)
	}
	// What the transactions themselves wrote down, not what was believed.
	done, readErr := database.Retry(ctx, r.patience(), "reading what was done", func() (db.RestoreSummaryRow, error) {
		return db.New(r.pool).RestoreSummary(ctx, run.ID)
	})
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	result.MembersRestored, result.MembersReverted, result.Users = done.MembersRestored, done.MembersDeleted, max(done.Users, result.Users)
	result.MembersLeft = max(0, result.MembersLeft-done.MembersRestored-done.MembersDeleted)
	return err
}

// end ends the run's row.
func (r *Restorer) end(ctx context.Context, run *fence.Run, result *Result, workErr error) error {
	q := db.New(r.pool)
	conversations, err := database.Retry(ctx, r.patience(), "counting conversations", func() (int64, error) {
		return q.RunConversations(ctx, run.ID)
	})
	workErr = errors.Join(workErr, err)
	var message *string
	if workErr != nil {
		message = new(workErr.Error())
	}
	_, err = database.Retry(ctx, r.patience(), "finishing the run", func() (db.RunFinishRow, error) {
		return q.RunFinish(ctx, db.RunFinishParams{RunID: run.ID, State: state(workErr), Phase: "finish", Error: message, Conversations: conversations})
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return fence.ErrTakenOver
	}
	result.Conversations = conversations
	return errors.Join(workErr, err)
}
