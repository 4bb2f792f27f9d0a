package cleaner_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// world is messaging-service's database and auth-service, both real.
type world struct {
	t    *testing.T
	db   *testdb.DB
	auth *authfake.Server
	cfg  cleaner.Config
	log  strings.Builder
	mu   sync.Mutex
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, db: testdb.New(t), cfg: cleaner.DefaultConfig()}
	var err error
	if w.auth, err = authfake.Start(authfake.Options{Record: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.auth.Stop)
	if w.cfg.SchemaVersion, err = migrate.Latest(); err != nil {
		t.Fatal(err)
	}
	w.cfg.Host, w.cfg.Version, w.cfg.Settings = "test:1", "test", []byte("{}")
	return w
}

// people makes users with perUser members each, joined 90 days ago, and returns
// the users. They live unless told otherwise.
func (w *world) people(users, perUser int) []uuid.UUID {
	w.t.Helper()
	w.db.Exec(`INSERT INTO conversations (name) SELECT 'c' || n FROM generate_series(1, $1::int) AS n`, perUser)
	ids := make([]uuid.UUID, users)
	for i := range ids {
		ids[i] = uuid.New()
	}
	w.db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT c.id, u, now() - interval '90 days' FROM unnest($1::uuid[]) AS u, conversations AS c`, ids)
	w.auth.Add(ids...)
	return ids
}

// die takes users out of auth-service; days > 0 leaves shadow evidence of that age.
func (w *world) die(days int, users ...uuid.UUID) {
	w.t.Helper()
	w.auth.Delete(users...)
	if days > 0 {
		w.db.Exec(`INSERT INTO users (id, username, deleted_at)
			SELECT u, u::text, now() - make_interval(days => $2::int) FROM unnest($1::uuid[]) AS u`, users, days)
	}
}

// inTheWay is somebody else's transaction after a statement; it ends with the test.
func (w *world) inTheWay(sql string, args ...any) pgx.Tx {
	w.t.Helper()
	tx, err := w.db.Pool.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if _, err := tx.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
	return tx
}

func (w *world) client() *authclient.Client {
	w.t.Helper()
	client, err := authclient.Dial(authclient.Config{
		URL: w.auth.URL(), BackoffInitial: time.Millisecond, BackoffMax: 5 * time.Millisecond,
		Timeout: 2 * time.Second, MaxAttempts: 2, Logger: slog.New(slog.NewTextHandler(w, nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = client.Close() })
	return client
}

func (w *world) run() (cleaner.Result, error) { return w.runWith(w.t.Context(), w.client()) }

func (w *world) runWith(ctx context.Context, checker cleaner.Checker) (cleaner.Result, error) {
	w.t.Helper()
	return cleaner.New(w.db.Pool, checker, slog.New(slog.NewTextHandler(w, nil)), w.cfg).Run(ctx)
}

func (w *world) runDebug() (cleaner.Result, error) {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return cleaner.New(w.db.Pool, w.client(), log, w.cfg).Run(w.t.Context())
}

// invariant asserts I3: gone, audited and backed up are the same rows.
func (w *world) invariant(gone int64) {
	w.t.Helper()
	audited := w.db.Count(`conversation_members_audit WHERE run_id IS NOT NULL`)
	backedUp := w.db.Count(`conversation_members_backup`)
	onRuns := testdb.One[int64](w.db, `SELECT coalesce(sum(members_deleted), 0)::bigint FROM orphan_runs`)
	back := w.db.Count(`conversation_members AS m JOIN conversation_members_backup AS b USING (conversation_id, user_id)`)
	if audited != gone || backedUp != gone || onRuns != gone || back != 0 {
		w.t.Errorf("gone %d, audited %d, backed up %d, on the run rows %d, backed up yet there %d", gone, audited, backedUp, onRuns, back)
	}
	if open := w.db.Count(`orphan_runs WHERE state = 'running'`); open != 0 {
		w.t.Errorf("%d runs left open", open)
	}
	if staged := w.db.Count(`orphan_sightings`); staged != 0 {
		w.t.Errorf("%d rows left in staging", staged)
	}
}

func (w *world) must(r cleaner.Result, err error) cleaner.Result {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("run ended %s: %v", r.State, err)
	}
	return r
}

func TestRunDeletesExactlyTheDue(t *testing.T) {
	w := newWorld(t)
	users := w.people(1250, 4)
	dead, lately := users[:101], users[101:105]
	w.die(31, dead...)
	w.die(29, lately...)
	stay := w.db.Snapshot(`conversation_members WHERE user_id <> ALL ($1)`, dead)
	gone := w.db.Snapshot(`conversation_members WHERE user_id = ANY ($1)`, dead)

	r := w.must(w.run())
	if r.State != "succeeded" || r.MembersDeleted != 404 || r.UsersChecked != 1250 || r.UsersDue != 101 || r.Conversations != 4 {
		t.Errorf("result %+v", r)
	}
	if diff := stay.Diff(w.db.Snapshot(`conversation_members`)); diff != "" {
		t.Errorf("the rows that should stay: %s", diff)
	}
	backup := w.db.Snapshot(`(SELECT conversation_id, user_id, role, joined_at, last_read_at, is_muted, user_public_key FROM conversation_members_backup) AS b`)
	if diff := gone.Diff(backup); diff != "" {
		t.Errorf("the backup: %s", diff)
	}
	if want := 13 + 2; w.auth.Calls() != want || r.BatchCalls != int64(want) {
		t.Errorf("%d calls seen, %d counted, want %d", w.auth.Calls(), r.BatchCalls, want)
	}
	if w.auth.MaxBatch() > 100 || w.auth.EmptyCalls() != 0 {
		t.Errorf("largest batch %d, empty calls %d", w.auth.MaxBatch(), w.auth.EmptyCalls())
	}
	sizes := w.auth.CallSizes()
	slices.Sort(sizes)
	if sizes[0] != 1 || sizes[1] != 50 || sizes[2] != 100 {
		t.Errorf("batch sizes %v", sizes)
	}
	w.invariant(404)

	again := w.must(w.run())
	if again.MembersDeleted != 0 || again.UsersMissing != 4 {
		t.Errorf("second run: %+v", again)
	}
	w.invariant(404)
}

func TestRetentionWithoutShadow(t *testing.T) {
	w := newWorld(t)
	w.db.Exec(`DROP TABLE users`)
	users := w.people(300, 2)
	dead, back, gap := users[0], users[1], users[2]
	w.die(0, dead, back, gap)

	first := w.must(w.run())
	if first.MembersDeleted != 0 || first.UsersNew != 3 || w.db.Count(`orphan_candidates`) != 3 {
		t.Fatalf("first run: %+v", first)
	}
	w.db.Exec(`UPDATE orphan_candidates SET first_missing_at = first_missing_at - interval '31 days'`)
	w.db.Exec(`UPDATE orphan_candidates SET last_missing_at = last_missing_at - interval '8 days' WHERE user_id = $1`, gap)
	w.auth.Revive(back)

	second := w.must(w.run())
	if second.MembersDeleted != 2 || second.UsersReturned != 1 || second.UsersNew != 0 {
		t.Errorf("second run: %+v", second)
	}
	if n := w.db.Count(`conversation_members WHERE user_id = $1`, dead); n != 0 {
		t.Errorf("the dead user has %d members", n)
	}
	if n := w.db.Count(`conversation_members WHERE user_id IN ($1, $2)`, back, gap); n != 4 {
		t.Errorf("the others have %d members, want 4", n)
	}
	if n := w.db.Count(`orphan_candidates WHERE user_id = $1 AND sightings = 1 AND first_missing_at > now() - interval '1 minute'`, gap); n != 1 {
		t.Error("a gap longer than max-gap did not start the clock anew")
	}
	if n := w.db.Count(`orphan_candidates`); n != 1 {
		t.Errorf("%d candidates left, want the one with the gap", n)
	}
	w.invariant(2)
}

func TestYoungAndHeldMembersStay(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 3)
	w.die(40, users[:4]...)
	young, held := users[0], users[1]
	w.db.Exec(`UPDATE conversation_members SET joined_at = now() - interval '29 days'
		WHERE user_id = $1 AND conversation_id = (SELECT min(id::text)::uuid FROM conversations)`, young)
	w.db.Exec(`INSERT INTO orphan_holds (user_id, reason) VALUES ($1, 'test')`, held)
	w.db.Exec(`INSERT INTO orphan_holds (user_id, reason, until) VALUES ($1, 'expired', now() - interval '1 second')`, users[2])
	w.db.Exec(`INSERT INTO orphan_holds (conversation_id, reason) SELECT max(id::text)::uuid, 'test' FROM conversations`)

	r := w.must(w.run())
	// Users 0, 2 and 3 are due with 9 members: one is young, three are in the held conversation.
	if r.MembersDeleted != 5 || r.MembersKeptYoung != 1 || r.MembersHeld != 6 || r.UsersDue != 3 {
		t.Errorf("result %+v", r)
	}
	w.invariant(5)
}

func TestBreakersRefuse(t *testing.T) {
	cases := map[string]struct {
		dead   int
		limits func(l *cleaner.Limits)
	}{
		"new-missing-share": {dead: 60, limits: func(l *cleaner.Limits) { l.DeleteShare = 1 }},
		"delete-share":      {dead: 60, limits: func(l *cleaner.Limits) { l.NewMissingShare = 1 }},
		"delete-members":    {dead: 10, limits: func(l *cleaner.Limits) { l.DeleteMembers = 199 }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(300, 20)
			w.die(40, users[:c.dead]...)
			c.limits(&w.cfg.Limits)
			before := w.db.Fingerprint(`conversation_members`)
			for _, dry := range []bool{true, false} {
				w.cfg.DryRun = dry
				r, err := w.run()
				if !errors.Is(err, cleaner.ErrRefused) || r.State != "refused" || r.Breaker == nil || *r.Breaker != name {
					t.Fatalf("dry %v: %v, %+v", dry, err, r)
				}
			}
			if w.db.Fingerprint(`conversation_members`) != before || w.db.Count(`orphan_candidates`) != 0 {
				t.Error("a refused run changed members or ledger")
			}
			if n := w.db.Count(`orphan_runs WHERE state = 'refused' AND breaker = $1`, name); n != 1 {
				t.Errorf("%d refused runs on record", n)
			}
			if n := w.db.Count(`orphan_refusals`); n != int64(c.dead) {
				t.Errorf("%d users kept for an approval, want %d", n, c.dead)
			}
			w.invariant(0)
		})
	}
}

// Who read a message within a day should be alive: a canary without any setup.
func TestRecentlyActiveBreaker(t *testing.T) {
	for _, active := range []int{5, 6} {
		t.Run(fmt.Sprint(active), func(t *testing.T) {
			w := newWorld(t)
			users := w.people(400, 2)
			w.die(0, users[:10]...)
			w.db.Exec(`UPDATE conversation_members SET last_read_at = now() - interval '2 days'`)
			w.db.Exec(`UPDATE conversation_members SET last_read_at = now() - interval '23 hours' WHERE user_id = ANY ($1)`, users[:active])
			r, err := w.run()
			if active <= 5 {
				w.must(r, err)
				return
			}
			if !errors.Is(err, cleaner.ErrRefused) || r.Breaker == nil || *r.Breaker != "recently-active" {
				t.Fatalf("%v, %+v", err, r)
			}
			if n := w.db.Count(`orphan_candidates`); n != 0 {
				t.Errorf("%d candidates written", n)
			}
			if n := w.db.Count(`orphan_refusals`); n != 0 {
				t.Errorf("%d users kept for an approval that nobody may give", n)
			}
			w.cfg.Limits.RecentlyActive = 6
			w.must(w.run())
		})
	}
}

// A run that is sure to be refused stops asking, and the part it found can be
// approved; one that is not sure asks on.
func TestJudgedEarly(t *testing.T) {
	w := newWorld(t)
	users := w.people(12_000, 1)
	w.auth.SetFaultFunc(authfake.Nothing)
	w.cfg.Concurrency = 1
	r, err := w.run()
	if !errors.Is(err, cleaner.ErrRefused) || *r.Breaker != "new-missing-share" || r.BatchCalls > 30 || r.UsersMissing < 2000 {
		t.Fatalf("%v, %+v", err, r)
	}
	if n := w.db.Count(`orphan_refusals WHERE run_id = $1`, r.RunID); n != r.UsersMissing {
		t.Errorf("%d of %d missing users kept", n, r.UsersMissing)
	}
	w.cfg.JudgeLate = true
	if r, err := w.run(); !errors.Is(err, cleaner.ErrRefused) || r.UsersMissing != 12_000 || r.BatchCalls != 120 {
		t.Errorf("judged late: %v, %+v", err, r)
	}
	w.cfg.JudgeLate, w.cfg.DryRun = false, true
	if r, err := w.run(); !errors.Is(err, cleaner.ErrRefused) || r.BatchCalls != 120 {
		t.Errorf("dry run: %v, %+v", err, r)
	}
	w.cfg.DryRun = false

	// 2,100 missing in front of 21,000 who live: far over the share when the first
	// are staged, under it over all.
	w.auth.SetFaultFunc(nil)
	slices.SortFunc(users, func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) })
	w.auth.Delete(users[:2_100]...)
	w.people(12_000, 1)
	if r := w.must(w.run()); r.UsersNew != 2_100 || r.UsersChecked != 24_000 {
		t.Errorf("not sure to be refused: %+v", r)
	}
}

func TestHoldPlacedWhileSweeping(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 3)
	w.die(40, users[:3]...)
	conversation := testdb.One[uuid.UUID](w.db, `SELECT min(id::text)::uuid FROM conversations`)
	r := w.must(w.runWith(t.Context(), w.before(4, func() {
		// the due users are read, their members not yet deleted
		w.db.Exec(`INSERT INTO orphan_holds (user_id, reason) VALUES ($1, 'late')`, users[0])
		w.db.Exec(`INSERT INTO orphan_holds (conversation_id, reason) VALUES ($1, 'late')`, conversation)
	})))
	if r.MembersDeleted != 4 || w.db.Count(`conversation_members WHERE user_id = $1`, users[0]) != 3 {
		t.Errorf("result %+v", r)
	}
	w.invariant(4)
}

// The delete states every condition again: what changes after the due users
// were read is honoured.
func TestLedgerChangesBeforeTheDelete(t *testing.T) {
	changes := map[string]string{
		"the clock starts anew":    `UPDATE orphan_candidates SET first_missing_at = last_missing_at`,
		"the clock is a day short": `UPDATE orphan_candidates SET first_missing_at = now() - interval '29 days'`,
		"the candidate leaves":     `DELETE FROM orphan_candidates`,
		"the member rejoins":       `UPDATE conversation_members SET joined_at = now()`,
		"it is of another run":     `WITH r AS (INSERT INTO orphan_runs (kind, state, phase, finished_at, lease, host, version, settings) VALUES ('clean', 'failed', 'verify', now(), '1m', 'x', 'x', '{}') RETURNING run_id) UPDATE orphan_candidates SET last_missing_run = r.run_id FROM r`,
		"the conversation is gone": `DELETE FROM conversations`,
		"triggers no longer fire":  `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica', current_database()); END $$`,
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(300, 2)
			w.die(40, users[:3]...)
			r, err := w.runWith(t.Context(), w.before(4, func() {
				w.db.Exec(change)
				w.db.Pool.Reset()
			}))
			if r.MembersDeleted != 0 {
				t.Errorf("%v, %+v", err, r)
			}
			w.invariant(0)
		})
	}
}

