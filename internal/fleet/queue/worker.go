package queue

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	generated "github.com/nova-social/orphan-cleaner/gen/control"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/fleet/queue/migrations"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/wait"
)

// Worker works River's jobs, several shards at once.
type Worker struct {
	fleet    *fleet.Fleet
	control  *Control
	client   *river.Client[pgx.Tx]
	pause    time.Duration
	every    time.Duration
	stopping atomic.Bool
}

// Options of a Worker. The zero value is right but for Every.
type Options struct {
	// Every has a run begun once in this time, by whichever worker; 0: by nobody.
	Every time.Duration
	// Pause is how long a shard that is cleaned by somebody else is left alone, and after
	// how long one that failed is tried again; twice that the next time. Default: 15s.
	Pause time.Duration
	// Poll is how often the control database is asked for jobs. Default: 1s.
	Poll time.Duration
}

// attempts of a job. With the pauses between them they take four minutes: a server that
// restarts is there again.
const attempts = 5

// NewWorker returns a Worker that has not started.
func NewWorker(of *fleet.Fleet, c *Control, o Options) (*Worker, error) {
	if o.Pause == 0 {
		o.Pause = 15 * time.Second
	}
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	w := &Worker{fleet: of, control: c, pause: o.Pause, every: o.Every}
	workers := river.NewWorkers()
	river.AddWorker(workers, &beginWorker{Worker: w})
	river.AddWorker(workers, &shardWorker{Worker: w})
	river.AddWorker(workers, &judgeWorker{Worker: w})
	river.AddWorker(workers, &rangeWorker{Worker: w})
	river.AddWorker(workers, &firstPassWorker{Worker: w})
	cfg := &river.Config{
		Schema: migrations.Schema, Workers: workers, Logger: ofRiver(of.Log), ErrorHandler: failures{of.Log, doubling(o.Pause)}, MaxAttempts: attempts, RetryPolicy: doubling(o.Pause),
		Queues: map[string]river.QueueConfig{queueName: {MaxWorkers: of.Workers}},
		// Behind PgBouncer in transaction mode nothing can be listened to.
		PollOnly: true, FetchPollInterval: o.Poll, FetchCooldown: min(o.Poll, river.FetchCooldownDefault),
		// A job has no heartbeat: a killed worker's is given to another one after its time.
		JobTimeout: of.JobTimeout, RescueStuckJobsAfter: of.JobTimeout + of.Settings.Lease,
	}
	cfg.ReindexerIndexNames = []string{} // that takes the owner, whom no worker is
	if o.Every > 0 {
		cfg.PeriodicJobs = []*river.PeriodicJob{river.NewPeriodicJob(river.PeriodicInterval(o.Every), func() (river.JobArgs, *river.InsertOpts) {
			return beginArgs{}, &river.InsertOpts{Queue: queueName, UniqueOpts: river.UniqueOpts{ByPeriod: o.Every}}
		}, &river.PeriodicJobOpts{RunOnStart: true})}
	}
	var err error
	if w.client, err = river.NewClient(riverpgxv5.New(c.pool), cfg); err != nil {
		return nil, fmt.Errorf("making a worker of River: %w", err)
	}
	return w, nil
}

// doubling is the pause after the first failure.
type doubling time.Duration

// NextRetry implements [river.ClientRetryPolicy].
func (d doubling) NextRetry(job *rivertype.JobRow) time.Time {
	return time.Now().Add(d.after(job.Attempt))
}

func (d doubling) after(attempt int) time.Duration {
	return time.Duration(d) << min(max(attempt-1, 0), 10)
}

// Serve works until the context ends.
func (w *Worker) Serve(ctx context.Context) error {
	if err := w.control.Clock(ctx); errors.Is(err, run.ErrPreflight) { // any other may pass
		return err
	}
	stop, err := w.start(ctx)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return stop()
}

