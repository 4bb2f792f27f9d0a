package run_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// miscounted are the posts and blogs whose counts are not those of their rows. Posts of no
// blog are counted nowhere; a blog in two parts is two blogs.
const miscounted = `(
	SELECT p.id::text FROM posts AS p WHERE p.likes <> (SELECT count(*) FROM likes AS l WHERE l.post_id = p.id)
	UNION ALL
	SELECT b.id || b.part FROM blogs AS b WHERE b."Posts" <> (SELECT count(*) FROM posts AS p WHERE p.blog_id = b.id AND p.part = b.part AND p.deleted_at IS NULL)
) AS w`

// newBlogs is a world in which posts of blogs have likes of users, all of them counted:
// each user has two posts, and likes so many posts of others.
func newBlogs(t *testing.T, users, likes int) (*world, []uuid.UUID) {
	t.Helper()
	w := newPosts(t)
	ids := w.people(users, 1)
	w.post(90, 2, ids...)
	w.db.Exec(`INSERT INTO blogs (id, part) SELECT n, part FROM generate_series(1, 5) AS n, unnest('{a,b}'::text []) AS part`)
	w.db.Exec(`UPDATE posts AS p SET blog_id = q.n % 6, part = (ARRAY['a', 'b', NULL])[1 + q.n % 3] FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM posts) AS q WHERE q.id = p.id`)
	w.db.Exec(`UPDATE posts SET blog_id = NULL WHERE blog_id = 0`)
	w.db.Exec(`INSERT INTO likes (post_id, user_id, created_at)
		SELECT p.id, u.id, now() - interval '90 days' FROM unnest($1::uuid []) WITH ORDINALITY AS u (id, n)
		JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM posts) AS p ON (p.n + u.n) % $2 < $3`, ids, 2*users, likes)
	w.db.Exec(`UPDATE posts AS p SET likes = (SELECT count(*) FROM likes AS l WHERE l.post_id = p.id)`)
	w.db.Exec(`UPDATE blogs AS b SET "Posts" = (SELECT count(*) FROM posts AS p WHERE p.blog_id = b.id AND p.part = b.part)`)
	return w, ids
}

func (w *world) counts(when string) {
	w.t.Helper()
	if n := w.db.Count(miscounted); n != 0 {
		w.t.Errorf("%s: %d posts or blogs have a wrong count", when, n)
	}
}

// liking likes and unlikes posts until it is stopped: its ±1 is a transaction of its own.
func (w *world) liking(users ...uuid.UUID) (stop func()) {
	w.t.Helper()
	done := make(chan struct{})
	var working sync.WaitGroup
	for _, user := range users {
		working.Go(func() {
			for step := 0; ; step++ {
				select {
				case <-done:
					if step%2 == 0 { // what was liked is not liked any more
						return
					}
				default:
				}
				post := fmt.Sprintf("(SELECT id FROM posts ORDER BY id OFFSET %d LIMIT 1)", step/2%40)
				like, count := "DELETE FROM likes WHERE user_id = $1 AND post_id = "+post, "-"
				if step%2 == 0 {
					like, count = "INSERT INTO likes (user_id, post_id) VALUES ($1, "+post+")", "+"
				}
				w.db.Exec(like, user)
				w.db.Exec("UPDATE posts SET likes = likes " + count + " 1 WHERE id = " + post)
			}
		})
	}
	return sync.OnceFunc(func() {
		close(done)
		working.Wait()
	})
}

