package run_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// wrong are the conversations whose member_count is not the number of their members.
const wrong = `conversations AS c WHERE c.member_count <> (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)`

// counted makes every count right, and chooses who keeps it so.
func (w *world) counted(choice string) {
	w.t.Helper()
	w.db.Exec(`UPDATE conversations AS c SET member_count = (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)`)
	if choice == "trigger" {
		// Unqualified, as an application writes it.
		w.db.Exec(`CREATE FUNCTION count_members() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN
				IF TG_OP = 'DELETE' THEN
					UPDATE conversations SET member_count = member_count - 1 WHERE id = OLD.conversation_id;
				ELSE
					UPDATE conversations SET member_count = member_count + 1 WHERE id = NEW.conversation_id;
				END IF;
				RETURN NULL;
			END $$;
			CREATE TRIGGER count_members AFTER INSERT OR DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION count_members()`)
	}
	w.choose("counter", choice)
}

func (w *world) choose(effect, choice string) {
	w.t.Helper()
	w.db.Exec(`INSERT INTO orphan_cleaner.effects (name, choice) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET choice = excluded.choice`, effect, choice)
}

// restored brings back what a run deleted, and returns the number of the restore.
func (w *world) restored(of int64) int64 {
	w.t.Helper()
	so, err := w.restorer().Restore(w.t.Context(), restore.Selection{Run: of})
	if err != nil {
		w.t.Fatal(err)
	}
	return so.RunID
}

func (w *world) reverted(of int64) restore.Result {
	w.t.Helper()
	w.db.Settle()
	so, err := w.restorer().Revert(w.t.Context(), of, w.client())
	if err != nil {
		w.t.Fatal(err)
	}
	return so
}

func (w *world) right(when string) {
	w.t.Helper()
	if n := w.db.Count(wrong); n != 0 {
		w.t.Errorf("%s: %d conversations have a wrong member_count", when, n)
	}
}

// application joins and leaves until it is stopped; its ±1 is a transaction of its
// own, or the trigger's.
func (w *world) application(isTrigger bool, users ...uuid.UUID) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var working sync.WaitGroup
	for _, user := range users {
		working.Go(func() {
			for step := 0; step%2 == 1 || ctx.Err() == nil; step++ { // whoever has joined leaves
				conversation := fmt.Sprintf("(SELECT id FROM conversations ORDER BY id OFFSET %d LIMIT 1)", step/2%40)
				joins := step%2 == 0
				member, count := "DELETE FROM conversation_members WHERE user_id = $1 AND conversation_id = "+conversation, "-"
				if joins {
					member, count = "INSERT INTO conversation_members (user_id, conversation_id) VALUES ($1, "+conversation+")", "+"
				}
				w.db.Exec(member, user)
				if !isTrigger {
					w.db.Exec("UPDATE conversations SET member_count = member_count " + count + " 1 WHERE id = " + conversation)
				}
			}
		})
	}
	return func() {
		cancel()
		working.Wait()
	}
}

// Two connections delete while the application joins and leaves: no count is wrong, and
// nobody met a deadlock. A restore brings the counts back, its revert takes them again.
func TestCounts(t *testing.T) {
	for _, choice := range []string{"on", "trigger"} {
		t.Run(choice, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			w.cfg.ChunkRows, w.cfg.BatchSize, w.cfg.Attempts = 100, 20, 50 // a chunk that the machine makes slow gives way to whatever it meets
			users := w.people(60, 40)
			w.die(40, users[:30]...)
			w.counted(choice)
			before := w.db.Snapshot("conversations")
			retries := 0
			w.observer = &watcher{retried: func(cause string) {
				if cause == "deadlock" {
					retries++
				}
			}}
			stop := w.application(choice == "trigger", uuid.New(), uuid.New())
			r, err := w.run()
			stop()
			w.must(r, err)
			if r.MembersDeleted != 30*40 {
				t.Fatalf("deleted %d: %s", r.MembersDeleted, w.logged())
			}
			if retries != 0 || strings.Contains(w.logged(), "deadlock") {
				t.Errorf("%d deadlocks: %s", retries, w.logged())
			}
			w.right("run")
			back := w.restored(r.RunID)
			w.right("restore")
			if diff := before.Diff(w.db.Snapshot("conversations")); diff != "" {
				t.Errorf("a restore does not bring back the counts:\n%s", diff)
			}
			w.db.Exec("DELETE FROM orphan_cleaner.hours")
			if so := w.reverted(back); so.MembersReverted != 30*40 {
				t.Errorf("reverted %+v", so)
			}
			w.right("revert")
		})
	}
}