func TestTooManyVoidBatchesSweepNothing(t *testing.T) {
	w := newWorld(t)
	users := w.people(1000, 1)
	w.die(40, users[:5]...)
	w.auth.SetFaultFunc(authfake.Until(2, authfake.Status(codes.Internal, "boom")))
	r, err := w.run()
	if !errors.Is(err, cleaner.ErrIncomplete) || r.MembersDeleted != 0 || r.UsersUnknown != 200 {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`orphan_candidates`); n != 0 {
		t.Errorf("%d candidates written", n)
	}
	w.invariant(0)
}

func TestCanaries(t *testing.T) {
	cases := map[string]struct{ alive, dead bool }{"canary-alive": {alive: false}, "canary-dead": {alive: true, dead: true}, "": {alive: true}}
	for breaker, c := range cases {
		for _, isMember := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s member=%v", breaker, isMember), func(t *testing.T) {
				w := newWorld(t)
				users := w.people(299, 1)
				w.die(40, users[:5]...)
				alive, dead := uuid.New(), uuid.New()
				if isMember {
					alive, dead = users[100], users[101]
					w.auth.Delete(alive, dead)
				}
				if c.alive {
					w.auth.Add(alive)
				}
				if c.dead {
					w.auth.Add(dead)
				}
				w.cfg.CanaryAlive, w.cfg.CanaryDead = []uuid.UUID{alive}, []uuid.UUID{dead}
				r, err := w.run()
				if breaker == "" {
					w.must(r, err)
					w.invariant(5)
					if want := int64(3 + 1); isMember && r.BatchCalls != want {
						t.Errorf("%d calls, want %d", r.BatchCalls, want)
					}
					if r.UsersChecked != 299 || w.db.Count(`orphan_candidates WHERE user_id = $1`, dead) != map[bool]int64{true: 1}[isMember] {
						t.Errorf("result %+v", r)
					}
					return
				}
				if !errors.Is(err, cleaner.ErrRefused) || r.Breaker == nil || *r.Breaker != breaker {
					t.Errorf("%v, %+v", err, r)
				}
				w.invariant(0)
			})
		}
	}
}

