package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	generated "github.com/nova-social/orphan-cleaner/gen/control"
	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/blocked"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

// beginArgs begin a run of the fleet, once an interval.
type beginArgs struct{}

func (beginArgs) Kind() string { return "fleet_begin" }

// shardArgs are one pass over one shard.
type shardArgs struct {
	FleetRun int64  `json:"fleet_run"`
	Shard    string `json:"shard"`
	IsSweep  bool   `json:"is_sweep"`
}

func (shardArgs) Kind() string { return "fleet_shard" }

// judgeArgs are the judgement after a wave; after the first pass it is 0.
type judgeArgs struct {
	FleetRun int64 `json:"fleet_run"`
	Wave     int   `json:"wave"`
}

func (judgeArgs) Kind() string { return "fleet_judge" }

// once is the options of a job of which there is one, ever.
func once() *river.InsertOpts {
	return &river.InsertOpts{Queue: queueName, UniqueOpts: river.UniqueOpts{ByArgs: true}}
}

const queueName = "fleet"

// begin begins a run and gives out what is first to be done, in one transaction.
func (w *Worker) begin(ctx context.Context, tx pgx.Tx, q *generated.Queries) (int64, error) {
	fleetRun, err := q.FleetRunBegin(ctx, generated.FleetRunBeginParams{Shards: w.names(), Host: w.fleet.Settings.Host, GiveUp: w.giveUp()})
	switch {
	case err != nil:
		return 0, err
	case w.fleet.Once:
		return fleetRun, w.beginOnce(ctx, tx, q, fleetRun)
	default:
		return fleetRun, w.give(ctx, tx, fleetRun, w.names(), false)
	}
}

func (w *Worker) names() []string {
	names := make([]string, len(w.fleet.Shards))
	for i, shard := range w.fleet.Shards {
		names[i] = shard.Name
	}
	return names
}

// giveUp is when a run that no worker goes on with is given up: no job takes so long.
func (w *Worker) giveUp() time.Duration { return 3*w.fleet.JobTimeout + 10*time.Minute }

// give makes a job of a pass over each of these shards.
func (w *Worker) give(ctx context.Context, tx pgx.Tx, fleetRun int64, names []string, isSweep bool) error {
	jobs := make([]river.InsertManyParams, len(names))
	for i, name := range names {
		jobs[i] = river.InsertManyParams{Args: shardArgs{fleetRun, name, isSweep}, InsertOpts: once()}
	}
	_, err := w.client.InsertManyTx(ctx, tx, jobs)
	return err
}

type beginWorker struct {
	river.WorkerDefaults[beginArgs]
	*Worker
}