// start starts working; what it returns ends that, and waits for it.
func (w *Worker) start(ctx context.Context) (stop func() error, err error) {
	// Our own context, so that a job that is broken off can still be given back.
	if err := w.client.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, fmt.Errorf("starting to work: %w; hint: orphan-cleaner fleet migrate", err)
	}
	return func() error {
		w.stopping.Store(true)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
		defer cancel()
		if err := w.client.StopAndCancel(ctx); err != nil {
			return fmt.Errorf("ending the work: %w", err)
		}
		return nil
	}, nil
}

// stopLimit is under Kubernetes' and systemd's: a run under way ends by then.
const stopLimit = 20 * time.Second

func (w *Worker) isStopping() bool { return w.stopping.Load() }

// isOpen is whether a run may be gone on with. What was judged too long ago is no reason to sweep:
// workers were away, or the control database was restored. The next run gives it up.
func (w *Worker) isOpen(of generated.FleetRunStateRow) bool {
	isStale := seconds(of.Idle) > w.giveUp()
	if of.State == "running" && isStale {
		w.fleet.Log.Warn("The open run of the fleet is too old to go on with; the next run gives it up", "fleet_run", of.FleetRun, "idle", seconds(of.Idle).Round(time.Second).String())
	}
	return of.State == "running" && !isStale
}

// Run begins a run, or goes on with the one that is open, and works until it has ended.
func (w *Worker) Run(ctx context.Context) (r fleet.Result, err error) {
	if err := w.control.Clock(ctx); errors.Is(err, run.ErrPreflight) { // any other may pass
		return fleet.Ended(nil, fleet.Facts{}, err, 0), err
	}
	fleetRun, err := w.Begin(ctx)
	if err != nil {
		return fleet.Ended(nil, fleet.Facts{}, err, 0), err
	}
	stop, err := w.start(ctx)
	if err != nil {
		return fleet.Ended(nil, fleet.Facts{}, err, 0), err
	}
	r, err = w.await(ctx, fleetRun)
	return r, errors.Join(err, stop())
}

// Begin begins a run, or finds the one that is open.
func (w *Worker) Begin(ctx context.Context) (fleetRun int64, err error) {
	err = w.control.write(ctx, "beginning a run of the fleet", func(ctx context.Context, tx pgx.Tx, q *generated.Queries) error {
		fleetRun, err = w.begin(ctx, tx, q)
		return err
	})
	if !errors.Is(err, run.ErrAnotherRun) {
		return fleetRun, err
	}
	open, readErr := read(ctx, w.control, func(ctx context.Context, q *generated.Queries) ([]int64, error) { return q.FleetRunOpen(ctx) })
	if readErr != nil || len(open) == 0 {
		return 0, errors.Join(err, readErr)
	}
	w.fleet.Log.Info("Going on with the open run of the fleet", "fleet_run", open[0])
	return open[0], nil
}

// awaitEvery is how often it is looked whether the run has ended.
const awaitEvery = 500 * time.Millisecond

// await waits for the end of a run, also while the control database is away.
func (w *Worker) await(ctx context.Context, fleetRun int64) (fleet.Result, error) {
	for {
		r, err := w.control.Result(ctx, fleetRun)
		switch {
		case err == nil && r.State != "running":
			return r, errorOf(r)
		case err != nil && ctx.Err() == nil:
			w.fleet.Log.Warn("The control database is away", "error", err)
		}
		if wait.For(ctx, awaitEvery) != nil {
			r.FleetRun = fleetRun
			return r, run.ErrInterrupted
		}
	}
}

// Clock is an error where the database's clock is behind this machine's: River dates the jobs of
// a run by ours and gives them out by the database's, so that each would wait as long.
func (c *Control) Clock(ctx context.Context) error {
	asked := time.Now()
	var there time.Time
	err := c.once(ctx, pgx.ReadOnly, func(ctx context.Context, tx pgx.Tx, _ *generated.Queries) (err error) {
		there, err = database.Queries(tx).ClockNow(ctx)
		return err
	})
	switch behind := asked.Sub(there); {
	case err != nil:
		return err
	case behind > check.MaxSkew:
		return fmt.Errorf("%w: control database: its clock is %s behind this machine: no job would begin; hint: %s", run.ErrPreflight, behind.Round(time.Second), check.SetClocks)
	}
	return nil
}