func TestPausedWhileSweeping(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	r, err := w.runWith(t.Context(), w.before(4, func() {
		w.db.Exec(`INSERT INTO orphan_pauses (reason) VALUES ('wait')`)
	}))
	if !errors.Is(err, cleaner.ErrPaused) || r.State != "incomplete" || r.MembersDeleted != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
	if _, err := w.run(); !errors.Is(err, cleaner.ErrPreflight) || !strings.Contains(err.Error(), "wait") {
		t.Errorf("a run while paused: %v", err)
	}
	w.db.Exec(`UPDATE orphan_pauses SET resumed_at = now()`)
	w.must(w.run())
	w.invariant(6)
}

func TestApprovedRunDeletesExactlyTheApprovedSet(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 20)
	w.die(40, users[:60]...)
	w.cfg.Limits.DeleteMembers = 100
	refused, err := w.run()
	if !errors.Is(err, cleaner.ErrRefused) {
		t.Fatalf("%v, %+v", err, refused)
	}
	w.db.Exec(`INSERT INTO orphan_approvals (run_id, approved_by, expires_at) VALUES ($1, 'test', now() + interval '1 day')`, refused.RunID)
	w.die(40, users[60:63]...) // due meanwhile, and not approved
	w.auth.Revive(users[0])    // approved, and alive again

	r := w.must(w.run())
	if r.MembersDeleted != 59*20 || w.db.Count(`conversation_members WHERE user_id = ANY ($1)`, users[60:63]) != 60 {
		t.Errorf("the approved run: %+v", r)
	}
	if n := w.db.Count(`orphan_approvals WHERE used_by_run = $1`, r.RunID); n != 1 {
		t.Error("the approval is not used up")
	}
	w.invariant(59 * 20)
	// The second run does not profit: 60 more members are within the limit, 200 are not.
	w.must(w.run())
	w.invariant(59*20 + 60)
	w.die(40, users[63:73]...)
	if _, err := w.run(); !errors.Is(err, cleaner.ErrRefused) {
		t.Errorf("a run after the approval was used: %v", err)
	}
	w.invariant(59*20 + 60)
}

