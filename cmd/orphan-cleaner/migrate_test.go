package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// --show-sql prints each statement that would run, and runs none of them; nor
// does status make a version table.
func TestMigrateShowsSQL(t *testing.T) {
	t.Parallel()
	db := testdb.NewBare(t)
	env := []string{"DATABASE_URL=" + db.URL}
	before := contents(t, db)
	up := program(t, env, "migrate", "up", "--show-sql").expect(t, exitDone).stdout
	for _, part := range []string{"-- 00001_create_runs.sql\n", "CREATE SCHEMA orphan_cleaner;", "-- 00012_", "CREATE FUNCTION orphan_cleaner.prune_drop"} {
		if !strings.Contains(up, part) {
			t.Errorf("what would run does not have %q", part)
		}
	}
	if strings.Contains(up, "DROP SCHEMA") {
		t.Error("it has a Down part")
	}
	if down := program(t, env, "migrate", "down", "--show-sql").expect(t, exitDone).stdout; down != "-- no migration is applied\n" {
		t.Errorf("%s", down)
	}
	program(t, env, "migrate", "status").expect(t, exitDone)
	if contents(t, db) != before {
		t.Error("the database changed")
	}

	program(t, env, "migrate", "up").expect(t, exitDone)
	before = contents(t, db)
	if up := program(t, env, "migrate", "up", "--show-sql").expect(t, exitDone).stdout; up != "-- no migration is pending\n" {
		t.Errorf("%s", up)
	}
	down := program(t, env, "migrate", "down", "--show-sql").expect(t, exitDone).stdout
	if !strings.HasPrefix(down, "-- 00012_") || !strings.Contains(down, "DROP FUNCTION") || !strings.Contains(down, "orphan_cleaner.prune_drop") || strings.Contains(down, "CREATE FUNCTION") {
		t.Errorf("%s", down)
	}
	if contents(t, db) != before {
		t.Error("the database changed")
	}
}

// goose keeps times without a zone. Whatever zone the server is in, status shows UTC.
func TestMigrateStatusInUTC(t *testing.T) {
	t.Parallel()
	db := testdb.NewBare(t)
	db.Exec("ALTER DATABASE " + db.Name + " SET timezone = 'Asia/Shanghai'")
	env := []string{"DATABASE_URL=" + db.URL}
	program(t, env, "migrate", "up").expect(t, exitDone)
	var states []migrationState
	e := program(t, env, "migrate", "status", "--json").expect(t, exitDone)
	if err := json.Unmarshal([]byte(e.stdout), &states); err != nil {
		t.Fatal(err)
	}
	for _, s := range states {
		if s.State != "applied" || s.AppliedAt == nil || time.Since(*s.AppliedAt) < 0 || time.Since(*s.AppliedAt) > time.Hour {
			t.Errorf("%+v is not of this hour", s)
		}
	}
	if table := program(t, env, "migrate", "status").expect(t, exitDone).stdout; !strings.Contains(table, states[0].AppliedAt.Format(time.DateTime)) {
		t.Errorf("%s does not say %s", table, states[0].AppliedAt)
	}
}

// A migration that refuses says which it is, why, and what to do, in one line.
func TestMigrateRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	program(t, w.env, "run").expect(t, exitDone)
	var last ended
	for range 12 {
		if last = program(t, w.env, "migrate", "down"); last.status != exitDone {
			break
		}
	}
	if last.expect(t, exitFailed); strings.Count(last.stderr, "\n") != 1 || !strings.Contains(last.stderr, "migrating down 0000") ||
		!strings.Contains(last.stderr, ".sql: refusing to ") || !strings.Contains(last.stderr, "; hint: ") || strings.Contains(last.stderr, "partial migration") {
		t.Errorf("%s", last)
	}

	old := testdb.NewBare(t)
	old.Exec("CREATE TABLE orphan_runs (run_id bigint)")
	env := []string{"DATABASE_URL=" + old.URL}
	if e := program(t, env, "migrate", "up").expect(t, exitFailed); !strings.Contains(e.stderr, "migrating up 00001_create_runs.sql: refusing to migrate") || !strings.Contains(e.stderr, "docs/upgrading.md") {
		t.Errorf("%s", e)
	}

	taken := testdb.NewBare(t)
	taken.Roles(rolesFile)
	taken.Exec("CREATE TABLE conversation_members_audit ()")
	program(t, []string{"DATABASE_URL=" + taken.URL}, "migrate", "up").expect(t, exitFailed)
	is(t, findings(t, append(w.env, "DATABASE_URL="+taken.Login("orphan_cleaner_runner")), exitFailed), "schema", "FAIL", "no migration has been applied", "migrate up")
}
