package run_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// newPosts is a world in which posts are a target that is updated, behind likes.
func newPosts(t *testing.T) *world {
	t.Helper()
	w := newContent(t)
	w.db.Targets("posts")
	return w
}

// post makes so many posts of each of the users, that many days old.
func (w *world) post(days, perUser int, users ...uuid.UUID) {
	w.t.Helper()
	w.db.Exec(`INSERT INTO posts (user_id, body, created_at)
		SELECT u, 'post, "' || n || '"\', now() - make_interval(days => $2::int) FROM unnest($1::uuid[]) AS u, generate_series(1, $3::int) AS n`, users, days, perUser)
}

func (w *world) restorer() *restore.Restorer {
	w.t.Helper()
	cfg := restore.DefaultConfig()
	settings, err := w.cfg.JSON()
	if err != nil {
		w.t.Fatal(err)
	}
	cfg.Host, cfg.Version, cfg.Settings = "test:1", "test", settings
	return restore.New(w.db.Pool, slog.New(slog.NewTextHandler(w, nil)), cfg)
}

// updated asserts of posts what invariant asserts of members: a row is set if and only if
// it is audited and backed up.
func (w *world) updated(n int64) {
	w.t.Helper()
	set := w.db.Count(`posts WHERE deleted_at IS NOT NULL AND body = ''`)
	audited, backedUp := w.db.Count(`orphan_cleaner.posts_audit WHERE run_id IS NOT NULL`), w.db.Count(`orphan_cleaner.posts_backup`)
	onRuns := testdb.One[int64](w.db, `SELECT coalesce(sum(rows_deleted), 0)::bigint FROM orphan_cleaner.run_targets WHERE target = 'posts'`)
	if set != n || audited != n || backedUp != n || onRuns != n {
		w.t.Errorf("posts: set %d, audited %d, backed up %d, on the runs %d, not %d", set, audited, backedUp, onRuns, n)
	}
}