// Counters of two targets, one of which is in a row of the other: two connections delete and
// update while the application likes and unlikes. No count is wrong, after the run, its restore
// and the revert of that, and nobody met a deadlock.
func TestTargetCounters(t *testing.T) {
	w, users := newBlogs(t, 60, 20)
	w.cfg.ChunkRows, w.cfg.BatchSize, w.cfg.Attempts = 100, 5, 50 // a chunk that the machine makes slow gives way to whatever it meets
	w.die(40, users[:30]...)
	w.counted("on")
	before := w.db.Snapshot(`blogs`)
	w.counts("at first")
	w.observer = &watcher{retried: func(cause string) {
		if cause == "deadlock" {
			t.Error("met a deadlock")
		}
	}}
	stop := w.liking(uuid.New(), uuid.New())
	defer stop()
	first := w.must(w.run())
	if likes, posts := target(first, "likes"), target(first, "posts"); likes.RowsDeleted != 30*20 || posts.RowsDeleted+posts.RowsChanged != 60 || posts.RowsDeleted == 0 {
		t.Fatalf("%+v", first.Targets)
	}
	stop()
	// A post whose count changed after its author was checked waits for the next run.
	second := w.must(w.run())
	if left := w.db.Count(`posts WHERE deleted_at IS NULL AND user_id = ANY ($1)`, users[:30]); left != 0 || target(second, "likes").RowsDeleted != 0 {
		t.Errorf("%d posts are left; %+v", left, second.Targets)
	}
	w.counts("run")
	w.right("run")
	if diff := before.Diff(w.db.Snapshot(`blogs`)); diff == "" {
		t.Error("no count of a blog changed")
	}
	var restores []int64
	for _, of := range []int64{first.RunID, second.RunID} {
		if w.db.Count(`orphan_cleaner.run_targets WHERE run_id = $1 AND rows_deleted > 0`, of) == 0 {
			continue
		}
		restores = append(restores, w.restored(of))
		w.counts("restore")
	}
	if diff := before.Diff(w.db.Snapshot(`blogs`)); diff != "" || w.likesOf(users...) != 60*20 {
		t.Errorf("a restore does not bring back the counts:\n%s", diff)
	}
	for _, back := range restores {
		w.db.Exec("DELETE FROM orphan_cleaner.hours")
		w.reverted(back)
		w.counts("revert")
		w.right("revert")
	}
	if n := w.likesOf(users[:30]...); n != 0 {
		t.Errorf("%d likes are left after the revert", n)
	}
	if strings.Contains(w.logged(), "deadlock") {
		t.Error(w.logged())
	}
}

// A count that was too low does not become negative, one that is null stays so, and a row
// without a key, or with that of nothing, is counted nowhere.
func TestTargetCountersTooLow(t *testing.T) {
	w, users := newBlogs(t, 20, 4)
	w.die(40, users[:4]...)
	w.db.Exec(`INSERT INTO likes (post_id, user_id, created_at) SELECT gen_random_uuid(), u, now() - interval '90 days' FROM unnest($1::uuid []) AS u`, users[:4])
	w.db.Exec(`UPDATE posts SET likes = CASE WHEN user_id = $1 THEN 0 END`, users[10])
	w.db.Exec(`ALTER TABLE posts ADD CONSTRAINT counted CHECK (likes >= 0)`)
	w.db.Exec(`UPDATE blogs SET "Posts" = NULL WHERE part = 'a'`)
	r := w.must(w.run())
	if target(r, "likes").RowsDeleted != 20 || target(r, "posts").RowsDeleted != 8 {
		t.Errorf("%+v", r.Targets)
	}
	if n := w.db.Count(`posts WHERE likes <> 0 OR (likes IS NULL) = (user_id = $1)`, users[10]); n != 0 {
		t.Errorf("%d counts of posts", n)
	}
	if n := w.db.Count(`blogs WHERE ("Posts" IS NULL) <> (part = 'a')`); n != 0 {
		t.Errorf("%d counts of blogs", n)
	}
}

