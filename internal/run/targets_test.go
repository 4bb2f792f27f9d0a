package run_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// newContent is a world in which likes are a target, too, behind conversation_members.
func newContent(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.db.Targets("likes")
	w.lenient()
	return w
}

// like makes so many likes of each of the users, that many days old.
func (w *world) like(days, perUser int, users ...uuid.UUID) {
	w.t.Helper()
	w.db.Exec(`INSERT INTO likes (post_id, user_id, created_at)
		SELECT gen_random_uuid(), u, now() - make_interval(days => $2::int) FROM unnest($1::uuid[]) AS u, generate_series(1, $3::int)`, users, days, perUser)
}

// strangers are users of auth-service without rows so far.
func (w *world) strangers(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
	}
	w.auth.Add(ids...)
	return ids
}

func (w *world) likesOf(users ...uuid.UUID) int64 {
	w.t.Helper()
	return w.db.Count(`likes WHERE user_id = ANY ($1)`, users)
}

// evidence asserts of likes what invariant asserts of members.
func (w *world) evidence(deleted int64) {
	w.t.Helper()
	audited := w.db.Count(`orphan_cleaner.likes_audit WHERE run_id IS NOT NULL`)
	backedUp := w.db.Count(`orphan_cleaner.likes_backup`)
	onRuns := testdb.One[int64](w.db, `SELECT coalesce(sum(rows_deleted), 0)::bigint FROM orphan_cleaner.run_targets WHERE target = 'likes'`)
	back := w.db.Count(`likes JOIN orphan_cleaner.likes_backup USING (post_id, user_id)`)
	if audited != deleted || backedUp != deleted || onRuns != deleted || back != 0 {
		w.t.Errorf("likes: deleted %d, audited %d, backed up %d, on the runs %d, backed up yet there %d", deleted, audited, backedUp, onRuns, back)
	}
}

func target(r outcome, name string) result.Target {
	i := slices.IndexFunc(r.Targets, func(t result.Target) bool { return t.Name == name })
	if i < 0 {
		return result.Target{}
	}
	counted := r.Targets[i]
	counted.RowsTotal = 0 // TestTargetsAreCleanedTogether counts them
	return counted
}