// Until somebody has chosen, and where nobody reads them, counts are left alone.
func TestCountsLeftAlone(t *testing.T) {
	for _, choice := range []string{"", "unread"} {
		t.Run(choice, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(10, 5)
			w.die(40, users[0])
			w.counted("unread")
			if choice == "" {
				w.db.Exec("DELETE FROM orphan_cleaner.effects")
			}
			// The owner of the functions needs no right for what it does not do.
			before := w.db.Snapshot("conversations")
			r := w.must(w.run())
			w.restored(r.RunID)
			if diff := before.Diff(w.db.Snapshot("conversations")); r.MembersDeleted != 5 || diff != "" {
				t.Errorf("deleted %d\n%s", r.MembersDeleted, diff)
			}
		})
	}
}

// A count that was too low does not become negative, which a constraint of messaging-service
// might refuse for ever; one that is not kept stays so.
func TestCountsTooLow(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(10, 3)
	w.die(40, users[:4]...)
	w.choose("counter", "on")
	w.db.Exec(`ALTER TABLE conversations ALTER COLUMN member_count DROP NOT NULL, ADD CONSTRAINT counted CHECK (member_count >= 0)`)
	w.db.Exec(`UPDATE conversations SET member_count = CASE name WHEN 'c1' THEN 1 WHEN 'c2' THEN 10 END`)
	w.must(w.run())
	got := testdb.One[string](w.db, `SELECT string_agg(coalesce(member_count::text, 'null'), ' ' ORDER BY name) FROM conversations`)
	if got != "0 6 null" {
		t.Errorf("member_count is %s", got)
	}
}

