package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// surrounding is something around conversation_members, and what check says of it.
// Where it fails, a run ends before it has written anything.
type surrounding struct {
	made   []string // by the DBA or messaging-service
	name   string   // of the finding
	status string
	says   []string // in message or hint
	// fixed is the status once the hint's statements were run as they are printed; empty: it has none.
	fixed string
	since int // the version of PostgreSQL that has it; 0: each
}

const (
	deletesTooMuch = "delete or change rows there"
	pins           = `CREATE TABLE pins (conversation_id uuid DEFAULT gen_random_uuid(), user_id uuid DEFAULT gen_random_uuid(), CONSTRAINT pins_member_fkey
		FOREIGN KEY (conversation_id, user_id) REFERENCES conversation_members (conversation_id, user_id) `
	countMembers = `CREATE FUNCTION count_members() RETURNS trigger LANGUAGE plpgsql %s AS $$ BEGIN
		UPDATE conversations SET member_count = member_count - 1 WHERE id = old.conversation_id; RETURN NULL; END $$`
	countTrigger = `CREATE TRIGGER count_members AFTER DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION count_members()`
)

func surroundings(today string) map[string]surrounding {
	detach := "ALTER TABLE conversation_members_backup DETACH PARTITION " + today
	return map[string]surrounding{
		"row-level security without a policy": {
			made: []string{"ALTER TABLE conversation_members ENABLE ROW LEVEL SECURITY"}, fixed: "ok",
			name: "row-security", status: "FAIL", says: []string{"orphan_cleaner_owner", "BYPASSRLS", "DISABLE ROW LEVEL SECURITY"},
		},
		"row-level security that hides half": {
			made: []string{
				"ALTER TABLE conversation_members ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
				"CREATE POLICY half ON conversation_members USING (user_id < '80000000-0000-0000-0000-000000000000')",
			},
			name: "row-security", status: "FAIL", says: []string{"a part of the members"},
		},
		"row-level security of users, which tells since when they are gone": {
			made: []string{"ALTER TABLE users ENABLE ROW LEVEL SECURITY"}, fixed: "ok",
			name: "row-security", status: "FAIL", says: []string{"of users is on", "orphan_cleaner_owner", "ALTER TABLE public.users DISABLE ROW LEVEL SECURITY"},
		},
		"row-level security of conversations, which a restore looks for": {
			made: []string{"ALTER TABLE conversations ENABLE ROW LEVEL SECURITY", "CREATE POLICY groups ON conversations USING (kind = 'group')"}, fixed: "ok",
			name: "row-security", status: "FAIL", says: []string{"of conversations is on", "ALTER TABLE public.conversations DISABLE ROW LEVEL SECURITY"},
		},
		"a rule in place of the delete": {
			made: []string{"CREATE RULE keep AS ON DELETE TO conversation_members DO INSTEAD NOTHING"}, fixed: "ok",
			name: "rules", status: "FAIL", says: []string{"keep ON DELETE DO INSTEAD", "DROP RULE keep"},
		},
		"a rule in place of some deletes": {
			made: []string{"CREATE RULE keep AS ON DELETE TO conversation_members WHERE old.role = 'owner' DO INSTEAD NOTHING"},
			name: "rules", status: "FAIL", says: []string{"keep ON DELETE DO INSTEAD"},
		},
		"a rule on insert, which no restore passes": {
			made: []string{"CREATE RULE note AS ON INSERT TO conversation_members DO ALSO NOTHING"},
			name: "rules", status: "FAIL", says: []string{"note ON INSERT DO ALSO", "could not be restored"},
		},
		"a rule on update, which no restore passes": {
			made: []string{"CREATE RULE note AS ON UPDATE TO conversation_members DO INSTEAD NOTHING"},
			name: "rules", status: "FAIL", says: []string{"note ON UPDATE"},
		},
		"a rule beside the delete": {
			made: []string{"CREATE RULE note AS ON DELETE TO conversation_members DO ALSO NOTIFY members"},
			name: "rules", status: "warn", says: []string{"note ON DELETE DO ALSO"},
		},
		"a rule that is disabled": {
			made: []string{
				"CREATE RULE keep AS ON DELETE TO conversation_members DO INSTEAD NOTHING",
				"ALTER TABLE conversation_members DISABLE RULE keep",
			},
			name: "rules", status: "ok",
		},
		"a trigger before the delete": {
			made: []string{
				`CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN old; END $$`,
				`CREATE TRIGGER keep BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION keep()`,
			},
			name: "foreign-triggers", status: "warn", says: []string{"keep (BEFORE DELETE) may keep members, whose users are blocked then let their author"},
		},
		"a trigger before the insert": {
			made: []string{
				`CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.joined_at := now(); RETURN new; END $$`,
				`CREATE TRIGGER stamp BEFORE INSERT ON conversation_members FOR EACH ROW EXECUTE FUNCTION stamp()`,
			},
			name: "foreign-triggers", status: "warn", says: []string{"stamp (BEFORE INSERT) may keep or change what a restore inserts"},
		},
		"a trigger on a table of ours": {
			made: []string{
				`CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`,
				`CREATE TRIGGER lose BEFORE INSERT ON orphan_cleaner.candidates FOR EACH ROW EXECUTE FUNCTION lose()`,
				`CREATE RULE lose AS ON INSERT TO conversation_members_audit DO INSTEAD NOTHING`,
			}, fixed: "ok",
			name: "own-triggers", status: "FAIL", says: []string{"trigger lose on orphan_cleaner.candidates", "rule lose on public.conversation_members_audit", "could be lost"},
		},
		"a trigger on a table of ours, that only notes": {
			made: []string{
				`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`,
				`CREATE TRIGGER note AFTER INSERT ON conversation_members_backup FOR EACH ROW EXECUTE FUNCTION note()`,
			}, fixed: "ok",
			name: "own-triggers", status: "warn", says: []string{"trigger note on public.conversation_members_backup", "DROP TRIGGER note ON public.conversation_members_backup"},
		},
		"a trigger that maintains member_count": {
			made: []string{fmt.Sprintf(countMembers, ""), countTrigger}, fixed: "ok",
			name: "foreign-triggers", status: "warn", says: []string{"count_members (AFTER DELETE)", "lacks, UPDATE on public.conversations", "GRANT SELECT, UPDATE ON public.conversations TO orphan_cleaner_owner"},
		},
		"the same with the rights of its owner": {
			made: []string{fmt.Sprintf(countMembers, "SECURITY DEFINER SET search_path = public"), countTrigger},
			name: "foreign-triggers", status: "ok", says: []string{"count_members"},
		},
		"the same, disabled": {
			made: []string{fmt.Sprintf(countMembers, ""), countTrigger, "ALTER TABLE conversation_members DISABLE TRIGGER count_members"},
			name: "foreign-triggers", status: "ok", says: []string{"none"},
		},
		"a statement trigger that writes into another schema": {
			made: []string{
				"CREATE SCHEMA outbox", "CREATE TABLE outbox.events (n bigint)",
				`CREATE FUNCTION outbox.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO Outbox."events" SELECT count(*) FROM gone; RETURN NULL; END $$`,
				`CREATE TRIGGER note AFTER DELETE ON conversation_members REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION outbox.note()`,
			}, fixed: "ok",
			name: "foreign-triggers", status: "warn", says: []string{"INSERT on outbox.events", "GRANT USAGE ON SCHEMA outbox TO orphan_cleaner_owner"},
		},
		"a foreign key that cascades": {
			made: []string{pins + "ON DELETE CASCADE)"}, fixed: "warn",
			name: "foreign-keys", status: "FAIL", says: []string{"public.pins by pins_member_fkey ON DELETE CASCADE", deletesTooMuch},
		},
		"a foreign key that sets null": {
			made: []string{pins + "ON DELETE SET NULL (user_id))"}, fixed: "warn",
			name: "foreign-keys", status: "FAIL", says: []string{"ON DELETE SET NULL", deletesTooMuch},
		},
		"a foreign key that sets the default": {
			made: []string{pins + "ON DELETE SET DEFAULT)"}, fixed: "warn",
			name: "foreign-keys", status: "FAIL", says: []string{"ON DELETE SET DEFAULT", deletesTooMuch},
		},
		"a foreign key of a partitioned table that cascades": {
			made: []string{pins + "ON DELETE CASCADE) PARTITION BY HASH (user_id)", "CREATE TABLE pins_0 PARTITION OF pins FOR VALUES WITH (MODULUS 1, REMAINDER 0)"}, fixed: "warn",
			name: "foreign-keys", status: "FAIL", says: []string{"public.pins by pins_member_fkey"},
		},
		"a foreign key that restricts": {
			made: []string{pins + "ON DELETE RESTRICT)"},
			name: "foreign-keys", status: "warn", says: []string{"public.pins by pins_member_fkey ON DELETE RESTRICT", "blocked"},
		},
		"a foreign key that is not enforced": {
			made: []string{pins + "ON DELETE CASCADE NOT ENFORCED)"}, since: 18,
			name: "foreign-keys", status: "ok",
		},
		"a deferred foreign key": {
			made: []string{pins + "DEFERRABLE INITIALLY DEFERRED)"},
			name: "foreign-keys", status: "warn", says: []string{"ON DELETE NO ACTION"},
		},
		"children by inheritance": {
			made: []string{"CREATE TABLE old_members () INHERITS (conversation_members)"},
			name: "table-kind", status: "FAIL", says: []string{"inheritance"},
		},
		"a view in its place": {
			made: []string{"ALTER TABLE conversation_members RENAME TO members_v2", "CREATE VIEW conversation_members AS SELECT * FROM members_v2"},
			name: "table-kind", status: "FAIL", says: []string{"a view"},
		},
		"partitioned in mid-life": {
			made: []string{
				"ALTER TABLE conversation_members RENAME TO members_old",
				"CREATE TABLE conversation_members (LIKE members_old INCLUDING DEFAULTS) PARTITION BY HASH (user_id)",
			},
			name: "table-kind", status: "FAIL", says: []string{"partitioned"},
		},
		"no conversations any more, where a restore looks": {
			made: []string{"ALTER TABLE conversations RENAME TO rooms"},
			name: "shape", status: "FAIL", says: []string{"public.conversations has no column id of type uuid"},
		},
		"conversations that may not be read": {
			made: []string{"REVOKE ALL ON conversations FROM orphan_cleaner_owner"},
			name: "owner-grants", status: "FAIL", says: []string{"lacks SELECT on conversations (id)", "sql/roles.sql"},
		},
		"a column of users that may not be read": {
			made: []string{"REVOKE SELECT (created_at) ON users FROM orphan_cleaner_owner"},
			name: "owner-grants", status: "FAIL", says: []string{"lacks SELECT on users (id, created_at, deleted_at)", "sql/roles.sql"},
		},
		"users.deleted_at by day": {
			made: []string{"ALTER TABLE users ALTER deleted_at TYPE date"},
			name: "shadow-users", status: "warn", says: []string{"users.deleted_at is date", "every clock starts when a run first misses the user", "ALTER COLUMN deleted_at TYPE timestamptz"},
		},
		"users.deleted_at without a zone": {
			made: []string{"ALTER TABLE users ALTER deleted_at TYPE timestamp"}, fixed: "ok",
			name: "shadow-users", status: "warn", says: []string{"read as UTC", "AT TIME ZONE 'UTC'"},
		},
		"users whose ids are text": {
			made: []string{"ALTER TABLE users ALTER id TYPE text"},
			name: "shadow-users", status: "warn", says: []string{"users.id is text"},
		},
		"constraints that old rows break": {
			made: []string{
				"ALTER TABLE conversation_members ADD CONSTRAINT recent CHECK (joined_at > '2999-01-01') NOT VALID",
				"ALTER TABLE conversation_members ADD CONSTRAINT known FOREIGN KEY (user_id) REFERENCES users NOT VALID",
			},
			name: "constraints", status: "warn", says: []string{"known, recent", "could not be restored", "VALIDATE CONSTRAINT recent"},
		},
		"a sequence in its place": {
			made: []string{"ALTER TABLE conversation_members RENAME TO members_v2", "CREATE SEQUENCE conversation_members"},
			name: "table-kind", status: "FAIL", says: []string{"no table"},
		},
		"our trigger calls another function": {
			made: []string{
				"DROP TRIGGER conversation_members_audit_delete ON conversation_members",
				`CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`,
				"CREATE TRIGGER conversation_members_audit_delete AFTER DELETE ON conversation_members EXECUTE FUNCTION nothing()",
				"ALTER TABLE conversation_members ENABLE ALWAYS TRIGGER conversation_members_audit_delete",
			}, fixed: "ok",
			name: "conversation_members_audit_delete", status: "FAIL", says: []string{"not ours"},
		},
		"our triggers disabled and enabled again": {
			made:  []string{"ALTER TABLE conversation_members DISABLE TRIGGER ALL", "ALTER TABLE conversation_members ENABLE TRIGGER ALL"},
			fixed: "ok",
			name:  "conversation_members_refuse_truncate", status: "FAIL", says: []string{"is not ENABLE ALWAYS"},
		},
		"an index that keeps no order": {
			made: []string{"DROP INDEX conversation_members_user_id", "CREATE INDEX by_user ON conversation_members USING hash (user_id)"}, fixed: "ok",
			name: "index", status: "FAIL", says: []string{"no valid index", "btree"},
		},
		"the table swapped for a copy": {
			made: []string{
				"CREATE TABLE members_new (LIKE conversation_members INCLUDING ALL)", "INSERT INTO members_new SELECT * FROM conversation_members",
				"ALTER TABLE conversation_members RENAME TO members_old", "ALTER TABLE members_new RENAME TO conversation_members",
			},
			name: "conversation_members_audit_delete", status: "FAIL", says: []string{"is not there: dropped, or the table was swapped for a copy", "CREATE OR REPLACE TRIGGER"},
		},
		"a copy without grants": {
			made: []string{
				"CREATE TABLE members_new (LIKE conversation_members INCLUDING ALL)",
				"ALTER TABLE conversation_members RENAME TO members_old", "ALTER TABLE members_new RENAME TO conversation_members",
			},
			name: "owner-grants", status: "FAIL", says: []string{"orphan_cleaner_owner", "lacks SELECT, INSERT, DELETE", "sql/roles.sql"},
		},
		"a publication for all tables": {
			made: []string{"CREATE PUBLICATION everything FOR ALL TABLES"},
			name: "subscribers", status: "warn", says: []string{"everything", "each new partition"},
		},
		"a publication for the schema": {
			made: []string{"CREATE PUBLICATION everything FOR TABLES IN SCHEMA public"},
			name: "subscribers", status: "warn", says: []string{"everything"},
		},
		"a publication of the application's tables": {
			made: []string{"CREATE PUBLICATION theirs FOR TABLE conversations, conversation_members"},
			name: "subscribers", status: "ok",
		},
		"a published partition without a replica identity": {
			made: []string{"CREATE PUBLICATION everything FOR ALL TABLES", "ALTER TABLE " + today + " REPLICA IDENTITY DEFAULT"}, fixed: "ok",
			name: "replica-identity", status: "FAIL", says: []string{"public." + today + " by everything", "REPLICA IDENTITY FULL"},
		},
		"members published without a replica identity": {
			made: []string{"CREATE PUBLICATION theirs FOR TABLE conversation_members", "ALTER TABLE conversation_members REPLICA IDENTITY NOTHING"}, fixed: "ok",
			name: "replica-identity", status: "FAIL", says: []string{"public.conversation_members by theirs"},
		},
		"members published in part": {
			made: []string{"CREATE PUBLICATION theirs FOR TABLE conversation_members (conversation_id, user_id)"},
			name: "replica-identity", status: "ok",
		},
		"members published in part, without their key": {
			made: []string{"CREATE PUBLICATION theirs FOR TABLE conversation_members (conversation_id)"},
			name: "replica-identity", status: "FAIL", says: []string{"without a list of columns"},
		},
		"some members published, by a column outside of their key": {
			made: []string{"CREATE PUBLICATION theirs FOR TABLE conversation_members WHERE (role <> 'owner' AND user_id IS NOT NULL)"}, fixed: "ok",
			name: "replica-identity", status: "FAIL", says: []string{"public.conversation_members by theirs", "REPLICA IDENTITY FULL"},
		},
		"some members published, by their key": {
			made: []string{"CREATE PUBLICATION theirs FOR TABLE conversation_members WHERE (user_id <> '00000000-0000-0000-0000-000000000000')"},
			name: "replica-identity", status: "ok",
		},
		"inserts alone published": {
			made: []string{"CREATE PUBLICATION theirs FOR ALL TABLES WITH (publish = insert)", "ALTER TABLE conversation_members REPLICA IDENTITY NOTHING"},
			name: "replica-identity", status: "ok",
		},
		"today's partition detached": {
			made: []string{detach}, fixed: "ok",
			name: "partitions-detached", status: "FAIL", says: []string{today, "ATTACH PARTITION public." + today},
		},
		"an old partition detached": {
			made: []string{"CREATE TABLE conversation_members_backup_20200101 (LIKE conversation_members_backup)"}, fixed: "ok",
			name: "partitions-detached", status: "warn", says: []string{"conversation_members_backup_20200101", "RENAME TO conversation_members_backup_20200101_detached"},
		},
		"tables that only look like partitions": {
			made: []string{
				"CREATE TABLE conversation_members_backup_20250231 (n integer)", "CREATE TABLE conversation_members_audit_999999 (n integer)",
				"CREATE TABLE conversation_members_backup_old (n integer)", "CREATE TABLE conversation_members_backup_00000000 (n integer)",
			},
			name: "partitions-detached", status: "ok",
		},
		"row-level security by an event trigger": {
			made: []string{
				// What the event trigger does to each new table; here they are there already.
				`CREATE FUNCTION secure() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE made record; BEGIN
					FOR made IN SELECT object_identity FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP
						EXECUTE 'ALTER TABLE ' || made.object_identity || ' ENABLE ROW LEVEL SECURITY'; END LOOP; END $$`,
				"CREATE EVENT TRIGGER secure_tables ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION secure()",
				"ALTER TABLE orphan_cleaner_goose ENABLE ROW LEVEL SECURITY", "ALTER TABLE orphan_cleaner.pauses ENABLE ROW LEVEL SECURITY",
			},
			name: "own-row-security", status: "FAIL", says: []string{"2 of our tables", "secure_tables", "sql/roles.sql"},
		},
	}
}

