package migrations_test

import (
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/migrate"
)

const alterMembers = "ALTER TABLE public.conversation_members "

// A table that no run could work on is refused by the first migration, which changes
// nothing, in one line that says why; what its hint begins with is the whole cure.
func TestRefusesShapes(t *testing.T) {
	t.Parallel()
	const noKey = "ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_pkey; "
	for name, c := range map[string]struct{ shape, says, hint string }{
		"a time without zone": {
			"ALTER TABLE conversation_members ALTER joined_at TYPE timestamp",
			"joined_at is timestamp without time zone, not timestamp with time zone: young members could be deleted",
			alterMembers + "ALTER COLUMN joined_at TYPE timestamptz USING joined_at::timestamp AT TIME ZONE 'UTC'",
		},
		"a date": {
			"ALTER TABLE conversation_members ALTER joined_at TYPE date", "joined_at is date",
			alterMembers + "ALTER COLUMN joined_at TYPE timestamptz USING joined_at::timestamp AT TIME ZONE 'UTC'",
		},
		"milliseconds": {
			"ALTER TABLE conversation_members ALTER joined_at DROP DEFAULT, ALTER joined_at TYPE bigint USING 0", "joined_at is bigint",
			alterMembers + "ALTER COLUMN joined_at TYPE timestamptz USING to_timestamp(joined_at / 1000.0)",
		},
		"no joined_at": {"ALTER TABLE conversation_members RENAME joined_at TO another", "joined_at is missing", alterMembers + "RENAME COLUMN another TO joined_at"},
		"last_read_at without zone": {
			"ALTER TABLE conversation_members ALTER last_read_at TYPE timestamp", "last_read_at is timestamp without time zone",
			alterMembers + "ALTER COLUMN last_read_at TYPE timestamptz USING last_read_at::timestamp AT TIME ZONE 'UTC'",
		},
		"last_read_at in milliseconds": {
			"ALTER TABLE conversation_members ALTER last_read_at TYPE bigint USING 0", "last_read_at is bigint",
			alterMembers + "ALTER COLUMN last_read_at TYPE timestamptz USING to_timestamp(last_read_at / 1000.0)",
		},
		"users by text": {
			"ALTER TABLE conversation_members ALTER user_id TYPE text", "user_id is text, not uuid: auth-service knows users by UUID",
			alterMembers + "ALTER COLUMN user_id TYPE uuid USING user_id::uuid",
		},
		"users by number": {"ALTER TABLE conversation_members ALTER user_id TYPE bigint USING 1", "user_id is bigint, not uuid", ""},
		"a domain over a domain": {
			"CREATE DOMAIN id AS uuid; CREATE DOMAIN user_key AS id; ALTER TABLE conversation_members ALTER user_id TYPE user_key",
			"user_id is public.user_key, not uuid", alterMembers + "ALTER COLUMN user_id TYPE uuid USING user_id::uuid",
		},
		"conversations by text": {
			"ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_conversation_id_fkey, ALTER conversation_id TYPE text",
			"conversation_id is text, not uuid", alterMembers + "ALTER COLUMN conversation_id TYPE uuid USING conversation_id::uuid",
		},
		"a column with capitals": {`ALTER TABLE conversation_members RENAME user_id TO "userId"`, "user_id is missing", ""},
		"members of no conversation": {
			noKey + "ALTER TABLE conversation_members ADD UNIQUE (conversation_id, user_id), ALTER conversation_id DROP NOT NULL",
			"conversation_id is nullable or generated", alterMembers + "ALTER COLUMN conversation_id SET NOT NULL",
		},
		"a generated user": {
			noKey + `ALTER TABLE conversation_members DROP user_id, ADD owner text;
				ALTER TABLE conversation_members ADD user_id uuid GENERATED ALWAYS AS (owner::uuid) STORED, ADD PRIMARY KEY (user_id, conversation_id)`,
			"user_id is nullable or generated", alterMembers + "ALTER COLUMN user_id DROP EXPRESSION",
		},
		"no key":                  {noKey, "no unique key on (conversation_id, user_id)", alterMembers + "ADD PRIMARY KEY (conversation_id, user_id)"},
		"a key of something else": {noKey + "ALTER TABLE conversation_members ADD PRIMARY KEY (conversation_id, user_id, joined_at)", "no unique key", ""},
		"half a key":              {noKey + "CREATE UNIQUE INDEX ON conversation_members (conversation_id, user_id) WHERE is_muted", "no unique key", ""},
		"an expression":           {noKey + "CREATE UNIQUE INDEX ON conversation_members (conversation_id, (user_id::text))", "no unique key", ""},
		"a deferrable key":        {noKey + "ALTER TABLE conversation_members ADD PRIMARY KEY (conversation_id, user_id) DEFERRABLE", "the constraint public.conversation_members_pkey is deferrable", ""},
		"another deferrable key": {
			"ALTER TABLE conversation_members ADD rank int, ADD CONSTRAINT ranks UNIQUE (conversation_id, rank) DEFERRABLE INITIALLY DEFERRED",
			"the constraint public.ranks is deferrable", "",
		},
		"a run_id":       {"ALTER TABLE conversation_members ADD run_id text", "run_id is the name of a column that the backup has itself", "rename run_id"},
		"a backed_up_at": {"ALTER TABLE conversation_members ADD backed_up_at text", "backed_up_at is the name", "rename backed_up_at"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, m := upTo(t, 0)
			db.Exec(c.shape)
			before := dump(t, db)
			_, err := m.Up(t.Context())
			wantState(t, err, raised)
			if text := err.Error(); !strings.Contains(text, "refusing to migrate: conversation_members: "+c.says) || strings.Contains(text, "\n") {
				t.Errorf("the refusal does not say %q in one line: %v", c.says, err)
			}
			if !strings.HasPrefix(hint(err), c.hint) || hint(err) == "" {
				t.Errorf("the hint is %q, not %q", hint(err), c.hint)
			}
			sameDump(t, "after a refusal", before, dump(t, db))
			if strings.HasPrefix(c.hint, "ALTER") {
				db.Exec(c.hint)
				if _, err := m.Up(t.Context()); err != nil {
					t.Errorf("after %s: %v", c.hint, err)
				}
			}
		})
	}
}

