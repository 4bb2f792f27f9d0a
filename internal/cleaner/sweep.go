package cleaner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/failpoint"
	"github.com/nova-social/orphan-cleaner/internal/fence"
)

const (
	// firstGroup is how many batches of due users are asked about again at first,
	// while nobody knows how fast that is and their members go.
	firstGroup = 3
	// largestGroup is how many users are asked about again at once, at most.
	largestGroup = 500_000
)

// sweep deletes the members of due users, group by group, over several
// connections; or gently, see makeWay. A group is asked about again right before its
// members go.
func (r *run) sweep(ctx context.Context) error {
	r.enter("sweep")
	// Whoever looks sees the phase, and a run that is over or paused stops here.
	if _, err := retry(ctx, r.Cleaner, "entering the sweep", func() (struct{}, error) {
		return struct{}{}, r.fence.Heartbeat(ctx, db.New(r.pool), 0)
	}); err != nil {
		return err
	}
	if len(r.due.users) == 0 {
		return nil
	}
	size := firstGroup * r.cfg.BatchSize
	page := r.due
	r.due = duePage{} // not to be kept when the next one comes
	for {
		for left := page.users; len(left) > 0; {
			group := left[:min(size, len(left))]
			left = left[len(group):]
			began := time.Now()
			if err := r.sweepGroup(ctx, page, group); err != nil {
				return err
			}
			size = r.groupFor(time.Since(began) / time.Duration(len(group)))
		}
		if page.isLast {
			return nil
		}
		var err error
		if page, err = r.readDue(ctx, idAfter(page.users[len(page.users)-1])); err != nil {
			return err
		}
	}
}

// groupFor is how many users are asked about again at once, when one of them takes
// so long: as many as are done in half of the time that an answer is good for. The
// more at once, the fewer chunks come to the same page of the table. Whole batches
// keep the calls at ceil(due / batch size).
func (r *run) groupFor(perUser time.Duration) int {
	users := min(r.cfg.AnswerAge/2/max(perUser, 1), largestGroup)
	return max(int(users)/r.cfg.BatchSize, 1) * r.cfg.BatchSize
}

// errStale says that an answer grew older than AnswerAge before its delete.
var errStale = errors.New("the answer of auth-service is too old to delete by")

// sweepGroup asks, deletes in chunks, and asks anew, for half as many users at a
// time, whenever the answer has grown too old before the last chunk.
func (r *run) sweepGroup(ctx context.Context, page duePage, group []uuid.UUID) error {
	// A run across midnight needs the next day's partition; without a place for
	// the backup the delete itself fails.
	if _, err := db.New(r.pool).PartitionEnsure(ctx, daysAhead); err != nil {
		r.log.Warn("Making partitions failed", "error", err)
	}
	asked := time.Now()
	missing, alive, err := r.askAgain(ctx, group)
	if err := failpoint.After("second-asking", err); err != nil {
		return err
	}
	if err := r.forget(ctx, alive, true); err != nil {
		return err
	}
	r.tally(func(f *Facts) { f.UsersReturned += int64(len(alive)) })
	if len(missing) == 0 {
		return nil
	}
	gone, others, err := r.deleteMembers(ctx, page, missing, asked)
	switch {
	case errors.Is(err, errStale) && len(missing) > r.cfg.BatchSize:
		for half := range slices.Chunk(missing, (len(missing)+1)/2) {
			if err := r.sweepGroup(ctx, page, half); err != nil {
				return err
			}
		}
		return nil
	case errors.Is(err, errStale):
		r.leaveChunk(len(missing), err)
	case err != nil:
		return err
	}
	if err := r.forget(ctx, gone, true); err != nil {
		return err
	}
	return failpoint.After("forget", r.forget(ctx, others, false))
}

// deletion is what became of the members of some users.
type deletion struct {
	found, deleted int64
	isLeft         bool // a chunk of them was left for the next run
}

func (d *deletion) add(more deletion) {
	d.found += more.found
	d.deleted += more.deleted
	d.isLeft = d.isLeft || more.isLeft
}

// isWhole says that none of them is left.
func (d deletion) isWhole() bool { return !d.isLeft && d.deleted == d.found }

