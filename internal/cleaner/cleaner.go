// Package cleaner is the life of a run: preflight, begin, verify, judge, sweep,
// finish. What is an orphan, whether it may go and the proof that it went are
// decided in the SQL of queries/ and migrations/; this package asks
// auth-service, calls those queries and stops when in doubt.
package cleaner

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
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Cleaner makes runs, one at a time.
type Cleaner struct {
	pool    *pgxpool.Pool
	checker Checker
	probes  []Probe
	log     *slog.Logger
	cfg     Config

	mu       sync.Mutex
	progress Progress
}

// New returns a Cleaner. The probes are checks beside the database's own, such
// as the health of auth-service.
func New(pool *pgxpool.Pool, checker Checker, log *slog.Logger, cfg Config, probes ...Probe) *Cleaner {
	return &Cleaner{pool: pool, checker: checker, probes: probes, log: log, cfg: cfg}
}

// Progress is safe to call while a run is under way.
func (c *Cleaner) Progress() Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.progress
}

func (c *Cleaner) report(update func(p *Progress)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	update(&c.progress)
}

// run is one cycle under way.
type run struct {
	*Cleaner
	id      int64 // 0 in a dry run
	started time.Time
	facts   Facts
	// approval is what this run goes by, if somebody approved a refused run: it
	// sweeps that run's users and no others.
	approval db.ApprovalOpenRow
}

// Run makes one run. The result is filled in as far as the run came, whatever
// the error.
func (c *Cleaner) Run(ctx context.Context) (Result, error) {
	r := &run{Cleaner: c, started: time.Now()}
	findings := c.Check(ctx, !c.cfg.DryRun)
	findings.Log(c.log)
	if ctx.Err() != nil {
		return r.result(ErrInterrupted), ErrInterrupted
	}
	if err := findings.Err(); err != nil {
		return r.recordFailure(ctx, err), err
	}
	if c.cfg.DryRun {
		err := r.verifyAndJudge(ctx)
		if err == nil {
			err = r.leftOver()
		}
		return r.result(err), err
	}

	if err := r.begin(ctx); err != nil {
		return r.result(err), err
	}
	alive, stop := r.keepAlive(ctx)
	err := r.verifyAndJudge(alive)
	if err == nil {
		err = r.sweep(alive)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		err = ErrInterrupted
	case err != nil && alive.Err() != nil:
		err = context.Cause(alive)
	}
	stop()
	return r.finish(ctx, err)
}

func (r *run) verifyAndJudge(ctx context.Context) error {
	if err := r.lookForApproval(ctx); err != nil {
		return err
	}
	if err := r.verify(ctx); err != nil {
		return err
	}
	return r.judge(ctx)
}

func (r *run) lookForApproval(ctx context.Context) error {
	open, err := read(ctx, r.Cleaner, "looking for an approval", func(ctx context.Context, q *db.Queries) ([]db.ApprovalOpenRow, error) {
		return q.ApprovalOpen(ctx)
	})
	if err == nil && len(open) > 0 {
		r.approval = open[0]
		r.log.Info("Going by an approval: only its users are due", "approved_run", r.approval.RunID, "approved_by", r.approval.ApprovedBy)
	}
	return err
}

// begin opens the run, or returns [ErrAnotherRun] and says whose it is.
func (r *run) begin(ctx context.Context) error {
	// From here on: whatever ends the run writes down the phase that it was in.
	r.enter("verify")
	attempts := 0
	row, err := retry(ctx, r.Cleaner, "opening the run", func() (db.RunBeginRow, error) {
		attempts++
		var row db.RunBeginRow
		err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) (err error) {
			q := db.New(tx)
			// Giving up a silent run waits for its chunk in flight, but not for ever.
			if err := q.SettingsForBulk(ctx, db.SettingsForBulkParams{
				LockTimeout: milliseconds(r.cfg.LockTimeout), StatementTimeout: milliseconds(readLimit),
			}); err != nil {
				return err
			}
			row, err = q.RunBegin(ctx, db.RunBeginParams{
				Kind: "clean", Phase: "verify", Lease: r.cfg.Lease,
				Host: r.cfg.Host, Version: r.cfg.Version, Settings: r.cfg.Settings,
			})
			return err
		})
		return row, err
	})
	if code := database.Code(err); code == uniqueViolation || code == lockNotAvailable {
		open, openErr := db.New(r.pool).RunOpen(ctx)
		if openErr != nil || attempts == 1 || open.Host != r.cfg.Host {
			return whoIsOpen(open, openErr)
		}
		// Our own: an earlier attempt went through and its answer was lost.
		row.RunID, err = open.RunID, nil
	}
	if err != nil {
		return err
	}
	r.id = row.RunID
	r.log = r.log.With("run_id", r.id)
	return nil
}

const (
	uniqueViolation  = "23505"
	lockNotAvailable = "55P03"
)

func whoIsOpen(open db.RunOpenRow, err error) error {
	if err != nil {
		return fmt.Errorf("%w; look at it with: orphan-cleaner status", ErrAnotherRun)
	}
	return fmt.Errorf("%w: run %d (%s, phase %s) of %s since %s; it ends by itself, or is given up when silent for its lease; look at it with: orphan-cleaner status",
		ErrAnotherRun, open.RunID, open.Kind, open.Phase, open.Host, open.StartedAt.UTC().Format(time.RFC3339))
}

// keepAlive sends a heartbeat four times a lease. The context it returns ends
// with [ErrTakenOver] once the run is no longer open.
func (r *run) keepAlive(ctx context.Context) (context.Context, func()) {
	alive, cancel := context.WithCancelCause(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(r.cfg.Lease / 4)
		defer tick.Stop()
		for {
			select {
			case <-alive.Done():
				return
			case <-tick.C:
			}
			err := r.heartbeat(alive, db.New(r.pool), 0)
			switch {
			case errors.Is(err, ErrTakenOver), errors.Is(err, ErrPaused):
				cancel(err)
			case err != nil && alive.Err() == nil:
				r.log.Warn("Heartbeat failed, will try again", "error", err)
			}
		}
	})
	return alive, func() {
		cancel(nil)
		done.Wait()
	}
}

// heartbeat is the fence: it fails with [ErrTakenOver] unless the run is open,
// and with [ErrPaused] while runs are paused.
func (r *run) heartbeat(ctx context.Context, q *db.Queries, deleted int64) error {
	paused, err := q.RunHeartbeat(ctx, db.RunHeartbeatParams{RunID: r.id, Phase: r.Progress().Phase, Deleted: deleted})
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrTakenOver
	}
	if err == nil && paused {
		return ErrPaused
	}
	return err
}

// enter names the phase for heartbeats, progress and the log.
func (r *run) enter(phase string) {
	r.report(func(p *Progress) { p.Phase = phase })
	r.log.Debug("Entering phase", "phase", phase)
}
