package migrations_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// ours are the relations of this project, partitions and goose's table apart.
const ours = `SELECT c.oid, c.oid::regclass::text AS relname
	FROM pg_class AS c
	WHERE c.relkind IN ('r', 'p', 'v')
		AND NOT c.relispartition
		AND (
			c.relnamespace = 'orphan_cleaner'::regnamespace
			OR c.relnamespace = 'public'::regnamespace
			AND c.relname NOT IN ('conversations', 'conversation_members', 'users', 'orphan_cleaner_goose')
		)`

// names collects the offenders that a query of the catalog finds.
func names(t *testing.T, db *testdb.DB, query string) []string {
	t.Helper()
	rows, err := db.Pool.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Every relation of ours says what it is for, and every column of our tables.
func TestComments(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	if n := db.Count("(" + ours + ") AS o"); n < 17 {
		t.Fatalf("only %d relations are looked at", n)
	}
	for _, name := range names(t, db, "SELECT relname FROM ("+ours+") AS o WHERE obj_description(oid, 'pg_class') IS NULL") {
		t.Errorf("no comment on %s", name)
	}
	for _, name := range names(t, db, `
		SELECT o.relname || '.' || a.attname
		FROM (`+ours+`) AS o
		JOIN pg_attribute AS a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
		JOIN pg_class AS c ON c.oid = o.oid AND c.relkind <> 'v'
		WHERE col_description(o.oid, a.attnum) IS NULL
			-- The backup has the columns of messaging-service under their own names.
			AND NOT (
				o.relname = 'conversation_members_backup'
				AND EXISTS (
					SELECT
					FROM pg_attribute AS m
					WHERE m.attrelid = 'conversation_members'::regclass AND m.attname = a.attname
				)
			)`) {
		t.Errorf("no comment on column %s", name)
	}
	for _, name := range names(t, db, `SELECT oid::regprocedure::text FROM pg_proc
		WHERE pronamespace = 'orphan_cleaner'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL`) {
		t.Errorf("no comment on function %s", name)
	}
	if testdb.One[bool](db, "SELECT obj_description('orphan_cleaner'::regnamespace, 'pg_namespace') IS NULL") {
		t.Error("no comment on the schema")
	}
}

// No function of ours can be led astray by a search_path or be called by
// whoever happens to be connected.
func TestFunctionsAreClosed(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	const functions = "pg_proc WHERE pronamespace = 'orphan_cleaner'::regnamespace"
	if n := db.Count(functions); n < 40 {
		t.Fatalf("only %d functions are looked at", n)
	}
	if n := db.Count("pg_proc WHERE pronamespace = 'public'::regnamespace"); n != 0 {
		t.Errorf("%d functions are in public", n)
	}
	for _, name := range names(t, db, "SELECT oid::regprocedure::text FROM "+functions+`
		AND proname <> 'restorable' AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)`) {
		t.Errorf("%s: the search_path is not pinned", name)
	}
	for _, name := range names(t, db, "SELECT oid::regprocedure::text FROM "+functions+`
		AND (proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) AS a WHERE a.grantee = 0))`) {
		t.Errorf("%s: PUBLIC may execute it", name)
	}
	// Whoever may call one that writes waits for locks in it: not for ever.
	for _, name := range names(t, db, "SELECT oid::regprocedure::text FROM "+functions+`
		AND prosecdef AND provolatile = 'v'
		AND NOT coalesce(array_to_string(proconfig, ' ') LIKE '%lock_timeout=%', false)`) {
		t.Errorf("%s: it may wait for a lock without end", name)
	}
	// Those that run with their caller's rights: the helpers that only others of ours call, and
	// what is for the owner of the schema.
	invokers := names(t, db, "SELECT proname FROM "+functions+" AND NOT prosecdef ORDER BY 1")
	want := testdb.Snapshot{
		"approve", "candidates_block", "candidates_leave", "chunk_open", "conversation_members_leave", "conversations_lock", "effective_settings", "is_distributed", "is_kept_owner", "lacks_standby", "members_columns", "members_shape", "merge", "owners_leave", "owners_return", "partition_add",
		"partition_need", "partitions", "prune_drop", "prune_look", "prune_rows", "refuse_truncate", "restorable", "revoke_approval", "run_count", "run_open", "run_retention",
		"settle_clock", "stricter_settings", "sweep_rows", "target_facts", "target_facts_statement", "target_total", "targets_change",
	}
	if diff := want.Diff(invokers); diff != "" {
		t.Errorf("not SECURITY DEFINER:\n%s", diff)
	}
}

// The list of deleted members is planned as one statement: no function is called for each row. For that restorable has
// no search_path of its own, and takes no operator of another.
func TestDeletedMembersListIsPlannedWhole(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec("INSERT INTO conversations (id) SELECT md5('c')::uuid")
	db.Exec(`INSERT INTO conversation_members_audit (conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, run_id, txid)
		SELECT md5('c')::uuid, md5('u' || n)::uuid, 'member', now(), now(), 'x', 'x', 1, 1 FROM generate_series(1, 3) AS n`)
	db.Exec("INSERT INTO conversation_members (conversation_id, user_id) SELECT md5('c')::uuid, md5('u1')::uuid")
	db.Exec("CREATE FUNCTION public.never(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT false'; CREATE OPERATOR public.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = public.never)")
	plan := strings.Join(names(t, db, "EXPLAIN (VERBOSE) SELECT * FROM deleted_members_list"), "\n")
	if strings.Contains(plan, "restorable(") || strings.Contains(plan, "Function Scan") {
		t.Errorf("a call for each row:\n%s", plan)
	}
	listed := connect(t, db.URL, "psql", "SET search_path = public, pg_catalog").number(t, "SELECT count(*) FROM deleted_members_list")
	if listed != 2 {
		t.Errorf("%d members are listed", listed)
	}
}

// A publication FOR ALL TABLES must not keep us from writing: each table of ours has a
// replica identity, its primary key or the whole row, partitions made later too.
func TestReplicaIdentity(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec("SELECT orphan_cleaner.partitions_ensure(31)")
	const tables = `pg_class AS c WHERE c.relkind IN ('r', 'p') AND (
		c.relnamespace = 'orphan_cleaner'::regnamespace
		OR c.relnamespace = 'public'::regnamespace AND c.relname ~ '^(conversation_members_|orphan_cleaner_goose)'
	)`
	if n := db.Count(tables); n < 50 {
		t.Fatalf("only %d tables are looked at", n)
	}
	for _, name := range names(t, db, "SELECT c.oid::regclass::text FROM "+tables+` AND c.relreplident <> 'f' AND NOT (
		c.relreplident = 'd' AND EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary))`) {
		t.Errorf("%s has no replica identity", name)
	}
}

// PUBLIC may not read or write what is ours: it holds who was in which
// conversation.
func TestTablesAreClosed(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	nobody := role(t, db, "nobody")
	for _, name := range names(t, db, `
		SELECT c.relname FROM pg_class AS c
		WHERE c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace) AND c.relkind IN ('r', 'p', 'v')
			AND has_table_privilege('`+nobody+`', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')`) {
		t.Errorf("anybody may read or write %s", name)
	}
}

// The triggers fire always, one event each.
func TestTriggersAreAlways(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	got := names(t, db, `SELECT tgname || ' ' || tgenabled::text FROM pg_trigger
		WHERE tgrelid = 'conversation_members'::regclass AND NOT tgisinternal ORDER BY 1`)
	want := testdb.Snapshot{"conversation_members_audit_delete A", "conversation_members_refuse_truncate A"}
	if diff := want.Diff(got); diff != "" {
		t.Error(diff)
	}
}