// A chunk that is taken back leaves the counts as they were, and what blocks one user is in the
// way of no other's count.
func TestTargetCountersOfWhatIsBlocked(t *testing.T) {
	w, users := newBlogs(t, 20, 4)
	w.die(40, users[:4]...)
	w.db.Exec(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$`)
	w.db.Exec(`CREATE TRIGGER refuse BEFORE UPDATE ON blogs FOR EACH ROW EXECUTE FUNCTION refuse()`)
	blogs := w.db.Snapshot(`blogs`)
	w.db.Exec(`UPDATE posts SET blog_id = NULL WHERE user_id = $1`, users[0])
	w.db.Exec(`UPDATE posts SET blog_id = 1, part = 'a' WHERE user_id = ANY ($1)`, users[1:4])
	r, err := w.run()
	if err == nil || r.UsersBlocked != 3 || target(r, "posts").RowsDeleted != 2 || target(r, "likes").RowsDeleted != 4 {
		t.Fatalf("%v %+v", err, r)
	}
	if diff := blogs.Diff(w.db.Snapshot(`blogs`)); diff != "" {
		t.Errorf("blogs:\n%s", diff)
	}
	if n := w.db.Count(`posts AS p WHERE p.likes <> (SELECT count(*) FROM likes AS l WHERE l.post_id = p.id)`); n != 0 {
		t.Errorf("%d posts have a wrong count", n)
	}
}

// A count that a trigger keeps as it was is no silent success: the users of its rows are blocked.
func TestTargetCountersThatAreKept(t *testing.T) {
	w, users := newBlogs(t, 20, 4)
	w.die(40, users[:4]...)
	w.db.Exec(`CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`)
	w.db.Exec(`CREATE TRIGGER keep BEFORE UPDATE ON blogs FOR EACH ROW WHEN (OLD.part = 'a') EXECUTE FUNCTION keep()`)
	w.db.Exec(`UPDATE posts SET blog_id = NULL WHERE user_id = $1`, users[0])
	w.db.Exec(`UPDATE posts SET blog_id = 1, part = 'a' WHERE user_id = ANY ($1)`, users[1:4])
	r, err := w.run()
	if err == nil || r.UsersBlocked != 3 || target(r, "posts").RowsDeleted != 2 || target(r, "likes").RowsDeleted != 4 {
		t.Fatalf("%v %+v", err, r)
	}
	if says := r.Blocked[0].Message; says != `the "Posts" of 0 rows of public.blogs was changed, not of all: a trigger or rule keeps it` {
		t.Error(says)
	}
}

// A chunk that takes long waits for no row of a counter, as that of members, see TestCountsOfASlowChunk.
func TestTargetCountersOfASlowChunk(t *testing.T) {
	w, _ := newBlogs(t, 2, 1)
	w.inTheWay(`SELECT FROM blogs FOR UPDATE`)
	for age, says := range map[string]string{"0": "lock timeout", "0.8": "could not obtain lock on row"} {
		// A transaction is as old as that, however slow the machine is.
		w.db.Exec(`CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS $$ SELECT now() + interval '` + age + ` s' $$`)
		w.db.Pool.Reset()
		_, err := w.db.Pool.Exec(t.Context(), `SELECT orphan_cleaner.posts_counts('[["1", "a", 1], [null, "a", 1]]', -1)`)
		if database.Code(err) != database.LockNotAvailable || !strings.Contains(err.Error(), says) {
			t.Errorf("%s s old: %v", age, err)
		}
	}
}

// Counts are locked after the last delete or update of a chunk, whatever the target: while it
// waits for a row of the application, the application may change each of them.
func TestTargetCountersAreLockedLast(t *testing.T) {
	w, users := newBlogs(t, 20, 4)
	w.cfg.Attempts = 100 // it waits for as long as this test looks
	w.die(40, users[:4]...)
	w.counted("on")
	w.db.Settle()
	tx := w.inTheWay(`SELECT FROM posts WHERE user_id = $1 FOR UPDATE`, users[0])
	ended := make(chan outcome)
	go func() {
		r, err := w.run()
		if err != nil {
			t.Error(err)
		}
		ended <- r
	}()
	testdb.Eventually(t, time.Minute, "the chunk waits for a post", func() bool {
		return w.db.Count(`pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
	})
	if err := pgx.BeginFunc(t.Context(), w.db.Pool, func(tx pgx.Tx) error {
		for _, held := range []string{
			`SELECT FROM conversations FOR UPDATE NOWAIT`, `SELECT FROM blogs FOR UPDATE NOWAIT`, `LOCK TABLE orphan_cleaner.effects IN SHARE UPDATE EXCLUSIVE MODE NOWAIT`,
		} {
			if _, err := tx.Exec(t.Context(), held); err != nil {
				return err
			}
		}
		_, err := tx.Exec(t.Context(), `SELECT FROM posts WHERE user_id <> ALL ($1) FOR UPDATE NOWAIT`, users[:4])
		return err
	}); err != nil {
		t.Errorf("while the chunk waits: %v", err)
	}
	w.commit(tx)
	if r := <-ended; target(r, "likes").RowsDeleted != 16 || target(r, "posts").RowsDeleted != 8 {
		t.Errorf("%+v", r.Targets)
	}
	w.counts("run")
	w.right("run")
}

