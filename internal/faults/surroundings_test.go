package faults

import (
	"fmt"
	"strings"
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
	ruleKeeps = `CREATE RULE keep AS ON DELETE TO conversation_members WHERE old.user_id = '%s' DO INSTEAD NOTHING`
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
