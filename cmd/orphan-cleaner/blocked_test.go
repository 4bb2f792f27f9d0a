package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// An approval that a run used settles the refusal, also where one of its users is blocked: nothing of it is left to
// approve. The refusal names its own number.
func TestApprovedAndBlocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Exec(`CREATE TABLE pins (conversation_id uuid, user_id uuid, FOREIGN KEY (conversation_id, user_id) REFERENCES conversation_members (conversation_id, user_id))`)
	w.Exec(`INSERT INTO pins SELECT conversation_id, user_id FROM conversation_members WHERE user_id = $1`, w.dead[4])
	strict := append(slices.Clone(w.env), "ORPHAN_CLEANER_MAX_DELETE_ROWS=1")
	if e := program(t, strict, "run").expect(t, exitRefused); !strings.Contains(e.stderr, "orphan-cleaner approve 1, once") {
		t.Errorf("%s", e)
	}
	if e := program(t, strict, "status").expect(t, exitDone); !strings.Contains(e.stdout, "REFUSED run 1, not settled yet") {
		t.Errorf("%s", e)
	}
	program(t, w.env, "approve", "1", "--yes").expect(t, exitDone)
	program(t, strict, "run").expect(t, exitFailed)
	if e := program(t, strict, "status").expect(t, exitDone); strings.Contains(e.stdout, "REFUSED run 1") || !strings.Contains(strings.ToLower(e.stdout), "blocked") {
		t.Errorf("%s", e)
	}
}

// Who is blocked, by which constraint, in the server's words and since when: in the
// result, the log, status and report, until the rows are deleted.
func TestBlockedIsShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Exec(`CREATE TABLE pins (conversation_id uuid, user_id uuid,
		CONSTRAINT pins_member_fkey FOREIGN KEY (conversation_id, user_id) REFERENCES conversation_members (conversation_id, user_id))`)
	w.Exec(`INSERT INTO pins SELECT conversation_id, user_id FROM conversation_members WHERE user_id = $1`, w.dead[4])
	user := w.dead[4].String()
	for _, command := range []string{"status", "report"} {
		if e := program(t, w.env, command).expect(t, exitDone); strings.Contains(strings.ToLower(e.stdout), "blocked:") {
			t.Errorf("somebody is blocked before the first run: %s", e)
		}
		if got := program(t, w.env, command, "--json").expect(t, exitDone).object(t)["blocked"]; len(list(t, got)) != 0 {
			t.Errorf("%s: %v", command, got)
		}
	}

	says := map[string]string{
		"user_id": user, "sqlstate": "23503", "constraint": "pins_member_fkey", "table": "public.pins", "query": "RunSweepChunk",
	}
	isTheOne := func(entry map[string]any) bool {
		for key, want := range says {
			if entry[key] != want {
				return false
			}
		}
		return entry["rows"] == 1.0 && strings.Contains(entry["detail"].(string), user) && strings.HasSuffix(entry["detail"].(string), `is still referenced from table "pins".`)
	}
	e := program(t, append(w.env, "ORPHAN_CLEANER_LOG_FORMAT=json"), "run", "--json").expect(t, exitFailed)
	got := e.result(t)
	if blocked := list(t, got["blocked"]); len(blocked) != 1 || !isTheOne(blocked[0]) || got["users_blocked"] != 1.0 || got["members_deleted"] != 14.0 {
		t.Errorf("%s", e)
	}
	if said, is := got["database_error"].(map[string]any); !is || said["constraint"] != "pins_member_fkey" || said["sqlstate"] != "23503" {
		t.Errorf("%v", got["database_error"])
	}
	logged := false
	for line := range strings.Lines(e.stderr) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if entry["first"] == user {
			delete(says, "user_id")
			logged = isTheOne(entry)
			says["user_id"] = user
		}
	}
	if !logged {
		t.Errorf("not in the log: %s", e.stderr)
	}

	for _, command := range []string{"status", "report"} {
		blocked := list(t, program(t, w.env, command, "--json").expect(t, exitDone).object(t)["blocked"])
		if len(blocked) != 1 || !isTheOne(blocked[0]) || !strings.HasPrefix(blocked[0]["blocked_since"].(string), "20") {
			t.Errorf("%s: %v", command, blocked)
		}
		e := program(t, w.env, command).expect(t, exitDone)
		for _, pattern := range []string{
			user + ` +1 +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d +pins_member_fkey +public\.pins`,
			`(?m)^` + user + `: .* \(SQLSTATE 23503\); detail: Key .*` + user,
			`(?m)^BLOCKED: 1 users; everybody else is cleaned`,
		} {
			if !regexp.MustCompile(pattern).MatchString(e.stdout) {
				t.Errorf("%s has no line like %s: %s", command, pattern, e.stdout)
			}
		}
	}
	if r := w.report(t, "--since="+testdb.One[string](w.DB, "SELECT (now() AT TIME ZONE 'UTC')::date::text")); r.Total.UsersBlocked != 1 {
		t.Errorf("%+v", r.Total)
	}

	w.Exec("DROP TABLE pins")
	if got := program(t, w.env, "run", "--json").expect(t, exitDone).result(t); len(list(t, got["blocked"])) != 0 || got["members_deleted"] != 1.0 || got["database_error"] != nil {
		t.Errorf("%v", got)
	}
	if got := program(t, w.env, "status", "--json").expect(t, exitDone).object(t)["blocked"]; len(list(t, got)) != 0 {
		t.Errorf("%v", got)
	}
}

