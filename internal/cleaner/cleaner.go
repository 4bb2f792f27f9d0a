// Package cleaner is the life of a run: preflight, begin, verify, judge, sweep,
// finish. What is an orphan, whether it may go and the proof that it went are
// decided in the SQL of queries/ and migrations/; this package asks
// auth-service, calls those queries and stops when in doubt.
package cleaner

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/failpoint"
	"github.com/nova-social/orphan-cleaner/internal/fence"
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
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
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
	id          int64      // 0 in a dry run
	fence       *fence.Run // nil in a dry run
	started     time.Time
	entered     time.Time // the phase it is in
	facts       Facts
	tallying    sync.Mutex // of facts, where several goroutines add to them
	turn        turn
	calls       callTimes
	pace        *pace
	around      neighbours // at the beginning of verify
	gentle      bool       // see makeWay
	connections int        // at work at the same time, at most
	due         duePage    // the first one
	back        departed
	totals      db.MemberTotalsRow // of the table, where judgeEarly counted
	judgeLate   bool
	// approval is what this run goes by, if somebody approved a refused run: it
	// sweeps that run's users and no others.
	approval db.ApprovalOpenRow
}

// Run makes one run. The result is filled in as far as the run came, whatever
// the error.
func (c *Cleaner) Run(ctx context.Context) (Result, error) {
	c.report(func(p *Progress) { *p = Progress{} })
	r := &run{Cleaner: c, started: time.Now(), judgeLate: c.cfg.JudgeLate, pace: newPace(c.cfg), connections: c.cfg.SweepConnections}
	result, err := r.live(ctx)
	r.leave()
	c.cfg.Observer.RunEnded(result)
	return result, err
}

// live is the life of the run. One that is due by a schedule is opened before
// its preflight, any other after it: what cannot run at all then takes no lock.
func (r *run) live(ctx context.Context) (Result, error) {
	r.enter("preflight")
	if !r.scheduled() {
		if err := r.preflight(ctx); errors.Is(err, ErrInterrupted) {
			return r.result(err), err
		} else if err != nil {
			return r.recordFailure(ctx, err), err
		}
	}
	if r.cfg.DryRun {
		err := r.verifyAndJudge(ctx)
		if err == nil {
			err = r.leftOver()
		}
		return r.result(err), err
	}

	if err := r.begin(ctx); err != nil {
		return r.result(err), err
	}
	alive, stop := r.fence.KeepAlive(ctx)
	var err error
	if r.scheduled() {
		// Only now: of many runners that find the same trouble, one records it.
		err = r.preflight(alive)
	}
	if err == nil {
		err = r.verifyAndJudge(alive)
	}
	if err == nil {
		err = r.sweep(alive)
	}
	if err == nil {
		err = failpoint.After("look-back", r.lookBack(alive))
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

// tally adds to the facts while others may, too.
func (r *run) tally(add func(f *Facts)) {
	r.tallying.Lock()
	defer r.tallying.Unlock()
	add(&r.facts)
}

// share shares many users out to so many connections.
func (r *run) share(ctx context.Context, users []uuid.UUID, connections int, do func(ctx context.Context, users []uuid.UUID) error) error {
	sharers, ctx := errgroup.WithContext(ctx)
	for part := range slices.Chunk(users, max((len(users)+connections-1)/connections, r.cfg.BatchSize)) {
		sharers.Go(func() error { return do(ctx, part) })
	}
	return sharers.Wait()
}

func (r *run) scheduled() bool { return r.cfg.Every > 0 }

// preflight is an [ErrPreflight] when a check failed.
func (r *run) preflight(ctx context.Context) error {
	findings := r.Check(ctx, !r.cfg.DryRun)
	findings.Log(r.log)
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	return failpoint.After("preflight", findings.Err())
}

func (r *run) verifyAndJudge(ctx context.Context) error {
	r.enter("verify")
	if err := failpoint.After("begin", r.lookForApproval(ctx)); err != nil {
		return err
	}
	if err := r.recall(ctx); err != nil {
		return err
	}
	if err := r.takeShare(ctx); err != nil {
		return err
	}
	r.around = r.lookAround(ctx)
	err := failpoint.After("verify", r.verify(ctx))
	if trip, ok := errors.AsType[*Trip](err); ok {
		return r.pass(ctx, trip)
	}
	if err != nil {
		return err
	}
	return failpoint.After("judge", r.judge(ctx))
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
	phase := "verify"
	if r.scheduled() {
		phase = "preflight"
	}
	open, err := fence.Begin(ctx, r.pool, fence.Options{
		Kind: "clean", Phase: phase, Every: r.cfg.Every, Lease: r.cfg.Lease, Host: r.cfg.Host, Version: r.cfg.Version,
		Settings: r.cfg.Settings, Patience: r.patience(),
	})
	if err != nil {
		return err
	}
	r.fence, r.id, r.log = open, open.ID, open.Log
	r.cfg.Observer.RunBegan()
	return nil
}

// enter names the phase for heartbeats, progress and the log.
func (r *run) enter(phase string) {
	r.leave()
	r.entered = time.Now()
	r.report(func(p *Progress) { p.Phase = phase })
	if r.fence != nil {
		r.fence.Enter(phase)
	}
	r.log.Debug("Entering phase", "phase", phase)
}

// leave tells the observer how long the phase took.
func (r *run) leave() {
	if !r.entered.IsZero() {
		r.cfg.Observer.PhaseDone(r.Progress().Phase, time.Since(r.entered))
	}
}
