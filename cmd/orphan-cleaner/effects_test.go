package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// Until somebody has chosen, check warns, and shows how wrong counts are; then it names what is
// missing for what was chosen, and a run does nothing before that is there.
func TestEffects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 20, 3)
	w.Roles(rolesFile)
	run := slices.Concat(w.env, []string{"DATABASE_URL=" + w.Login(runner)})
	w.Exec("UPDATE conversations AS c SET member_count = (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)")
	w.Exec("UPDATE conversations SET member_count = member_count + 4 WHERE id = (SELECT min(id::text)::uuid FROM conversations)")
	is(t, findings(t, run, exitDone), "member-count", "warn", "nobody has chosen", "sample 1 have a wrong member_count: 4 members too many, 0 too few, 4 at most in one", "effects set counter=on")
	if e := program(t, w.env, "effects").expect(t, exitDone); strings.Count(e.stdout, "not chosen") != 2 {
		t.Errorf("%s", e)
	}

	for _, wrong := range []string{"counter", "counter=", "counter=yes", "owners=on", "member_count=on", "=on"} {
		if e := program(t, w.env, "effects", "set", "owners=keep", wrong).expect(t, exitUsage); !strings.Contains(e.stderr, "is no choice: counter=on") || strings.Count(e.stderr, "\n") != 1 {
			t.Errorf("%s: %s", wrong, e)
		}
	}
	if n := w.Count("orphan_cleaner.effects"); n != 0 {
		t.Errorf("what was refused chose %d", n)
	}

	program(t, w.env, "effects", "set", "counter=on", "owners=promote").expect(t, exitDone)
	found := findings(t, run, exitFailed)
	is(t, found, "counter", "FAIL", "lacks SELECT (member_count), UPDATE (member_count) ON public.conversations", "psql -f sql/roles.sql", "GRANT SELECT (member_count), UPDATE (member_count) ON public.conversations TO orphan_cleaner_owner")
	is(t, found, "owners", "FAIL", "UPDATE (role) ON public.conversation_members")
	if e := program(t, run, "run").expect(t, exitFailed); !strings.Contains(e.stderr, "psql -f sql/roles.sql") || w.Count("conversation_members_backup") != 0 {
		t.Errorf("%s", e)
	}
	w.Roles(rolesFile)
	found = findings(t, run, exitDone)
	is(t, found, "counter", "ok", "runs and restores keep member_count")
	is(t, found, "owners", "ok", "another member becomes owner")
	is(t, found, "member-count", "warn", "1 have a wrong member_count", "member_counts.sql")
	w.Exec("UPDATE conversations AS c SET member_count = (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)")
	is(t, findings(t, run, exitDone), "member-count", "ok")

	// Two that keep the count, and none.
	w.Exec(`CREATE FUNCTION count_members() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		UPDATE conversations SET member_count = member_count - 1 WHERE id = old.conversation_id; RETURN NULL; END $$`)
	w.Exec("CREATE TRIGGER count_members AFTER DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION count_members()")
	is(t, findings(t, run, exitDone), "counter", "warn", "so does a trigger, it seems: count_members", "effects set counter=trigger")
	program(t, w.env, "effects", "set", "counter=trigger").expect(t, exitDone)
	is(t, findings(t, run, exitDone), "counter", "ok", "count_members")
	w.Exec("DROP TRIGGER count_members ON conversation_members")
	is(t, findings(t, run, exitDone), "counter", "warn", "none that fires at a delete names it")
	program(t, w.env, "effects", "set", "counter=on").expect(t, exitDone)
	for kind, says := range map[string]string{"text": "is of type text", "integer GENERATED ALWAYS AS (5) STORED": "is generated"} {
		w.Exec("ALTER TABLE conversations DROP COLUMN member_count, ADD COLUMN member_count " + kind)
		w.Roles(rolesFile)
		is(t, findings(t, run, exitFailed), "counter", "FAIL", "conversations.member_count "+says)
	}
	w.Exec("ALTER TABLE conversations DROP COLUMN member_count")
	is(t, findings(t, run, exitFailed), "counter", "FAIL", "conversations has no column member_count", "effects set counter=unread")
	w.Exec("DELETE FROM orphan_cleaner.effects")
	is(t, findings(t, run, exitDone), "member-count", "ok", "conversations has no column member_count")

	// A role that can be no owner.
	program(t, w.env, "effects", "set", "owners=promote").expect(t, exitDone)
	w.Exec("CREATE TYPE rank AS ENUM ('member', 'boss')")
	for kind, says := range map[string]string{"rank": "of type public.rank, which has no owner", "text GENERATED ALWAYS AS ('owner') STORED": "generated"} {
		w.Exec("ALTER TABLE conversation_members DROP COLUMN role, ADD COLUMN role " + kind)
		w.Roles(rolesFile)
		is(t, findings(t, run, exitFailed), "owners", "FAIL", "conversation_members.role is "+says, "effects set owners=report")
	}
	w.Exec("ALTER TYPE rank RENAME VALUE 'boss' TO 'owner'")
	w.Exec("ALTER TABLE conversation_members DROP COLUMN role, ADD COLUMN role rank")
	w.Exec("ALTER TABLE conversation_members_backup ALTER COLUMN role TYPE rank USING NULL")
	w.Roles(rolesFile)
	is(t, findings(t, run, exitDone), "owners", "ok", "another member becomes owner")
}

