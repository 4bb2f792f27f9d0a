package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func (w *world) limitLines(t *testing.T, flags ...string) map[string]limitLine {
	t.Helper()
	var list []limitLine
	e := program(t, w.env, append([]string{"limits", "--json"}, flags...)...).expect(t, exitDone)
	if err := json.Unmarshal([]byte(e.stdout), &list); err != nil {
		t.Fatalf("%v: %s", err, e)
	}
	lines := map[string]limitLine{}
	for _, line := range list {
		lines[line.Name] = line
	}
	if len(lines) != len(settings.BoundNames()) {
		t.Errorf("%d limits, not %d", len(lines), len(settings.BoundNames()))
	}
	return lines
}

// limits lists the setting, its pin and what is in force, which is what the
// database binds a run by.
func TestLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	for name, line := range w.limitLines(t) {
		if line.Pin != nil || line.SetBy != nil || line.Value != line.Effective {
			t.Errorf("%s before any pin: %+v", name, line)
		}
	}
	is(t, findings(t, w.env, exitDone), "limits", "warn", "retention", "history", "orphan-cleaner limits pin --defaults", "a stolen runner login could raise them")
	program(t, w.env, "limits", "pin", "--defaults", "delete-share=0.02", "retention=60d").expect(t, exitDone)
	is(t, findings(t, w.env, exitDone), "limits", "ok")
	lines := w.limitLines(t, "--retention=90d", "--max-history=0", "--max-gap=1d")
	for name, want := range map[string][3]float64{ // setting, pin, in force
		"retention": {90 * 86400, 60 * 86400, 90 * 86400}, "max-gap": {86400, 7 * 86400, 86400}, "delete-share": {1, 0.02, 0.02},
		"delete-rows": {100_000, 100_000, 100_000}, "history": {0, 10, 10}, "candidate-share": {1, 0.15, 0.15},
	} {
		line := lines[name]
		if line.Pin == nil || [3]float64{line.Value, *line.Pin, line.Effective} != want || *line.SetBy != "postgres" || line.SetAt.IsZero() {
			t.Errorf("%s is %+v, want %v", name, line, want)
		}
		given, err := json.Marshal(map[string]float64{name: line.Value})
		if err != nil {
			t.Fatal(err)
		}
		if bound := testdb.One[float64](w.DB, `SELECT (orphan_cleaner.effective_settings($1::jsonb) ->> $2::text)::float8`, string(given), name); bound != line.Effective {
			t.Errorf("%s: the database binds a run by %v, limits says %v", name, bound, line.Effective)
		}
	}
	table := program(t, w.env, "limits").expect(t, exitDone).stdout
	for _, part := range []string{"retention", "60d", "0.02", "postgres"} {
		if !strings.Contains(table, part) {
			t.Errorf("the table does not show %s:\n%s", part, table)
		}
	}
	program(t, w.env, "limits", "unpin", "delete-share", "retention").expect(t, exitDone)
	if lines := w.limitLines(t); lines["delete-share"].Pin != nil || lines["retention"].Pin != nil || lines["max-gap"].Pin == nil {
		t.Errorf("unpinned: %+v", lines)
	}
	is(t, findings(t, w.env, exitDone), "limits", "warn", "not pinned: retention, delete-share;")
}

// A run whose flags are looser says so in one line, goes by the pins, and keeps
// those in its row; one whose flags are stricter says nothing.
func TestLimitsBindRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	program(t, w.env, "limits", "pin", "retention=60d", "delete-rows=14").expect(t, exitDone)
	e := program(t, w.env, "run", "--json").expect(t, exitDone)
	const line = "INFO orphan_cleaner: Limits pinned in the database are stricter than the settings"
	if strings.Count(e.stderr, line) != 1 || !strings.Contains(e.stderr, "retention at 60d, not 30d") || !strings.Contains(e.stderr, "delete-rows at 14, not 100000") {
		t.Errorf("%s", e)
	}
	if dry := program(t, w.env, "run", "--dry-run").expect(t, exitDone); strings.Count(dry.stderr, line) != 1 || !strings.Contains(dry.stderr, "retention at 60d, not 30d") {
		t.Errorf("%s", dry)
	}
	if e.result(t)["members_due"] != 0.0 {
		t.Errorf("members missing for 40 days are due at a retention of 60: %s", e)
	}
	if kept := testdb.One[float64](w.DB, "SELECT (settings ->> 'retention')::float8 FROM orphan_cleaner.runs"); kept != 60*86400 {
		t.Errorf("the run's row says %v", kept)
	}
	strict := program(t, w.env, "run", "--retention=90d", "--max-delete-rows=3").expect(t, exitDone)
	if strings.Contains(strict.stderr, line) {
		t.Errorf("%s", strict)
	}
	program(t, w.env, "limits", "unpin", "retention").expect(t, exitDone)
	if e := program(t, w.env, "run", "--json", "--max-delete-rows=1000").expect(t, exitRefused); e.result(t)["breaker"] != "delete-rows" {
		t.Errorf("%s", e)
	}
}