// A target that is updated: rows of missing users are set, once, and those of nobody else;
// a user whose rows are all done leaves the ledger although the column still has the id.
func TestUpdateTarget(t *testing.T) {
	w := newPosts(t)
	users, onlyPosts := w.people(60, 2), w.strangers(3)
	w.post(90, 3, users[:5]...)
	w.post(90, 2, onlyPosts...)
	w.post(3, 1, users[0])
	w.db.Exec(`UPDATE posts SET deleted_at = now() - interval '1 year' WHERE id IN (SELECT id FROM posts WHERE user_id = $1 AND created_at < now() - interval '80 days' LIMIT 1)`, users[0])
	others := w.db.Snapshot(`posts WHERE user_id = ANY ($1) OR deleted_at IS NOT NULL OR created_at > now() - interval '30 days'`, users[2:])
	w.die(40, users[0], users[1], onlyPosts[0])
	r := w.must(w.run())
	if got, want := target(r, "posts"), (result.Target{Name: "posts", RowsDue: 7, RowsDeleted: 7, RowsKeptYoung: 1}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	w.invariant(4)
	w.updated(7)
	if diff := others.Diff(w.db.Snapshot(`posts WHERE user_id = ANY ($1) OR deleted_at < now() - interval '1 day' OR created_at > now() - interval '30 days'`, users[2:])); diff != "" {
		t.Errorf("other posts were touched:\n%s", diff)
	}
	if n := w.db.Count(`orphan_cleaner.candidates`); n != 1 || w.db.Count(`orphan_cleaner.candidates WHERE user_id = $1`, users[0]) != 1 {
		t.Errorf("%d users are in the ledger, and not the one with a young post alone", n)
	}
	if r = w.must(w.run()); target(r, "posts").RowsDeleted != 0 {
		t.Errorf("a second run: %+v", r)
	}
	w.updated(7)
}

// Restoring what was updated is compare and set: what was changed since stays, and is said;
// the rest is as it was, byte for byte. A revert sets it once more.
func TestRestoreOfUpdates(t *testing.T) {
	w := newPosts(t)
	users := w.people(60, 2)
	w.post(90, 3, users[:4]...)
	w.die(40, users[:4]...)
	before := w.db.Snapshot(`posts`)
	first := w.must(w.run())
	w.updated(12)
	w.db.Exec(`UPDATE posts SET body = 'newer' WHERE id IN (SELECT id FROM posts WHERE user_id = $1 LIMIT 1)`, users[0])
	w.db.Exec(`DELETE FROM posts WHERE id IN (SELECT id FROM posts WHERE user_id = $1 LIMIT 1)`, users[1])
	r, err := w.restorer().Restore(t.Context(), restore.Selection{Run: first.RunID, Targets: []string{"posts"}})
	if err != nil || r.RowsRestored != 10 || r.ThereDiffers != 1 || r.LeftSince != 1 {
		t.Errorf("%v, %+v", err, r)
	}
	const untouched = `posts WHERE user_id = ANY ($1)`
	for _, at := range []int{2, 3} {
		for _, row := range w.db.Snapshot(untouched, users[at:at+1]) {
			if !strings.Contains(strings.Join(before, "\n"), row) {
				t.Errorf("%s is not as it was", row)
			}
		}
	}
	if n := w.db.Count(`posts WHERE body = 'newer' AND deleted_at IS NOT NULL`); n != 1 {
		t.Errorf("%d newer posts", n)
	}
	again, err := w.restorer().Restore(t.Context(), restore.Selection{Run: first.RunID, Targets: []string{"posts"}})
	if err != nil || again.RowsRestored != 0 || again.There != 10 {
		t.Errorf("restored again: %v, %+v", err, again)
	}
	w.db.Exec(`UPDATE posts SET body = 'used' WHERE id IN (SELECT id FROM posts WHERE user_id = $1 LIMIT 1)`, users[2])
	w.db.Settle()
	back, err := w.restorer().Revert(t.Context(), r.RunID, w.client())
	if err != nil || back.RowsReverted != 9 {
		t.Errorf("%v, %+v", err, back)
	}
	if n := w.db.Count(`posts WHERE deleted_at IS NULL`); n != 1 {
		t.Errorf("%d posts are not deleted after the revert, not the one that was used", n)
	}
}

// A trigger that keeps a row as it is, or sets something else, takes back the chunk: its
// user is blocked, and everybody else is done.
func TestUpdateThatATriggerChanges(t *testing.T) {
	for name, body := range map[string]string{
		"keeps the row":   `RETURN NULL`,
		"sets otherwise":  `NEW.body := 'gone'; RETURN NEW`,
		"takes it back":   `NEW.deleted_at := NULL; RETURN NEW`,
		"raises an error": `RAISE EXCEPTION 'not this one'`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newPosts(t)
			users := w.people(60, 2)
			w.post(90, 3, users[:3]...)
			w.die(40, users[:3]...)
			w.db.Exec(`CREATE FUNCTION public.odd() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN ` + strings.ReplaceAll(body, "'", "''") + `; END'`)
			w.db.Exec(`CREATE TRIGGER odd BEFORE UPDATE ON posts FOR EACH ROW WHEN (OLD.user_id = '` + users[1].String() + `') EXECUTE FUNCTION public.odd()`)
			r, err := w.run()
			if !errors.Is(err, run.ErrIncomplete) || r.UsersBlocked != 1 {
				t.Errorf("%v, %+v", err, r)
			}
			if n := w.db.Count(`posts WHERE user_id = $1 AND deleted_at IS NULL AND body <> ''`, users[1]); n != 3 {
				t.Errorf("%d posts of the user are as they were", n)
			}
			if n := w.membersOf(users[1]); n != 2 {
				t.Errorf("%d members of the user are left", n)
			}
			w.updated(target(r, "posts").RowsDeleted)
		})
	}
}

// What is changed between the plan of a restore and the restore itself stays, too.
func TestUpdatedSinceThePlan(t *testing.T) {
	w := newPosts(t)
	users := w.people(60, 2)
	w.post(90, 3, users[0])
	w.die(40, users[0])
	first := w.must(w.run())
	w.db.Exec(`CREATE FUNCTION public.meanwhile() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			UPDATE public.posts SET body = 'newer' WHERE id = (SELECT min(id::text)::uuid FROM public.posts);
			RETURN NULL;
		END $$`)
	w.db.Exec(`CREATE TRIGGER meanwhile AFTER INSERT ON orphan_cleaner.restores FOR EACH STATEMENT EXECUTE FUNCTION public.meanwhile()`)
	if r, err := w.restorer().Restore(t.Context(), restore.Selection{Run: first.RunID, Targets: []string{"posts"}}); r.RowsRestored != 2 {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`posts WHERE body = 'newer' AND deleted_at IS NOT NULL`); n != 1 {
		t.Errorf("%d newer posts are as they were", n)
	}
}

