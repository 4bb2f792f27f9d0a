package faults

import (
	"fmt"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
)

// rowsKept: something in the database keeps the members of one user. Everybody
// else is cleaned.
func rowsKept(keep, shows, lift string) func(w *world) {
	return func(w *world) {
		w.exec(fmt.Sprintf(keep, w.dead[3]))
		e := w.run()
		w.expect(e, want{exit: 1, state: "incomplete", shows: shows, gone: some})
		r, err := e.result()
		if err != nil || r.UsersBlocked != 1 || r.MembersDeleted != due+1-perUser {
			w.t.Errorf("%d users blocked and %d members deleted, want 1 and %d (%v)", r.UsersBlocked, r.MembersDeleted, due+1-perUser, err)
		}
		if !strings.Contains(e.stderr, "first="+w.dead[3].String()) {
			w.t.Errorf("the user is not named: %s", e)
		}
		w.exec(lift)
		w.converges()
	}
}

// ruleKept: a rule made in mid-run keeps the members of one user, and the next run
// does not begin.
func ruleKept(w *world) {
	e := w.after("checked-again", func() {
		w.exec(fmt.Sprintf(`CREATE RULE keep AS ON DELETE TO conversation_members WHERE old.user_id = '%s' DO INSTEAD NOTHING`, w.dead[3]))
	})
	w.expect(e, want{exit: 1, state: "incomplete", shows: "a trigger or rule keeps them", gone: some})
	w.expect(w.run(), want{exit: 1, state: "failed", shows: "keep ON DELETE DO INSTEAD", gone: some})
	w.exec(`DROP RULE keep ON conversation_members`)
	w.converges()
}

// rowsHidden: a policy hides half of the members from everybody but their owner, in
// mid-run and before one, until the owner of our functions may see all.
func rowsHidden(w *world) {
	cluster := w.ownCluster(pgtemp.Options{})
	w.asCleaner()
	w.roles(cluster)
	e := w.after("begin", func() {
		w.exec(`CREATE POLICY half ON conversation_members USING (user_id < '80000000-0000-0000-0000-000000000000')`)
		w.exec(`ALTER TABLE conversation_members ENABLE ROW LEVEL SECURITY`)
	})
	w.expect(e, want{exit: 1, state: "failed", shows: "role orphan_cleaner_owner, whose functions a run calls", gone: nothing})
	w.exec(`ALTER TABLE conversation_members DISABLE ROW LEVEL SECURITY`)
	e = w.after("preflight", func() { w.exec(`ALTER TABLE conversation_members ENABLE ROW LEVEL SECURITY`) })
	w.expect(e, want{exit: 1, state: "failed", shows: "query would be affected by row-level security policy", gone: nothing})

	w.exec(`ALTER ROLE orphan_cleaner_owner BYPASSRLS`)
	w.roles(cluster) // which takes it
	e = w.run()
	w.expect(e, want{exit: 0, state: "succeeded", shows: "count those that role cleaner sees", gone: all})
	w.holds("I4")
}

// What keeps the members of a user, named by %s.
const (
	triggerKeeps = `CREATE FUNCTION witness.keep() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN IF old.user_id = '%s' THEN RAISE EXCEPTION 'kept for accounting'; END IF; RETURN old; END$$;
		CREATE TRIGGER keep BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION witness.keep()`
	triggerSwallows = `CREATE FUNCTION witness.keep() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN IF old.user_id = '%s' THEN RETURN NULL; END IF; RETURN old; END$$;
		CREATE TRIGGER keep BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION witness.keep()`
	keyKeeps = `CREATE TABLE witness.notes (conversation_id uuid, user_id uuid,
			CONSTRAINT notes_fkey FOREIGN KEY (conversation_id, user_id) REFERENCES conversation_members);
		INSERT INTO witness.notes SELECT conversation_id, user_id FROM conversation_members WHERE user_id = '%s'`
)

// hostileDefaults: what the database sets for every session does not reach a run.
func hostileDefaults(setting string) func(w *world) {
	return func(w *world) {
		// What the client sets is stronger than what the database does.
		w.pool = open(w.t, w.url+"&statement_timeout=0&default_transaction_read_only=off")
		w.setForDatabase(setting)
		w.expect(w.run(), want{exit: 0, state: "succeeded", gone: all})
		w.lastRun()
		w.holds("I4")
	}
}
