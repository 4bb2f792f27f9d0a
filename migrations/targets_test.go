package migrations_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// The registry stays as it is while a run is open, since runs count by its order.
func TestTargetsStayWhileARunIsOpen(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	run := openRun(d)
	for _, change := range []string{
		`UPDATE orphan_cleaner.targets SET ordinal = 7`,
		`DELETE FROM orphan_cleaner.targets`,
		`INSERT INTO orphan_cleaner.targets (name, ordinal, table_name, user_column, action, audit_table, backup_table) VALUES ('a', 0, 'a', 'a', 'delete', 'a', 'a')`,
	} {
		if _, err := d.Pool.Exec(t.Context(), change); err == nil || !strings.Contains(err.Error(), "cannot change while a run is open") {
			t.Errorf("%s: %v", change, err)
		}
	}
	d.Exec(`UPDATE orphan_cleaner.runs SET state = 'failed', finished_at = now() WHERE run_id = $1`, run)
	d.Exec(`UPDATE orphan_cleaner.targets SET ordinal = 7`)
}

// Names become parts of names of functions: nothing else may be in them.
func TestTargetNames(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	for _, name := range []string{"", "Likes", "a b", `a"b`, "1a", "public.likes", strings.Repeat("a", 41)} {
		if _, err := d.Pool.Exec(t.Context(), `INSERT INTO orphan_cleaner.targets (name, ordinal, table_name, user_column, action, audit_table, backup_table)
			VALUES ($1, 2, 'a', 'a', 'delete', 'a', 'a')`, name); err == nil || !strings.Contains(err.Error(), "targets_name_check") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The partitions of every target are made, looked at and dropped, each by its own needs.
func TestPartitionsOfEveryTarget(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Targets("likes")
	if n := d.Count(`orphan_cleaner.partitions() WHERE target = 'likes' AND is_ours AND is_backup`); n != 8 {
		t.Errorf("%d backup partitions of likes", n)
	}
	d.Exec(`SELECT orphan_cleaner.partition_add('orphan_cleaner.likes_backup', 'likes_backup_20200101', '2020-01-01 00:00+00', '2020-01-02 00:00+00'),
		orphan_cleaner.partition_add('orphan_cleaner.likes_audit', 'likes_audit_202001', '2020-01-01 00:00+00', '2020-02-01 00:00+00'),
		orphan_cleaner.partition_add('public.conversation_members_audit', 'conversation_members_audit_202001', '2020-01-01 00:00+00', '2020-02-01 00:00+00')`)
	d.Exec(`INSERT INTO orphan_cleaner.likes_backup (post_id, user_id, backed_up_at, run_id) VALUES (gen_random_uuid(), md5('held')::uuid, '2020-01-01 12:00+00', 1)`)
	run := openRun(d)
	d.Exec(`UPDATE orphan_cleaner.runs SET state = 'failed', finished_at = now() WHERE run_id = $1`, run)
	d.Exec(`INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES (md5('held')::uuid, 'a lawsuit')`)
	kept := func(what, partition, because string) {
		t.Helper()
		if got := testdb.One[string](d, `SELECT coalesce(orphan_cleaner.prune_drop($1, '90 days', '400 days'), '')`, partition); got != because {
			t.Errorf("%s: %s is kept because of %q, not %q", what, partition, got, because)
		}
	}
	kept("a hold", "likes_backup_20200101", "hold 1")
	kept("a backup of its time", "likes_audit_202001", "backups of its time")
	kept("a backup of another target", "conversation_members_audit_202001", "")
	d.Exec(`UPDATE orphan_cleaner.holds SET lifted_at = now()`)
	d.Exec(`INSERT INTO orphan_cleaner.rechecks (user_id, alive_at) VALUES (md5('held')::uuid, now())`)
	kept("somebody alive again", "likes_backup_20200101", "1 users alive again")
	d.Exec(`DELETE FROM orphan_cleaner.rechecks`)
	// Its own window is longer than that of prune, for its audit, too; a shorter one counts for nothing.
	d.Exec(`UPDATE orphan_cleaner.targets SET backup_window = '100 years' WHERE name = 'likes'`)
	kept("the window of the target", "likes_backup_20200101", "within the window")
	kept("the window of the target", "likes_audit_202001", "within the window")
	d.Exec(`UPDATE orphan_cleaner.targets SET backup_window = '1 day' WHERE name = 'likes'`)
	if n := d.Count(`orphan_cleaner.prune_look('100 years', '100 years') WHERE parent ~ '^likes_' AND is_expired`); n != 0 {
		t.Errorf("%d partitions are dropped earlier than prune says", n)
	}
	kept("nothing", "likes_backup_20200101", "")
	kept("nothing", "likes_audit_202001", "")
	if n := d.Count(`pg_class WHERE relname ~ '^likes_(audit|backup)_2020'`); n != 0 {
		t.Errorf("%d partitions are left", n)
	}
}

// What is printed for a target keeps the rules of the house, and goes down again.
func TestFurtherTarget(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Targets()
	before := d.Snapshot("pg_class WHERE relnamespace = 'orphan_cleaner'::regnamespace")
	d.Targets("likes")
	for _, name := range names(t, d, `SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'orphan_cleaner'::regnamespace
		AND proname <> 'restorable' AND (obj_description(oid, 'pg_proc') IS NULL OR NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)
			OR proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) AS a WHERE a.grantee = 0))`) {
		t.Errorf("%s has no comment, no pinned search_path, or PUBLIC may execute it", name)
	}
	for _, name := range names(t, d, `SELECT c.oid::regclass || '.' || a.attname FROM pg_class AS c
		JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
		WHERE c.relnamespace = 'orphan_cleaner'::regnamespace AND c.relname ~ '^likes' AND c.relkind = 'p' AND col_description(c.oid, a.attnum) IS NULL`) {
		t.Errorf("no comment on column %s", name)
	}
	d.Exec(`INSERT INTO likes (post_id, user_id) SELECT gen_random_uuid(), md5(n::text)::uuid FROM generate_series(1, 5) AS n`)
	d.Exec(`DELETE FROM likes WHERE user_id <> md5('1')::uuid`)
	if n := d.Count(`orphan_cleaner.likes_audit WHERE run_id IS NULL`); n != 4 {
		t.Errorf("%d deletes of the application are audited", n)
	}
	if err := d.TargetDown("likes"); err == nil || !strings.Contains(err.Error(), "it holds evidence") {
		t.Errorf("down over evidence: %v", err)
	}
	d.Exec(`DELETE FROM orphan_cleaner.likes_audit`)
	if err := d.TargetDown("likes"); err != nil {
		t.Error(err)
	}
	if diff := before.Diff(d.Snapshot("pg_class WHERE relnamespace = 'orphan_cleaner'::regnamespace")); diff != "" {
		t.Errorf("left after down:\n%s", diff)
	}
}

// What is around a further target is looked at like what is around conversation_members, in
// the same rows, and the message says whose it is; a hint that is SQL heals it.
func TestSurroundingsOfEveryTarget(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil, finding, says, heals string // heals: what is left after the hint was executed; empty: it is not SQL
	}{
		"trigger disabled": {`ALTER TABLE likes DISABLE TRIGGER likes_audit_delete`, "likes_audit_delete FAIL", "on likes is disabled", "nothing"},
		"trigger dropped":  {`DROP TRIGGER likes_refuse_truncate ON likes`, "likes_refuse_truncate FAIL", "on likes is not there", ""},
		"no index":         {`DROP INDEX likes_user_id`, "index FAIL", "no valid index on likes(user_id)", "nothing"},
		"rule":             {`CREATE RULE stay AS ON DELETE TO likes DO INSTEAD NOTHING`, "rules FAIL", "rules on likes: stay ON DELETE DO INSTEAD: rows would stay", ""},
		"trigger of others": {
			`CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
			CREATE TRIGGER keep BEFORE DELETE ON likes FOR EACH ROW EXECUTE FUNCTION keep()`,
			"foreign-triggers warn", "triggers of others on likes: keep (BEFORE DELETE) may keep rows", "",
		},
		"a key that changes rows": {
			`CREATE TABLE replies (post_id uuid, user_id uuid, CONSTRAINT replies_to FOREIGN KEY (post_id, user_id) REFERENCES likes ON DELETE SET NULL)`,
			"foreign-keys FAIL", "tables refer to likes: public.replies by replies_to ON DELETE SET NULL", "foreign-keys warn",
		},
		"a key from a target that is audited": {
			`ALTER TABLE likes ADD COLUMN on_post uuid, ADD COLUMN on_user uuid, ADD CONSTRAINT hangs_on FOREIGN KEY (on_post, on_user) REFERENCES likes ON DELETE CASCADE`,
			"foreign-keys warn", "users with rows there are blocked", "",
		},
		"children":  {`CREATE TABLE more () INHERITS (likes)`, "table-kind FAIL", "likes is part of an inheritance tree", ""},
		"not there": {`DROP TABLE likes`, "table-kind FAIL", "likes is registered as a target, and not there", ""},
		"an owner without rights": {
			`GRANT USAGE ON SCHEMA orphan_cleaner TO pg_monitor;
			GRANT SELECT ON ALL TABLES IN SCHEMA orphan_cleaner TO pg_monitor;
			GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner TO pg_monitor;
			GRANT SELECT ON likes TO pg_monitor;
			ALTER FUNCTION orphan_cleaner.surroundings() OWNER TO pg_monitor`,
			"owner-grants FAIL", "INSERT, DELETE on likes", "",
		},
		"detached": {
			`DO $$ BEGIN EXECUTE (SELECT format('ALTER TABLE orphan_cleaner.likes_backup DETACH PARTITION %s', inhrelid::regclass)
				FROM pg_inherits WHERE inhparent = 'orphan_cleaner.likes_backup'::regclass ORDER BY inhrelid LIMIT 1); END $$`,
			"partitions-detached FAIL", "likes_backup_", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := testdb.New(t)
			d.Targets("likes")
			if got := around(t, d); len(got) > 0 {
				t.Fatalf("before: %q", got)
			}
			d.Script(c.spoil)
			check, _, _ := strings.Cut(c.finding, " ")
			if got := around(t, d); !slices.Contains(got, c.finding) {
				t.Fatalf("found %q", got)
			}
			if said := testdb.One[string](d, "SELECT message FROM orphan_cleaner.surroundings() WHERE check_name = $1", check); !strings.Contains(said, c.says) {
				t.Errorf("it says %q", said)
			}
			if c.heals == "" {
				return
			}
			d.Exec(hintOf(d, check))
			if got := around(t, d); !slices.Equal(got, slices.DeleteFunc([]string{c.heals}, func(left string) bool { return left == "nothing" })) {
				t.Errorf("after the hint: %q", got)
			}
		})
	}
}
