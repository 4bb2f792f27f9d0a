package queue

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	generated "github.com/nova-social/orphan-cleaner/gen/control"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

// rangeArgs have the users of a range checked, each once.
type rangeArgs struct {
	FleetRun int64     `json:"fleet_run"`
	First    uuid.UUID `json:"first"`
	Last     uuid.UUID `json:"last"`
}

func (rangeArgs) Kind() string { return "fleet_range" }

// firstPassArgs give out the first pass when the time for the ranges is over: the users of
// one that was not completed, as by a killed worker, are checked by the shards.
type firstPassArgs struct {
	FleetRun int64 `json:"fleet_run"`
}

func (firstPassArgs) Kind() string { return "fleet_first_pass" }

// beginOnce gives out the one check of each user, after which the first pass is given out.
func (w *Worker) beginOnce(ctx context.Context, tx pgx.Tx, q *generated.Queries, fleetRun int64) error {
	if err := w.giveRanges(ctx, tx, q, fleetRun, []fleet.Range{fleet.AllIDs()}); err != nil {
		return err
	}
	late := once()
	late.ScheduledAt = time.Now().Add(w.fleet.Asking())
	_, err := w.client.InsertTx(ctx, tx, firstPassArgs{fleetRun}, late)
	return err
}

// giveRanges makes a job of each of these ranges.
func (w *Worker) giveRanges(ctx context.Context, tx pgx.Tx, q *generated.Queries, fleetRun int64, ranges []fleet.Range) error {
	add := generated.FleetRangesAddParams{FleetRun: fleetRun}
	var jobs []river.InsertManyParams
	for _, r := range ranges {
		add.FirstIds, add.LastIds = append(add.FirstIds, r.First), append(add.LastIds, r.Last)
		jobs = append(jobs, river.InsertManyParams{Args: rangeArgs{fleetRun, r.First, r.Last}, InsertOpts: once()})
	}
	if err := q.FleetRangesAdd(ctx, add); err != nil {
		return err
	}
	_, err := w.client.InsertManyTx(ctx, tx, jobs)
	return err
}

type rangeWorker struct {
	river.WorkerDefaults[rangeArgs]
	*Worker
}

// Work checks the users of a range and keeps the answers. In the same transaction what is
// left of the range are jobs of their own, and the last range calls for the first pass.
func (w *rangeWorker) Work(ctx context.Context, job *river.Job[rangeArgs]) error {
	left, err := w.asking(ctx, job.Args.FleetRun)
	if err != nil {
		return err
	}
	began, within := time.Now(), fleet.Range{First: job.Args.First, Last: job.Args.Last}
	answer, rest, err := w.fleet.Ask(ctx, within, left)
	if err != nil {
		return river.JobSnooze(0) // it was broken off: whoever is there next
	}
	var more []fleet.Range
	switch {
	case rest == nil:
	case within == fleet.AllIDs(): // there are many users
		more = rest.Cut(max(2, len(w.fleet.Shards)))
	default: // ids lie closer here than elsewhere, as those made of a time do
		more = rest.Cut(2)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepLimit)
	defer cancel()
	err = w.control.write(ctx, "keeping the answers of a range", func(ctx context.Context, tx pgx.Tx, q *generated.Queries) error {
		isKept, err := q.FleetRangeDone(ctx, generated.FleetRangeDoneParams{
			FleetRun: job.Args.FleetRun, FirstID: answer.First, ThroughID: answer.Last, Checked: answer.Checked, Missing: answer.Missing, Took: time.Since(began),
		})
		if err != nil {
			return err
		}
		if isKept && rest != nil {
			if err := w.giveRanges(ctx, tx, q, job.Args.FleetRun, more); err != nil {
				return err
			}
		}
		open, err := q.FleetRangesOpen(ctx, job.Args.FleetRun)
		if err == nil && open == 0 {
			err = w.give(ctx, tx, job.Args.FleetRun, w.names(), false)
		}
		if err != nil {
			return err
		}
		_, err = river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
	if errors.Is(err, run.ErrTakenOver) {
		return nil // the run was given up
	}
	return err
}

// asking is for how long users are still checked once. Where the fleet is paused the time is
// over.
func (w *Worker) asking(ctx context.Context, fleetRun int64) (time.Duration, error) {
	return read(ctx, w.control, func(ctx context.Context, q *generated.Queries) (time.Duration, error) {
		paused, err := q.FleetPaused(ctx)
		if err != nil || len(paused) > 0 {
			return 0, err
		}
		of, err := q.FleetRunState(ctx, fleetRun)
		return w.fleet.Asking() - seconds(of.Seconds), err
	})
}

type firstPassWorker struct {
	river.WorkerDefaults[firstPassArgs]
	*Worker
}

// Work gives out the first pass, unless that is done.
func (w *firstPassWorker) Work(ctx context.Context, job *river.Job[firstPassArgs]) error {
	return w.control.write(ctx, "giving out the first pass", func(ctx context.Context, tx pgx.Tx, _ *generated.Queries) error {
		if err := w.give(ctx, tx, job.Args.FleetRun, w.names(), false); err != nil {
			return err
		}
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
}

// answers are those of a run; nil: each shard asks auth-service.
func (w *Worker) answers(fleetRun int64) *fleet.Answers {
	if !w.fleet.Once {
		return nil
	}
	return fleet.FindAnswers(w.fleet.Log, func(ctx context.Context, id uuid.UUID) (*fleet.Answer, error) {
		rows, err := read(ctx, w.control, func(ctx context.Context, q *generated.Queries) ([]generated.FleetAnswerRow, error) {
			return q.FleetAnswer(ctx, generated.FleetAnswerParams{FleetRun: fleetRun, UserID: id})
		})
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			return &fleet.Answer{Range: fleet.AllIDs()}, nil
		}
		a := rows[0]
		return &fleet.Answer{
			Range: fleet.Range{First: a.FirstID, Last: a.LastID}, Checked: a.Checked, Missing: a.Missing,
			// One that is not done is infinitely old.
			Until: time.Now().Add(w.fleet.JobTimeout - seconds(math.Min(a.Age, 1e9))),
		}, nil
	})
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
