package cleaner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/failpoint"
)

// maxVoidShare is the share of batches without a correct answer above which
// nothing is swept and the ledger is left alone.
const maxVoidShare = 0.10

// judge lets the run pass to the sweep, or not. Until it has passed, the ledger
// is as it was before the run.
func (r *run) judge(ctx context.Context) error {
	r.enter("judge")
	r.facts.MembersTotal = r.Progress().MembersSeen
	if void := share(r.facts.VoidBatches, r.facts.Batches); void > maxVoidShare {
		return fmt.Errorf("%w: %d of %d batches got no correct answer, more than %.0f %%: nothing is swept%s",
			ErrIncomplete, r.facts.VoidBatches, r.facts.Batches, 100*maxVoidShare, r.facts.causeText())
	}
	if r.facts.CanariesUnknown > 0 {
		return fmt.Errorf("%w: %d canaries got no correct answer: nothing is swept%s", ErrIncomplete, r.facts.CanariesUnknown, r.facts.causeText())
	}
	if err := r.judgeClock(ctx); err != nil {
		return err
	}
	return r.pass(ctx, judgeFacts(r.facts, r.cfg.Limits))
}

// pass writes the ledger, unless a breaker tripped.
func (r *run) pass(ctx context.Context, trip *Trip) error {
	switch {
	case r.cfg.DryRun && trip == nil:
		return nil
	case r.cfg.DryRun:
		return trip
	}
	if err := failpoint.After("staging-checked", r.stagingIsWhole(ctx)); err != nil {
		return err
	}
	switch {
	case trip == nil:
		// Who is due is read meanwhile: the sweep begins with it. Gently, afterwards.
		merging, ctx := errgroup.WithContext(ctx)
		merging.SetLimit(r.connections)
		merging.Go(func() error { return r.merge(ctx) })
		if r.facts.UsersDue > 0 {
			merging.Go(func() (err error) {
				r.due, err = r.readDue(ctx, uuid.Nil)
				return err
			})
		}
		return merging.Wait()
	case !Approvable(trip.Breaker):
		return trip
	}
	_, err := retry(ctx, r.Cleaner, "keeping the refused users", func() (int64, error) {
		return db.New(r.pool).RefusalStore(ctx, db.RefusalStoreParams{RunID: r.id, MaxGap: r.cfg.MaxGap, Retention: r.cfg.Retention})
	})
	return errors.Join(trip, err)
}

// recall reads what runs used to delete, for the breaker history.
func (r *run) recall(ctx context.Context) error {
	history, err := read(ctx, r.Cleaner, "reading what runs used to delete", func(ctx context.Context, q *db.Queries) (db.RunHistoryRow, error) {
		return q.RunHistory(ctx)
	})
	r.facts.HistoryRuns, r.facts.HistoryMedian = history.Runs, history.Median
	return err
}

// judgeEarly stops the asking once the run is sure to be refused: what was found
// so far is too much whatever the rest of the answers. A dry run asks on: it is
// there to look closer. So does a run that checks a share: what it is a share of is
// not the table, whose totals this judges by, and it ends soon anyway.
func (r *run) judgeEarly(ctx context.Context) error {
	if r.cfg.DryRun || r.judgeLate || !r.turn.isWhole() || judgeFacts(r.facts, r.cfg.Limits) == nil {
		return nil
	}
	if r.totals.Users == 0 {
		totals, err := read(ctx, r.Cleaner, "counting users and members", func(ctx context.Context, q *db.Queries) (db.MemberTotalsRow, error) {
			return q.MemberTotals(ctx)
		})
		if err != nil {
			// Asking on costs calls, and no more.
			r.judgeLate = true
			r.log.Warn("Judging early is not possible, asking on", "error", err)
			return ctx.Err()
		}
		r.totals = totals
	}
	whole := r.facts
	whole.UsersChecked, whole.MembersTotal = r.totals.Users, r.totals.Members
	trip := judgeFacts(whole, r.cfg.Limits)
	if trip == nil {
		return nil
	}
	trip.Early = true
	r.facts.MembersTotal = r.Progress().MembersSeen
	return trip
}

// judgeClock is the breaker clock: retention is a difference of database times.
func (r *run) judgeClock(ctx context.Context) error {
	clock, err := read(ctx, r.Cleaner, "reading the database's clock", func(ctx context.Context, q *db.Queries) (db.RunClockRow, error) {
		return q.RunClock(ctx, r.id)
	})
	if err != nil {
		return err
	}
	if !clock.RunsForward {
		return &Trip{
			Breaker: clockBreaker, Figure: "database time " + clock.DatabaseTime.UTC().Format("2006-01-02 15:04:05") + " UTC is behind an earlier run",
			Limit: "a clock that runs forward", Look: "orphan-cleaner status",
		}
	}
	return nil
}

// stagingIsWhole notices a server crash since verify: staging is unlogged, and
// users it forgot would look alive.
func (r *run) stagingIsWhole(ctx context.Context) error {
	staged, err := retry(ctx, r.Cleaner, "counting staging", func() (db.SightingCountRow, error) {
		return db.New(r.pool).SightingCount(ctx, r.id)
	})
	if err != nil {
		return err
	}
	if staged.Missing != r.facts.UsersMissing || staged.Unknown != r.facts.UsersUnknown {
		return fmt.Errorf("staging lost rows (%d missing and %d unknown users staged, %d and %d counted): did the server crash? The next run starts over",
			staged.Missing, staged.Unknown, r.facts.UsersMissing, r.facts.UsersUnknown)
	}
	return nil
}

// mergeLimit bounds the one statement whose size is the number of missing users.
const mergeLimit = 5 * time.Minute

// merge writes the ledger, in one statement, and who was asked about, in another.
func (r *run) merge(ctx context.Context) error {
	// Of all attempts: one whose answer was lost has merged, and the next finds nobody.
	var returned int64
	_, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadWrite, mergeLimit, "merging sightings into the ledger", func(ctx context.Context, q *db.Queries) (row db.CandidateMergeRow, err error) {
		// Locks the run's row: nobody takes the run over in between.
		if err := r.fence.Heartbeat(ctx, q, 0); err != nil {
			return row, err
		}
		if err := q.SettingsForMerge(ctx); err != nil {
			return row, err
		}
		if row, err = q.CandidateMerge(ctx, db.CandidateMergeParams{RunID: r.id, MaxGap: r.cfg.MaxGap}); err != nil {
			return row, err
		}
		returned = max(returned, row.Returned)
		if row.Missing != r.facts.UsersMissing {
			return row, fmt.Errorf("%d of %d missing users reached the ledger", row.Missing, r.facts.UsersMissing)
		}
		if err := failpoint.After("merge", r.useApproval(ctx, q)); err != nil {
			return row, err
		}
		// With the ledger or not at all: a run that came to nothing was nobody's turn.
		if _, err := q.CoverageWrite(ctx, r.turn.written(r.id)); err != nil {
			return row, err
		}
		// Fresh again at COMMIT: a merge may take longer than a lease.
		return row, r.fence.Heartbeat(ctx, q, 0)
	})
	r.facts.UsersReturned = returned
	return err
}

// useApproval uses the approval up: it works once.
func (r *run) useApproval(ctx context.Context, q *db.Queries) error {
	if r.approval.ApprovalID == 0 {
		return nil
	}
	used, err := q.ApprovalUse(ctx, db.ApprovalUseParams{ApprovalID: r.approval.ApprovalID, RunID: r.id})
	if err == nil && used == 0 {
		err = fmt.Errorf("the approval of run %d expired or was revoked while this run was verifying", r.approval.RunID)
	}
	return err
}
