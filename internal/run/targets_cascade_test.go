package run_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

// A delete that would delete rows of another target, by a trigger or a cascade that nobody
// declared, takes its chunk back: the user is blocked, and nobody who lives loses a row.
func TestNoDeleteReachesAnotherTarget(t *testing.T) {
	for name, made := range map[string]string{
		"a trigger":          `CREATE TRIGGER unfollow BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.unfollow()`,
		"a deferred trigger": `CREATE CONSTRAINT TRIGGER unfollow AFTER DELETE ON conversation_members DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.unfollow()`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newContent(t)
			users := w.people(60, 1)
			w.like(90, 3, users[:4]...)
			w.db.Exec(`CREATE TABLE follows AS SELECT $1::uuid AS user_id, post_id FROM likes WHERE user_id = $2`, users[0], users[3]) // the likes of a user who lives
			w.db.Exec(`CREATE FUNCTION public.unfollow() RETURNS trigger LANGUAGE plpgsql AS $$
				BEGIN
					DELETE FROM public.likes WHERE post_id IN (SELECT post_id FROM public.follows WHERE user_id = OLD.user_id);
					RETURN OLD;
				END $$`)
			w.db.Exec(made)
			living := w.db.Snapshot(`likes WHERE user_id = $1`, users[3])
			w.die(40, users[:2]...)
			r, err := w.run()
			if !errors.Is(err, run.ErrIncomplete) || r.UsersBlocked != 1 || len(r.Blocked) != 1 || r.Blocked[0].UserID != users[0] {
				t.Errorf("%v, %+v", err, r)
			}
			if diff := living.Diff(w.db.Snapshot(`likes WHERE user_id = $1`, users[3])); diff != "" {
				t.Errorf("somebody who lives lost rows:\n%s", diff)
			}
			if got, want := target(r, "conversation_members"), (result.Target{Name: "conversation_members", RowsDue: 2, RowsDeleted: 1, RowsBlocked: 1}); got != want {
				t.Errorf("%+v, not %+v", got, want)
			}
			w.invariant(1)
		})
	}
}

// Rows of a table that got a column, which its backup has not, are not deleted: no run begins, and
// one that had begun ends.
func TestTargetWithANewColumn(t *testing.T) {
	w := newContent(t)
	users := w.people(60, 2)
	w.like(90, 3, users[:2]...)
	w.die(40, users[0])
	client, added := w.client(), sync.OnceFunc(func() { w.db.Exec(`ALTER TABLE likes ADD COLUMN note text DEFAULT 'of value'`) })
	r, err := w.runWith(t.Context(), checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		added()
		return client.Missing(ctx, ids)
	}))
	if err == nil || errors.Is(err, run.ErrIncomplete) || r.UsersBlocked != 0 || !strings.Contains(err.Error(), "other columns than those that its backup was printed for") || w.likesOf(users[0]) != 3 || w.membersOf(users[0]) != 2 || target(r, "likes").RowsDeleted != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	if _, err = w.run(); !errors.Is(err, run.ErrPreflight) || !strings.Contains(err.Error(), "target likes: column note is new") {
		t.Errorf("%v", err)
	}
	w.evidence(0)
	w.invariant(0)
}
