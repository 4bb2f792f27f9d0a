package migrations_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// ours are the relations of this project, partitions and goose's table apart.
const ours = `SELECT c.oid, c.relname
	FROM pg_class AS c
	WHERE c.relnamespace = 'public'::regnamespace
		AND c.relkind IN ('r', 'p', 'v')
		AND NOT c.relispartition
		AND c.relname NOT IN ('conversations', 'conversation_members', 'users', 'goose_db_version')`

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
	if n := db.Count("(" + ours + ") AS o"); n < 10 {
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
		WHERE pronamespace = 'public'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL`) {
		t.Errorf("no comment on function %s", name)
	}
}

// No function of ours can be led astray by a search_path or be called by
// whoever happens to be connected.
func TestFunctionsAreClosed(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	const functions = "pg_proc WHERE pronamespace = 'public'::regnamespace"
	if n := db.Count(functions); n < 6 {
		t.Fatalf("only %d functions are looked at", n)
	}
	for _, name := range names(t, db, "SELECT oid::regprocedure::text FROM "+functions+`
		-- A body that is parsed when it is created looks up no name later.
		AND prosqlbody IS NULL
		AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)
		-- With the rights of the caller, and triggers of messaging-service inside.
		AND NOT (proname IN ('orphan_restore_chunk', 'orphan_revert_chunk') AND NOT prosecdef
			AND proconfig @> ARRAY['search_path=pg_catalog, public, pg_temp'])`) {
		t.Errorf("%s: the search_path is not pinned", name)
	}
	for _, name := range names(t, db, "SELECT oid::regprocedure::text FROM "+functions+`
		AND (proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) AS a WHERE a.grantee = 0))`) {
		t.Errorf("%s: PUBLIC may execute it", name)
	}
	// Those of messaging-service's privileges that we raise, and no more.
	definers := names(t, db, "SELECT proname FROM "+functions+" AND prosecdef ORDER BY 1")
	want := testdb.Snapshot{"conversation_members_audit_delete", "orphan_ensure_partitions", "orphan_restore_plan", "orphan_shadow_evidence"}
	if diff := want.Diff(definers); diff != "" {
		t.Errorf("SECURITY DEFINER:\n%s", diff)
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
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
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