// list is a list of objects, which is never null.
func list(t *testing.T, value any) (objects []map[string]any) {
	t.Helper()
	elements, is := value.([]any)
	if !is {
		t.Fatalf("%v is no list", value)
	}
	for _, element := range elements {
		objects = append(objects, element.(map[string]any))
	}
	return objects
}

// A trigger of the application on members needs rights of its own under the owner role:
// the message has the very GRANT, it is enough, and roles.sql leaves it alone.
func TestTriggerNeedsAGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Exec(`UPDATE conversations AS c SET member_count = (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)`)
	w.Exec(`CREATE FUNCTION public.count_members() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN UPDATE conversations SET member_count = member_count - 1 WHERE id = OLD.conversation_id; RETURN NULL; END $$`)
	w.Exec(`CREATE TRIGGER count_members AFTER DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.count_members()`)
	w.Roles(rolesFile)
	env := w.envOf(w.Login(runner))

	e := program(t, env, "run").expect(t, exitFailed)
	grant := regexp.MustCompile(`a trigger of the application runs as role orphan_cleaner_owner: (GRANT SELECT, UPDATE ON conversations TO orphan_cleaner_owner)`).FindStringSubmatch(e.stderr)
	if grant == nil || !strings.Contains(e.stderr, "permission denied for table conversations (SQLSTATE 42501)") || strings.Contains(e.stderr, "GRANT orphan_cleaner_runner") {
		t.Fatalf("%s", e)
	}
	w.Exec(grant[1])
	w.Roles(rolesFile)
	if got := program(t, env, "run", "--json").expect(t, exitDone).result(t); got["members_deleted"] != 15.0 {
		t.Errorf("%v", got)
	}
	if n := w.Count(`conversations AS c WHERE member_count <> (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)`); n != 0 {
		t.Errorf("%d conversations have a wrong count", n)
	}
}

// What the application's triggers name and is not there is no reason to migrate; and
// a grant that the owner of our functions lacks itself comes with roles.sql.
func TestHintsLeadSomewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Exec(`CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.badges; RETURN NULL; END $$`)
	w.Exec(`CREATE TRIGGER tell AFTER DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.tell()`)
	if e := program(t, w.env, "run").expect(t, exitFailed); !strings.Contains(e.stderr, `public.badges\" does not exist (SQLSTATE 42P01); query: RunSweepChunk; where: PL/pgSQL function tell() line 1 at SQL statement`) || strings.Contains(e.stderr, "migrate up") {
		t.Errorf("%s", e)
	}
	w.Exec(`DROP TRIGGER tell ON conversation_members`)
	w.Roles(rolesFile)
	w.Exec(`REVOKE DELETE ON conversation_members FROM orphan_cleaner_owner`)
	e := program(t, w.envOf(w.Login(runner)), "run").expect(t, exitFailed)
	if !strings.Contains(e.stderr, "role orphan_cleaner_owner, whose functions a run calls, lacks DELETE on conversation_members; hint: psql -f sql/roles.sql") || strings.Contains(e.stderr, "GRANT orphan_cleaner_runner") {
		t.Errorf("%s", e)
	}

	// Another database than messaging-service's.
	empty := testdb.NewEmpty(t)
	for _, command := range []string{"status", "report", "hold list", "resume", "prune", "limits", "approve 1 --yes"} {
		e := program(t, []string{"DATABASE_URL=" + empty.URL}, strings.Fields(command)...).expect(t, exitFailed)
		if !strings.Contains(e.stderr, "orphan-cleaner migrate up") && !strings.Contains(e.stderr, "point DATABASE_URL") || strings.Count(e.stderr, "\n") != 1 {
			t.Errorf("%s: %s", command, e)
		}
	}
}