func TestApprovalOutOfForce(t *testing.T) {
	for name, end := range map[string]string{
		"expired": `UPDATE orphan_approvals SET approved_at = now() - interval '2 days', expires_at = now() - interval '1 second'`,
		"revoked": `UPDATE orphan_approvals SET revoked_at = now(), revoked_by = 'test'`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(300, 20)
			w.die(40, users[:10]...)
			w.cfg.Limits.DeleteMembers = 100
			refused, err := w.run()
			if !errors.Is(err, cleaner.ErrRefused) {
				t.Fatal(err)
			}
			w.db.Exec(`INSERT INTO orphan_approvals (run_id, approved_by, expires_at) VALUES ($1, 'test', now() + interval '1 day')`, refused.RunID)
			w.db.Exec(end)
			if _, err := w.run(); !errors.Is(err, cleaner.ErrRefused) {
				t.Errorf("with an approval that is %s: %v", name, err)
			}
			w.invariant(0)
		})
	}
}

func TestHistoryBreaker(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 101)
	w.die(40, users[:10]...) // 1,010 members
	record := func(runs, deleted int) {
		w.db.Exec(`INSERT INTO orphan_runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings, members_deleted)
			SELECT 'clean', 'succeeded', 'finish', now(), now(), now(), '1m', 'x', 'x', '{}', $2::int FROM generate_series(1, $1::int)`, runs, deleted)
	}
	// The invariant reads the run rows' counts: these runs are made up, so it asks the tables alone.
	gone := func() int64 { return w.db.Count(`conversation_members_backup`) }
	w.cfg.DryRun = true
	record(4, 100)
	w.must(w.run()) // four runs are no history
	record(1, 100)
	if r, err := w.run(); !errors.Is(err, cleaner.ErrRefused) || r.Breaker == nil || *r.Breaker != "history" {
		t.Errorf("ten times the median: %v, %+v", err, r)
	}
	record(15, 102)
	w.must(w.run()) // the median is 102 now
	if gone() != 0 {
		t.Errorf("%d members gone", gone())
	}
}

func TestLyingOrFailingAuthServiceDeletesNothing(t *testing.T) {
	for _, fault := range authfake.Faults() {
		// Truth is no fault; what never answers is tried with a short timeout elsewhere.
		if fault.Expect == authfake.Truth || fault.Hangs {
			continue
		}
		t.Run(fault.Name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(1000, 2)
			w.die(40, users[:10]...)
			// A candidate long due, so that a wrong sweep would show.
			w.must(w.runHeld(users))
			before, ledger := w.db.Fingerprint(`conversation_members`), w.db.Fingerprint(`orphan_candidates`)
			w.auth.SetFault(fault)
			r, err := w.run()
			if err == nil || r.State == "succeeded" {
				t.Errorf("the run ended %s", r.State)
			}
			if w.db.Fingerprint(`conversation_members`) != before {
				t.Error("members changed")
			}
			if w.db.Fingerprint(`orphan_candidates`) != ledger {
				t.Error("the ledger changed")
			}
			w.invariant(0)
		})
	}
}