// A chunk of a restore and one of a revert look up their own rows in the list of the restore,
// without statistics, too: none reads it from end to end.
func TestChunksReadTheirOwnPartOfARestore(t *testing.T) {
	w := newPosts(t)
	users := w.people(60, 1)
	w.like(90, 200, users[:30]...)
	w.db.Exec(`INSERT INTO posts (user_id, created_at) SELECT user_id, created_at FROM likes`)
	w.die(40, users[:30]...)
	deleted := w.must(w.run())
	restored, err := w.restorer().Restore(t.Context(), restore.Selection{Run: deleted.RunID})
	if err != nil || restored.RowsRestored != 30+2*6000 {
		t.Fatalf("%v, %+v", err, restored)
	}
	// The first pages once more, as they were planned.
	w.db.Exec(`UPDATE orphan_cleaner.restores SET state = 'planned'`)
	w.db.Exec(`UPDATE orphan_cleaner.runs SET state = 'running', phase = 'restore', finished_at = NULL, heartbeat_at = clock_timestamp() WHERE run_id = $1`, restored.RunID)
	w.db.Exec(`DELETE FROM likes`)
	w.db.Exec(`DELETE FROM orphan_cleaner.likes_audit WHERE run_id IS NULL`)
	w.db.Exec(`UPDATE posts AS p SET (body, deleted_at) = (SELECT b.set_to ->> 'body', (b.set_to ->> 'deleted_at')::timestamptz FROM orphan_cleaner.posts_backup AS b WHERE b.id = p.id)`)
	const page = `(now() AT TIME ZONE 'UTC')::date, 0, 32`
	chunk := func(of, call string) {
		t.Helper()
		var rows, read int64
		if err := pgx.BeginFunc(t.Context(), w.db.Pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `SELECT set_config('orphan_cleaner.run_token', r.token::text, true) FROM orphan_cleaner.runs AS r WHERE r.state = 'running'`); err != nil {
				return err
			}
			if err := tx.QueryRow(t.Context(), call).Scan(&rows); err != nil {
				return err
			}
			return tx.QueryRow(t.Context(), `SELECT pg_stat_get_xact_tuples_returned('orphan_cleaner.restores'::regclass)`).Scan(&read)
		}); err != nil {
			t.Fatalf("%s: %v", of, err)
		}
		if rows < 500 || read > 0 {
			t.Errorf("%s: the list was read from end to end, %d rows for %d", of, read, rows)
		}
	}
	for _, of := range []string{"likes", "posts"} {
		chunk("restoring "+of, `SELECT orphan_cleaner.`+of+`_restore_chunk(r.run_id, r.token, `+page+`, ARRAY(SELECT user_id FROM conversation_members), '1 day') FROM orphan_cleaner.runs AS r WHERE r.state = 'running'`)
	}
	w.db.Exec(`DELETE FROM orphan_cleaner.holds`)
	w.db.Exec(`INSERT INTO orphan_cleaner.sightings (run_id, user_id, verdict) SELECT r.run_id, u.id, 'missing' FROM orphan_cleaner.runs AS r, unnest($1::uuid []) AS u (id) WHERE r.state = 'running'`, users[:30])
	w.db.Settle()
	for _, of := range []string{"likes", "posts"} {
		chunk("reverting "+of, `SELECT c.rows_chosen FROM orphan_cleaner.runs AS r
			CROSS JOIN LATERAL orphan_cleaner.`+of+`_revert_chunk(r, r.run_id, `+page+`, ARRAY(SELECT user_id FROM orphan_cleaner.sightings), pg_snapshot_xmin(pg_current_snapshot())) AS c
			WHERE r.state = 'running'`)
	}
}