// A post that is being deleted meanwhile, with its likes, of which a chunk has some: the chunk gives way,
// and the application's delete does not fail.
func TestTargetCountersGiveWay(t *testing.T) {
	w, users := newBlogs(t, 20, 4)
	w.die(40, users[:4]...)
	w.db.Settle()
	post := testdb.One[uuid.UUID](w.db, `SELECT p.id FROM posts AS p JOIN likes AS l ON l.post_id = p.id WHERE p.user_id <> ALL ($1) AND l.user_id = ANY ($1) LIMIT 1`, users[:4])
	liked := w.db.Count(`likes WHERE post_id = $1 AND user_id = ANY ($2)`, post, users[:4])
	tx := w.inTheWay(`SELECT FROM posts WHERE id = $1 FOR UPDATE`, post)
	var once sync.Once
	w.observer = &watcher{retried: func(cause string) {
		if cause == "deadlock" {
			t.Error("met a deadlock")
		}
		once.Do(func() {
			w.exec(tx, `DELETE FROM likes WHERE post_id = $1`, post)
			w.exec(tx, `UPDATE blogs AS b SET "Posts" = b."Posts" - 1 FROM posts AS p WHERE p.id = $1 AND b.id = p.blog_id AND b.part = p.part`, post)
			w.exec(tx, `DELETE FROM posts WHERE id = $1`, post)
			w.commit(tx)
		})
	}}
	r := w.must(w.run())
	if likes := target(r, "likes"); likes.RowsDeleted != 16-liked || likes.RowsChanged != liked || r.UsersBlocked != 0 {
		t.Errorf("%+v", r)
	}
	w.counts("run")
}