// Between opening the run and asking the first question it has a phase too: without
// one its end could not be written down, and it would stay open for its lease.
func TestFailureRightAfterTheBeginning(t *testing.T) {
	w := newWorld(t)
	w.people(10, 1)
	w.db.Exec(`ALTER TABLE orphan_approvals RENAME COLUMN expires_at TO expires`)
	if r, err := w.run(); err == nil || r.State != "failed" {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
}

// phases notes what a run was in, in order.
type phases struct {
	cleaner.Observer
	names []string
}

func (p *phases) PhaseDone(name string, _ time.Duration) { p.names = append(p.names, name) }
func (p *phases) RunBegan()                              {}
func (p *phases) BatchDone(error)                        {}
func (p *phases) ChunkDone(int64)                        {}
func (p *phases) RunEnded(cleaner.Result)                {}

func TestPhases(t *testing.T) {
	w := newWorld(t)
	w.die(40, w.people(10, 1)...)
	w.cfg.Limits.RecentlyActive = 100
	for kind, set := range map[string]func(){
		"a run":           func() {},
		"a scheduled run": func() { w.cfg.Every = time.Millisecond },
		"a dry run":       func() { w.cfg.Every, w.cfg.DryRun = 0, true },
	} {
		seen := &phases{}
		w.cfg.Every, w.cfg.DryRun, w.cfg.Observer = 0, false, seen
		set()
		w.must(w.run())
		want := cleaner.Phases()
		if w.cfg.DryRun {
			want = want[:3]
		}
		if !slices.Equal(seen.names, want) {
			t.Errorf("%s went through %v, want %v", kind, seen.names, want)
		}
	}
}

// runHeld makes a run while everybody is on hold: the ledger fills, nothing goes.
func (w *world) runHeld(users []uuid.UUID) (cleaner.Result, error) {
	w.db.Exec(`INSERT INTO orphan_holds (user_id, reason) SELECT u, 'test' FROM unnest($1::uuid[]) AS u`, users)
	r, err := w.run()
	w.db.Exec(`UPDATE orphan_holds SET lifted_at = now()`)
	return r, err
}

func TestAuthServiceFailsForAFewBatches(t *testing.T) {
	w := newWorld(t)
	users := w.people(2500, 1)
	w.die(40, users[:5]...)
	w.auth.SetFaultFunc(authfake.Until(2, authfake.Status(codes.Internal, "boom")))
	r, err := w.run()
	// 2 of 25 batches: within 10 %, so the rest is swept, but the run is not a success.
	if !errors.Is(err, cleaner.ErrIncomplete) || r.State != "incomplete" || r.UsersUnknown != 200 {
		t.Fatalf("%v, %+v", err, r)
	}
	if r.MembersDeleted+w.db.Count(`conversation_members WHERE user_id = ANY ($1)`, users[:5]) != 5 {
		t.Error("members of the dead are neither gone nor there")
	}
	w.invariant(r.MembersDeleted)
	w.auth.SetFault(authfake.Fault{})
	w.must(w.run())
	w.invariant(5)
}

func TestUserReturnsBeforeTheDelete(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	back := users[1]
	r := w.must(w.runWith(t.Context(), w.before(4, func() {
		// 3 calls verify 300 users; before the second asking one comes back.
		w.auth.Revive(back)
	})))
	if r.MembersDeleted != 4 || w.db.Count(`conversation_members WHERE user_id = $1`, back) != 2 {
		t.Errorf("result %+v", r)
	}
	if n := w.db.Count(`orphan_candidates WHERE user_id = $1`, back); n != 0 {
		t.Error("who came back is still in the ledger")
	}
	w.invariant(4)
}

// before is auth-service with a change made right before one of its calls: with
// 300 users the fourth is the second asking, when the due users have been read
// and their members are still there.
func (w *world) before(call int32, change func()) cleaner.Checker {
	w.t.Helper()
	client := w.client()
	var calls atomic.Int32
	return checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		if calls.Add(1) == call {
			change()
		}
		return client.Missing(ctx, ids)
	})
}

type checkerFunc func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error)

func (f checkerFunc) Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	return f(ctx, ids)
}

func TestPreflightStopsTheRun(t *testing.T) {
	cases := map[string]struct{ break_, word string }{
		"trigger dropped":    {`DROP TRIGGER conversation_members_audit_delete ON conversation_members`, "conversation_members_audit_delete"},
		"trigger disabled":   {`ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete`, "disabled"},
		"trigger not always": {`ALTER TABLE conversation_members ENABLE TRIGGER conversation_members_audit_delete`, "ALWAYS"},
		"column added":       {`ALTER TABLE conversation_members ADD nickname text`, "nickname"},
		"column retyped":     {`ALTER TABLE conversation_members ALTER user_public_key TYPE varchar(400)`, "user_public_key"},
		"index dropped":      {`DROP INDEX conversation_members_user_id`, "index"},
		"partition detached": {`DO $$ BEGIN EXECUTE 'ALTER TABLE conversation_members_backup DETACH PARTITION conversation_members_backup_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'); END $$`, "backup partition"},
		"migration unknown":  {`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`, "99999"},
		"replica":            {`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica', current_database()); END $$`, "session_replication_role"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(300, 2)
			w.die(40, users[:3]...)
			w.db.Exec(c.break_)
			w.db.Pool.Reset() // database settings reach new sessions only
			r, err := w.run()
			if !errors.Is(err, cleaner.ErrPreflight) || !strings.Contains(err.Error(), c.word) || !strings.Contains(err.Error(), "hint:") {
				t.Errorf("error %v", err)
			}
			if r.State != "failed" || w.auth.Calls() != 0 || w.db.Count(`conversation_members`) != 600 {
				t.Errorf("result %+v, %d calls", r, w.auth.Calls())
			}
			if n := w.db.Count(`orphan_runs WHERE state = 'failed' AND error LIKE '%' || $1 || '%'`, c.word); n != 1 {
				t.Errorf("%d failed runs on record", n)
			}
		})
	}
}

func TestTriggerDroppedAfterPreflight(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	r, err := w.runWith(t.Context(), w.before(4, func() {
		w.db.Exec(`ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete`)
	}))
	if !errors.Is(err, cleaner.ErrProof) || r.State != "failed" {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`conversation_members`); n != 600 {
		t.Errorf("%d members left, want all 600", n)
	}
	w.invariant(0)
}

func TestTwoRunsAtOnce(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	client, inside := w.client(), make(chan struct{})
	release := make(chan struct{})
	var once sync.Once
	done := make(chan error, 1)
	go func() {
		_, err := w.runWith(t.Context(), checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
			once.Do(func() { close(inside) })
			<-release
			return client.Missing(ctx, ids)
		}))
		done <- err
	}()
	<-inside
	if _, err := w.run(); !errors.Is(err, cleaner.ErrAnotherRun) {
		t.Errorf("the second run: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the first run: %v", err)
	}
	w.invariant(6)
}

