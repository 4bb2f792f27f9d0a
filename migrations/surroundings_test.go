package migrations_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// around is what surroundings() finds wrong, as "name status".
func around(t *testing.T, db *testdb.DB) []string {
	t.Helper()
	return names(t, db, "SELECT check_name || ' ' || status FROM orphan_cleaner.surroundings() WHERE status <> 'ok'")
}

// hintOf is the hint of a finding.
func hintOf(db *testdb.DB, name string) string {
	return testdb.One[string](db, "SELECT hint FROM orphan_cleaner.surroundings() WHERE check_name = $1", name)
}

// A table from which rows can be deleted by way of another is refused before the
// first change.
func TestOtherKindsOfTableAreRefused(t *testing.T) {
	t.Parallel()
	const away = "ALTER TABLE conversation_members RENAME TO members_old"
	for name, made := range map[string][]string{
		"by hash":        {away, "CREATE TABLE conversation_members (LIKE members_old INCLUDING DEFAULTS) PARTITION BY HASH (user_id)"},
		"by range":       {away, "CREATE TABLE conversation_members (LIKE members_old INCLUDING DEFAULTS) PARTITION BY RANGE (joined_at)"},
		"a partition":    {"CREATE TABLE everywhere (LIKE conversation_members) PARTITION BY HASH (user_id)", "ALTER TABLE everywhere ATTACH PARTITION conversation_members FOR VALUES WITH (MODULUS 2, REMAINDER 0)"},
		"with children":  {"CREATE TABLE members_old () INHERITS (conversation_members)"},
		"a child":        {"CREATE TABLE everywhere (LIKE conversation_members)", "ALTER TABLE conversation_members INHERIT everywhere"},
		"a view":         {away, "CREATE VIEW conversation_members AS SELECT * FROM members_old"},
		"a materialized": {away, "CREATE MATERIALIZED VIEW conversation_members AS SELECT * FROM members_old"},
		"a foreign table": {
			away, "CREATE FOREIGN DATA WRAPPER nowhere", "CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere",
			"CREATE FOREIGN TABLE conversation_members (conversation_id uuid, user_id uuid, role text, joined_at timestamptz) SERVER nowhere",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, m := upTo(t, 0)
			for _, statement := range made {
				db.Exec(statement)
			}
			before := dump(t, db)
			_, err := m.Up(t.Context())
			wantState(t, err, raised)
			if !strings.Contains(err.Error(), "conversation_members is partitioned, inherits, or is no table") || !strings.Contains(hint(err), "docs/surroundings.md") {
				t.Errorf("%v; %s", err, hint(err))
			}
			if v := version(t, m); v != 0 {
				t.Errorf("at version %d", v)
			}
			sameDump(t, "after the refusal", before, dump(t, db))
		})
	}
}

// distributed has the catalog say what Citus says of a distributed table. Citus itself is not
// here: this shows what is made of its catalog, not that the catalog is so.
func distributed(db *testdb.DB, table string) {
	db.Exec(fmt.Sprintf(`DO $$ BEGIN
		SET LOCAL allow_system_table_mods = on;
		CREATE TABLE pg_catalog.pg_dist_partition AS SELECT 'public.%s'::regclass AS logicalrelid, 'h'::"char" AS partmethod;
	END $$`, table))
}

// A table that Citus distributes has no triggers: refused before the first change, and by
// each run afterwards. That another table is distributed is nobody's concern.
func TestDistributedByCitus(t *testing.T) {
	t.Parallel()
	db, m := upTo(t, 0)
	distributed(db, "conversation_members")
	_, err := m.Up(t.Context())
	wantState(t, err, raised)
	if !strings.Contains(err.Error(), "conversation_members is distributed by Citus") || !strings.Contains(hint(err), "docs/surroundings.md") {
		t.Errorf("%v; %s", err, hint(err))
	}
	if v := version(t, m); v != 0 {
		t.Errorf("at version %d", v)
	}
	db.Exec("UPDATE pg_catalog.pg_dist_partition SET logicalrelid = 'conversations'")
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := around(t, db); len(got) > 0 {
		t.Errorf("found %q", got)
	}
	db.Exec("UPDATE pg_catalog.pg_dist_partition SET logicalrelid = 'conversation_members'")
	if got := around(t, db); !slices.Equal(got, []string{"table-kind FAIL"}) {
		t.Errorf("found %q", got)
	}
	if says := testdb.One[string](db, "SELECT message FROM orphan_cleaner.surroundings() WHERE check_name = 'table-kind'"); !strings.Contains(says, "conversation_members is distributed by Citus") {
		t.Error(says)
	}
}

