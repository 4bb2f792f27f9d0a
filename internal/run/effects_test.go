package run_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

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

func (w *world) restorer() *restore.Restorer {
	w.t.Helper()
	cfg := restore.DefaultConfig()
	var err error
	if cfg.Settings, err = w.cfg.JSON(); err != nil {
		w.t.Fatal(err)
	}
	return restore.New(w.db.Pool, slog.New(slog.NewTextHandler(w, nil)), cfg)
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
			w.cfg.ChunkRows, w.cfg.BatchSize = 100, 20
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

// A member whom somebody is just changing is not waited for while conversations are
// locked: it stays, and is not counted.
func TestCountsWaitForNoMember(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(20, 5)
	w.die(40, users[:4]...)
	w.counted("on")
	w.db.Settle()
	tx := w.inTheWay(`SELECT FROM conversation_members WHERE user_id = $1 AND conversation_id = (SELECT min(id::text)::uuid FROM conversations) FOR UPDATE`, users[0])
	r := w.must(w.run())
	if r.MembersDeleted != 19 || r.MembersChanged != 1 || r.UsersBlocked != 0 {
		t.Errorf("%+v", r)
	}
	w.commit(tx)
	w.right("run")
}

// What an approval covered and what it did not are two parts: conversations are locked
// once in a transaction, whatever is in both.
func TestCountsOfTwoParts(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(40, 10)
	w.missingFor(40, users[:10]...)
	w.counted("on")
	w.db.Exec(`UPDATE orphan_cleaner.candidates SET approved_run = 1 WHERE user_id = ANY ($1)`, users[:5])
	chunks := 0
	w.observer = &watcher{chunkDone: func() { chunks++ }}
	r := w.must(w.run())
	if r.MembersDeleted != 100 || chunks != 2 {
		t.Errorf("%d members in %d transactions", r.MembersDeleted, chunks)
	}
	if left := w.db.Count(`orphan_cleaner.candidates`); left != 0 {
		t.Errorf("%d users are still in the ledger", left)
	}
	w.right("run")
}
