package migrations_test

import (
	"os"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// checkFunctions finds what plpgsql_check has to say about each PL/pgSQL function
// of ours, those of triggers with their table and transition tables.
const checkFunctions = `SELECT p.oid::regprocedure || ', line ' || coalesce(c.lineno::text, '-') || ': ' || c.level || ': ' || c.message
		|| coalesce(' (' || c.detail || ')', '')
	FROM pg_proc AS p
	JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
	LEFT JOIN pg_trigger AS t ON t.tgfoid = p.oid
	CROSS JOIN LATERAL plpgsql_check_function_tb(
		p.oid, coalesce(t.tgrelid, 0), oldtable => t.tgoldtable, newtable => t.tgnewtable,
		extra_warnings => true, performance_warnings => true, security_warnings => true, compatibility_warnings => true
	) AS c
	WHERE p.pronamespace = 'orphan_cleaner'::regnamespace`

// accepted is what plpgsql_check says and is not so.
func accepted(finding string) bool {
	for _, known := range []string{
		// It cannot see into EXECUTE, by which these functions write.
		"should be STABLE (attention: cannot to determine volatility of used dynamic SQL)",
		"(cannot to determine result of dynamic SQL)",
		// Of one number into one variable, once a partition or a call.
		`cast "oid" value to "regclass" type`, `cast "integer" value to "bigint" type`,
	} {
		if strings.Contains(finding, known) {
			return true
		}
	}
	return false
}

// No statement in a PL/pgSQL function names a table, column or variable that is
// not there, leaves a variable unused, or builds SQL in a way that lets values in.
func TestFunctionBodies(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	if d.Count("pg_available_extensions WHERE name = 'plpgsql_check'") == 0 {
		const how = "plpgsql_check is not installed: run `make plpgsql-check`, or install postgresql-VERSION-plpgsql-check"
		if os.Getenv("CI") == "true" && os.Getenv(pgtemp.BinDirEnv) == "" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	d.Exec("CREATE EXTENSION plpgsql_check")
	if n := d.Count(`pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
		WHERE pronamespace = 'orphan_cleaner'::regnamespace`); n < 20 {
		t.Fatalf("only %d functions are looked at", n)
	}
	for _, finding := range names(t, d, checkFunctions) {
		if !accepted(finding) {
			t.Error(finding)
		}
	}

	// It does find what it is there for.
	d.Exec(`CREATE FUNCTION orphan_cleaner.wrong(name text) RETURNS bigint LANGUAGE plpgsql AS
		'DECLARE n bigint; idle text; BEGIN EXECUTE ''SELECT count(*) FROM '' || name INTO n; RETURN (SELECT nothing FROM orphan_cleaner.runs); END'`)
	var found []string
	for _, finding := range names(t, d, checkFunctions) {
		if strings.HasPrefix(finding, "orphan_cleaner.wrong(text)") && !accepted(finding) {
			found = append(found, finding)
		}
	}
	for _, part := range []string{`column "nothing" does not exist`, "SQL injection"} {
		if !strings.Contains(strings.Join(found, "\n"), part) {
			t.Errorf("%q is not found in a function that has it: %q", part, found)
		}
	}
}