// What cannot be a limit is refused, with what was meant, and pins nothing.
func TestLimitsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 0)
	for args, says := range map[string]string{
		"pin":                                 "--defaults",
		"pin delete-share":                    "NAME=VALUE",
		"pin delete-shares=0.1":               "did you mean delete-share?",
		"pin max-delete-share=0.1":            "did you mean delete-share?",
		"pin whatever=1":                      "there are: retention, max-gap",
		"pin delete-share=1.1":                "0 to 1",
		"pin delete-share=NaN":                "0 to 1",
		"pin delete-share=5%":                 "not a number",
		"pin delete-rows=-1":                  "0 or more",
		"pin history=0":                       "limits unpin history",
		"pin history=Inf":                     "not a number",
		"pin retention=30":                    "30d",
		"pin delete-rows=5 candidate-share=2": "0 to 1",
		"unpin delete-rows":                   "is not pinned",
		"unpin rows":                          "no limit",
		"list --max-delete-share=2":           "MAX_DELETE_SHARE",
	} {
		e := program(t, w.env, append([]string{"limits"}, strings.Fields(args)...)...).expect(t, exitUsage)
		if !strings.Contains(e.stderr, says) {
			t.Errorf("limits %s does not say %q: %s", args, says, e)
		}
	}
	if n := w.Count("orphan_cleaner.limits"); n != 0 {
		t.Errorf("%d limits are pinned", n)
	}
}

// A login without a right is told its name and the GRANT; a database that is not
// migrated, which command does it.
func TestExplained(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, 1)
	w.Roles(rolesFile)
	for _, c := range []struct {
		group, needs string
		args         []string
	}{
		{runner, migrator, []string{"limits", "pin", "delete-rows=5"}},
		{runner, migrator, []string{"effects", "set", "counter=unread"}},
		{runner, migrator, []string{"approve", "1", "--yes"}},
		{reader, restorer, []string{"pause", "--reason=x"}},
		{reader, restorer, []string{"hold", "add", "--user=" + w.dead[0].String(), "--reason=x"}},
		{runner, reader, []string{"report"}},
		{runner, migrator, []string{"prune", "--execute"}},
	} {
		if c.args[0] == "approve" {
			w.Exec(`INSERT INTO orphan_cleaner.runs (started_at, heartbeat_at, kind, state, phase, finished_at, lease, host, version, settings, breaker)
				VALUES (now(), now(), 'clean', 'refused', 'judge', now(), '1m', 'x', 'x', '{}', 'delete-rows')`)
		}
		url := w.Login(c.group)
		login, _, _ := strings.Cut(strings.TrimPrefix(url, "postgres://"), "@")
		e := program(t, w.envOf(url), c.args...).expect(t, exitFailed)
		want := "fix: DATABASE_URL of a member of " + c.needs + ", or GRANT " + c.needs + " TO " + login
		if strings.Contains(e.stderr, "see:") {
			t.Errorf("%q by the %s names another command than the one that helps: %s", c.args, c.group, e)
		}
		if !strings.Contains(e.stderr, want) || !strings.Contains(e.stderr, "SQLSTATE 42501") || strings.Count(e.stderr, "\n") != 1 {
			t.Errorf("%q by the %s does not say %q: %s", c.args, c.group, want, e)
		}
	}
	stranger := w.Login(reader)
	login, _, _ := strings.Cut(strings.TrimPrefix(stranger, "postgres://"), "@")
	w.Exec("REVOKE " + reader + " FROM " + login)
	e := program(t, w.envOf(stranger), "check").expect(t, exitFailed)
	if !strings.Contains(e.stdout, "hint: psql -f sql/roles.sql, then GRANT orphan_cleaner_runner TO "+login+"; a member already: it has NOINHERIT, ALTER ROLE "+login+" INHERIT, REVOKE") || strings.Contains(e.stdout, "migrate up") {
		t.Errorf("check by a stranger: %s", e)
	}
	bare := testdb.NewBare(t)
	for _, command := range []string{"limits", "status", "report", "hold list", "resume", "pause --reason=x", "prune", "approve 1 --yes", "restore --run=1"} {
		env := append(slices.Clone(wideLimits()), "DATABASE_URL="+bare.URL)
		if e := program(t, env, strings.Fields(command)...).expect(t, exitFailed); !strings.Contains(e.stderr, "orphan-cleaner migrate up") {
			t.Errorf("%s before migrating: %s", command, e)
		}
	}
	bare.Exec(`CREATE FUNCTION no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not on Fridays'; END $$;
		CREATE EVENT TRIGGER no_ddl ON ddl_command_start WHEN TAG IN ('CREATE SCHEMA') EXECUTE FUNCTION no_ddl()`)
	if e := program(t, []string{"DATABASE_URL=" + bare.URL}, "migrate", "up").expect(t, exitFailed); !strings.Contains(e.stderr, "where: PL/pgSQL function public.no_ddl()") {
		t.Errorf("migrate does not say who forbids it: %s", e)
	}
	bare.Exec("DROP EVENT TRIGGER no_ddl; ALTER TABLE conversation_members ALTER user_id TYPE text")
	if e := program(t, []string{"DATABASE_URL=" + bare.URL}, "migrate", "up").expect(t, exitFailed); strings.Contains(e.stderr, "where: ") {
		t.Errorf("a refusal of our own has no need to: %s", e)
	}
}