// leaveChunk leaves members of so many users for the next run.
func (r *run) leaveChunk(users int, err error) {
	r.tally(func(f *Facts) { f.ChunksLeft++; f.Cause = err })
	r.log.Warn("Chunk left for the next run", "users", users, "error", err)
}

// deleteMembers deletes the members of users that may go: where staging saw them;
// then those it did not keep, and those that were changed since and lie elsewhere,
// where the table has them. None is left of the gone users then; the others may
// have some, that may not go or were left.
func (r *run) deleteMembers(ctx context.Context, page duePage, users []uuid.UUID, asked time.Time) (gone, others []uuid.UUID, err error) {
	isChosen, fated := page.choose(users)
	seen, err := r.deleteChunks(ctx, newCutter(r.connections, page.users, page.spots, isChosen), asked)
	if err != nil || seen.isLeft {
		return nil, users, err
	}
	tookBack, err := r.crashTookBack(ctx, seen)
	if err != nil {
		return nil, users, err
	}
	if !seen.isWhole() || tookBack {
		fated = [...][]uuid.UUID{unknown: users}
	}
	gone, others = fated[leaving], fated[staying]
	if len(fated[unknown]) == 0 {
		return gone, others, nil
	}
	listed, err := r.deleteListed(ctx, fated[unknown], asked)
	if err != nil || !listed.isWhole() {
		return gone, append(others, fated[unknown]...), err
	}
	return append(gone, fated[unknown]...), others, nil
}

// crashTookBack says whether a crash of the server took chunks back that were
// committed a moment ago. Those are the last ones: the group's, and where they are
// more than that, others, which are left for the next run.
func (r *run) crashTookBack(ctx context.Context, group deletion) (bool, error) {
	if group.deleted == 0 {
		return false, nil
	}
	_, lost, err := r.count(ctx)
	if err != nil || lost <= 0 {
		return false, err
	}
	r.log.Warn("A crash of the server took chunks back, with audit and backup; deleting once more", "members", lost)
	r.report(func(p *Progress) { p.MembersDeleted -= min(lost, group.deleted) })
	return true, nil
}

// passes is how often the members of users are looked for in the table: one that
// was changed while the sweep was under way lies somewhere else afterwards.
const passes = 2