// A count that a trigger or a rule keeps from being changed is not passed over: the member stays with it.
func TestCountsKeptByOthers(t *testing.T) {
	for kind, keeps := range map[string]string{
		"trigger": "CREATE TRIGGER keeps BEFORE UPDATE ON conversations FOR EACH ROW WHEN (old.name = 'c1') EXECUTE FUNCTION keep_count()",
		"rule":    "CREATE RULE keeps AS ON UPDATE TO conversations WHERE old.name = 'c1' DO INSTEAD NOTHING",
	} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(20, 5)
			w.die(40, users[:2]...)
			w.counted("on")
			w.db.Exec(`CREATE FUNCTION keep_count() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
			w.db.Exec(keeps)
			w.db.Settle()
			r, err := w.run()
			if err == nil || !strings.Contains(err.Error(), "a trigger or rule keeps") || r.MembersDeleted != 0 || r.UsersBlocked != 2 {
				t.Errorf("%+v, %v", r, err)
			}
			w.right("run")
		})
	}
}

// A member whom somebody is just changing is not waited for while conversations are
// locked: it stays, and is not counted.
func TestCountsWaitForNoMember(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(20, 5)
	w.die(40, users[:4]...)
	w.counted("trigger")
	w.db.Settle()
	tx := w.inTheWay(`SELECT FROM conversation_members WHERE user_id = $1 AND conversation_id = (SELECT min(id::text)::uuid FROM conversations) FOR UPDATE`, users[0])
	r := w.must(w.run())
	if r.MembersDeleted != 19 || r.MembersChanged != 1 || r.UsersBlocked != 0 {
		t.Errorf("%+v", r)
	}
	w.commit(tx)
	w.right("run")
}

// A conversation that is being deleted meanwhile: its delete takes its members, of which a chunk
// has one. The chunk gives way, and the application's delete does not fail.
func TestCountsGiveWay(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(20, 5)
	w.die(40, users[:4]...)
	w.counted("on")
	w.db.Settle()
	tx := w.inTheWay(`SELECT FROM conversations WHERE name = 'c3' FOR UPDATE`)
	var once sync.Once
	w.observer = &watcher{retried: func(cause string) {
		if cause == "deadlock" {
			t.Error("met a deadlock")
		}
		once.Do(func() {
			w.exec(tx, `DELETE FROM conversations WHERE name = 'c3'`)
			w.commit(tx)
		})
	}}
	r := w.must(w.run())
	if r.MembersDeleted != 4*4 || r.MembersChanged != 4 || r.UsersBlocked != 0 {
		t.Errorf("%+v", r)
	}
	w.right("run")
}

// A chunk that takes long waits for no conversation at all: who deletes one may wait for the
// chunk's members by now, and is the one who fails where PostgreSQL finds both waiting after a second.
func TestCountsOfASlowChunk(t *testing.T) {
	w := newWorld(t)
	w.people(2, 3)
	w.counted("on")
	w.inTheWay(`SELECT FROM conversations WHERE name = 'c2' FOR UPDATE`)
	for age, says := range map[string]string{"0": "lock timeout", "0.8": "could not obtain lock on row"} {
		// A transaction is as old as that, however slow the machine is.
		w.db.Exec(`CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS $$ SELECT now() + interval '` + age + ` s' $$`)
		w.db.Pool.Reset()
		_, err := w.db.Pool.Exec(t.Context(), `SELECT orphan_cleaner.conversation_members_counts((SELECT jsonb_agg(jsonb_build_array(id, 1)) FROM conversations), -1)`)
		if database.Code(err) != database.LockNotAvailable || !strings.Contains(err.Error(), says) {
			t.Errorf("%s s old: %v", age, err)
		}
	}
}

// What an approval covered and what it did not are two parts of a chunk.
func TestCountsOfTwoParts(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(40, 10)
	w.missingFor(40, users[:10]...)
	w.counted("on")
	w.db.Exec(`UPDATE orphan_cleaner.candidates SET approved_run = 1 WHERE user_id = ANY ($1)`, users[:5])
	if r := w.must(w.run()); r.MembersDeleted != 100 {
		t.Errorf("%+v", r)
	}
	w.right("run")
}

// owned makes the conversations of people owned, each by one of the users in turn, and
// gives each an admin, who is not the oldest member.
func (w *world) owned(owners []uuid.UUID, admin uuid.UUID) {
	w.t.Helper()
	w.db.Exec(`UPDATE conversation_members AS m SET role = 'owner'
		FROM (SELECT id, row_number() OVER (ORDER BY name) AS n FROM conversations) AS c
		WHERE m.conversation_id = c.id AND m.user_id = ($1::uuid[])[1 + c.n % cardinality($1)]`, owners)
	w.db.Exec(`UPDATE conversation_members SET role = 'admin', joined_at = joined_at + interval '1 hour' WHERE user_id = $1`, admin)
}

const (
	ownerless = `conversations AS c WHERE NOT EXISTS (SELECT FROM conversation_members AS m WHERE m.conversation_id = c.id AND m.role = 'owner')`
	roles     = `(SELECT conversation_id, user_id, role FROM conversation_members) AS m`
)

// Without a choice what is lost is counted, before the delete: in a dry run, the result and
// the run's row.
func TestOwnersReported(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(20, 6)
	w.die(40, users[:4]...)
	w.owned([]uuid.UUID{users[0], users[1], users[10]}, users[12]) // two conversations each
	// In one of them there is a second owner; one has no living member; one is on hold.
	w.db.Exec(`UPDATE conversation_members SET role = 'owner' WHERE user_id = $1 AND conversation_id = (SELECT m.conversation_id FROM conversation_members AS m WHERE m.user_id = $2 AND m.role = 'owner' ORDER BY 1 LIMIT 1)`, users[11], users[0])
	w.db.Exec(`INSERT INTO conversations (name) VALUES ('empty soon')`)
	w.db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, role, joined_at) SELECT id, $1, 'owner', now() - interval '90 days' FROM conversations WHERE name = 'empty soon'`, users[2])
	w.db.Exec(`INSERT INTO orphan_cleaner.holds (conversation_id, reason) SELECT m.conversation_id, 'test' FROM conversation_members AS m WHERE m.user_id = $1 AND m.role = 'owner' ORDER BY 1 LIMIT 1`, users[1])
	w.cfg.DryRun = true
	dry := w.must(w.run())
	w.cfg.DryRun = false
	r := w.must(w.run())
	for what, got := range map[string]outcome{"dry run": dry, "run": r} {
		if got.OwnersLost != 2 || got.ConversationsEmptied != 1 {
			t.Errorf("%s: %d conversations lose their owner, %d their last member", what, got.OwnersLost, got.ConversationsEmptied)
		}
	}
	if n := w.db.Count(ownerless); n != 3 {
		t.Errorf("%d conversations without an owner", n)
	}
	if n := w.db.Count("orphan_cleaner.runs WHERE owners_lost = 2 AND conversations_emptied = 1"); n != 1 {
		t.Error("the run's row does not say so")
	}
}

