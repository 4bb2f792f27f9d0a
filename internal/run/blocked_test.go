package run_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// Something in the database refuses to delete the rows of two users, in different
// halves of a chunk: everybody else is cleaned, in this run and in the next.
func TestBlockedUsers(t *testing.T) {
	trigger := func(body string) func(w *world, culprits []uuid.UUID) {
		return func(w *world, culprits []uuid.UUID) {
			w.db.Exec(fmt.Sprintf(`CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$
				BEGIN IF OLD.user_id IN ('%s', '%s') THEN %s END IF; RETURN OLD; END $$`, culprits[0], culprits[1], body))
			w.db.Exec(`CREATE TRIGGER keep BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.keep()`)
		}
	}
	for name, c := range map[string]struct {
		block func(w *world, culprits []uuid.UUID)
		says  string
		lift  string
	}{
		"by a foreign key": {
			block: func(w *world, culprits []uuid.UUID) {
				w.db.Exec(`CREATE TABLE pins (conversation_id uuid, user_id uuid,
					CONSTRAINT pins_member_fkey FOREIGN KEY (conversation_id, user_id) REFERENCES conversation_members (conversation_id, user_id) ON DELETE RESTRICT)`)
				w.db.Exec(`INSERT INTO pins SELECT conversation_id, user_id FROM conversation_members WHERE user_id = ANY ($1)`, culprits)
			},
			says: "pins_member_fkey", lift: `DROP TABLE pins`,
		},
		"by a trigger that raises": {
			block: trigger(`RAISE EXCEPTION 'legal hold';`), says: "legal hold", lift: `DROP TRIGGER keep ON conversation_members`,
		},
		"by a trigger that keeps the row": {
			block: trigger(`RETURN NULL;`), says: "a trigger or rule keeps them", lift: `DROP TRIGGER keep ON conversation_members`,
		},
		"by a trigger that makes it an update": {
			block: trigger(`UPDATE conversation_members SET is_muted = true WHERE conversation_id = OLD.conversation_id AND user_id = OLD.user_id; RETURN NULL;`),
			says:  "a trigger or rule keeps them", lift: `DROP TRIGGER keep ON conversation_members`,
		},
		"by a deferred foreign key": {
			block: func(w *world, culprits []uuid.UUID) {
				w.db.Exec(`CREATE TABLE pins (conversation_id uuid, user_id uuid,
					CONSTRAINT pins_member_fkey FOREIGN KEY (conversation_id, user_id) REFERENCES conversation_members DEFERRABLE INITIALLY DEFERRED)`)
				w.db.Exec(`INSERT INTO pins SELECT conversation_id, user_id FROM conversation_members WHERE user_id = ANY ($1)`, culprits)
			},
			says: "pins_member_fkey", lift: `DROP TABLE pins`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(300, 2)
			w.missingFor(40, users[:40]...)
			culprits := []uuid.UUID{users[3], users[20]}
			c.block(w, culprits)
			before := w.db.Snapshot(`conversation_members WHERE user_id = ANY ($1)`, culprits)

			blocked := func(deleted int64) {
				t.Helper()
				r, err := w.run()
				if !errors.Is(err, run.ErrIncomplete) || r.State != "incomplete" || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, %+v", err, r)
				}
				if r.UsersBlocked != 2 || r.MembersBlocked != 4 || r.MembersDeleted != deleted || r.MembersDue != deleted+4 {
					t.Errorf("%+v", r)
				}
				if diff := before.Diff(w.db.Snapshot(`conversation_members WHERE user_id = ANY ($1)`, culprits)); diff != "" {
					t.Errorf("the members of the culprits: %s", diff)
				}
				if n := testdb.One[int64](w.db, `SELECT users_blocked FROM orphan_cleaner.runs WHERE run_id = $1`, r.RunID); n != 2 {
					t.Errorf("%d blocked users on record", n)
				}
			}
			blocked(76)
			w.invariant(76)
			for _, culprit := range culprits {
				if !strings.Contains(w.logged(), "users=1 first="+culprit.String()) {
					t.Errorf("%s is not named", culprit)
				}
			}
			if n := w.db.Count(`orphan_cleaner.candidates`); n != 2 || w.db.Count(`orphan_cleaner.candidates WHERE user_id = ANY ($1)`, culprits) != 2 {
				t.Errorf("%d candidates, not the two culprits", n)
			}
			// They do not keep those who are due next.
			w.missingFor(40, users[40:50]...)
			blocked(20)
			w.invariant(96)
			w.db.Exec(c.lift)
			if r := w.must(w.run()); r.MembersDeleted != 4 {
				t.Errorf("with nothing in the way: %+v", r)
			}
			w.invariant(100)
		})
	}
}

// What keeps everybody's rows ends the run before it has tried each user.
func TestEverybodyIsBlocked(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	w.cfg.BatchSize = 10
	users := w.people(600, 1)
	w.missingFor(40, users[:500]...)
	// Made after preflight, which would have found it.
	w.observer = &watcher{phaseDone: func(phase string) {
		if phase == "preflight" {
			w.db.Exec(`CREATE RULE keep AS ON DELETE TO conversation_members DO INSTEAD NOTHING`)
		}
	}}
	r, err := w.run()
	if !errors.Is(err, run.ErrIncomplete) || !strings.Contains(err.Error(), "stopped") || r.UsersBlocked < 100 || r.UsersBlocked > 110 {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
}
