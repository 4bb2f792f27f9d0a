// Package fence lets one run at a time write, and keeps a runner that was
// silent for too long from writing any more. The open row of runs is the lock,
// its heartbeat the lease, its token the fence: every function that changes
// something compares it.
package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

var (
	// ErrAnotherRun is returned while another run is open. Nothing was done.
	ErrAnotherRun = errors.New("another run is open")
	// ErrTakenOver is returned to a runner whose run is no longer open.
	ErrTakenOver = errors.New("the run is no longer open: it was silent for longer than its lease and was taken over")
	// ErrNotDue is returned by [Begin] with an interval while no run is due.
	ErrNotDue = errors.New("no run is due yet")
	// ErrProof is returned when rows deleted, audited and backed up are not the
	// same number. The transaction was rolled back.
	ErrProof = errors.New("count proof failed")
	// ErrPaused is returned while runs are paused.
	ErrPaused = errors.New("runs are paused; hint: orphan-cleaner status shows why, orphan-cleaner resume ends it")
)

// State is the state of a run that ended with an error; those given leave something for
// the next one.
func State(err error, incomplete ...error) string {
	for _, one := range []struct {
		err   error
		state string
	}{{ErrProof, "failed"}, {result.ErrRefused, "refused"}, {ErrPaused, "paused"}} {
		if errors.Is(err, one.err) {
			return one.state
		}
	}
	switch {
	case err == nil:
		return "succeeded"
	case slices.ContainsFunc(incomplete, func(one error) bool { return errors.Is(err, one) }):
		return "incomplete"
	default:
		return "failed"
	}
}

// Options describe a run that is to be opened.
type Options struct {
	Kind     string // clean or restore
	Phase    string // the first one
	Lease    time.Duration
	Host     string // host:pid
	Version  string
	Settings []byte // JSON, kept with the run; pinned limits are applied to it
	// IsRevert: of a restore, that it deletes; a pause stops it then.
	IsRevert bool
	// Every opens the run only if it is due: this long after the last one was, or
	// at once if that was given up. 0: always.
	Every    time.Duration
	Patience database.Patience
}

// Run is an open run.
type Run struct {
	ID    int64
	Token uuid.UUID
	Log   *slog.Logger // names the run
	// Settings are those in force: pinned limits are stricter than what was asked for.
	Settings []byte
	// ApprovedRun is the refused run by whose approval this one sweeps, or 0.
	ApprovedRun int64

	pool    *pgxpool.Pool
	options Options
	phase   atomic.Pointer[string]
}

// Begin opens a run, or returns [ErrAnotherRun] and says whose it is,
// [ErrPaused] or [ErrNotDue]. A run that was silent for longer than its lease is
// given up.
func Begin(ctx context.Context, pool *pgxpool.Pool, options Options) (*Run, error) {
	token, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("drawing a token: %w", err)
	}
	row, err := database.Do(ctx, pool, options.Patience, pgx.ReadWrite, database.ReadLimit, "opening the run", func(ctx context.Context, q *db.Queries) (db.RunBeginRow, error) {
		// Again after an answer that was lost: the token finds the run that it opened.
		return q.RunBegin(ctx, db.RunBeginParams{
			Token: token, Kind: options.Kind, Phase: options.Phase, Settings: options.Settings, Lease: options.Lease,
			Host: options.Host, Version: options.Version, Every: database.OrNil(options.Every), IsRevert: options.IsRevert,
		})
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, ErrNotDue
	case database.Code(err) == database.LockNotAvailable:
		return nil, fmt.Errorf("%w: a chunk of it is in flight; hint: orphan-cleaner status", ErrAnotherRun)
	case err != nil:
		return nil, Sentinel(err)
	}
	r := &Run{
		ID: row.RunID, Token: token, Log: options.Patience.Log.With("run_id", row.RunID),
		Settings: row.Settings, ApprovedRun: row.ApprovedRun, pool: pool, options: options,
	}
	r.Enter(options.Phase)
	LogPinned(r.Log, settings.Pinned(options.Settings, row.Settings))
	return r, nil
}

// LogPinned says by which pins a run goes, where they are stricter than its settings.
func LogPinned(log *slog.Logger, pinned []string) {
	if len(pinned) > 0 {
		log.Info("Limits pinned in the database are stricter than the settings", "pinned", strings.Join(pinned, ", "),
			"see", "orphan-cleaner limits; without a pin: orphan-cleaner limits unpin NAME, as the migrator")
	}
}

// Sentinel is err, wrapped by what a caller branches on where one of our
// functions said it.
func Sentinel(err error) error {
	said, is := errors.AsType[*pgconn.PgError](err)
	if !is {
		return err
	}
	switch database.Code(said) {
	case database.RunNotOpen:
		return ErrTakenOver
	case database.RunsPaused:
		return fmt.Errorf("%w (%s)", ErrPaused, said.Message)
	case database.AnotherRun:
		return fmt.Errorf("%w; hint: orphan-cleaner status", &sentinel{ErrAnotherRun, said.Message})
	case database.ProofFailed:
		return fmt.Errorf("%w; hint: orphan-cleaner check", &sentinel{ErrProof, said.Message})
	default:
		return err
	}
}

// sentinel is an error in the words of the database.
type sentinel struct {
	is      error
	message string
}

func (s *sentinel) Error() string { return s.message }
func (s *sentinel) Unwrap() error { return s.is }

// Enter names the phase that heartbeats record from now on.
func (r *Run) Enter(phase string) { r.phase.Store(&phase) }

// Phase is the one entered last.
func (r *Run) Phase() string { return *r.phase.Load() }

// Heartbeat keeps the run open. It fails with [ErrTakenOver] unless it is, and
// with [ErrPaused] while runs are paused and this one is not let through.
func (r *Run) Heartbeat(ctx context.Context) error {
	paused, err := database.Bounded(ctx, r.pool, r.options.Patience, pgx.ReadWrite, r.options.Lease/2, func(ctx context.Context, q *db.Queries) (bool, error) {
		return q.RunHeartbeat(ctx, db.RunHeartbeatParams{RunID: r.ID, Token: r.Token, Kind: r.options.Kind, Phase: r.Phase()})
	})
	if err == nil && paused && (r.options.Kind == "clean" || r.options.IsRevert) {
		return ErrPaused
	}
	return Sentinel(err)
}

// KeepAlive sends a heartbeat four times a lease until it is stopped. The
// context it returns ends, with the error as its cause, once the run is no
// longer open, is paused, or could not be kept open for a whole lease.
func (r *Run) KeepAlive(ctx context.Context) (alive context.Context, stop func()) {
	alive, cancel := context.WithCancelCause(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(r.options.Lease / 4)
		defer tick.Stop()
		last := time.Now()
		for {
			select {
			case <-alive.Done():
				return
			case <-tick.C:
			}
			began := time.Now()
			err := r.Heartbeat(alive)
			switch {
			case err == nil:
				last = began
			case errors.Is(err, ErrTakenOver), errors.Is(err, ErrPaused):
				cancel(err)
			case alive.Err() != nil:
			case time.Since(last) > r.options.Lease:
				cancel(fmt.Errorf("no heartbeat reached the database for longer than the lease of %s: %w", r.options.Lease, err))
			default:
				r.Log.Warn("Heartbeat failed, will try again", "error", err)
			}
		}
	})
	return alive, func() {
		cancel(nil)
		done.Wait()
	}
}
