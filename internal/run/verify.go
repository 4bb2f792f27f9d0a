package run

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/canary"
	"github.com/nova-social/orphan-cleaner/internal/failpoint"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/scan"
)

// found is what verify knows beyond the result: what judge goes by.
type found struct {
	scan.Scan
	batches, invalid    int64
	missing, unknown    []uuid.UUID // not staged yet; of a dry run, all of them
	risen, stillMissing []uuid.UUID // of the rechecks
}

// response is what came back for a batch: the missing of them, or an error.
type response struct {
	scan.Batch
	missing []uuid.UUID
	err     error
}

const (
	// invalidInARow is how many batches may go without a valid response in a row,
	// per call in flight, before the run stops.
	invalidInARow = 3
	// stageUsers are staged at once, while calls are in flight: the last write is what verify waits for.
	stageUsers = 5_000
	// responsesAhead may wait while a write to staging is under way: a megabyte.
	responsesAhead = 512
)

// verify streams the distinct users of this run, checks each once and stages who
// is missing and who is unknown. Pages, calls and staging overlap; memory is
// bounded by two pages, responsesAhead batches and one write to staging.
func (r *run) verify(ctx context.Context) (*found, error) {
	r.enter("verify")
	f := &found{Scan: scan.Scan{
		Source: &scan.Database{Pool: r.pool, Patience: r.patience(), Seen: r.seen}, Canaries: canary.New(r.cfg.CanaryAlive, r.cfg.CanaryDead),
		BatchSize: r.cfg.BatchSize, PageUsers: int64(r.cfg.PageUsers), NoRechecks: r.cfg.DryRun,
	}}
	if err := r.share(ctx, f); err != nil {
		return f, err
	}
	batches := make(chan scan.Batch, r.cfg.PageUsers/r.cfg.BatchSize)
	responses := make(chan response, responsesAhead)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		return f.Run(ctx, batches)
	})
	group.Go(func() error {
		defer close(responses)
		callers, ctx := errgroup.WithContext(ctx)
		for range r.cfg.Concurrency {
			callers.Go(func() error {
				for batch := range batches {
					missing, err := r.users.Missing(ctx, batch.IDs)
					select {
					case responses <- response{batch, missing, err}:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				return nil
			})
		}
		return callers.Wait()
	})
	group.Go(func() error { return r.collect(ctx, f, responses) })
	return f, group.Wait()
}

// share says how many users this run is about and behind which one they begin:
// all, or with CheckEvery a part.
func (r *run) share(ctx context.Context, f *found) error {
	state, err := read(ctx, r, "reading how far the checking is", func(ctx context.Context, q *db.Queries) (db.CoverageStateRow, error) {
		return q.CoverageState(ctx)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	} else if err != nil {
		return err
	}
	r.report(func(p *result.Progress) { p.UsersAbout = state.Users })
	if whole := r.fence != nil && r.fence.ApprovedRun != 0; !whole && f.Share(state, r.cfg.CheckEvery) {
		r.log.Info("Checking a part of the users, and all candidates", "users", f.Limit, "of_about", max(state.Users, state.UsersSoFar),
			"check_every", r.cfg.CheckEvery.String())
	}
	return nil
}

// seen counts the rows of a page.
func (r *run) seen(target string, rows int64) {
	so := r.tally(func(did *result.Run) { did.MembersTotal = r.rows.See(target, rows) })
	r.report(func(p *result.Progress) { p.MembersSeen = so.MembersTotal })
}

// collect counts the responses and stages missing and unknown users in bulk.
func (r *run) collect(ctx context.Context, f *found, responses <-chan response) error {
	inARow := 0
	for got := range responses {
		f.batches++
		r.observer.BatchDone(got.err)
		var so result.Run
		if got.err != nil {
			f.invalid++
			f.Canaries.NoResponse(got.IDs)
			f.unknown = append(f.unknown, got.IDs[:got.Users]...)
			so = r.tally(func(did *result.Run) { did.BatchCalls++; did.UsersUnknown += int64(got.Users); r.cause = got.err })
			if inARow++; inARow >= invalidInARow*r.cfg.Concurrency {
				return fmt.Errorf("%w: auth-service gave no valid response to %d batches in a row, stopped checking; last cause: %w",
					ErrIncomplete, inARow, got.err)
			}
		} else {
			inARow = 0
			f.Canaries.Judge(got.IDs, got.missing)
			missing := slices.DeleteFunc(slices.Clone(got.missing), func(id uuid.UUID) bool { return slices.Contains(got.IDs[got.Users:], id) })
			f.missing = append(f.missing, missing...)
			for _, id := range got.IDs[len(got.IDs)-got.Rechecks:] {
				if slices.Contains(got.missing, id) {
					f.stillMissing = append(f.stillMissing, id)
				} else {
					f.risen = append(f.risen, id)
				}
			}
			so = r.tally(func(did *result.Run) {
				did.BatchCalls++
				did.UsersChecked += int64(got.Users)
				did.UsersMissing += int64(len(missing))
			})
		}
		r.report(func(p *result.Progress) { p.UsersChecked, p.UsersMissing = so.UsersChecked, so.UsersMissing })
		if len(f.missing)+len(f.unknown) >= stageUsers && !r.cfg.DryRun {
			if err := r.stage(ctx, f); err != nil {
				return err
			}
		}
	}
	if r.cfg.DryRun || len(f.missing)+len(f.unknown) == 0 {
		return nil
	}
	return r.stage(ctx, f)
}

// stage writes missing and unknown users to staging, with what the database knows
// about them.
func (r *run) stage(ctx context.Context, f *found) error {
	due, err := write(ctx, r, "staging users", func(ctx context.Context, q *db.Queries) (int64, error) {
		return q.RunStage(ctx, db.RunStageParams{RunID: r.fence.ID, Token: r.fence.Token, Missing: notNull(f.missing), Unknown: notNull(f.unknown)})
	})
	f.missing, f.unknown = f.missing[:0], f.unknown[:0]
	r.report(func(p *result.Progress) { p.MembersDue += due })
	return failpoint.After("staged", err)
}
