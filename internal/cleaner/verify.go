package cleaner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/failpoint"
)

// Facts is what a run knows, all of it counted before the first delete but for
// what the sweep adds.
type Facts struct {
	UsersChecked, UsersMissing, UsersUnknown, UsersNew, UsersReturned, UsersDue int64
	MembersTotal, MembersDue, MembersDeleted, MembersKeptYoung, MembersHeld     int64
	Conversations, Batches, VoidBatches, BatchCalls, ChunksLeft                 int64
	UsersResurrected                                                            int64 // see lookBack
	// NewUnforeseen users are newly missing, DueUnapproved members due, and no
	// approval covers them: what the breakers judge.
	NewUnforeseen, DueUnapproved int64
	// RecentlyActive users are missing, though they read a message within a day.
	RecentlyActive int64
	// HistoryRuns is how many of the last 20 succeeded runs there are,
	// HistoryMedian what half of them deleted at most.
	HistoryRuns   int64
	HistoryMedian float64
	// What the canaries said, see canaries.
	AliveMissing, DeadPresent []uuid.UUID
	CanariesUnknown           int64
	// Cause is the last reason why a batch was void or a chunk left.
	Cause error
}

func (f Facts) causeText() string {
	if f.Cause == nil {
		return ""
	}
	return fmt.Sprintf("; last cause: %v", f.Cause)
}

// answer is what came back for one batch: the missing of them, or an error.
type answer struct {
	batch
	missing []uuid.UUID
	err     error
}

// batch is what one call asks: users of the table, then canaries that are no
// members, then departed users. The latter two are only looked at.
type batch struct {
	ids               []uuid.UUID
	members, departed int
	spans             []span // of the members, those that a range holds
}

func (r *run) newBatch() batch { return batch{ids: make([]uuid.UUID, 0, r.cfg.BatchSize)} }

// voidInARow is how many batches may go without a correct answer in a row, per
// call in flight, before the run stops asking.
const voidInARow = 3

const (
	// stageFirst is how many users are written to staging at first, so that a run that
	// is sure to be refused soon stops asking; then four times as many each time up to
	// stageMost: the more at once, the less often a page of the table is visited.
	stageFirst, stageMost = 2500, 160_000
	// stageShared is how many are worth more than one connection, and how many are
	// written at once where others are at work.
	stageShared = 10_000
	// answersAhead is how many batches may be answered and not yet counted: a
	// megabyte at most.
	answersAhead = 512
)