// A user with rows in two tables is checked once before the ledger is written, and once
// before all its rows are deleted, in one chunk.
func TestTargetsAreCleanedTogether(t *testing.T) {
	w := newContent(t)
	users := w.people(250, 2)
	onlyLikes := w.strangers(140)
	w.like(90, 3, slices.Concat(users[:130], onlyLikes)...)
	gone := slices.Concat(users[:5], users[240:], onlyLikes[:4])
	w.die(40, gone...)
	others, liked := w.db.Snapshot(`conversation_members WHERE user_id <> ALL ($1)`, gone), w.db.Snapshot(`likes WHERE user_id <> ALL ($1)`, gone)

	r := w.must(w.run())
	if r.UsersChecked != 390 || r.UsersDue != 19 || r.BatchCalls != 4+1 {
		t.Errorf("%+v", r)
	}
	if got, want := target(r, "likes"), (result.Target{Name: "likes", RowsDue: 27, RowsDeleted: 27}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if got, want := target(r, "conversation_members"), (result.Target{Name: "conversation_members", RowsDue: 30, RowsDeleted: 30}); got != want || r.MembersDeleted != 30 || r.MembersTotal != 500 {
		t.Errorf("%+v, not %+v; %+v", got, want, r)
	}
	if r.Targets[0].RowsTotal != 500 || r.Targets[1].RowsTotal != 810 {
		t.Errorf("%+v", r.Targets)
	}
	w.invariant(30)
	w.evidence(27)
	if diff := others.Diff(w.db.Snapshot(`conversation_members`)); diff != "" {
		t.Errorf("members of others were touched:\n%s", diff)
	}
	if diff := liked.Diff(w.db.Snapshot(`likes`)); diff != "" {
		t.Errorf("likes of others were touched:\n%s", diff)
	}
	if n := w.db.Count(`orphan_cleaner.candidates`); n != 0 {
		t.Errorf("%d users without a row are in the ledger", n)
	}
	if n := w.db.Count(`orphan_cleaner.rechecks`); n != 19 {
		t.Errorf("%d users are to be rechecked", n)
	}
	if r = w.must(w.run()); r.UsersChecked != 371 || r.UsersDue != 0 {
		t.Errorf("a second run: %+v", r)
	}
}

// With pages and ranges that end in the middle of a target, everybody is checked once, too.
func TestTargetsPageByPage(t *testing.T) {
	w := newContent(t)
	users, onlyLikes := w.people(120, 1), w.strangers(95)
	w.like(90, 2, slices.Concat(users[:60], onlyLikes)...)
	w.cfg.PageUsers, w.cfg.BatchSize = 20, 10
	asked := map[uuid.UUID]int{}
	checker := checkerFunc(func(_ context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		for _, id := range ids {
			asked[id]++
		}
		return nil, nil
	})
	w.cfg.Concurrency = 1
	if r := w.must(w.runWith(t.Context(), checker)); r.UsersChecked != 215 || r.BatchCalls != 22 {
		t.Errorf("%+v", r)
	}
	for user, times := range asked {
		if times != 1 {
			t.Errorf("user %s was checked %d times", user, times)
		}
	}
	if len(asked) != 215 {
		t.Errorf("%d users were checked", len(asked))
	}
}

// The runner's login, which owns nothing, cleans all targets.
func TestRunnersLoginCleansTargets(t *testing.T) {
	w := newContent(t)
	w.db.Roles("../../sql/roles.sql")
	users := w.people(100, 2)
	w.like(90, 3, users[:3]...)
	w.die(40, users[:3]...)
	pool, err := pgxpool.New(t.Context(), w.db.Login("orphan_cleaner_runner"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	w.pool = pool
	if r := w.must(w.run()); r.MembersDeleted != 6 || target(r, "likes").RowsDeleted != 9 {
		t.Errorf("%+v", r)
	}
	w.invariant(6)
	w.evidence(9)
	if _, err := pool.Exec(t.Context(), `DELETE FROM likes`); database.Code(err) != "42501" {
		t.Errorf("the runner may delete likes: %v", err)
	}
	if _, err := pool.Exec(t.Context(), `SELECT orphan_cleaner.likes_delete('{}', now(), '1', 1)`); database.Code(err) != "42501" {
		t.Errorf("the runner may call a target's delete: %v", err)
	}
}

// A user whose rows are due in one table and young in the other keeps the young ones, and
// stays in the ledger until they are gone.
func TestTargetsDueAndYoung(t *testing.T) {
	w := newContent(t)
	users := w.people(100, 2)
	w.like(3, 4, users[0])  // due members, young likes
	w.like(90, 4, users[1]) // both due
	w.db.Exec(`UPDATE conversation_members SET joined_at = now() - interval '3 days' WHERE user_id = $1`, users[2])
	w.like(90, 4, users[2]) // young members, due likes
	w.die(40, users[:3]...)
	r := w.must(w.run())
	if got, want := target(r, "likes"), (result.Target{Name: "likes", RowsDue: 8, RowsDeleted: 8, RowsKeptYoung: 4}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if got, want := target(r, "conversation_members"), (result.Target{Name: "conversation_members", RowsDue: 4, RowsDeleted: 4, RowsKeptYoung: 2}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if w.likesOf(users[0]) != 4 || w.membersOf(users[2]) != 2 || w.likesOf(users[1:3]...) != 0 || w.membersOf(users[:2]...) != 0 {
		t.Error("the wrong rows are left")
	}
	if n := w.db.Count(`orphan_cleaner.candidates WHERE user_id = ANY ($1)`, []uuid.UUID{users[0], users[2]}); n != 2 || w.db.Count(`orphan_cleaner.candidates`) != 2 {
		t.Errorf("%d of the two users with young rows are in the ledger", n)
	}
	w.invariant(4)
	w.evidence(8)
}

// A target's own retention, longer than the run's, is that of its clock and of its rows.
func TestTargetKeepsLonger(t *testing.T) {
	w := newContent(t)
	w.db.Exec(`UPDATE orphan_cleaner.targets SET retention = '60 days' WHERE name = 'likes'`)
	users, onlyLikes := w.people(100, 1), w.strangers(2)
	w.like(80, 1, slices.Concat(users[:2], onlyLikes)...)
	w.like(50, 1, users[1])
	w.die(40, users[0], onlyLikes[0])
	w.die(70, users[1], onlyLikes[1])
	r := w.must(w.run())
	if got, want := target(r, "likes"), (result.Target{Name: "likes", RowsDue: 2, RowsDeleted: 2, RowsKeptYoung: 1}); got != want || r.UsersDue != 3 {
		t.Errorf("%+v, not %+v; %+v", got, want, r)
	}
	if w.likesOf(users[0]) != 1 || w.likesOf(onlyLikes[0]) != 1 || w.likesOf(users[1]) != 1 || w.likesOf(onlyLikes[1]) != 0 || w.membersOf(users[:2]...) != 0 {
		t.Error("the wrong rows are left")
	}
	w.invariant(2)
	w.evidence(2)
}

// A hold on a user keeps the rows of all targets.
func TestHoldCoversAllTargets(t *testing.T) {
	w := newContent(t)
	users := w.people(100, 2)
	w.like(90, 3, users[:2]...)
	w.die(40, users[:2]...)
	w.db.Exec(`INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES ($1, 'a lawsuit')`, users[0])
	r := w.must(w.run())
	if got, want := target(r, "likes"), (result.Target{Name: "likes", RowsDue: 3, RowsDeleted: 3, RowsHeld: 3}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if w.likesOf(users[0]) != 3 || w.membersOf(users[0]) != 2 || r.MembersHeld != 2 {
		t.Errorf("rows on hold are gone: %+v", r)
	}
	w.invariant(2)
	w.evidence(3)
}

// What fails in the second target takes back the first, too; the user is blocked, and
// everybody else is cleaned in both.
func TestBlockedInOneTarget(t *testing.T) {
	w := newContent(t)
	users := w.people(100, 2)
	w.like(90, 3, users[:4]...)
	w.die(40, users[:4]...)
	w.db.Exec(`CREATE TABLE likers (post_id uuid, user_id uuid, FOREIGN KEY (post_id, user_id) REFERENCES likes)`)
	w.db.Exec(`INSERT INTO likers SELECT post_id, user_id FROM likes WHERE user_id = $1 LIMIT 1`, users[2])
	r, err := w.run()
	if !errors.Is(err, run.ErrIncomplete) || r.UsersBlocked != 1 || len(r.Blocked) != 1 || r.Blocked[0].UserID != users[2] || r.Blocked[0].Rows != 5 {
		t.Errorf("%v, %+v", err, r)
	}
	if got, want := target(r, "likes"), (result.Target{Name: "likes", RowsDue: 12, RowsDeleted: 9, RowsBlocked: 3}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if got, want := target(r, "conversation_members"), (result.Target{Name: "conversation_members", RowsDue: 8, RowsDeleted: 6, RowsBlocked: 2}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if w.membersOf(users[2]) != 2 || w.likesOf(users[2]) != 3 {
		t.Error("a part of a blocked user is gone")
	}
	w.invariant(6)
	w.evidence(9)
}

// Rows that the database would delete along, by a foreign key, are nobody's who is due: they
// stay, as does what they hang on, and their users are blocked, with the key by name.
func TestCascadeOntoRowsThatAreNotDue(t *testing.T) {
	for name, keys := range map[string]string{
		"of an earlier target": `ALTER TABLE conversation_members ADD COLUMN on_post uuid, ADD COLUMN on_user uuid,
			ADD CONSTRAINT hangs_on FOREIGN KEY (on_post, on_user) REFERENCES likes ON DELETE CASCADE;
			ALTER TABLE conversation_members_backup ADD COLUMN on_post uuid, ADD COLUMN on_user uuid`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newContent(t)
			users := w.people(100, 2)
			w.like(90, 3, users[:4]...)
			w.die(40, users[:3]...)
			w.db.Script(keys)
			table := testdb.One[string](w.db, `SELECT conrelid::regclass::text FROM pg_constraint WHERE conname = 'hangs_on'`)
			// What a living user has hangs on what a dead one has.
			w.db.Exec(`UPDATE `+table+` SET (on_post, on_user) = (SELECT post_id, user_id FROM likes WHERE user_id = $1 LIMIT 1) WHERE user_id = $2`, users[1], users[3])
			living := w.db.Snapshot(table+` WHERE user_id = $1`, users[3])
			r, err := w.run()
			if !errors.Is(err, run.ErrIncomplete) || r.UsersBlocked != 1 || len(r.Blocked) != 1 || r.Blocked[0].UserID != users[1] ||
				!strings.Contains(r.Blocked[0].Message, "a delete from another table would delete 2 rows of "+table) ||
				!strings.HasPrefix(r.Blocked[0].Detail, "By a foreign key with ON DELETE CASCADE, hangs_on, or by a trigger, onto public."+table) {
				t.Errorf("%v, %+v", err, r)
			}
			if diff := living.Diff(w.db.Snapshot(table+` WHERE user_id = $1`, users[3])); diff != "" {
				t.Errorf("rows of a living user were touched:\n%s", diff)
			}
			if got, want := target(r, "likes"), (result.Target{Name: "likes", RowsDue: 9, RowsDeleted: 6, RowsBlocked: 3}); got != want {
				t.Errorf("%+v, not %+v", got, want)
			}
			w.invariant(4)
			w.evidence(6)
		})
	}
}

// A chunk is deleted in all targets or in none: here the session is shot between the two.
func TestKilledBetweenTargets(t *testing.T) {
	w := newContent(t)
	users := w.people(100, 2)
	w.like(90, 3, users[:3]...)
	w.die(40, users[:3]...)
	w.db.Exec(`CREATE SEQUENCE public.shots`)
	w.db.Exec(`CREATE FUNCTION public.shoot() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			-- A sequence is not rolled back. It counts the deletes of members that came before.
			PERFORM nextval('public.shots') WHERE NOT EXISTS (SELECT FROM conversation_members AS m JOIN orphan_cleaner.candidates USING (user_id));
			PERFORM pg_terminate_backend(pg_backend_pid());
			RETURN NULL;
		END $$`)
	w.db.Exec(`CREATE TRIGGER shoot BEFORE DELETE ON likes FOR EACH STATEMENT EXECUTE FUNCTION public.shoot()`)
	members, likes := w.db.Snapshot(`conversation_members`), w.db.Snapshot(`likes`)
	if r, err := w.run(); err == nil || r.MembersDeleted != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	if n := testdb.One[int64](w.db, `SELECT last_value FROM public.shots WHERE is_called`); n == 0 {
		t.Error("no session was shot after the members were deleted")
	}
	if diff := members.Diff(w.db.Snapshot(`conversation_members`)) + likes.Diff(w.db.Snapshot(`likes`)); diff != "" {
		t.Errorf("half of a chunk is gone:\n%s", diff)
	}
	w.invariant(0)
	w.evidence(0)
	w.db.Exec(`DROP TRIGGER shoot ON likes`)
	w.must(w.run())
	w.invariant(6)
	w.evidence(9)
}

// A part of a chunk stops where max_rows is reached, whichever target that is in; the next
// part goes on from there.
func TestPartsGoThroughTargets(t *testing.T) {
	w := newContent(t)
	w.cfg.ChunkRows = 100
	users := w.people(20, 150)
	w.like(90, 130, users[0])
	w.die(40, users[0])
	r := w.must(w.run())
	if target(r, "likes").RowsDeleted != 130 || r.MembersDeleted != 150 || r.BatchCalls != 1+3 {
		t.Errorf("%+v", r)
	}
	w.invariant(150)
	w.evidence(130)
}

// A breaker about rows judges each target by its own rows, its own windows and its own
// limits where they are stricter, and says which it is.
func TestBreakersPerTarget(t *testing.T) {
	w := newContent(t)
	users, onlyLikes := w.people(300, 20), w.strangers(300)
	w.like(90, 2, onlyLikes...)
	w.die(40, onlyLikes[:40]...) // 80 of 600 likes
	w.cfg.Limits["delete-share"] = 0.10
	refused := func(breaker, says string) {
		t.Helper()
		w.cfg.DryRun = true
		r, err := w.run()
		w.refused(breaker, r, err)
		w.cfg.DryRun = false
		r, err = w.run()
		w.refused(breaker, r, err)
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v, without %q", err, says)
		}
	}
	refused("delete-share", "80 of 600 rows of likes are due")
	w.cfg.Limits["delete-share"] = 1
	w.db.Exec(`UPDATE orphan_cleaner.targets SET limits = '{"delete-share": 0.05, "delete-rows": 1000000}' WHERE name = 'likes'`)
	refused("delete-share", "80 of 600 rows of likes are due, limit 5 %")
	w.db.Exec(`UPDATE orphan_cleaner.targets SET limits = '{"delete-rows": 79}' WHERE name = 'likes'`)
	refused("delete-rows", "80 rows of likes are due, limit 79")
	// What was deleted of likes before counts, what was deleted of members does not.
	w.db.Exec(`UPDATE orphan_cleaner.targets SET limits = '{"delete-share-7d": 0.2}' WHERE name = 'likes'`)
	w.db.Exec(`INSERT INTO orphan_cleaner.hours (hour, target, rows_total, rows_deleted)
		SELECT date_trunc('hour', now()) - interval '2 days', t.target, t.total, t.deleted
		FROM (VALUES ('', 0, 0), ('likes', 600, 30), ('conversation_members', 6000, 3000)) AS t (target, total, deleted)`)
	w.must(w.run())
	w.evidence(80)
	w.missingFor(40, onlyLikes[40:50]...)
	refused("delete-share-7d", "130 rows of likes are due or were deleted within 7 days of 600, limit 20 %")
	if w.membersOf(users...) != 6000 {
		t.Error("members are gone")
	}
}

// What a run deleted comes back in all targets, byte for byte, or in those chosen; who was
// restored is on hold in all of them. A user found alive again is named for any target.
func TestRestoreOfTargets(t *testing.T) {
	w := newContent(t)
	users, onlyLikes := w.people(60, 2), w.strangers(3)
	w.like(90, 3, slices.Concat(users[:3], onlyLikes)...)
	w.db.Exec(`UPDATE likes SET kind = 'row ' || post_id || ',"\'`)
	members, likes := w.db.Snapshot(`conversation_members`), w.db.Snapshot(`likes`)
	gone := slices.Concat(users[:3], onlyLikes)
	w.die(40, gone...)
	deleted := w.must(w.run())
	w.evidence(18)

	w.auth.Add(onlyLikes[0])
	r := w.must(w.run())
	if !strings.Contains(w.logged(), "restore --user "+onlyLikes[0].String()) || r.UsersResurrected != 1 {
		t.Errorf("nobody is told of a user alive again: %+v", r)
	}

	cfg := restore.DefaultConfig()
	cfg.Host, cfg.Version, cfg.Settings = "test:1", "test", []byte(`{}`)
	restorer := restore.New(w.db.Pool, slog.New(slog.NewTextHandler(w, nil)), cfg)
	made, left := users[0], users[1]
	w.db.Exec(`INSERT INTO likes SELECT post_id, user_id, created_at, 'newer' FROM orphan_cleaner.likes_backup WHERE user_id = $1 LIMIT 1`, made)
	w.db.Exec(`WITH back AS (INSERT INTO likes SELECT post_id, user_id, created_at, kind FROM orphan_cleaner.likes_backup WHERE user_id = $1 LIMIT 1 RETURNING 1) SELECT FROM back`, left)
	w.db.Exec(`DELETE FROM likes WHERE user_id = $1`, left)
	newer := w.db.Snapshot(`likes WHERE kind = 'newer'`)

	only, err := restorer.Restore(t.Context(), restore.Selection{Run: deleted.RunID, Targets: []string{"likes"}})
	if err != nil || only.RowsRestored != 16 || only.MembersRestored != 0 || only.ThereDiffers != 1 || only.LeftSince != 1 || only.MembersLeft != 0 {
		t.Errorf("%v, %+v", err, only)
	}
	if w.membersOf(gone...) != 0 {
		t.Error("members came back, too")
	}
	if diff := newer.Diff(w.db.Snapshot(`likes WHERE kind = 'newer'`)); diff != "" {
		t.Errorf("a newer row was overwritten:\n%s", diff)
	}
	if n := w.db.Count(`orphan_cleaner.rechecks WHERE alive_at IS NOT NULL`); n != 0 {
		t.Errorf("%d users are waiting for a restore still", n)
	}
	// Members of the same users: nothing is left of likes but what must stay away.
	all, err := restorer.Restore(t.Context(), restore.Selection{Run: deleted.RunID})
	if err != nil || all.RowsRestored != 6 || all.MembersRestored != 6 || all.There != 16 {
		t.Errorf("%v, %+v", err, all)
	}
	if diff := members.Diff(w.db.Snapshot(`conversation_members`)); diff != "" {
		t.Errorf("members are not as they were:\n%s", diff)
	}
	w.db.Exec(`UPDATE likes SET kind = 'row ' || post_id || ',"\' WHERE kind = 'newer'`)
	w.db.Exec(`INSERT INTO likes SELECT post_id, user_id, created_at, kind FROM orphan_cleaner.likes_backup WHERE user_id = $1 ON CONFLICT DO NOTHING`, left)
	if diff := likes.Diff(w.db.Snapshot(`likes`)); diff != "" {
		t.Errorf("likes are not as they were:\n%s", diff)
	}

	w.missingFor(40, append(slices.Clone(users[:3]), onlyLikes[1:]...)...)
	r = w.must(w.run())
	if target(r, "likes").RowsDeleted != 0 || r.MembersDeleted != 0 || target(r, "likes").RowsHeld != 15 {
		t.Errorf("the next run: %+v", r)
	}
	if again, err := restorer.Restore(t.Context(), restore.Selection{Run: deleted.RunID}); err != nil || again.RowsRestored != 0 {
		t.Errorf("a second restore: %v, %+v", err, again)
	}
}

// A revert deletes again what a restore brought back in all targets: what is as it was
// restored, of users who are missing still.
func TestRevertOfTargets(t *testing.T) {
	w := newContent(t)
	users := w.people(60, 2)
	w.like(90, 3, users[:3]...)
	w.die(40, users[:3]...)
	deleted := w.must(w.run())
	cfg := restore.DefaultConfig()
	settings, err := w.cfg.JSON()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Host, cfg.Version, cfg.Settings = "test:1", "test", settings
	restorer := restore.New(w.db.Pool, slog.New(slog.NewTextHandler(w, nil)), cfg)
	restored, err := restorer.Restore(t.Context(), restore.Selection{Run: deleted.RunID})
	if err != nil || restored.RowsRestored != 15 {
		t.Fatalf("%v, %+v", err, restored)
	}
	w.auth.Add(users[0])
	w.db.Exec(`UPDATE likes SET kind = 'used' WHERE ctid = (SELECT ctid FROM likes WHERE user_id = $1 LIMIT 1)`, users[1])
	w.db.Settle()
	reverted, err := restorer.Revert(t.Context(), restored.RunID, w.client())
	if err != nil || reverted.MembersReverted != 4 || reverted.RowsReverted != 4+5 || reverted.MembersLeft != 6 {
		t.Errorf("%v, %+v", err, reverted)
	}
	if w.likesOf(users[0]) != 3 || w.membersOf(users[0]) != 2 || w.likesOf(users[1]) != 1 || w.likesOf(users[2]) != 0 || w.membersOf(users[1:3]...) != 0 {
		t.Error("the wrong rows are left")
	}
	if audited, backedUp := w.db.Count(`orphan_cleaner.likes_audit WHERE run_id = $1`, reverted.RunID), w.db.Count(`orphan_cleaner.likes_backup WHERE run_id = $1`, reverted.RunID); audited != 5 || backedUp != 5 {
		t.Errorf("%d audited, %d backed up", audited, backedUp)
	}
	if n := testdb.One[int64](w.db, `SELECT sum(rows_deleted)::bigint FROM orphan_cleaner.hours WHERE target = 'likes'`); n != 9+5 {
		t.Errorf("%d likes in the windows", n)
	}
}