// A runner that sleeps past its lease wakes as a ghost: it may delete nothing.
func TestRunTakenOver(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	client := w.client()
	var calls atomic.Int32
	r, err := w.runWith(t.Context(), checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		if calls.Add(1) == 4 { // before the second asking: it sleeps, and another run does the work
			w.db.Exec(`UPDATE orphan_runs SET heartbeat_at = now() - interval '1 hour' WHERE state = 'running'`)
			w.must(w.runWith(ctx, client))
		}
		return client.Missing(ctx, ids)
	}))
	if !errors.Is(err, cleaner.ErrTakenOver) || r.MembersDeleted != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`orphan_runs WHERE state = 'abandoned'`); n != 1 {
		t.Errorf("%d abandoned runs", n)
	}
	w.invariant(6)
}

func TestDryRunChangesNothing(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	tables := []string{"conversation_members", "orphan_runs", "orphan_candidates", "orphan_sightings", "conversation_members_audit", "conversation_members_backup"}
	var before []string
	for _, table := range tables {
		before = append(before, w.db.Fingerprint(table))
	}
	w.cfg.DryRun = true
	r := w.must(w.run())
	if r.MembersDue != 6 || r.UsersDue != 3 || r.MembersDeleted != 0 || r.RunID != 0 {
		t.Errorf("result %+v", r)
	}
	for i, table := range tables {
		if w.db.Fingerprint(table) != before[i] {
			t.Errorf("%s changed", table)
		}
	}
}

func TestManyMembersOfOneUserGoInChunks(t *testing.T) {
	w := newWorld(t)
	w.cfg.ChunkRows, w.cfg.Limits.DeleteShare = 100, 1
	users := w.people(60, 450)
	w.die(40, users[0])
	r := w.must(w.run())
	if r.MembersDeleted != 450 {
		t.Errorf("result %+v", r)
	}
	if n := testdb.One[int64](w.db, `SELECT max(n) FROM (SELECT count(*) AS n FROM conversation_members_audit GROUP BY txid) AS x`); n != 100 {
		t.Errorf("largest transaction deleted %d members, want 100", n)
	}
	w.invariant(450)
}

// Several connections delete at the same time, and none of them more than a chunk.
func TestChunksAreBoundedByRows(t *testing.T) {
	w := newWorld(t)
	w.cfg.ChunkRows, w.cfg.SweepConnections, w.cfg.BatchSize = 50, 4, 10
	w.cfg.Limits.DeleteShare, w.cfg.Limits.NewMissingShare = 1, 1
	users := w.people(900, 7)
	w.die(40, users[:700]...)
	r := w.must(w.run())
	if want := int64(90 + 70); r.MembersDeleted != 4900 || r.BatchCalls != want {
		t.Errorf("%d members deleted in %d calls, not 4900 in %d", r.MembersDeleted, r.BatchCalls, want)
	}
	if n := testdb.One[int64](w.db, `SELECT max(n) FROM (SELECT count(*) AS n FROM conversation_members_audit GROUP BY txid) AS x`); n != 50 {
		t.Errorf("largest transaction deleted %d members, want 50", n)
	}
	w.invariant(4900)
}

// Where others are at work, the sweep lets them go first.
func TestSweepIsGentleToNeighbours(t *testing.T) {
	for name, busy := range map[string]bool{"alone": false, "beside others": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.cfg.BatchSize = 10
			users := w.people(400, 1)
			w.die(40, users[:5]...)
			// PostgreSQL counts transactions with a delay of a second.
			w.auth.SetLatency(authfake.Latency{P50: 400 * time.Millisecond, P99: 400 * time.Millisecond})
			ctx, cancel := context.WithCancel(t.Context())
			var others errgroup.Group
			if busy {
				others.Go(func() error {
					conn, err := pgx.Connect(ctx, w.db.URL)
					if err != nil {
						return err
					}
					defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
					for ctx.Err() == nil {
						if _, err := conn.Exec(ctx, "SELECT FROM conversations LIMIT 1"); err != nil && ctx.Err() == nil {
							return err
						}
					}
					return nil
				})
			}
			r := w.must(w.runDebug())
			cancel()
			if err := others.Wait(); err != nil {
				t.Fatal(err)
			}
			if gentle := strings.Contains(w.log.String(), "Going gently"); gentle != busy || r.MembersDeleted != 5 {
				t.Errorf("gentle: %v, %+v\n%s", gentle, r, w.log.String())
			}
		})
	}
}

// However few places are read at once, every member is come to, those that stay
// among them.
func TestPlacesComeInPages(t *testing.T) {
	w := newWorld(t)
	w.cfg.PlacesAtOnce, w.cfg.ChunkRows, w.cfg.SweepConnections, w.cfg.BatchSize = 7, 3, 3, 10
	w.cfg.Limits.DeleteShare, w.cfg.Limits.NewMissingShare = 1, 1
	users := w.people(300, 5)
	w.die(40, users[:200]...)
	w.db.Exec(`UPDATE conversation_members SET joined_at = now() WHERE user_id = ANY ($1)`, users[50:100])
	r := w.must(w.run())
	if r.MembersDeleted != 750 || r.MembersKeptYoung != 250 {
		t.Errorf("%+v", r)
	}
	if n := w.db.Count(`orphan_candidates`); n != 50 {
		t.Errorf("%d users are left in the ledger, not the 50 who have members", n)
	}
	w.invariant(750)
}

