package run_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// largestChunk is how many members one transaction deleted, at most.
func (w *world) largestChunk() int64 {
	w.t.Helper()
	return testdb.One[int64](w.db, `SELECT max(n) FROM (SELECT count(*) AS n FROM conversation_members_audit GROUP BY txid) AS x`)
}

// called asserts how many calls the world's only run has made: each that was tried again
// may have checked again.
func (w *world) called(r outcome, want int64) {
	w.t.Helper()
	if again := int64(strings.Count(w.logged(), "Database in the way, trying again")); r.BatchCalls < want || r.BatchCalls > want+again {
		w.t.Errorf("%d calls, want %d and up to %d again", r.BatchCalls, want, again)
	}
}

// A user with more rows than a transaction should delete is deleted in parts, and
// checked again before each.
func TestVeryLargeUser(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	w.cfg.ChunkRows = 1000
	users := w.people(99, 1)
	large := w.people(1, 30_000)[0]
	w.missingFor(40, large, users[0])
	young := w.db.Exec(`UPDATE conversation_members SET joined_at = now()
		WHERE ctid = ANY (ARRAY(SELECT ctid FROM conversation_members WHERE user_id = $1 LIMIT 10))`, large)
	r := w.must(w.run())
	total := 30_001 - young // the first conversation is everybody's
	if r.MembersDeleted != total+1 || r.MembersKeptYoung != young || r.UsersDue != 2 || w.membersOf(large) != young {
		t.Errorf("%+v", r)
	}
	if n := w.largestChunk(); n != 1000 {
		t.Errorf("the largest transaction deleted %d members, not 1000", n)
	}
	w.called(r, 1+(total+1+999)/1000)
	if n := w.db.Count(`orphan_cleaner.candidates WHERE user_id = $1`, large); n != 1 || w.db.Count(`orphan_cleaner.candidates`) != 1 {
		t.Error("the ledger does not hold the one who has members, and nobody else")
	}
	w.invariant(total + 1)
}

// A very large user who comes back between two parts keeps the rest.
func TestVeryLargeUserReturns(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	w.cfg.ChunkRows = 100
	users := w.people(60, 450)
	w.missingFor(40, users[0])
	r := w.must(w.runWith(t.Context(), w.before(4, func() { w.auth.Revive(users[0]) })))
	if r.MembersDeleted != 200 || r.MembersChanged != 250 || r.UsersReturned != 1 || w.membersOf(users[0]) != 250 {
		t.Errorf("%+v", r)
	}
	w.invariant(200)
}

// Several connections delete at the same time, and none of them more than a chunk.
func TestChunksAreBoundedByRows(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	w.cfg.ChunkRows, w.cfg.SweepConnections, w.cfg.BatchSize = 50, 4, 10
	users := w.people(900, 7)
	w.die(40, users[:700]...)
	r := w.must(w.run())
	// A batch of ten has 70 members: two parts, each checked.
	if w.called(r, 90+140); r.MembersDeleted != 4900 {
		t.Errorf("%d members deleted, not 4900", r.MembersDeleted)
	}
	if n := w.largestChunk(); n != 50 {
		t.Errorf("largest transaction deleted %d members, want 50", n)
	}
	w.invariant(4900)
}

// Chunks are whole batches: no more calls than ceil(due / batch size).
func TestChunksAreWholeBatches(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	w.cfg.BatchSize = 10
	users := w.people(300, 5)
	w.die(40, users[:205]...)
	r := w.must(w.run())
	if w.called(r, 30+21); r.MembersDeleted != 1025 {
		t.Errorf("%+v", r)
	}
	w.invariant(1025)
}