// The last owner stays, whoever the others are, and is counted as held; of two who are due one stays.
func TestOwnersKept(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(20, 6)
	w.die(40, users[:4]...)
	w.owned([]uuid.UUID{users[0], users[10]}, users[12]) // three conversations each
	w.db.Exec(`UPDATE conversation_members SET role = 'owner' WHERE user_id = $1 AND conversation_id = (SELECT m.conversation_id FROM conversation_members AS m WHERE m.user_id = $2 AND m.role = 'owner' ORDER BY 1 LIMIT 1)`, users[1], users[0])
	w.choose("owners", "keep")
	w.counted("on")
	w.cfg.DryRun = true
	dry := w.must(w.run())
	w.cfg.DryRun = false
	r := w.must(w.run())
	if dry.MembersHeld != 2 || r.MembersHeld != 2 || r.MembersDeleted != 4*6-3 || r.MembersChanged != 1 || r.OwnersLost != 0 || r.OwnersKept != 3 || dry.OwnersKept != 3 {
		t.Errorf("%+v", r)
	}
	if n := w.db.Count(ownerless); n != 0 {
		t.Errorf("%d conversations without an owner", n)
	}
	w.right("run")
	again := w.must(w.run())
	if again.MembersDeleted != 0 || again.MembersHeld != 3 || again.UsersBlocked != 0 {
		t.Errorf("%+v", again)
	}
	back := w.restored(r.RunID)
	w.db.Exec("DELETE FROM orphan_cleaner.hours")
	if so := w.reverted(back); so.MembersReverted != r.MembersDeleted {
		t.Errorf("%+v", so)
	}
	if n := w.db.Count(ownerless); n != 0 {
		t.Errorf("%d conversations without an owner after the revert", n)
	}
	w.right("revert")
}