// The application holds a row that is to be updated, and wants one that the chunk has by now: the chunk gives way before
// PostgreSQL looks for a deadlock, by which the application might be the one to fail. A restore and its revert do so, too.
func TestTargetUpdatesGiveWay(t *testing.T) {
	w, users := newBlogs(t, 20, 4)
	w.die(40, users[:4]...)
	// Half of a server's deadlock_timeout. Here that is more: both times would be over at once on a machine that stands still for a second.
	if n := w.db.Count(`pg_proc WHERE proname ~ '^(posts|conversation_members)_(delete|restore_chunk|revert_chunk)$' AND 'lock_timeout=500ms' = ANY (proconfig)`); n != 6 {
		t.Errorf("%d of 6 functions wait for half a second", n)
	}
	w.db.Exec(`ALTER DATABASE ` + w.db.Name + ` SET deadlock_timeout = '20s'`)
	w.db.Pool.Reset()
	meets := func(is string, work func()) {
		t.Helper()
		tx := w.inTheWay(`SELECT FROM posts WHERE ctid = (SELECT max(ctid) FROM posts WHERE user_id = ANY ($1) AND deleted_at IS `+is+`) FOR UPDATE`, users[:4])
		w.observer = &watcher{retried: func(cause string) {
			if cause == "deadlock" {
				t.Error("met a deadlock")
			}
		}}
		var application sync.WaitGroup
		application.Go(func() {
			testdb.Eventually(t, time.Minute, "the chunk waits for a post", func() bool {
				return w.db.Count(`pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
			})
			w.exec(tx, `SELECT FROM posts WHERE ctid = (SELECT min(ctid) FROM posts WHERE user_id = ANY ($1) AND deleted_at IS `+is+`) FOR UPDATE`, users[:4])
			w.commit(tx)
		})
		work()
		application.Wait()
	}
	w.db.Settle()
	var r outcome
	meets("NULL", func() { r = w.must(w.run()) })
	left := func() int64 { return w.db.Count(`posts WHERE user_id = ANY ($1) AND deleted_at IS NULL`, users[:4]) }
	if target(r, "posts").RowsDeleted != 8 || left() != 0 {
		t.Errorf("%+v", r.Targets)
	}
	var back int64
	meets("NOT NULL", func() { back = w.restored(r.RunID) })
	w.db.Exec("DELETE FROM orphan_cleaner.hours")
	w.db.Settle()
	meets("NULL", func() {
		if _, err := w.restorer().Revert(t.Context(), back, w.client()); err != nil {
			t.Error(err)
		}
	})
	if left() != 0 || strings.Contains(w.logged(), "deadlock") {
		t.Errorf("%d posts are left: %s", left(), w.logged())
	}
}

// By a login of the runner: the owner of the functions needs a right for each counter. What it
// lacks no run begins without, and sql/roles.sql grants it, and no more than that.
func TestTargetCountersNeedRights(t *testing.T) {
	w, users := newBlogs(t, 20, 4)
	w.die(40, users[:2]...)
	w.db.Roles("../../sql/roles.sql")
	pool, err := pgxpool.New(t.Context(), w.db.Login("orphan_cleaner_runner"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	w.pool = pool
	for _, c := range []struct{ undo, says string }{
		{
			`REVOKE UPDATE (likes) ON posts FROM orphan_cleaner_owner; REVOKE UPDATE ON posts FROM orphan_cleaner_owner; GRANT UPDATE (deleted_at, body) ON posts TO orphan_cleaner_owner`,
			"counter-of-likes: role orphan_cleaner_owner, whose functions a run calls, may not keep public.posts.likes; hint: psql -f sql/roles.sql; or: GRANT UPDATE (likes) ON public.posts TO orphan_cleaner_owner",
		},
		{
			`GRANT UPDATE ON posts TO orphan_cleaner_owner; REVOKE UPDATE ("Posts"), SELECT (part) ON blogs FROM orphan_cleaner_owner`,
			`counter-of-posts: role orphan_cleaner_owner, whose functions a run calls, may not keep public.blogs."Posts"; hint: psql -f sql/roles.sql; or: GRANT SELECT (part) ON public.blogs TO orphan_cleaner_owner; GRANT UPDATE ("Posts") ON public.blogs TO orphan_cleaner_owner`,
		},
		{`GRANT UPDATE ("Posts"), SELECT (part) ON blogs TO orphan_cleaner_owner; ALTER TABLE blogs RENAME COLUMN "Posts" TO posts`, `counter-of-posts: public.blogs."Posts", which is to count rows of posts, is not there; hint: correct or remove counter in targets.yaml`},
		{`ALTER TABLE blogs RENAME COLUMN posts TO "Posts"; ALTER TABLE posts ALTER likes DROP DEFAULT, ALTER likes TYPE text`, "counter-of-likes: public.posts.likes, which is to count rows of likes, is of type text; hint: correct or remove counter in targets.yaml"},
		{`ALTER TABLE posts ALTER likes TYPE integer USING likes::integer; ALTER TABLE blogs DROP CONSTRAINT blogs_pkey`, `counter-of-posts: public.blogs."Posts", which is to count rows of posts, is in no ordinary table with its key unique; hint: correct`},
		{`ALTER TABLE blogs ADD PRIMARY KEY (id, part); ALTER TABLE blogs ENABLE ROW LEVEL SECURITY`, "counter-of-posts: row-level security of public.blogs is on"},
	} {
		w.db.Script(c.undo)
		if _, err := w.run(); err == nil || !strings.Contains(err.Error(), run.ErrPreflight.Error()) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.undo, err)
		}
		if n := w.db.Count(`orphan_cleaner.runs WHERE state <> 'failed' OR judged_at IS NOT NULL`); n != 0 {
			t.Errorf("%d runs began", n)
		}
	}
	w.db.Exec(`ALTER TABLE blogs DISABLE ROW LEVEL SECURITY`)
	w.db.Roles("../../sql/roles.sql")
	if r := w.must(w.run()); target(r, "likes").RowsDeleted != 8 || target(r, "posts").RowsDeleted != 4 {
		t.Errorf("%+v", r.Targets)
	}
	w.counts("run")
	rights := testdb.One[string](w.db, `SELECT string_agg(a.attname || ' ' || p.privilege, ', ' ORDER BY a.attnum, p.privilege)
		FROM pg_attribute AS a CROSS JOIN unnest('{SELECT,INSERT,UPDATE}'::text []) AS p (privilege)
		WHERE a.attrelid = 'blogs'::regclass AND a.attnum > 0 AND has_column_privilege('orphan_cleaner_owner', a.attrelid, a.attnum, p.privilege)`)
	if want := "id SELECT, part SELECT, Posts SELECT, Posts UPDATE"; rights != want {
		t.Errorf("%s, not %s", rights, want)
	}
	w.db.Script(`CREATE FUNCTION count_likes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE posts SET likes = likes - 1 WHERE id = OLD.post_id; RETURN NULL; END $$;
		CREATE TRIGGER count_likes AFTER DELETE ON likes FOR EACH ROW EXECUTE FUNCTION count_likes()`)
	w.must(w.run())
	if !strings.Contains(w.logged(), "runs keep public.posts.likes, and so does a trigger, it seems: count_likes") {
		t.Error(w.logged())
	}
}

// A restore of one target, of some users, brings back the counts of these rows alone.
func TestTargetCountersOfAPart(t *testing.T) {
	w, users := newBlogs(t, 20, 4)
	w.die(40, users[:4]...)
	r := w.must(w.run())
	w.counts("run")
	so, err := w.restorer().Restore(t.Context(), restore.Selection{Run: r.RunID, Targets: []string{"likes"}, Users: users[:2]})
	if err != nil || so.RowsRestored != 8 {
		t.Errorf("%+v, %v", so, err)
	}
	w.counts("restore")
}