// Whatever is around the table, check names it and what helps, and a run goes by it.
func TestSurroundings(t *testing.T) {
	t.Parallel()
	const today = "SELECT 'conversation_members_backup_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')"
	day := testdb.One[string](testdb.NewEmpty(t), today)
	for name, s := range surroundings(day) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 100, 3)
			if version := testdb.One[int](w.DB, "SELECT current_setting('server_version_num')::int / 10000"); version < s.since {
				t.Skipf("PostgreSQL %d has no such thing", version)
			}
			w.Roles(rolesFile)
			env := w.envOf(w.Login(runner))
			for _, statement := range s.made {
				w.Exec(statement)
			}
			w.Settle()
			before := w.Snapshot("conversation_members")
			status := exitDone
			if s.status == "FAIL" {
				status = exitFailed
			}
			found := findings(t, env, status)
			is(t, found, s.name, s.status, s.says...)
			if one := found["partitions-ahead"]; one != nil {
				t.Errorf("it also says: %v", one)
			}
			e := program(t, env, "run")
			switch {
			case s.status == "FAIL":
				e.expect(t, exitFailed)
				if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" || w.Count("orphan_cleaner.candidates") != 0 {
					t.Errorf("the run wrote:\n%s", diff)
				}
				if s.name == "table-kind" && !strings.Contains(e.stderr, "preflight failed: table-kind: ") {
					t.Errorf("the run names another cause first: %s", e)
				}
				if !strings.Contains(e.stderr, s.name+": ") && !strings.Contains(e.stderr, "check="+s.name) {
					t.Errorf("the run does not name %s: %s", s.name, e)
				}
			case s.name == "foreign-triggers" && slices.ContainsFunc(s.says, func(part string) bool { return strings.Contains(part, "GRANT") }):
				e.expect(t, exitFailed) // incomplete, until the grant
			case s.name == "shadow-users" && s.fixed == "":
				e.expect(t, exitDone) // nobody is due yet
			default:
				e.expect(t, exitDone)
				if n := w.Count("conversation_members"); n != int64(len(before)-len(w.dead)) {
					t.Errorf("%d members are left", n)
				}
			}
			if s.fixed == "" {
				return
			}
			for _, one := range found {
				if one["name"] == s.name || one["status"] == "FAIL" {
					w.follow(t, one["hint"])
				}
			}
			is(t, findings(t, env, exitDone), s.name, s.fixed)
			program(t, env, "run").expect(t, exitDone)
			if n := w.Count("conversation_members WHERE user_id = ANY ($1)", w.dead); n != 0 {
				t.Errorf("%d members are left after the hint", n)
			}
		})
	}
}

// follow runs the statements of a hint; where it names several ways, one of them.
func (w *world) follow(t *testing.T, hint string) {
	t.Helper()
	for _, statement := range strings.Split(hint, "; ") {
		statement, _, _ = strings.Cut(statement, ", or ALTER")
		// Of the whole cluster, which other tests share.
		if strings.Contains(statement, "BYPASSRLS") {
			continue
		}
		w.Exec(statement[strings.IndexFunc(statement, unicode.IsUpper):])
	}
}
