package cleaner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/failpoint"
)

// finishLimit bounds the last writes of a run, which are made even when the run
// was interrupted.
const finishLimit = 8 * time.Second

// finish proves the run as a whole, empties staging and ends the run's row.
func (r *run) finish(ctx context.Context, runErr error) (Result, error) {
	if errors.Is(runErr, ErrTakenOver) {
		return r.result(runErr), runErr
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishLimit)
	defer cancel()
	phase := r.Progress().Phase

	if errors.Is(runErr, ErrPreflight) {
		return r.failPreflight(ctx, runErr)
	}
	if runErr == nil {
		r.enter("finish")
		phase = "finish"
		runErr = failpoint.After("sweep", r.leftOver())
	}
	q := db.New(r.pool)
	if _, err := retry(ctx, r.Cleaner, "finishing", func() (struct{}, error) {
		return struct{}{}, failpoint.After("facts", r.writeFacts(ctx, q))
	}); err != nil {
		runErr = errors.Join(runErr, err)
	}
	if errors.Is(runErr, ErrTakenOver) {
		return r.result(runErr), runErr
	}
	if err := failpoint.After("whole-proof", r.proveWhole(ctx, q)); err != nil {
		runErr = errors.Join(err, runErr)
	}
	_, err := retry(ctx, r.Cleaner, "emptying staging", func() (int64, error) { return q.SightingDrop(ctx, r.id) })
	if err := failpoint.After("staging-dropped", err); err != nil {
		runErr = errors.Join(runErr, err)
	}

	result := r.result(runErr)
	row, err := retry(ctx, r.Cleaner, "finishing the run", func() (db.RunFinishRow, error) {
		return q.RunFinish(ctx, db.RunFinishParams{
			RunID: r.id, State: result.State, Phase: phase, Breaker: result.Breaker, Error: database.OrNil(result.Error),
			Conversations: r.facts.Conversations,
		})
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return r.result(ErrTakenOver), ErrTakenOver
	}
	if err != nil {
		err = errors.Join(runErr, err)
		return r.result(err), err
	}
	result.MembersDeleted = row.MembersDeleted
	return result, failpoint.After("finish", runErr)
}

// failPreflight ends a scheduled run that did not get past its preflight. The
// rest of finish would read what may be the very thing that is missing.
func (r *run) failPreflight(ctx context.Context, cause error) (Result, error) {
	result := r.result(cause)
	_, err := retry(ctx, r.Cleaner, "finishing the run", func() (int64, error) {
		return db.New(r.pool).RunFailPreflight(ctx, db.RunFailPreflightParams{RunID: r.id, Error: &result.Error})
	})
	return result, errors.Join(cause, err)
}

// leftOver is an [ErrIncomplete] when users or chunks were left over.
func (r *run) leftOver() error {
	if r.facts.UsersUnknown == 0 && r.facts.ChunksLeft == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d users without a correct answer, %d chunks left for the next run%s",
		ErrIncomplete, r.facts.UsersUnknown, r.facts.ChunksLeft, r.facts.causeText())
}

// proveWhole compares, over all chunks of the run, what its row says was deleted
// with the rows of the audit and of the backup.
func (r *run) proveWhole(ctx context.Context, q *db.Queries) error {
	deleted, lost, err := r.count(ctx)
	if err != nil {
		return err
	}
	r.facts.MembersDeleted = deleted.MembersDeleted
	if lost > 0 {
		return fmt.Errorf("%w: a crash of the server took the deletion of %d members back, with audit and backup; the next run goes on", ErrIncomplete, lost)
	}
	if deleted.MembersDeleted == 0 {
		return nil
	}
	var proof db.RunProofRow
	counters, ctx := errgroup.WithContext(ctx)
	counters.Go(func() (err error) {
		proof, err = retry(ctx, r.Cleaner, "proving the run", func() (db.RunProofRow, error) {
			return q.RunProof(ctx, db.RunProofParams{RunID: r.id, StartedAt: deleted.StartedAt})
		})
		return err
	})
	counters.Go(func() (err error) {
		r.facts.Conversations, err = retry(ctx, r.Cleaner, "counting conversations", func() (int64, error) {
			return q.RunConversations(ctx, r.id)
		})
		return err
	})
	if err := counters.Wait(); err != nil {
		return err
	}
	if proof.Audited != deleted.MembersDeleted || proof.BackedUp != deleted.MembersDeleted {
		return fmt.Errorf("%w over the whole run: %d deleted, %d audited, %d backed up; look closer with: orphan-cleaner status",
			ErrProof, deleted.MembersDeleted, proof.Audited, proof.BackedUp)
	}
	return nil
}