// Each choice, by itself, is complete after roles.sql: check is green, and the runner's run deletes an
// owner's member. A lock takes the right to update a column, whether or not there is the one that is changed.
func TestEffectsEachByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 60, 6)
	w.Roles(rolesFile)
	run := w.envOf(w.Login(runner))
	young := "UPDATE conversation_members SET joined_at = now(), role = 'member'"
	w.Exec(young)
	for i, c := range []struct{ before, choice string }{
		{young, "counter=on"},
		{young, "counter=trigger"},
		{"UPDATE conversation_members SET role = 'owner' WHERE user_id = md5('user 9')::uuid", "owners=keep"},
		{young, "owners=promote"},
		{"ALTER TABLE conversations DROP COLUMN member_count", "owners=promote"},
		{"ALTER TABLE conversations ADD COLUMN member_count integer; ALTER TABLE conversation_members DROP COLUMN role;" +
			"ALTER TABLE conversation_members_backup RENAME COLUMN role TO retired_role", "counter=trigger"},
	} {
		w.Exec("DELETE FROM orphan_cleaner.effects")
		w.Exec("REVOKE UPDATE ON conversations, conversation_members FROM orphan_cleaner_owner")
		w.Exec(c.before)
		program(t, w.env, "effects", "set", c.choice).expect(t, exitDone)
		w.Roles(rolesFile)
		w.Exec("UPDATE conversation_members SET joined_at = now() - interval '60 days' WHERE user_id = $1", w.dead[i])
		if testdb.One[bool](w.DB, "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'conversation_members'::regclass AND attname = 'role')") {
			w.Exec("UPDATE conversation_members SET role = 'owner' WHERE user_id = $1", w.dead[i])
		}
		w.Settle()
		if e := program(t, run, "run", "--json"); e.status != exitDone || e.result(t)["members_deleted"] != 1.0 {
			t.Errorf("%s: %s", c.choice, e)
		}
	}
}

// Whoever empties the shadow table may delete messages: check says so.
func TestShadowKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, 1)
	is(t, findings(t, w.env, exitDone), "shadow-keys", "ok")
	w.Exec("CREATE TABLE messages (id uuid PRIMARY KEY, sender_id uuid CONSTRAINT messages_sender REFERENCES users (id) ON DELETE CASCADE)")
	is(t, findings(t, w.env, exitDone), "shadow-keys", "warn", "messages by messages_sender ON DELETE CASCADE", "docs/effects.md")
}

// Whose last owner is deleted is shown before the delete and after it, everywhere.
func TestOwnersShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 40, 5)
	w.Exec("UPDATE conversation_members AS m SET role = 'owner' WHERE user_id = $1", w.dead[0])
	w.Settle()
	owned := w.Count("conversation_members WHERE user_id = $1", w.dead[0])
	line := fmt.Sprintf("conversations that lost their last owner: %d\n", owned)
	if e := program(t, w.env, "run", "--dry-run").expect(t, exitDone); !regexp.MustCompile(fmt.Sprintf(`conversations that lose their last owner +\S* +\S? +%d`, owned)).MatchString(e.stdout) {
		t.Errorf("%s", e)
	}
	w.Exec("INSERT INTO orphan_cleaner.effects (name, choice) VALUES ('owners', 'keep')")
	if e := program(t, w.env, "run", "--dry-run").expect(t, exitDone); !strings.Contains(e.stdout, "conversations whose last owner stays") || strings.Contains(e.stdout, "lose their last owner") {
		t.Errorf("%s", e)
	}
	w.Exec("DELETE FROM orphan_cleaner.effects")
	today := "--since=" + time.Now().UTC().Format(time.DateOnly)
	program(t, w.env, "run").expect(t, exitDone)
	for _, args := range [][]string{{"status"}, {"report", today}} {
		if e := program(t, w.env, args...).expect(t, exitDone); !strings.Contains(e.stdout, line) {
			t.Errorf("%s", e)
		}
	}
	if e := program(t, w.env, "report", today, "--json").expect(t, exitDone); !strings.Contains(e.stdout, fmt.Sprintf(`"owners_lost": %d`, owned)) {
		t.Errorf("%s", e)
	}
}