// So are a database that is another one, one whose names are taken, and a login that could not go through with it.
func TestRefusesBeforeTheFirstChange(t *testing.T) {
	t.Parallel()
	const noKey = "ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_conversation_id_fkey; "
	taken := func(name string) string {
		return "there already, and not by these migrations: " + name
	}
	for name, c := range map[string]struct{ made, says, hint string }{
		"no conversations":      {noKey + "DROP TABLE conversations", "public.conversations has no column id of type uuid", "messaging-service's database"},
		"conversations by text": {noKey + "ALTER TABLE conversations ALTER id TYPE text", "public.conversations has no column id of type uuid", "messaging-service's database"},
		"an audit":              {"CREATE TABLE conversation_members_audit (id bigint)", taken("public.conversation_members_audit"), "rename or drop"},
		"a list":                {"CREATE VIEW deleted_members_list AS SELECT 1 AS one", taken("public.deleted_members_list"), "rename or drop"},
		"two":                   {"CREATE SEQUENCE conversation_members_backup; CREATE TABLE conversation_members_user_id ()", taken("public.conversation_members_backup, public.conversation_members_user_id"), "rename or drop"},
		"another index":         {"CREATE INDEX conversation_members_user_id ON conversation_members (role, user_id)", taken("public.conversation_members_user_id"), "rename or drop"},
		"a trigger": {
			`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
				CREATE TRIGGER conversation_members_audit_delete AFTER DELETE ON conversation_members EXECUTE FUNCTION note()`,
			taken("trigger conversation_members_audit_delete"), "rename or drop",
		},
		"a table of somebody else's": {"", "is not the owner of public.conversation_members, role postgres is", "GRANT postgres TO "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, m := upTo(t, 0)
			if c.made == "" {
				login := "stranger_" + db.Name
				db.Exec("CREATE ROLE " + login + " LOGIN; GRANT ALL ON SCHEMA public TO PUBLIC; GRANT ALL ON DATABASE " + db.Name + " TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC")
				t.Cleanup(func() { db.Exec("DROP OWNED BY " + login + "; DROP ROLE " + login) })
				theirs, err := migrate.Open(t.Context(), db.URLAs(login), migrate.Embedded())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = theirs.Close() })
				m = theirs
			} else {
				db.Exec(c.made)
			}
			_, err := m.Up(t.Context())
			wantState(t, err, raised)
			if text := err.Error(); !strings.Contains(text, "refusing to migrate: ") || !strings.Contains(text, c.says) || !strings.Contains(hint(err), c.hint) {
				t.Errorf("%v; hint: %s", err, hint(err))
			}
			if v := version(t, m); v != 0 || db.Count("pg_namespace WHERE nspname = 'orphan_cleaner'") != 0 {
				t.Errorf("at version %d", v)
			}
		})
	}
}