// A last owner who is deleted has a successor: the oldest admin, else the oldest member, and
// nobody who is missing. A restore takes that back, and its revert makes it so again.
func TestOwnersPromoted(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(20, 6)
	w.die(40, users[:4]...)
	w.missingFor(3, users[5])
	w.owned([]uuid.UUID{users[0], users[1]}, users[12])
	w.db.Exec(`UPDATE conversation_members SET role = 'member' WHERE user_id = $1 AND conversation_id IN (SELECT id FROM conversations WHERE name IN ('c1', 'c2'))`, users[12])
	w.db.Exec(`UPDATE conversation_members SET joined_at = joined_at - interval '2 days' WHERE user_id = $1`, users[5])
	w.db.Exec(`UPDATE conversation_members SET joined_at = joined_at - interval '1 day' WHERE user_id = $1`, users[7])
	before := w.db.Snapshot(roles)
	w.choose("owners", "promote")
	w.counted("on")
	r := w.must(w.run())
	if r.MembersDeleted != 24 || r.OwnersLost != 6 {
		t.Fatalf("%+v", r)
	}
	successors := func(when string) {
		t.Helper()
		for user, want := range map[uuid.UUID]int64{users[12]: 4, users[7]: 2} {
			if n := w.db.Count("conversation_members WHERE role = 'owner' AND user_id = $1", user); n != want {
				t.Errorf("%s: a successor owns %d conversations, not %d", when, n, want)
			}
		}
		if n := w.db.Count("conversation_members WHERE role = 'owner'"); n != 6 {
			t.Errorf("%s: %d owners", when, n)
		}
	}
	successors("run")
	if n := w.db.Count("orphan_cleaner.promotions WHERE run_id = $1 AND role_before = 'admin' AND undone_by_run IS NULL", r.RunID); n != 4 {
		t.Errorf("%d promotions of admins are recorded", n)
	}
	back := w.restored(r.RunID)
	if diff := before.Diff(w.db.Snapshot(roles)); diff != "" {
		t.Errorf("after the restore:\n%s", diff)
	}
	w.db.Exec("DELETE FROM orphan_cleaner.hours")
	w.reverted(back)
	successors("revert")
	w.right("revert")
	events := testdb.One[string](w.db, `SELECT string_agg(run_id || ' ' || kind || ' ' || n, ', ' ORDER BY run_id, kind) FROM (
		SELECT run_id, 'promoted' AS kind, count(*) AS n FROM orphan_cleaner.promotions GROUP BY 1
		UNION ALL SELECT undone_by_run, 'undone', count(*) FROM orphan_cleaner.promotions WHERE undone_by_run IS NOT NULL GROUP BY 1) AS p`)
	if want := fmt.Sprintf("%d promoted 6, %d undone 6, %d promoted 6", r.RunID, back, back+1); events != want {
		t.Errorf("%s, not %s", events, want)
	}
}