// count is what the run's own row says was deleted, and how many members of those
// that this runner deleted it does not know of: a crash of the server took them back.
func (r *run) count(ctx context.Context) (counted db.RunDeletedRow, lost int64, err error) {
	counted, err = read(ctx, r.Cleaner, "reading the run's count", func(ctx context.Context, q *db.Queries) (db.RunDeletedRow, error) {
		return q.RunDeleted(ctx, r.id)
	})
	return counted, r.Progress().MembersDeleted - counted.MembersDeleted, err
}

func (r *run) writeFacts(ctx context.Context, q *db.Queries) error {
	f := r.facts
	buckets, slowest := r.calls.recorded()
	rows, err := q.RunFacts(ctx, db.RunFactsParams{
		RunID: r.id, UsersChecked: f.UsersChecked, UsersMissing: f.UsersMissing, UsersUnknown: f.UsersUnknown,
		UsersNew: f.UsersNew, UsersReturned: f.UsersReturned, UsersDue: f.UsersDue, MembersTotal: f.MembersTotal,
		MembersDue: f.MembersDue, MembersKeptYoung: f.MembersKeptYoung, MembersHeld: f.MembersHeld,
		BatchCalls: f.BatchCalls, ChunksLeft: f.ChunksLeft, CallMsBuckets: buckets, CallMsMax: slowest,
	})
	if err != nil {
		return fmt.Errorf("writing down the run's facts: %w", err)
	}
	if rows == 0 {
		return ErrTakenOver
	}
	return nil
}

// recordFailure writes down a run that failed its preflight where the database
// allows it, so that `status` shows it.
func (r *run) recordFailure(ctx context.Context, cause error) Result {
	result := r.result(cause)
	if r.cfg.DryRun {
		return result
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishLimit)
	defer cancel()
	id, err := db.New(r.pool).RunRecordFailure(ctx, db.RunRecordFailureParams{
		Kind: "clean", Lease: r.cfg.Lease, Host: r.cfg.Host, Version: r.cfg.Version,
		Settings: r.cfg.Settings, Error: &result.Error,
	})
	if err != nil {
		r.log.Warn("The failed preflight could not be recorded", "error", err)
	}
	result.RunID = id
	return result
}

// result is the run as far as it came. Its state follows from the error.
func (r *run) result(err error) Result {
	f := r.facts
	result := Result{
		RunID: r.id, State: "succeeded", DryRun: r.cfg.DryRun, Seconds: time.Since(r.started).Seconds(),
		UsersChecked: f.UsersChecked, UsersMissing: f.UsersMissing, UsersUnknown: f.UsersUnknown, UsersNew: f.UsersNew,
		UsersReturned: f.UsersReturned, UsersDue: f.UsersDue, MembersDue: f.MembersDue, MembersDeleted: max(f.MembersDeleted, r.Progress().MembersDeleted),
		Conversations: f.Conversations, MembersKeptYoung: f.MembersKeptYoung, BatchCalls: f.BatchCalls,
		MembersTotal: f.MembersTotal, MembersHeld: f.MembersHeld, ChunksLeft: f.ChunksLeft,
		UsersResurrected: f.UsersResurrected,
	}
	if trip, ok := errors.AsType[*Trip](err); ok {
		result.Breaker = &trip.Breaker
	}
	switch {
	case err == nil:
	case errors.Is(err, ErrProof):
		result.State = "failed"
	case errors.Is(err, ErrRefused):
		result.State = "refused"
	case errors.Is(err, ErrIncomplete), errors.Is(err, ErrInterrupted), errors.Is(err, ErrPaused):
		result.State = "incomplete"
	default:
		result.State = "failed"
	}
	if err != nil {
		result.Error = err.Error()
	}
	return result
}