// Work begins a run; while another is open, or the fleet is paused, this interval has none.
func (w *beginWorker) Work(ctx context.Context, job *river.Job[beginArgs]) error {
	err := w.control.write(ctx, "beginning a run of the fleet", func(ctx context.Context, tx pgx.Tx, q *generated.Queries) error {
		if _, err := w.begin(ctx, tx, q); err != nil {
			return err
		}
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
	if errors.Is(err, run.ErrAnotherRun) || errors.Is(err, run.ErrPaused) || slices.Contains([]string{ClockBehind, AnotherFleet}, database.Code(err)) {
		w.fleet.Log.Warn("No run of the fleet is begun", "error", err)
		return river.JobCancel(err)
	}
	return err
}

type shardWorker struct {
	river.WorkerDefaults[shardArgs]
	*Worker
}

// Work makes a pass over a shard, keeps its report and, where it was the last one, calls
// for judgement.
func (w *shardWorker) Work(ctx context.Context, job *river.Job[shardArgs]) error {
	known, paused, err := w.shard(ctx, job.Args)
	if err != nil {
		return err
	}
	shard, err := w.fleet.Shard(job.Args.Shard)
	var report fleet.Report
	switch {
	case known == nil || job.Args.IsSweep && known.Swept != nil || !job.Args.IsSweep && known.Verified != nil:
		return nil // done by somebody else, or of no use any more
	case err != nil && time.Since(job.CreatedAt) < w.fleet.JobTimeout:
		w.fleet.Log.Warn("A shard of the run is not in this worker's fleet.yaml; another worker is waited for", "shard", job.Args.Shard, "until", job.CreatedAt.Add(w.fleet.JobTimeout))
		return river.JobSnooze(w.pause)
	case err != nil:
		report = told(job.Args.Shard, fleet.Failed, err)
	case paused:
		report = told(job.Args.Shard, fleet.Paused, run.ErrPaused)
	case job.Args.IsSweep:
		report = w.fleet.Sweep(ctx, shard, w.answers(job.Args.FleetRun), known.Verified)
	default:
		report = w.fleet.Verify(ctx, shard, w.answers(job.Args.FleetRun))
	}
	if w.isStopping() && report.Verdict == fleet.Failed {
		return river.JobSnooze(0) // it was broken off: whoever is there next
	}
	cause := errors.New(report.Run.Error)
	switch {
	case report.Verdict == fleet.AnotherRun && time.Since(job.CreatedAt) < w.fleet.JobTimeout:
		return river.JobSnooze(w.pause)
	case report.Verdict == fleet.Failed && job.Attempt < job.MaxAttempts:
		return cause
	}
	// The time of the job may be over; what it did is kept all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepLimit)
	defer cancel()
	if err := w.done(ctx, job, report); err != nil {
		return err
	}
	switch report.Verdict {
	case fleet.Refused, fleet.Doubted:
		return river.JobCancel(cause)
	case fleet.Failed, fleet.AnotherRun:
		return cause
	}
	return nil
}

// keepLimit bounds keeping what a job did.
const keepLimit = 3 * time.Minute

// shard is how far an open run is with a shard, or nil.
func (w *Worker) shard(ctx context.Context, args shardArgs) (known *fleet.Progress, paused bool, err error) {
	known, err = read(ctx, w.control, func(ctx context.Context, q *generated.Queries) (*fleet.Progress, error) {
		of, err := q.FleetRunState(ctx, args.FleetRun)
		if err != nil || !w.isOpen(of) {
			return nil, err
		}
		pauses, err := q.FleetPaused(ctx)
		if err != nil {
			return nil, err
		}
		paused = len(pauses) > 0
		shards, err := progress(ctx, q, args.FleetRun)
		for i := range shards {
			if shards[i].Name == args.Shard {
				return &shards[i], err
			}
		}
		return nil, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return known, paused, err
}

// told is a report of a pass that was not made.
func told(shard, verdict string, err error) fleet.Report {
	return fleet.Report{Shard: shard, Verdict: verdict, Days: []db.HourDaysRow{}, Run: result.Run{Blocked: []blocked.User{}}.Ended(fence.State(err), err, 0)}
}

// done keeps a report. That the job is done, and the judgement that follows the last
// report, are part of the transaction.
func (w *Worker) done(ctx context.Context, job *river.Job[shardArgs], report fleet.Report) error {
	text, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("writing the report of %s: %w", report.Shard, err)
	}
	err = w.control.write(ctx, "keeping the report of a shard", func(ctx context.Context, tx pgx.Tx, q *generated.Queries) error {
		isLast, err := q.FleetShardDone(ctx, generated.FleetShardDoneParams{FleetRun: job.Args.FleetRun, Shard: report.Shard, IsSweep: job.Args.IsSweep, Report: text})
		if err != nil {
			return err
		}
		if isLast {
			of, err := q.FleetRunState(ctx, job.Args.FleetRun)
			if err != nil {
				return err
			}
			if _, err := w.client.InsertTx(ctx, tx, judgeArgs{job.Args.FleetRun, int(of.Waves)}, once()); err != nil {
				return err
			}
		}
		if report.Verdict == fleet.Done || report.Verdict == fleet.Incomplete || report.Verdict == fleet.Paused {
			_, err = river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		}
		return err
	})
	if errors.Is(err, run.ErrTakenOver) {
		return nil // the run was given up
	}
	return err
}

type judgeWorker struct {
	river.WorkerDefaults[judgeArgs]
	*Worker
}

// Work judges what is known and gives out the next wave, or ends the run.
func (w *judgeWorker) Work(ctx context.Context, job *river.Job[judgeArgs]) error {
	type known struct {
		of       generated.FleetRunStateRow
		paused   bool
		shards   []fleet.Progress
		approved fleet.Approved
	}
	k, err := read(ctx, w.control, func(ctx context.Context, q *generated.Queries) (k known, err error) {
		if k.of, err = q.FleetRunState(ctx, job.Args.FleetRun); err != nil {
			return k, err
		}
		pauses, err := q.FleetPaused(ctx)
		if err != nil {
			return k, err
		}
		k.paused = len(pauses) > 0
		if k.shards, err = progress(ctx, q, job.Args.FleetRun); err != nil {
			return k, err
		}
		k.approved, err = approved(ctx, q, job.Args.FleetRun, k.shards)
		return k, err
	})
	if err != nil || !w.isOpen(k.of) || int(k.of.Waves) != job.Args.Wave {
		return err
	}
	var names []string
	var sums fleet.Facts
	if err = run.ErrPaused; !k.paused {
		names, sums, err = w.fleet.Next(ctx, k.shards, k.approved)
	}
	if refusal, is := errors.AsType[*result.Refusal](err); is {
		refusal.Approve = fmt.Sprintf("orphan-cleaner fleet approve %d", job.Args.FleetRun)
	}
	isVerdict := err == nil || errors.Is(err, result.ErrRefused) || errors.Is(err, run.ErrIncomplete) || errors.Is(err, run.ErrPaused)
	if !isVerdict && (w.isStopping() || job.Attempt < job.MaxAttempts) {
		return err
	}
	text, encodeErr := json.Marshal(sums)
	if encodeErr != nil {
		return fmt.Errorf("writing the sums: %w", encodeErr)
	}
	return w.control.write(ctx, "ending a wave", func(ctx context.Context, tx pgx.Tx, q *generated.Queries) error {
		if len(names) > 0 {
			wave := generated.FleetWaveBeginParams{FleetRun: job.Args.FleetRun, Wave: int64(job.Args.Wave + 1), Shards: names, Sums: text, ByApproval: k.of.ApprovedRun}
			if err := q.FleetWaveBegin(ctx, wave); err != nil {
				return err
			}
			if err := w.give(ctx, tx, job.Args.FleetRun, names, true); err != nil {
				return err
			}
		} else {
			r := fleet.Ended(k.shards, sums, err, 0)
			end := generated.FleetRunEndParams{FleetRun: job.Args.FleetRun, State: r.State, Breaker: r.Breaker, Sums: text}
			if r.Error != "" {
				end.Error = &r.Error
			}
			if err := q.FleetRunEnd(ctx, end); err != nil {
				return err
			}
		}
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
}
