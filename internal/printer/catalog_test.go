package printer_test

import (
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// found collects the offenders that a query of the catalog finds.
func found(t *testing.T, d *testdb.DB, query string) []string {
	t.Helper()
	rows, err := d.Pool.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What is printed keeps the rules of the house.
func TestPrintedCatalog(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(content)
	printed(t, d, dir, contentFile)
	up(t, d, dir)
	const functions = `pg_proc AS p WHERE p.pronamespace = 'orphan_cleaner'::regnamespace AND p.proname ~ '^(likes|posts|notes)_'`
	if n := d.Count(functions); n != 14+15+14 {
		t.Errorf("%d functions", n)
	}
	const tables = `pg_class AS c WHERE c.relnamespace = 'orphan_cleaner'::regnamespace AND c.relname ~ '^(likes|posts|notes)_' AND c.relkind IN ('r', 'p')`
	for what, query := range map[string]string{
		"no comment on":                       "SELECT p.proname::text FROM " + functions + " AND obj_description(p.oid, 'pg_proc') IS NULL",
		"the search_path is not pinned of":    "SELECT p.proname::text FROM " + functions + " AND NOT coalesce(p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)",
		"not SECURITY DEFINER:":               "SELECT p.proname::text FROM " + functions + " AND NOT p.prosecdef",
		"PUBLIC may execute":                  "SELECT p.proname::text FROM " + functions + " AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee = 0))",
		"it may wait for a lock without end:": "SELECT p.proname::text FROM " + functions + " AND p.provolatile = 'v' AND p.proname !~ '_undone$' AND NOT array_to_string(p.proconfig, ' ') LIKE '%lock_timeout=%'",
		"no comment on the table":             "SELECT c.relname::text FROM " + tables + " AND NOT c.relispartition AND obj_description(c.oid, 'pg_class') IS NULL",
		"no comment on the column":            "SELECT c.relname || '.' || a.attname FROM pg_attribute AS a JOIN " + strings.Replace(tables, "WHERE", "ON c.oid = a.attrelid AND a.attnum > 0 AND NOT a.attisdropped WHERE", 1) + " AND NOT c.relispartition AND col_description(c.oid, a.attnum) IS NULL",
		"no replica identity of":              "SELECT c.relname::text FROM " + tables + " AND c.relreplident <> 'f'",
		"a trigger does not fire always:":     `SELECT t.tgname::text FROM pg_trigger AS t WHERE t.tgrelid IN ('content."Likes"'::regclass, 'content.notes'::regclass) AND t.tgenabled <> 'A'`,
		"a trigger on what is updated:":       "SELECT t.tgname::text FROM pg_trigger AS t WHERE t.tgrelid = 'content.posts'::regclass",
	} {
		for _, name := range found(t, d, query) {
			t.Errorf("%s %s", what, name)
		}
	}
	// The database works the digest out from the functions as they are.
	for _, name := range found(t, d, `SELECT t.name || ': ' || t.digest || ', not ' || f.digest FROM orphan_cleaner.targets AS t
		CROSS JOIN LATERAL (
			SELECT encode(sha256(convert_to(string_agg(
				p.proname || E'\n' || array_to_string(p.proconfig, E'\n') || E'\n' || p.prosrc, E'\n' ORDER BY p.proname COLLATE "C"), 'UTF8')), 'hex') AS digest
			FROM pg_proc AS p WHERE p.pronamespace = 'orphan_cleaner'::regnamespace AND p.proname LIKE t.name || '\_%'
		) AS f
		WHERE t.digest <> f.digest`) {
		t.Errorf("digests differ: %s", name)
	}
}

// plpgsql_check finds nothing in the bodies that are printed, whatever columns the tables have.
func TestPrintedBodies(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(content)
	printed(t, d, dir, contentFile)
	up(t, d, dir)
	if d.Count("pg_available_extensions WHERE name = 'plpgsql_check'") == 0 {
		const how = "plpgsql_check is not installed: run `make plpgsql-check`, or install postgresql-VERSION-plpgsql-check"
		if os.Getenv("CI") == "true" && os.Getenv(pgtemp.BinDirEnv) == "" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	d.Exec("CREATE EXTENSION plpgsql_check")
	const bodies = `pg_proc AS p
		JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
		LEFT JOIN pg_trigger AS t ON t.tgfoid = p.oid
		CROSS JOIN LATERAL plpgsql_check_function_tb(
			p.oid, coalesce(t.tgrelid, 0), oldtable => t.tgoldtable, newtable => t.tgnewtable,
			extra_warnings => true, performance_warnings => true, security_warnings => true, compatibility_warnings => true
		) AS c
		WHERE p.pronamespace = 'orphan_cleaner'::regnamespace AND p.proname ~ '^(likes|posts|notes)_'`
	for _, finding := range found(t, d, `SELECT p.proname || ', line ' || coalesce(c.lineno::text, '-') || ': ' || c.level || ': ' || c.message FROM `+bodies) {
		t.Error(finding)
	}
	// SQL functions are checked when they are made; here with the tables as they are.
	for _, definition := range found(t, d, `SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'sql'
		WHERE p.pronamespace = 'orphan_cleaner'::regnamespace AND p.proname ~ '^(likes|posts|notes)_'`) {
		d.Exec(definition)
	}
	d.Exec(`ALTER TABLE content.posts DROP COLUMN body`)
	if n := d.Count(bodies + ` AND c.level = 'error'`); n == 0 {
		t.Error("a column that is gone is not found")
	}
}