// Whose row somebody else locks is left for the next run; the others are cleaned.
func TestLockedRowIsLeftForTheNextRun(t *testing.T) {
	w := newWorld(t)
	w.cfg.LockTimeout, w.cfg.Attempts = 300*time.Millisecond, 2
	users := w.people(300, 2)
	w.missingFor(40, users[:3]...)
	w.db.Settle()
	tx := w.inTheWay(`SELECT FROM conversation_members WHERE user_id = $1 FOR UPDATE`, users[0])
	r, err := w.run()
	if !errors.Is(err, run.ErrIncomplete) || r.UsersBlocked != 1 || r.MembersBlocked != 2 || r.MembersDeleted != 4 || r.Blocked[0].UserID != users[0] {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(4)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.isBusy = false
	w.must(w.run())
	w.invariant(6)
}

// A chunk that is rolled back once its rows were deleted has deleted none: whose
// they are stays a candidate.
func TestRolledBackChunkCountsForNothing(t *testing.T) {
	w := newWorld(t)
	patient := w.cfg
	w.cfg.LockTimeout, w.cfg.Attempts, w.cfg.ChunkLimit = 50*time.Millisecond, 2, 300*time.Millisecond
	users := w.people(300, 2)
	w.missingFor(40, users[0])
	var tx pgx.Tx
	w.observer = &watcher{phaseDone: func(phase string) {
		if phase == "sweep" { // the chunk is left, and the end of the run is yet to be written
			w.commit(tx)
		}
	}}
	// The second check: no chunk can count what it deleted from here on.
	r, err := w.runWith(t.Context(), w.before(4, func() { tx = w.inTheWay(`SELECT FROM orphan_cleaner.runs WHERE state = 'running' FOR UPDATE`) }))
	if !errors.Is(err, run.ErrIncomplete) || r.UsersBlocked != 1 || r.MembersDeleted != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`orphan_cleaner.candidates`); n != 1 {
		t.Errorf("%d candidates, not 1", n)
	}
	w.invariant(0)
	w.isBusy, w.observer, w.cfg = false, nil, patient
	w.must(w.run())
	w.invariant(2)
}

// A check that takes longer than a response may be old must end, and delete nothing.
func TestCheckSlowerThanResponsesMayBeOld(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	w.cfg.BatchSize, w.cfg.Concurrency, w.cfg.Attempts, w.cfg.ResponseAge = 5, 1, 3, 40*time.Millisecond
	users := w.people(300, 1)
	w.missingFor(40, users[:20]...)
	client := w.client()
	var calls atomic.Int32
	r, err := w.runWith(t.Context(), checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		if calls.Add(1) > 60 { // the sweep's: 4 batches take longer than a response may be old
			timer := time.NewTimer(20 * time.Millisecond)
			defer timer.Stop()
			<-timer.C
		}
		return client.Missing(ctx, ids)
	}))
	if !errors.Is(err, run.ErrIncomplete) || r.MembersDeleted != 0 || r.UsersBlocked != 20 || !strings.Contains(err.Error(), "too old") {
		t.Errorf("%v, %+v", err, r)
	}
	if n := calls.Load(); n > 60+4*3 {
		t.Errorf("%d calls", n)
	}
	w.invariant(0)
}

// A user revived while the delete waits for a lock must not be deleted by the old response.
func TestOldResponseIsNotDeletedBy(t *testing.T) {
	w := newWorld(t)
	w.cfg.LockTimeout, w.cfg.Attempts = 100*time.Millisecond, 20
	users := w.people(300, 2)
	w.missingFor(40, users[:3]...)
	w.db.Settle()
	tx := w.inTheWay(`SELECT FROM conversation_members WHERE user_id = $1 FOR UPDATE`, users[0])
	var app errgroup.Group
	r, err := w.runWith(t.Context(), w.before(5, func() { // the first attempt has met the lock
		w.auth.Revive(users[0])
		app.Go(func() error { return tx.Rollback(context.Background()) })
	}))
	if err := app.Wait(); err != nil {
		t.Fatal(err)
	}
	if err != nil || r.MembersDeleted != 4 || r.UsersReturned != 1 || w.membersOf(users[0]) != 2 {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(4)
}
