// Package run is the life of a run: preflight, begin, verify, judge, sweep,
// finish. What is an orphan, whether it may be deleted and the proof that it was
// are decided by the functions in migrations/; this package checks users with
// auth-service, hands the responses over and calls the next function.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/blocked"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/failpoint"
	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/latency"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/throttle"
)

// Runner makes runs, one at a time.
type Runner struct {
	pool      *pgxpool.Pool
	checker   Checker
	preflight func(ctx context.Context) error
	log       *slog.Logger
	cfg       settings.Run
	observer  result.Observer

	mu       sync.Mutex
	progress result.Progress
}

// New returns a Runner. What preflight returns ends a run before it has done
// anything; it wraps [ErrPreflight].
func New(pool *pgxpool.Pool, checker Checker, log *slog.Logger, cfg settings.Run, preflight func(ctx context.Context) error) *Runner {
	return &Runner{pool: pool, checker: checker, preflight: preflight, log: log, cfg: cfg, observer: result.Unobserved{}}
}

// Observe has an observer told what runs do, from the next run on.
func (r *Runner) Observe(observer result.Observer) { r.observer = observer }

// Progress is safe to call while a run is under way.
func (r *Runner) Progress() result.Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress
}

func (r *Runner) report(update func(p *result.Progress)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	update(&r.progress)
}

// run is one run under way.
type run struct {
	*Runner
	fence    *fence.Run // nil in a dry run
	started  time.Time
	entered  time.Time // the phase it is in
	users    latency.Checker
	throttle *throttle.Throttle // of the sweep
	splits   blocked.Splits

	mu    sync.Mutex // of what follows, while several connections sweep
	did   result.Run
	rows  result.Tally
	cause error // the last reason why users or rows were left
}

// Run makes one run. The result is filled in as far as the run came, whatever
// the error.
func (r *Runner) Run(ctx context.Context) (result.Run, error) {
	r.report(func(p *result.Progress) { *p = result.Progress{} })
	one := &run{Runner: r, started: time.Now(), users: latency.Checker{Next: r.checker}, did: result.Run{DryRun: r.cfg.DryRun, Blocked: []blocked.User{}}}
	err := one.live(ctx)
	one.leave()
	ended := one.ended(err)
	r.observer.RunEnded(ended)
	return ended, err
}

// live is the life of the run.
func (r *run) live(ctx context.Context) error {
	r.enter("preflight")
	if r.cfg.DryRun {
		return r.steps(ctx)
	}
	if err := r.begin(ctx); err != nil {
		return r.explained(ctx, err)
	}
	alive, stop := r.fence.KeepAlive(ctx)
	err := r.steps(alive)
	switch {
	case err != nil && ctx.Err() != nil:
		err = ErrInterrupted
	case err != nil && alive.Err() != nil:
		err = context.Cause(alive)
	}
	stop()
	return r.finish(ctx, err)
}

// steps are what a run does while it is open, and a dry run up to the sweep.
func (r *run) steps(ctx context.Context) error {
	if err := failpoint.After("preflight", r.preflight(ctx)); err != nil {
		return err
	}
	found, err := r.verify(ctx)
	if err := failpoint.After("verify", err); err != nil {
		return err
	}
	if err := failpoint.After("judge", r.judge(ctx, found)); err != nil {
		return err
	}
	if r.cfg.DryRun {
		return r.leftOver()
	}
	if err := r.sweep(ctx); err != nil {
		return err
	}
	return failpoint.After("recheck", r.writeRechecks(ctx, found))
}

// explained is why the run was not opened, or what preflight says about that.
func (r *run) explained(ctx context.Context, err error) error {
	if errors.Is(err, ErrAnotherRun) || errors.Is(err, ErrPaused) || errors.Is(err, ErrNotDue) {
		return err
	}
	if said := r.preflight(ctx); said != nil && ctx.Err() == nil {
		return said
	}
	return err
}