// deleteListed deletes members as the table lists them, page by page.
func (r *run) deleteListed(ctx context.Context, users []uuid.UUID, asked time.Time) (done deletion, err error) {
	for pass := 0; pass < passes && (pass == 0 || !done.isWhole() && !done.isLeft); pass++ {
		done = deletion{}
		for after, more := (pgtype.TID{Valid: true}), true; more; {
			var spots []spot
			if spots, after, more, err = r.listMembers(ctx, users, after); err != nil {
				return done, err
			}
			page, err := r.deleteChunks(ctx, newCutter(r.connections, users, spots, nil), asked)
			done.add(page)
			if err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// deleteChunks deletes chunk by chunk, over all connections of the sweep.
func (r *run) deleteChunks(ctx context.Context, cut *cutter, asked time.Time) (done deletion, err error) {
	done.found = cut.left
	var mu sync.Mutex // of done and stale
	var stale error
	settle := func(c chunk, deleted int64, err error) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			done.deleted += deleted // else it was rolled back
		case errors.Is(err, errStale):
			stale = err
			cut.stop() // other connections end their chunks
		case database.Contended(err), errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			done.isLeft = true
			r.leaveChunk(len(c.users), err)
		default:
			return err
		}
		return nil
	}
	sweepers, ctx := errgroup.WithContext(ctx)
	for range r.connections {
		sweepers.Go(func() error {
			for next, more := cut.next(r.pace.rows()); more; next, more = cut.next(r.pace.rows()) {
				began := time.Now()
				deleted, err := r.deleteChunk(ctx, next, asked)
				if err := settle(next, deleted, err); err != nil {
					return err
				}
				if err := r.rest(ctx, time.Since(began)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = sweepers.Wait()
	return done, cmp.Or(err, stale)
}

// askAgain sorts a group of due users into those still missing and those alive.
// Users of a void batch are in neither: they are unknown, and wait.
func (r *run) askAgain(ctx context.Context, group []uuid.UUID) (missing, alive []uuid.UUID, err error) {
	var mu sync.Mutex
	askers, ctx := errgroup.WithContext(ctx)
	askers.SetLimit(r.cfg.Concurrency)
	for batch := range slices.Chunk(group, r.cfg.BatchSize) {
		askers.Go(func() error {
			gone, err := r.calls.ask(ctx, r.checker, batch)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.tally(func(f *Facts) { f.BatchCalls++ })
			r.cfg.Observer.BatchDone(err)
			if err != nil {
				r.tally(func(f *Facts) { f.UsersUnknown += int64(len(batch)); f.Cause = err })
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			for _, user := range batch {
				if slices.Contains(gone, user) {
					missing = append(missing, user)
				} else {
					alive = append(alive, user)
				}
			}
			return nil
		})
	}
	err = askers.Wait()
	// By id again, as the index has them, and not as the answers came.
	slices.SortFunc(missing, compare)
	return missing, alive, err
}

// deleteChunk is one transaction: settings, delete, count proof, fence, commit.
// The fence comes last: what it locks is locked for the COMMIT alone, so that
// chunks of several connections stand in each other's way no longer.
// A run that was taken over finds out there, and its chunk is rolled back.
func (r *run) deleteChunk(ctx context.Context, c chunk, asked time.Time) (int64, error) {
	before := "it took too long to come" // what the last attempt met
	deleted, err := retry(ctx, r.Cleaner, "deleting a chunk", func() (deleted int64, err error) {
		// Each attempt: a retry must not outlive the answer it deletes by.
		if time.Since(asked) >= r.cfg.AnswerAge {
			return 0, fmt.Errorf("%w: %s", errStale, before)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(ctx, r.cfg.ChunkLimit+database.Grace)
		defer cancel()
		err = pgx.BeginTxFunc(ctx, r.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			q := db.New(tx)
			if err := r.openChunk(ctx, q); err != nil {
				return err
			}
			deleted, err = q.MemberDeleteDue(ctx, db.MemberDeleteDueParams{
				RunID: r.id, ApprovedRun: r.approval.RunID, Retention: r.cfg.Retention,
				Places: c.places, UserIds: c.users,
			})
			if err := failpoint.After("delete", err); err != nil {
				return err
			}
			if err := failpoint.After("proof", fence.Prove(ctx, q, deleted)); err != nil {
				return err
			}
			return failpoint.After("chunk-counted", r.fence.Heartbeat(ctx, q, deleted))
		})
		if err == nil {
			r.pace.note(deleted, time.Since(began))
		}
		if err = failpoint.After("commit", err); err != nil {
			before = err.Error()
		}
		return deleted, err
	})
	if err == nil && deleted > 0 {
		r.report(func(p *Progress) { p.MembersDeleted += deleted })
		r.cfg.Observer.ChunkDone(deleted)
	}
	return deleted, err
}

// openChunk makes the settings of a chunk's transaction.
func (r *run) openChunk(ctx context.Context, q *db.Queries) error {
	session, err := q.ChunkSettings(ctx, db.ChunkSettingsParams{
		RunID: r.id, LockTimeout: database.Milliseconds(r.cfg.LockTimeout), StatementTimeout: database.Milliseconds(r.cfg.ChunkLimit),
	})
	if err != nil {
		return err
	}
	// A session opened since the preflight: "nobody is due" would be no success.
	if session.ReplicationRole != "origin" {
		return fmt.Errorf("session_replication_role is %s by now; look closer with: orphan-cleaner check", session.ReplicationRole)
	}
	return failpoint.After("fence", q.SettingsForChunk(ctx))
}

// forget takes users out of the ledger: all of them where that is certain, else
// those who have no member left. One whom a crash leaves there goes with the next
// run's merge.
func (r *run) forget(ctx context.Context, users []uuid.UUID, certain bool) error {
	return r.share(ctx, users, r.connections, func(ctx context.Context, users []uuid.UUID) error {
		_, err := database.Do(ctx, r.pool, r.patience(), pgx.ReadWrite, database.ReadLimit, "taking users out of the ledger", func(ctx context.Context, q *db.Queries) (int64, error) {
			if err := q.SettingsForChunk(ctx); err != nil {
				return 0, err
			}
			return q.CandidateForget(ctx, db.CandidateForgetParams{RunID: r.id, UserIds: users, Certain: certain, MembersDeleted: r.Progress().MembersDeleted})
		})
		return err
	})
}