// verify streams the distinct users whose turn it is, asks auth-service about each
// once and stages who is missing and who is unknown. Memory is bounded by two
// pages, answersAhead batches and one staging write.
func (r *run) verify(ctx context.Context) error {
	// A page ahead: auth-service is asked while the next one is read.
	batches := make(chan batch, r.cfg.PageUsers/r.cfg.BatchSize)
	known := newCanaries(r.cfg)
	// What is answered while a write to staging is under way.
	answers := make(chan answer, answersAhead)
	group, ctx := errgroup.WithContext(ctx)

	group.Go(func() error {
		defer close(batches)
		return r.scan(ctx, known, batches)
	})
	group.Go(func() error {
		defer close(answers)
		askers, ctx := errgroup.WithContext(ctx)
		for range r.cfg.Concurrency {
			askers.Go(func() error {
				for batch := range batches {
					missing, err := r.calls.ask(ctx, r.checker, batch.ids)
					select {
					case answers <- answer{batch, missing, err}:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				return nil
			})
		}
		return askers.Wait()
	})
	group.Go(func() error { return r.stage(ctx, known, answers) })
	return group.Wait()
}

// scan cuts the users of the run's share, and the candidates beside it, into
// batches of exactly BatchSize; only the last one may be smaller.
func (r *run) scan(ctx context.Context, known *canaries, batches chan<- batch) error {
	next, sent := r.newBatch(), 0
	send := func(b batch) error {
		select {
		case batches <- b:
			next = r.newBatch()
			sent++
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	take := func(user uuid.UUID, at int) error {
		delete(known.unmet, user)
		r.turn.note(&next, user, at)
		if next.members++; len(next.ids) == r.cfg.BatchSize {
			return send(next)
		}
		return nil
	}
	for at := range r.turn.ranges {
		if err := r.scanRange(ctx, at, take); err != nil {
			return err
		}
	}
	if !r.turn.isWhole() {
		if err := r.takeCandidates(ctx, take); err != nil {
			return err
		}
	}
	for canary := range known.unmet {
		if next.ids = append(next.ids, canary); len(next.ids) == r.cfg.BatchSize {
			if err := send(next); err != nil {
				return err
			}
		}
	}
	return r.askAgainAbout(ctx, next, sent, send)
}

// stage counts the answers and stages missing and unknown users in bulk. What
// the missing ones mean for the run is summed up on the way.
func (r *run) stage(ctx context.Context, known *canaries, answers <-chan answer) error {
	var missing, unknown []uuid.UUID
	inARow, size := 0, stageFirst
	flush := func(atLeast int) error {
		if len(missing) >= atLeast {
			connections := 1
			if len(missing) > stageShared {
				r.makeWay(ctx)
				connections = r.connections
			}
			if err := r.stageMissing(ctx, missing, connections); err != nil {
				return err
			}
			missing = missing[:0]
		}
		if len(unknown) >= atLeast {
			if err := r.stageUnknown(ctx, unknown); err != nil {
				return err
			}
			unknown = unknown[:0]
		}
		return nil
	}
	for a := range answers {
		r.facts.Batches++
		r.facts.BatchCalls++
		r.cfg.Observer.BatchDone(a.err)
		if a.err != nil {
			r.facts.VoidBatches++
			r.facts.UsersUnknown += int64(a.members)
			r.facts.Cause = a.err
			known.unknown(&r.facts, a.ids)
			unknown = append(unknown, a.ids[:a.members]...)
			r.turn.void = append(r.turn.void, a.spans...)
			if inARow++; inARow >= voidInARow*r.cfg.Concurrency {
				return fmt.Errorf("%w: auth-service gave no correct answer to %d batches in a row, stopped asking; last cause: %w",
					ErrIncomplete, inARow, a.err)
			}
		} else {
			inARow = 0
			known.judge(&r.facts, a.ids, func(id uuid.UUID) bool { return slices.Contains(a.missing, id) })
			r.back.note(a)
			ofMembers := slices.Clone(a.missing)
			if strangers := a.ids[a.members:]; len(strangers) > 0 {
				ofMembers = slices.DeleteFunc(ofMembers, func(id uuid.UUID) bool { return slices.Contains(strangers, id) })
			}
			r.facts.UsersChecked += int64(a.members)
			r.facts.UsersMissing += int64(len(ofMembers))
			missing = append(missing, ofMembers...)
		}
		full := len(missing) >= size
		if err := failpoint.After("answer", flush(size)); err != nil {
			return err
		}
		if full {
			size = min(4*size, r.stageAtOnce())
			if err := r.judgeEarly(ctx); err != nil {
				return errors.Join(err, flush(1))
			}
		}
		r.report(func(p *Progress) {
			p.UsersChecked, p.UsersMissing = r.facts.UsersChecked, r.facts.UsersMissing
			p.UsersDue, p.MembersDue = r.facts.UsersDue, r.facts.MembersDue
		})
	}
	if r.facts.UsersMissing > 0 {
		r.makeWay(ctx)
	}
	// There is nothing left to do beside them.
	if err := r.stageMissing(ctx, missing, r.connections); err != nil {
		return err
	}
	missing = nil
	return flush(1)
}

// stageMissing stages missing users, over so many connections, and adds up what
// they mean for the run.
func (r *run) stageMissing(ctx context.Context, users []uuid.UUID, connections int) error {
	for some := range slices.Chunk(users, r.stageAtOnce()) {
		if err := r.stageSome(ctx, some, connections); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) stageAtOnce() int {
	if r.gentle {
		return stageShared
	}
	return stageMost
}

func (r *run) stageSome(ctx context.Context, users []uuid.UUID, connections int) error {
	return r.share(ctx, users, connections, func(ctx context.Context, users []uuid.UUID) error {
		found, err := r.assess(ctx, users)
		if err != nil {
			return err
		}
		r.tally(func(f *Facts) {
			f.UsersNew += found.UsersNew
			f.NewUnforeseen += found.UsersNewUnforeseen
			f.RecentlyActive += found.UsersRecentlyActive
			if r.approval.ApprovalID == 0 { // an approved run deletes nothing else
				f.DueUnapproved += found.MembersDue
			}
			f.UsersDue += found.UsersDue
			f.MembersDue += found.MembersDue
			f.MembersKeptYoung += found.MembersKeptYoung
			f.MembersHeld += found.MembersHeld
		})
		return nil
	})
}

func (r *run) assess(ctx context.Context, users []uuid.UUID) (db.SightingStageMissingRow, error) {
	params := db.SightingAssessParams{UserIds: users, Retention: r.cfg.Retention, MaxGap: r.cfg.MaxGap, ApprovedRun: r.approval.RunID}
	if r.cfg.DryRun {
		found, err := read(ctx, r.Cleaner, "assessing missing users", func(ctx context.Context, q *db.Queries) (db.SightingAssessRow, error) {
			return q.SightingAssess(ctx, params)
		})
		return db.SightingStageMissingRow(found), err
	}
	stage := func() (db.SightingStageMissingRow, error) {
		return db.New(r.pool).SightingStageMissing(ctx, db.SightingStageMissingParams{
			RunID: r.id, UserIds: params.UserIds, Retention: params.Retention, MaxGap: params.MaxGap, ApprovedRun: params.ApprovedRun,
		})
	}
	found, err := retry(ctx, r.Cleaner, "staging missing users", stage)
	if database.Code(err) == database.UniqueViolation {
		// An attempt whose answer was lost was at work still; by now it has staged them.
		found, err = retry(ctx, r.Cleaner, "staging missing users", stage)
	}
	return found, err
}

func (r *run) stageUnknown(ctx context.Context, users []uuid.UUID) error {
	if r.cfg.DryRun {
		return nil
	}
	_, err := retry(ctx, r.Cleaner, "staging users", func() (int64, error) {
		return db.New(r.pool).SightingStageUnknown(ctx, db.SightingStageUnknownParams{RunID: r.id, UserIds: users})
	})
	return err
}
