package run_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// Something in the database refuses to delete the rows of two users, in different
// halves of a chunk: everybody else is cleaned, in this run and in the next.
func TestBlockedUsers(t *testing.T) {
	type kind struct {
		block      func(w *world, culprits []uuid.UUID)
		says       string
		lift       string
		sqlstate   string
		constraint string
	}
	restricted := "23503"
	if testdb.New(t).Cluster().Version() >= 18 {
		restricted = "23001"
	}
	trigger := func(body string) func(w *world, culprits []uuid.UUID) {
		return func(w *world, culprits []uuid.UUID) {
			w.db.Exec(fmt.Sprintf(`CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$
				BEGIN IF OLD.user_id IN ('%s', '%s') THEN %s END IF; RETURN OLD; END $$`, culprits[0], culprits[1], body))
			w.db.Exec(`CREATE TRIGGER keep BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.keep()`)
		}
	}
	pins := func(onDelete string) func(w *world, culprits []uuid.UUID) {
		return func(w *world, culprits []uuid.UUID) {
			w.db.Exec(`CREATE TABLE pins (conversation_id uuid, user_id uuid,
				CONSTRAINT pins_member_fkey FOREIGN KEY (conversation_id, user_id) REFERENCES conversation_members (conversation_id, user_id) ` + onDelete + `)`)
			w.db.Exec(`INSERT INTO pins SELECT conversation_id, user_id FROM conversation_members WHERE user_id = ANY ($1)`, culprits)
		}
	}
	raising := func(code string) kind {
		return kind{
			block: trigger(`RAISE EXCEPTION 'legal hold' USING ERRCODE = '` + code + `', DETAIL = 'case 7';`), says: "legal hold (SQLSTATE " + code + "); detail: case 7",
			lift: `DROP TRIGGER keep ON conversation_members`, sqlstate: code,
		}
	}
	kinds := map[string]kind{
		"by a foreign key":                {block: pins(`ON DELETE RESTRICT`), says: "; constraint: pins_member_fkey; table: public.pins; query: RunSweepChunk", lift: `DROP TABLE pins`, constraint: "pins_member_fkey", sqlstate: restricted},
		"by a foreign key without action": {block: pins(``), says: "; constraint: pins_member_fkey; table: public.pins; query: RunSweepChunk", lift: `DROP TABLE pins`, constraint: "pins_member_fkey", sqlstate: "23503"},
		"by a foreign key at COMMIT": {
			block: pins(`DEFERRABLE INITIALLY DEFERRED`), says: `is still referenced from table "pins".; constraint: pins_member_fkey; table: public.pins; query: RunSweepChunk`,
			lift: `DROP TABLE pins`, constraint: "pins_member_fkey", sqlstate: "23503",
		},
		"by a trigger at COMMIT": {
			block: func(w *world, culprits []uuid.UUID) {
				trigger(`RAISE EXCEPTION 'too late' USING ERRCODE = 'OC001';`)(w, culprits)
				w.db.Exec(`DROP TRIGGER keep ON conversation_members`)
				w.db.Exec(`CREATE CONSTRAINT TRIGGER keep AFTER DELETE ON conversation_members DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.keep()`)
			},
			says: "too late (SQLSTATE OC001); query: RunSweepChunk", lift: `DROP TRIGGER keep ON conversation_members`, sqlstate: "OC001",
		},
		"by a trigger that keeps the row": {
			block: trigger(`RETURN NULL;`), says: "a trigger or rule keeps them", lift: `DROP TRIGGER keep ON conversation_members`, sqlstate: "OC006",
		},
		"by a trigger that makes it an update": {
			block: trigger(`UPDATE conversation_members SET is_muted = true WHERE conversation_id = OLD.conversation_id AND user_id = OLD.user_id; RETURN NULL;`),
			says:  "a trigger or rule keeps them", lift: `DROP TRIGGER keep ON conversation_members`, sqlstate: "OC006",
		},
		"by a trigger that puts the row back": {
			block: func(w *world, culprits []uuid.UUID) {
				trigger(`INSERT INTO conversation_members SELECT OLD.*;`)(w, culprits)
				w.db.Exec(`DROP TRIGGER keep ON conversation_members`)
				w.db.Exec(`CREATE TRIGGER keep AFTER DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.keep()`)
			},
			says: "a trigger puts them back", lift: `DROP TRIGGER keep ON conversation_members`, sqlstate: "OC006",
		},
	}
	// Whatever the application's own triggers raise is not taken for the server's word or ours.
	for _, code := range []string{"P0001", "OC001", "OC002", "OC003", "OC005", "40001", "40P01", "57014", "55P03", "25P02", "25006", "08006", "57P01", "53100", "XX000"} {
		kinds["by a trigger that raises "+code] = raising(code)
	}
	for name, c := range kinds {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(300, 2)
			w.missingFor(40, users[:40]...)
			culprits := []uuid.UUID{users[3], users[20]}
			c.block(w, culprits)
			before := w.db.Snapshot(`conversation_members WHERE user_id = ANY ($1)`, culprits)

			var since []time.Time
			blocked := func(deleted int64) {
				t.Helper()
				r, err := w.run()
				if len(r.Blocked) != 2 || r.DatabaseError == nil || r.DatabaseError.SQLState != c.sqlstate {
					t.Fatalf("%v, %+v: %+v", err, r, r.DatabaseError)
				}
				for _, user := range r.Blocked {
					if !slices.Contains(culprits, user.UserID) || user.Rows != 2 || user.SQLState != c.sqlstate || user.Constraint != c.constraint {
						t.Errorf("%+v", user)
					}
				}
				// The ledger keeps who, what the server said, and since when.
				marks := testdb.One[[]time.Time](w.db, `SELECT array_agg(blocked_since ORDER BY user_id) FROM orphan_cleaner.candidates
					WHERE user_id = ANY ($1) AND blocked_by ->> 'sqlstate' = $2 AND coalesce(blocked_by ->> 'constraint', '') = $3 AND blocked_by ->> 'rows' = '2'`,
					culprits, c.sqlstate, c.constraint)
				if since == nil {
					since = marks
				}
				if len(marks) != 2 || !slices.EqualFunc(marks, since, time.Time.Equal) || w.db.Count(`orphan_cleaner.candidates WHERE blocked_since IS NOT NULL`) != 2 {
					t.Errorf("blocked since %v, first %v", marks, since)
				}
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
				if !regexp.MustCompile(`users=1 first=` + culprit.String() + ` rows=2 error=".*` + regexp.QuoteMeta(c.says)).MatchString(strings.ReplaceAll(w.logged(), `\"`, `"`)) {
					t.Errorf("%s is not named with the cause: %s", culprit, w.logged())
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
			if w.db.Count(`orphan_cleaner.candidates`) != 0 {
				t.Error("somebody is left in the ledger")
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
	w.db.Exec(`CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
	w.db.Exec(`CREATE TRIGGER keep BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.keep()`)
	// The next run, which tries those known to be blocked last, ends as soon.
	for range 2 {
		r, err := w.run()
		if !errors.Is(err, run.ErrIncomplete) || !strings.Contains(err.Error(), "stopped") || r.UsersBlocked < 100 || r.UsersBlocked > 110 {
			t.Errorf("%v, %+v", err, r)
		}
		t.Logf("%d users blocked, %d calls", r.UsersBlocked, r.BatchCalls)
		if calls := r.BatchCalls - 60; calls > 450 {
			t.Errorf("%d calls in the sweep", calls)
		}
	}
	w.invariant(0)
}

// attempts counts how often a chunk was tried, whatever became of it.
func (w *world) attempts() func() int64 {
	w.t.Helper()
	w.db.Exec(`CREATE SEQUENCE public.attempts`)
	w.db.Exec(`CREATE FUNCTION public.attempt() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF current_setting('test.tried', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
				PERFORM nextval('public.attempts'), set_config('test.tried', pg_current_xact_id()::text, true);
			END IF;
			RETURN NULL;
		END $$`)
	w.db.Exec(`CREATE TRIGGER attempt BEFORE DELETE ON conversation_members FOR EACH STATEMENT EXECUTE FUNCTION public.attempt()`)
	var before int64
	return func() int64 {
		w.t.Helper()
		all := testdb.One[int64](w.db, `SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM public.attempts`)
		defer func() { before = all }()
		return all - before
	}
}

// Three of 5,000 cost the first run a search for each; the next ones a few calls, and
// the others none: they are in chunks of their own.
func TestWhatBlockedUsersCost(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(10_100, 1)
	w.missingFor(40, users[:5000]...)
	culprits := []uuid.UUID{users[17], users[2500], users[4999]}
	attempts := w.attempts()
	w.db.Exec(`CREATE TABLE pins (conversation_id uuid, user_id uuid,
		CONSTRAINT pins_member_fkey FOREIGN KEY (conversation_id, user_id) REFERENCES conversation_members (conversation_id, user_id))`)
	w.db.Exec(`INSERT INTO pins SELECT conversation_id, user_id FROM conversation_members WHERE user_id = ANY ($1)`, culprits)
	first, err := w.run()
	firstTries := attempts()
	if !errors.Is(err, run.ErrIncomplete) || first.UsersBlocked != 3 || first.MembersDeleted != 4997 {
		t.Errorf("%v, %+v", err, first)
	}
	forget := func() { // the rechecks, whose calls are not what this is about
		w.db.Exec(`UPDATE orphan_cleaner.coverage SET users = users - (SELECT count(*) FROM orphan_cleaner.rechecks)`)
		w.db.Exec(`DELETE FROM orphan_cleaner.rechecks`)
	}
	forget()
	w.missingFor(40, users[5000:9997]...)
	second, err := w.run()
	secondTries := attempts()
	if !errors.Is(err, run.ErrIncomplete) || second.UsersBlocked != 3 || second.MembersDeleted != 4997 {
		t.Errorf("%v, %+v", err, second)
	}
	w.db.Exec(`DROP TABLE pins`)
	forget()
	w.missingFor(40, users[9997:]...)
	third := w.must(w.run())
	if third.MembersDeleted != 106 {
		t.Errorf("%+v", third)
	}
	w.invariant(4997 + 4997 + 106)
	sweeps := func(r outcome) int64 { return r.BatchCalls - (r.UsersChecked+99)/100 }
	t.Logf("first run: %d calls in its sweep, chunks tried %d times; second: %d, %d; third, with nobody blocked: %d, %d",
		sweeps(first), firstTries, sweeps(second), secondTries, sweeps(third), attempts())
	// 50 calls are those of 4,997 users in whole batches; three users cost 5 more: all three, one, two, and each alone.
	if calls := sweeps(second); calls > 50+5 {
		t.Errorf("%d calls in the second sweep", calls)
	}
	if calls := sweeps(first); calls > 250 {
		t.Errorf("%d calls in the first sweep", calls)
	}
}

// What keeps the rows of many, but not of all, is not searched for without end. The
// next runs find the rest, and clean everybody else.
func TestManyAreBlocked(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(2600, 1)
	w.missingFor(40, users[:2500]...)
	attempts := w.attempts()
	w.db.Exec(`CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN IF OLD.user_id = ANY (ARRAY(SELECT user_id FROM public.kept)) THEN RAISE EXCEPTION 'kept'; END IF; RETURN OLD; END $$`)
	w.db.Exec(`CREATE TABLE public.kept (user_id uuid)`)
	w.db.Exec(`INSERT INTO public.kept SELECT unnest($1::uuid[])`, users[:450])
	w.db.Exec(`CREATE TRIGGER keep BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.keep()`)
	for n := 1; ; n++ {
		r, err := w.run()
		tries := attempts()
		t.Logf("run %d: %d of %d users blocked, %d calls, chunks tried %d times", n, r.UsersBlocked, r.UsersDue, r.BatchCalls, tries)
		if !errors.Is(err, run.ErrIncomplete) || tries > 3100 { // a thousand splits, and each alone once more
			t.Fatalf("%v, %d tries, %+v", err, tries, r)
		}
		if w.membersOf(users[450:2500]...) == 0 {
			break
		}
		if n == 10 {
			t.Fatal("somebody else is still there after ten runs")
		}
	}
	if w.membersOf(users[:450]...) != 450 {
		t.Error("a member was deleted that a trigger keeps")
	}
	w.invariant(2050)
}

// A trigger that raises every second time blocks nobody, and one that notifies
// the application is heard.
func TestMoodyTriggers(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(300, 1)
	w.missingFor(40, users[0])
	w.db.Exec(`CREATE SEQUENCE public.mood`)
	w.db.Exec(`CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN IF nextval('public.mood') % 2 = 1 THEN RAISE EXCEPTION 'not now'; END IF; RETURN NULL; END $$`)
	w.db.Exec(`CREATE TRIGGER keep AFTER DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.keep()`)
	if r := w.must(w.run()); r.MembersDeleted != 1 || r.UsersBlocked != 0 {
		t.Errorf("%+v", r)
	}
	w.invariant(1)
	w.db.Exec(`DROP TRIGGER keep ON conversation_members`)

	w.db.Exec(`CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('left', OLD.user_id::text); RETURN NULL; END $$`)
	w.db.Exec(`CREATE TRIGGER tell AFTER DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.tell()`)
	listener, err := w.db.Pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Release()
	if _, err := listener.Exec(t.Context(), `LISTEN "left"`); err != nil {
		t.Fatal(err)
	}
	w.missingFor(40, users[1])
	w.must(w.run())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if heard, err := listener.Conn().WaitForNotification(ctx); err != nil || heard.Payload != users[1].String() {
		t.Errorf("%v, %v", heard, err)
	}
	w.invariant(2)
}

// One user whose trigger takes too long is found, and keeps nobody else; a trigger that
// takes too long for everybody is tried a few times, and not for each. A cancel is what
// statement_timeout comes to, with no limit that others may reach on a slow machine.
func TestSlowTrigger(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(300, 2)
	w.missingFor(40, users[:40]...)
	attempts := w.attempts()
	w.db.Exec(fmt.Sprintf(`CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(60) WHERE OLD.user_id = '%s'; RETURN NULL; END $$`, users[20]))
	w.db.Exec(`CREATE TRIGGER wait AFTER DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.wait()`)
	r, err := w.run()
	if !errors.Is(err, run.ErrIncomplete) || r.UsersBlocked != 1 || r.MembersDeleted != 78 || r.Blocked[0].UserID != users[20] || r.Blocked[0].SQLState != "57014" ||
		r.Blocked[0].Where != "PL/pgSQL function wait() line 2 at PERFORM" {
		t.Errorf("%v, %+v", err, r)
	}
	t.Logf("one of 40: tried %d times", attempts())
	w.db.Exec(`CREATE OR REPLACE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(60); RETURN NULL; END $$`)
	w.missingFor(40, users[40:80]...)
	r, err = w.run()
	// Five for the forty, as before they were split; one or two for the one who is known.
	if tries := attempts(); !errors.Is(err, run.ErrIncomplete) || r.UsersBlocked != 41 || r.MembersDeleted != 0 || tries > 7 {
		t.Errorf("%d tries, %v, %+v", tries, err, r)
	}
	w.invariant(78)
}