// A member that is changed after its place was read lies elsewhere, and goes all the same.
func TestChangedMemberIsFoundAgain(t *testing.T) {
	w := newWorld(t)
	w.cfg.ChunkRows, w.cfg.SweepConnections = 2, 1
	users := w.people(300, 2)
	w.die(40, users[:5]...)
	const doomed = `SELECT m.ctid FROM conversation_members AS m WHERE m.user_id = ANY ($1) ORDER BY m.ctid`
	tx := w.inTheWay(`SELECT FROM conversation_members WHERE ctid = (`+doomed+` LIMIT 1) FOR UPDATE`, users[:5])
	var app errgroup.Group
	app.Go(func() error {
		testdb.Eventually(t, 20*time.Second, "the first chunk waits", func() bool {
			return w.db.Count(`pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%MemberDeleteDue%'`) > 0
		})
		if _, err := tx.Exec(t.Context(), `UPDATE conversation_members SET is_muted = NOT is_muted WHERE ctid = (`+doomed+` OFFSET 9 LIMIT 1)`, users[:5]); err != nil {
			return err
		}
		return tx.Commit(t.Context())
	})
	r := w.must(w.run())
	if err := app.Wait(); err != nil {
		t.Fatal(err)
	}
	if r.MembersDeleted != 10 || w.db.Count(`orphan_candidates`) != 0 {
		t.Errorf("%+v", r)
	}
	w.invariant(10)
}

func TestLockedRowIsLeftForTheNextRun(t *testing.T) {
	w := newWorld(t)
	w.cfg.LockTimeout, w.cfg.Attempts = 20*time.Millisecond, 2
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	tx := w.inTheWay(`SELECT FROM conversation_members WHERE user_id = $1 FOR UPDATE`, users[0])
	r, err := w.run()
	if !errors.Is(err, cleaner.ErrIncomplete) || r.ChunksLeft != 1 || r.MembersDeleted != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.must(w.run())
	w.invariant(6)
}

// A chunk that is rolled back once its rows were deleted has deleted none: whose
// they are stays a candidate.
func TestRolledBackChunkCountsForNothing(t *testing.T) {
	w := newWorld(t)
	w.cfg.LockTimeout, w.cfg.Attempts = 50*time.Millisecond, 2
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	client := w.client()
	var calls atomic.Int32
	var other errgroup.Group
	r, err := w.runWith(t.Context(), checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		if calls.Add(1) == 4 { // the second asking: no heartbeat gets through from here on
			tx := w.inTheWay(`SELECT FROM orphan_runs WHERE state = 'running' FOR UPDATE`)
			other.Go(func() error {
				testdb.Eventually(t, 20*time.Second, "the chunk is left", func() bool {
					w.mu.Lock()
					defer w.mu.Unlock()
					return strings.Contains(w.log.String(), "Chunk left for the next run")
				})
				return tx.Rollback(context.Background())
			})
		}
		return client.Missing(ctx, ids)
	}))
	if err := other.Wait(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, cleaner.ErrIncomplete) || r.ChunksLeft != 1 || r.MembersDeleted != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`orphan_candidates`); n != 3 {
		t.Errorf("%d candidates, not 3", n)
	}
	w.invariant(0)
	w.must(w.run())
	w.invariant(6)
}

// crash is an observer that undoes so many chunks once they are done, as a crash of
// the server does: the last ones, with audit, backup and the run's count.
type crash struct {
	w             *world
	after, chunks int
	done          atomic.Int32
}

func (c *crash) RunBegan()                       {}
func (c *crash) PhaseDone(string, time.Duration) {}
func (c *crash) BatchDone(error)                 {}
func (c *crash) Retried(string)                  {}
func (c *crash) RunEnded(cleaner.Result)         {}

func (c *crash) ChunkDone(int64) {
	if int(c.done.Add(1)) != c.after {
		return
	}
	c.w.db.Exec(`WITH lost AS (
		SELECT txid FROM conversation_members_audit GROUP BY txid ORDER BY txid DESC LIMIT $1
	), audited AS (
		DELETE FROM conversation_members_audit WHERE txid IN (SELECT txid FROM lost) RETURNING conversation_id, user_id
	), back AS (
		DELETE FROM conversation_members_backup AS b USING audited AS a WHERE (a.conversation_id, a.user_id) = (b.conversation_id, b.user_id) RETURNING b.*
	), members AS (
		INSERT INTO conversation_members (conversation_id, user_id, role, joined_at) SELECT conversation_id, user_id, role, joined_at FROM back RETURNING 1
	)
	UPDATE orphan_runs SET members_deleted = members_deleted - (SELECT count(*) FROM members) WHERE state = 'running'`, c.chunks)
}

// Chunks do not wait for the disk. Those that a crash of the server takes back are
// deleted once more; nobody leaves the ledger whose members came back.
func TestCrashTakesChunksBack(t *testing.T) {
	for name, test := range map[string]struct {
		after, chunks int
		left          int64 // members that are left for the next run
	}{"of the group": {after: 2, chunks: 2}, "and of the one before": {after: 3, chunks: 2, left: 2}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.cfg.BatchSize, w.cfg.SweepConnections = 1, 1
			users := w.people(100, 2)
			w.die(40, users[:5]...) // groups of 3 and 2
			w.cfg.ChunkRows = 4
			w.cfg.Observer = &crash{w: w, after: test.after, chunks: test.chunks}
			r, err := w.run()
			switch {
			case test.left == 0 && (err != nil || r.MembersDeleted != 10):
				t.Errorf("%v, %+v", err, r)
			case test.left > 0 && (!errors.Is(err, cleaner.ErrIncomplete) || r.MembersDeleted != 10-test.left):
				t.Errorf("%v, %+v", err, r)
			}
			w.invariant(10 - test.left)
			w.cfg.Observer = nil
			w.must(w.run())
			w.invariant(10)
			if n := w.db.Count(`orphan_candidates`); n != 0 {
				t.Errorf("%d users are left in the ledger", n)
			}
		})
	}
}

// Pages of due users end with whole batches: no more calls than ceil(due / batch size).
func TestPagesAreWholeBatches(t *testing.T) {
	w := newWorld(t)
	w.cfg.PlacesAtOnce, w.cfg.BatchSize = 130, 10
	w.cfg.Limits.DeleteShare, w.cfg.Limits.NewMissingShare = 1, 1
	users := w.people(300, 5)
	w.die(40, users[:205]...)
	r := w.must(w.run())
	if r.MembersDeleted != 1025 || r.BatchCalls != 30+21 {
		t.Errorf("%+v", r)
	}
	w.invariant(1025)
}