// What somebody has changed since is not taken back; where nobody living is left there is no
// successor.
func TestOwnersPromotedAndChanged(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(10, 2)
	w.die(40, users[0])
	w.owned(users[:1], users[5])
	w.choose("owners", "promote")
	w.db.Exec(`INSERT INTO conversations (name) VALUES ('of the dead')`)
	w.missingFor(3, users[1])
	w.db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, role, joined_at)
		SELECT id, u, CASE u WHEN $1 THEN 'owner' ELSE 'member' END, now() - interval '90 days' FROM conversations, unnest(ARRAY[$1, $2]::uuid[]) AS u WHERE name = 'of the dead'`, users[0], users[1])
	r := w.must(w.run())
	if n := w.db.Count("orphan_cleaner.promotions"); n != 2 || r.OwnersLost != 3 {
		t.Errorf("%d promotions of %d", n, r.OwnersLost)
	}
	w.db.Exec(`UPDATE conversation_members SET role = 'member' WHERE user_id = $1 AND conversation_id = (SELECT id FROM conversations WHERE name = 'c1')`, users[5])
	w.restored(r.RunID)
	if got := testdb.One[string](w.db, "SELECT string_agg(m.role, ' ' ORDER BY c.name) FROM conversation_members AS m JOIN conversations AS c ON c.id = m.conversation_id WHERE m.user_id = $1", users[5]); got != "member admin" {
		t.Errorf("the successor is %s", got)
	}
	// Nobody is told of a change that was none.
	if n := w.db.Count("orphan_cleaner.promotions WHERE undone_by_run IS NOT NULL AND undone_at IS NOT NULL"); n != 1 {
		t.Errorf("%d successors are told to be what they were, of one", n)
	}
}

// A successor who is deleted in turn, and has a successor: two restores bring back who owned what, in whatever order.
func TestOwnersPromotedInTurn(t *testing.T) {
	for name, first := range map[string]int{"oldest run first": 0, "newest run first": 1} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(10, 2)
			w.owned(users[:1], users[5])
			before := w.db.Snapshot(roles)
			w.choose("owners", "promote")
			var runs []int64
			for _, dies := range []uuid.UUID{users[0], users[5]} {
				w.missingFor(40, dies)
				r := w.must(w.run())
				if r.MembersDeleted != 2 || r.OwnersLost != 2 {
					t.Fatalf("%+v", r)
				}
				runs = append(runs, r.RunID)
			}
			back := []int64{w.restored(runs[first]), w.restored(runs[1-first])}
			if diff := before.Diff(w.db.Snapshot(roles)); diff != "" {
				t.Errorf("after the restores:\n%s", diff)
			}
			told := testdb.One[string](w.db, `SELECT string_agg(DISTINCT undone_by_run || ' ' || role_before, ', ' ORDER BY undone_by_run || ' ' || role_before) FROM orphan_cleaner.promotions WHERE undone_at IS NOT NULL`)
			want := fmt.Sprintf("%d member, %d admin", back[0], back[1])
			if first == 0 { // while the first successor is away, nothing becomes of his role
				want = fmt.Sprintf("%d admin, %[1]d member", back[1])
			}
			if told != want {
				t.Errorf("told: %s, not %s", told, want)
			}
		})
	}
}

// A promotion that a trigger keeps from being made is not passed over: the owner stays.
func TestOwnersPromotionKeptByOthers(t *testing.T) {
	for kind, body := range map[string]string{"kept": "RETURN NULL", "changed": "new.role := old.role; RETURN new"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(20, 3)
			w.die(40, users[:3]...)
			w.owned(users[:1], users[5])
			w.choose("owners", "promote")
			w.db.Exec(`CREATE FUNCTION keep_role() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN ` + body + `; END'`)
			w.db.Exec(`CREATE TRIGGER keeps BEFORE UPDATE OF role ON conversation_members FOR EACH ROW EXECUTE FUNCTION keep_role()`)
			w.db.Settle()
			r, err := w.run()
			if err == nil || !strings.Contains(err.Error(), "a trigger or rule keeps") || r.MembersDeleted != 2*3 || r.UsersBlocked != 1 {
				t.Errorf("%+v, %v", r, err)
			}
			if n := w.db.Count(ownerless); n != 0 || w.db.Count("orphan_cleaner.promotions") != 0 {
				t.Errorf("%d conversations without an owner", n)
			}
		})
	}
}

// A role may be of an enum, which may know no admin.
func TestOwnersOfAnEnum(t *testing.T) {
	for _, choice := range []string{"keep", "promote"} {
		t.Run(choice, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(20, 3)
			w.die(40, users[:3]...)
			w.owned(users[:1], users[5])
			w.db.Script(`UPDATE conversation_members SET role = 'member' WHERE role = 'admin';
				CREATE TYPE member_role AS ENUM ('member', 'owner');
				ALTER TABLE conversation_members ALTER COLUMN role DROP DEFAULT;
				ALTER TABLE conversation_members DROP CONSTRAINT IF EXISTS conversation_members_role_check;
				ALTER TABLE conversation_members ALTER COLUMN role TYPE member_role USING role::member_role;
				ALTER TABLE conversation_members_backup ALTER COLUMN role TYPE member_role USING role::member_role`)
			w.choose("owners", choice)
			before := w.db.Snapshot(roles)
			r := w.must(w.run())
			if want := map[string]int64{"keep": 6, "promote": 9}[choice]; r.MembersDeleted != want || w.db.Count(ownerless) != 0 {
				t.Fatalf("%+v", r)
			}
			w.restored(r.RunID)
			if diff := before.Diff(w.db.Snapshot(roles)); diff != "" {
				t.Errorf("after the restore:\n%s", diff)
			}
		})
	}
}