// begin opens the run, or returns [ErrAnotherRun] and says whose it is.
func (r *run) begin(ctx context.Context) error {
	kept, err := r.cfg.JSON()
	if err != nil {
		return fmt.Errorf("writing the settings: %w", err)
	}
	open, err := fence.Begin(ctx, r.pool, fence.Options{
		Kind: "clean", Phase: r.Progress().Phase, Every: r.cfg.Every, Lease: r.cfg.Lease, Host: r.cfg.Host, Version: r.cfg.Version,
		Settings: kept, Patience: r.patience(),
	})
	if err != nil {
		return err
	}
	r.fence, r.did.RunID, r.log = open, open.ID, open.Log
	r.observer.RunBegan()
	if open.ApprovedRun != 0 {
		r.log.Info("Going by an approval: only the users it covers are due", "approved_run", open.ApprovedRun)
	}
	return failpoint.After("begin", nil)
}

// finishLimit bounds the last write of a run, made even when it was interrupted.
const finishLimit = 8 * time.Second

// finish ends the run's row, which proves the run.
func (r *run) finish(ctx context.Context, runErr error) error {
	if errors.Is(runErr, ErrTakenOver) {
		return runErr
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishLimit)
	defer cancel()
	phase := r.Progress().Phase
	if runErr == nil {
		r.enter("finish")
		runErr = failpoint.After("sweep", r.leftOver())
	}
	ended := r.ended(runErr)
	buckets, slowest := r.users.Recorded()
	counts, err := ended.Counts(phase, &r.rows, buckets, slowest)
	if err != nil {
		return errors.Join(runErr, err)
	}
	row, err := write(ctx, r, "finishing the run", func(ctx context.Context, q *db.Queries) (result.Proof, error) {
		return result.Finish(ctx, q, db.RunFinishParams{
			RunID: r.fence.ID, Token: r.fence.Token, State: ended.State, Breaker: ended.Breaker, Error: database.OrNil(ended.Error), Counts: counts,
		})
	})
	if err != nil {
		return errors.Join(runErr, err)
	}
	r.did.Proven(row)
	r.rows.Take(row.Targets)
	if row.State != ended.State {
		runErr = errors.Join(fmt.Errorf("%w: %s; hint: orphan-cleaner status", ErrProof, row.Error), runErr)
	}
	return failpoint.After("finish", runErr)
}

// leftOver is an [ErrIncomplete] when users or rows are left for the next run.
func (r *run) leftOver() error {
	if r.did.UsersUnknown == 0 && r.did.UsersBlocked == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d users without a valid response, %d blocked; last cause: %w; hint: orphan-cleaner status, orphan-cleaner check",
		ErrIncomplete, r.did.UsersUnknown, r.did.UsersBlocked, r.cause)
}

// ended is the result of the run as far as it came. Its state follows from the error.
func (r *run) ended(err error) result.Run {
	return r.did.Counted(&r.rows).Ended(fence.State(err, ErrIncomplete, ErrInterrupted), err, time.Since(r.started))
}

// enter names the phase for heartbeats, progress and the log.
func (r *run) enter(phase string) {
	r.leave()
	r.entered = time.Now()
	r.report(func(p *result.Progress) { p.Phase = phase })
	if r.fence != nil {
		r.fence.Enter(phase)
	}
	r.log.Debug("Entering phase", "phase", phase)
}

// leave tells the observer how long the phase took.
func (r *run) leave() {
	if !r.entered.IsZero() {
		r.observer.PhaseDone(r.Progress().Phase, time.Since(r.entered))
	}
}

// tally adds to the result while others may, too, and returns it as it is then.
func (r *run) tally(add func(did *result.Run)) result.Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	add(&r.did)
	return r.did
}

func (r *Runner) patience() database.Patience {
	return database.Patience{Log: r.log, Attempts: r.cfg.Attempts, LockTimeout: r.cfg.LockTimeout, Retried: r.observer.Retried}
}

// read runs queries in a READ ONLY transaction, so that nothing read by a dry
// run, or by the verification of any run, can change anything.
func read[T any](ctx context.Context, r *run, doing string, query func(ctx context.Context, q *db.Queries) (T, error)) (T, error) {
	return database.Do(ctx, r.pool, r.patience(), pgx.ReadOnly, database.ReadLimit, doing, query)
}

// writeLimit bounds the longest statement, the merge into the ledger.
const writeLimit = 5 * time.Minute

// write calls one of our functions, in a transaction of its own.
func write[T any](ctx context.Context, r *run, doing string, call func(ctx context.Context, q *db.Queries) (T, error)) (T, error) {
	value, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadWrite, writeLimit, doing, call)
	return value, fence.Sentinel(err)
}