// A publication for all tables, made before the migrations or after them: both go
// up and down, partitions are made, moved to and dropped, and every table of ours
// takes updates and deletes.
func TestPublicationForAllTables(t *testing.T) {
	t.Parallel()
	const publish = "CREATE PUBLICATION everything FOR ALL TABLES"
	for name, first := range map[string]bool{"before": true, "after": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, m := upTo(t, 0)
			if first {
				db.Exec(publish)
			}
			if _, err := m.Up(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !first {
				db.Exec(publish)
			}
			dropPartitions(db)
			db.Exec(deleteUser, members(db, 3)) // audited in the DEFAULT partition
			db.Exec("SELECT orphan_cleaner.partitions_ensure(31)")
			if n := db.Count("conversation_members_audit_default"); n != 0 {
				t.Errorf("%d rows were not moved", n)
			}
			run := openRun(db)
			if _, _, err := connect(t, db.URL, "orphan-cleaner").deleteInRun(t.Context(), run, deleteUser, members(db, 3)); err != nil {
				t.Fatal(err)
			}
			db.Exec("UPDATE conversation_members_audit SET role = NULL")
			db.Exec("UPDATE conversation_members_backup SET role = NULL")
			db.Exec("DELETE FROM conversation_members_audit")
			db.Exec("DELETE FROM conversation_members_backup")
			db.Exec("DELETE FROM orphan_cleaner.runs")
			if got := around(t, db); !slices.Equal(got, []string{"subscribers warn"}) {
				t.Errorf("found %q", got)
			}
			if _, err := m.DownTo(t.Context(), 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// An online schema change swaps the table for a copy: the list of deleted members
// follows the name, nothing of ours holds the old table, and what was lost with it
// comes back by the hints, as they are printed.
func TestSwappedForACopy(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	gone, user := members(db, 3), members(db, 2)
	if _, _, err := connect(t, db.URL, "orphan-cleaner").deleteInRun(t.Context(), openRun(db), deleteUser, gone); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"CREATE TABLE members_new (LIKE conversation_members INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
		"ALTER TABLE members_new ADD PRIMARY KEY (conversation_id, user_id)",
		"INSERT INTO members_new SELECT * FROM conversation_members",
		"ALTER TABLE conversation_members RENAME TO members_old",
		"ALTER TABLE members_new RENAME TO conversation_members",
		// One of the deleted is back, in the copy alone.
		"INSERT INTO conversation_members (conversation_id, user_id) SELECT min(conversation_id::text)::uuid, user_id FROM deleted_members_list GROUP BY user_id",
	} {
		db.Exec(statement)
	}
	if n := db.Count("deleted_members_list"); n != 2 {
		t.Errorf("%d deleted members are listed, not the 2 who are not in the copy", n)
	}
	want := []string{"conversation_members_audit_delete FAIL", "conversation_members_refuse_truncate FAIL", "index FAIL"}
	if got := around(t, db); !slices.Equal(got, want) {
		t.Errorf("found %q", got)
	}
	db.Exec("DROP TABLE members_old")
	for _, finding := range want {
		name, _, _ := strings.Cut(finding, " ")
		for _, statement := range strings.Split(strings.TrimPrefix(hintOf(db, name), "as the owner of the table: "), "; ") {
			db.Exec(statement)
		}
	}
	if got := around(t, db); len(got) > 0 {
		t.Errorf("after the hints: %q", got)
	}
	audited := db.Count("conversation_members_audit")
	db.Exec(deleteUser, user)
	if n := db.Count("conversation_members_audit") - audited; n != 2 {
		t.Errorf("%d deletes from the copy are audited", n)
	}
	// And messaging-service changes what it likes.
	db.Exec("ALTER TABLE conversation_members ALTER role TYPE varchar(40), ALTER joined_at TYPE timestamptz(3)")
	db.Exec("ALTER TABLE conversations ALTER id TYPE text")
}

// A detach that did not end, and what its hint does.
func TestHalfDetached(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	sameDay(t, db)
	day := byDay(db, "conversation_members_backup_%s")
	reader := connect(t, db.URL, "report", "BEGIN", "SELECT FROM conversation_members_backup")
	dba := connect(t, db.URL, "psql")
	detach := async(func() error {
		_, err := dba.Exec(context.WithoutCancel(t.Context()), "ALTER TABLE conversation_members_backup DETACH PARTITION "+day+" CONCURRENTLY")
		return err
	})
	if waiting := blockedBy(t, db, reader.pid()); waiting != dba.pid() {
		t.Fatalf("%d waits", waiting)
	}
	db.Exec("SELECT pg_cancel_backend($1)", dba.pid())
	wantState(t, detach(), "57014")
	reader.exec(t, "COMMIT")
	if got := around(t, db); !slices.Equal(got, []string{"partitions-detached FAIL"}) {
		t.Fatalf("found %q", got)
	}
	there := testdb.One[string](db, "SELECT message FROM orphan_cleaner.surroundings() WHERE check_name = 'partitions-detached'")
	if !strings.Contains(there, day+" (half: a DETACH CONCURRENTLY did not end)") {
		t.Errorf("it says %s", there)
	}
	statements, _, _ := strings.Cut(strings.TrimPrefix(hintOf(db, "partitions-detached"), "as the owner of the tables: "), ", or ")
	for _, statement := range strings.Split(statements, "; ") {
		db.Exec(statement)
	}
	if got := around(t, db); len(got) > 0 {
		t.Errorf("after the hint: %q", got)
	}
	if got, want := partitions(t, db), wantPartitions(db, 7); !slices.Equal(got, want) {
		t.Error(testdb.Snapshot(want).Diff(got))
	}
}

// An event trigger that enables row-level security on each new table, before the
// first migration: all goes on, the runner's login is told, and roles.sql settles it.
func TestTablesAreSecured(t *testing.T) {
	t.Parallel()
	db, m := upTo(t, 0)
	db.Exec(`CREATE FUNCTION secure() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE made record; BEGIN
		FOR made IN SELECT object_identity FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' AND schema_name <> 'pg_temp' LOOP
			EXECUTE 'ALTER TABLE ' || made.object_identity || ' ENABLE ROW LEVEL SECURITY'; END LOOP; END $$`)
	db.Exec("CREATE EVENT TRIGGER secure_tables ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION secure()")
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := around(t, db); !slices.Equal(got, []string{"own-row-security FAIL"}) {
		t.Fatalf("found %q", got)
	}
	if message := testdb.One[string](db, "SELECT message FROM orphan_cleaner.surroundings() WHERE check_name = 'own-row-security'"); !strings.Contains(message, "secure_tables") {
		t.Errorf("it says %s", message)
	}
	db.Roles(rolesFile)
	dropPartitions(db)
	db.Exec("SELECT orphan_cleaner.partitions_ensure(7)")
	if got := around(t, db); len(got) > 0 {
		t.Errorf("after roles.sql: %q", got)
	}
	if n := db.Count("pg_class WHERE relrowsecurity AND relispartition"); n == 0 {
		t.Error("the partitions made since are not secured: this test shows nothing")
	}
	run := openRun(db)
	if _, _, err := connect(t, db.URL, "orphan-cleaner").deleteInRun(t.Context(), run, deleteUser, members(db, 3)); err != nil {
		t.Error(err)
	}
	restorer := connect(t, db.Login("orphan_cleaner_restorer"), "psql")
	for table, want := range map[string]int{"conversation_members_backup": 3, "deleted_members_list": 3, "orphan_cleaner_goose": 13} {
		var n int
		if err := restorer.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil || n != want {
			t.Errorf("%s: %d rows, not %d, %v", table, n, want, err)
		}
	}
}

// What a trigger of the application needs, and the hint grants, stays granted however
// often roles.sql runs.
func TestGrantsForTriggersStay(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	user := members(db, 3)
	db.Exec(`CREATE FUNCTION count_members() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		UPDATE conversations SET member_count = member_count - 1 WHERE id = old.conversation_id; RETURN NULL; END $$`)
	db.Exec("CREATE TRIGGER count_members AFTER DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION count_members()")
	db.Roles(rolesFile)
	if got := around(t, db); !slices.Equal(got, []string{"foreign-triggers warn"}) {
		t.Fatalf("found %q", got)
	}
	db.Exec(hintOf(db, "foreign-triggers"))
	db.Roles(rolesFile)
	if got := around(t, db); len(got) > 0 {
		t.Errorf("after the grant and roles.sql: %q", got)
	}
	owner := connect(t, db.URL, "orphan-cleaner", "SET ROLE orphan_cleaner_owner")
	if _, _, err := owner.deleteInRun(t.Context(), openRun(db), deleteUser, user); err != nil {
		t.Error(err)
	}
	if n := db.Count("conversations WHERE member_count <> 0"); n != 0 {
		t.Errorf("%d conversations have a wrong count", n)
	}
	if testdb.One[bool](db, "SELECT has_table_privilege('orphan_cleaner_runner', 'conversations', 'UPDATE')") {
		t.Error("the runner's role may update conversations, too")
	}
}