// Of a user with very many members staging keeps no places: the sweep has the table
// list them, page by page.
func TestVeryManyMembersOfOneUser(t *testing.T) {
	w := newWorld(t)
	w.cfg.PlacesAtOnce, w.cfg.ChunkRows = 700, 300
	w.cfg.Limits.DeleteShare, w.cfg.Limits.NewMissingShare = 1, 1
	users := w.people(3, 1500)
	w.die(40, users[:2]...)
	w.db.Exec(`UPDATE conversation_members SET joined_at = now() WHERE ctid IN (SELECT ctid FROM conversation_members WHERE user_id = $1 LIMIT 10)`, users[1])
	r := w.must(w.run())
	if r.MembersDeleted != 2990 || r.MembersKeptYoung != 10 {
		t.Errorf("%+v", r)
	}
	if n := w.db.Count(`orphan_candidates WHERE user_id = $1`, users[1]); n != 1 || w.db.Count(`orphan_candidates`) != 1 {
		t.Error("the ledger does not hold the one who has members, and nobody else")
	}
	w.invariant(2990)
}

func TestInterruptedRunEndsAndTheNextGoesOn(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := w.runWith(ctx, w.before(4, func() {
		cancel()
	}))
	if !errors.Is(err, cleaner.ErrInterrupted) || r.State != "incomplete" {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
	w.must(w.run())
	w.invariant(6)
}

func TestStagingLostInACrash(t *testing.T) {
	w := newWorld(t)
	users := w.people(2200, 1)
	w.die(40, users[:5]...)
	client := w.client()
	var calls atomic.Int32
	ledger := w.db.Fingerprint(`orphan_candidates`)
	// A run over another table of facts: its staging is emptied behind its back, as after a crash of the server.
	w.db.Exec(`CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
	w.db.Exec(`CREATE TRIGGER forget BEFORE INSERT ON orphan_sightings FOR EACH ROW EXECUTE FUNCTION forget()`)
	r, err := w.runWith(t.Context(), checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		calls.Add(1)
		return client.Missing(ctx, ids)
	}))
	if err == nil || r.State != "failed" || !strings.Contains(err.Error(), "staging lost rows") {
		t.Errorf("%v, %+v", err, r)
	}
	if w.db.Fingerprint(`orphan_candidates`) != ledger {
		t.Error("the ledger changed")
	}
	w.invariant(0)
}

func TestDatabaseClockBehind(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	w.must(w.runHeld(users))
	w.db.Exec(`UPDATE orphan_runs SET finished_at = now() + interval '2 days'`)
	r, err := w.run()
	if !errors.Is(err, cleaner.ErrRefused) || r.Breaker == nil || *r.Breaker != "clock" {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
}

// A user revived while the delete waits for a lock must not go by the old answer.
func TestAnswerTooOldIsNotDeletedBy(t *testing.T) {
	w := newWorld(t)
	w.cfg.AnswerAge, w.cfg.LockTimeout, w.cfg.Attempts = 100*time.Millisecond, 150*time.Millisecond, 20
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	w.inTheWay(`SELECT FROM conversation_members WHERE user_id = $1 FOR UPDATE`, users[0])
	r, err := w.run()
	if !errors.Is(err, cleaner.ErrIncomplete) || r.ChunksLeft != 1 || r.MembersDeleted != 0 || !strings.Contains(err.Error(), "too old") {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
}

// Asking that takes longer than an answer may be old must end, not go round.
func TestAskingSlowerThanAnswersMayBeOld(t *testing.T) {
	w := newWorld(t)
	w.cfg.BatchSize, w.cfg.Concurrency, w.cfg.AnswerAge = 5, 1, 60*time.Millisecond
	users := w.people(300, 1)
	w.die(40, users[:20]...)
	client := w.client()
	var calls atomic.Int32
	r, err := w.runWith(t.Context(), checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		if calls.Add(1) > 60 { // the sweep's: 4 batches take longer than an answer may be old, one does not
			timer := time.NewTimer(20 * time.Millisecond)
			defer timer.Stop()
			<-timer.C
		}
		return client.Missing(ctx, ids)
	}))
	if err != nil && !errors.Is(err, cleaner.ErrIncomplete) {
		t.Errorf("%v, %+v", err, r)
	}
	if n := calls.Load(); n > 60+4+4+4+4 {
		t.Errorf("%d calls", n)
	}
	w.invariant(r.MembersDeleted)
}

func TestDryRunWithUnknownUsersIsIncomplete(t *testing.T) {
	w := newWorld(t)
	w.people(2000, 1)
	w.cfg.DryRun = true
	w.auth.SetFaultFunc(authfake.Until(1, authfake.Status(codes.Internal, "boom")))
	if r, err := w.run(); !errors.Is(err, cleaner.ErrIncomplete) || r.State != "incomplete" || r.UsersUnknown != 100 {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestNobodyElsePosesAsARun(t *testing.T) {
	w := newWorld(t)
	users := w.people(3, 1)
	w.db.Exec(`INSERT INTO orphan_runs (kind, phase, lease, host, version, settings) VALUES ('clean', 'sweep', '1h', 'x', 'x', '{}')`)
	role := "poser_" + strings.ReplaceAll(w.db.Name, "-", "_")
	w.db.Exec(`CREATE ROLE ` + role + ` LOGIN`)
	t.Cleanup(func() { w.db.Exec(`DROP OWNED BY ` + role); w.db.Exec(`DROP ROLE ` + role) })
	w.db.Exec(`GRANT SELECT, DELETE ON conversation_members TO ` + role)
	conn, err := pgx.Connect(t.Context(), w.db.URLAs(role))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `SELECT set_config('orphan_cleaner.run_id', (SELECT '1'), false)`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `DELETE FROM conversation_members WHERE user_id = $1`, users[0]); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.db.Count(`conversation_members_audit WHERE run_id IS NULL AND deleted_by = $1`, role); n != 1 {
		t.Errorf("%d audit rows in the poser's own name, want 1", n)
	}
}
