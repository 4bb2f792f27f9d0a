package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// target is a database under attack: 200 users with two members each, whose limits
// are pinned, and orphan-cleaner's evidence about them.
type target struct {
	*testdb.DB
	t      *testing.T
	words  *strings.Replacer // {name} in a statement
	before map[string]testdb.Snapshot
}

// pins are the limits that the migrator set, as documented.
const pins = `('retention', 2592000), ('max-gap', 604800), ('new-missing-share', 0.1), ('new-missing-rate', 0.01),
	('candidate-share', 0.15), ('delete-share', 0.05), ('delete-share-7d', 0.1), ('delete-share-30d', 0.2), ('delete-rows', 100000),
	('history', 10), ('recently-active', 5)`

// A session of the attacker's own: the settings of a run are as lax as can be, and
// its token is his.
const (
	laxSettings = `{"retention": 0, "max-gap": 1e9, "new-missing-share": 1, "new-missing-rate": 1, "candidate-share": 1, "delete-share": 1,
		"delete-share-7d": 1, "delete-share-30d": 1, "delete-rows": 1e9, "history": 0, "recently-active": 1e9}`
	hostileToken = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
	victimToken  = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
)

func newTarget(t *testing.T) *target {
	t.Helper()
	d := testdb.New(t)
	d.Roles(rolesFile)
	d.Exec(`WITH c AS (INSERT INTO conversations (id, name) SELECT md5('conversation ' || n)::uuid, 'c' || n FROM generate_series(0, 49) AS n RETURNING 1)
		SELECT count(*) FROM c`)
	d.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at, last_read_at)
		SELECT md5('conversation ' || (n + k * 7) % 50)::uuid, md5('user ' || n)::uuid, now() - interval '90 days', now() - interval '60 days'
		FROM generate_series(1, 200) AS n, generate_series(0, 1) AS k`)
	d.Exec("ANALYZE conversation_members")
	// An honest run that deleted user 200; it knew users 1 to 4 as missing: 1 not long enough, 2 on hold, 3 in a
	// conversation on hold and active since, 4 due.
	run := openRun(d)
	if _, _, err := connect(t, d.URL, "orphan-cleaner").deleteInRun(t.Context(), run, deleteUser+"::text::uuid", testdb.One[string](d, "SELECT md5('user 200')::uuid::text")); err != nil {
		t.Fatal(err)
	}
	d.Exec("UPDATE orphan_cleaner.runs SET members_deleted = 2 WHERE run_id = $1", run)
	closeRun(d, run)
	d.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		SELECT md5('user ' || n)::uuid, now() - make_interval(days => CASE n WHEN 1 THEN 29 ELSE 40 END), now() - interval '1 hour', $1, 'sightings'
		FROM generate_series(1, 4) AS n`, run)
	d.Exec("UPDATE conversation_members SET last_read_at = now() - interval '2 days' WHERE user_id = md5('user 3')::uuid")
	d.Exec("INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES (md5('user 2')::uuid, 'a lawsuit'), (md5('user 4')::uuid, 'a lawsuit')")
	d.Exec("INSERT INTO orphan_cleaner.holds (conversation_id, reason) SELECT conversation_id, 'a lawsuit' FROM conversation_members WHERE user_id = md5('user 3')::uuid")
	refused := testdb.One[int64](d, `INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings, breaker)
		VALUES ('clean', 'refused', 'judge', now(), now(), now(), '1 minute', 'test:1', 'test', '{}', 'delete-share') RETURNING run_id`)
	d.Exec("INSERT INTO orphan_cleaner.refusals (run_id, user_id, is_due) SELECT $1, md5('user ' || n)::uuid, true FROM generate_series(5, 60) AS n", refused)
	d.Exec("INSERT INTO orphan_cleaner.limits (name, value) VALUES " + pins)
	d.Exec("INSERT INTO orphan_cleaner.coverage (cycle_run_id, previous_run_id, run_id, checked_at, users, users_so_far) VALUES ($1, $1, $1, now(), 200, 200)", run)
	d.Exec("INSERT INTO orphan_cleaner.hours (hour, target, users, users_new, rows_total, rows_deleted) SELECT date_trunc('hour', now()), t.target, 200, 0, 400, 2 FROM unnest(ARRAY['', 'conversation_members']) AS t (target)")
	d.Exec("CREATE TABLE ledger AS SELECT * FROM orphan_cleaner.candidates")
	d.Exec("CREATE TABLE sums AS SELECT * FROM orphan_cleaner.hours")
	d.Exec("CREATE TABLE covered AS SELECT * FROM orphan_cleaner.coverage")
	x := &target{DB: d, t: t, before: map[string]testdb.Snapshot{}}
	own := "(SELECT run_id FROM orphan_cleaner.runs WHERE state = 'running')"
	everybody := "ARRAY(SELECT md5('user ' || n)::uuid FROM generate_series(1, 199) AS n)"
	x.words = strings.NewReplacer(
		"{own}", own, "{token}", "'"+hostileToken+"'", "{lax}", "'"+laxSettings+"'", "{everybody}", everybody,
		"{few}", "ARRAY(SELECT md5('user ' || n)::uuid FROM generate_series(1, 6) AS n)", "{now}", "pg_snapshot_xmax(pg_current_snapshot())",
		"{begin}", "SELECT orphan_cleaner.run_begin('"+hostileToken+"', 'clean', 'verify', '"+laxSettings+"', '1 minute', 'hostile', 'x', NULL, false)",
		"{stage}", "SELECT orphan_cleaner.run_stage("+own+", '"+hostileToken+"', ARRAY(SELECT md5('user ' || n)::uuid FROM generate_series(1, 6) AS n), NULL)",
		"{judge}", "SELECT orphan_cleaner.run_judge("+own+", '"+hostileToken+"', '"+report(6, 199)+"')",
		"{sweep}", "SELECT orphan_cleaner.sweep_chunk("+own+", '"+hostileToken+"', "+everybody+", pg_snapshot_xmax(pg_current_snapshot()), 1000)",
	)
	for what, from := range protected {
		x.before[what] = d.Snapshot(from)
	}
	return x
}

// report is what a run hands over to be judged.
func report(missing, users int) string {
	return fmt.Sprintf(`{"users_checked": %[2]d, "users_missing": %[1]d, "users_unknown": 0, "users_covered": %[2]d, "members_total": 400, "batch_calls": 2,
		"alive_missing": 0, "dead_present": 0}`, missing, users)
}

// protected is what nobody but the functions may change for a reason, which an
// attempt never has. Of the ledger that no clock went back and nobody became due,
// of the runs those of others.
var protected = map[string]string{
	"conversation_members": "conversation_members",
	"conversations":        "conversations",
	"the shadow table":     "users",
	"audit":                "conversation_members_audit",
	"backup":               "conversation_members_backup",
	"holds":                "orphan_cleaner.holds",
	"pauses":               "orphan_cleaner.pauses",
	"limits":               "orphan_cleaner.limits",
	"approvals":            "orphan_cleaner.approvals",
	"restores":             "orphan_cleaner.restores",
	"versions":             "public.orphan_cleaner_goose",
	"refusals of others":   "orphan_cleaner.refusals AS f WHERE NOT EXISTS (SELECT FROM orphan_cleaner.runs AS r WHERE r.run_id = f.run_id AND r.host = 'hostile')",
	"runs of others":       "orphan_cleaner.runs WHERE host <> 'hostile'",
	"rows deleted":         "(SELECT sum(rows_deleted), sum(rows_approved) FROM orphan_cleaner.hours) AS h",
	"clocks that went back": `orphan_cleaner.candidates AS c LEFT JOIN ledger AS l USING (user_id)
		WHERE c.first_missing_at < coalesce(l.first_missing_at, now() - interval '5 minutes') OR c.approved_run IS DISTINCT FROM l.approved_run`,
	"candidates over the limit": "(SELECT count(*) > 30 AS too_many FROM orphan_cleaner.candidates) AS c",
	"settings under the pins": `orphan_cleaner.runs AS r JOIN orphan_cleaner.limits AS l ON r.settings ? l.name
		WHERE r.host = 'hostile' AND CASE l.name
			WHEN 'retention' THEN NOT coalesce((r.settings ->> l.name)::float8 >= l.value, false)
			WHEN 'history' THEN NOT coalesce((r.settings ->> l.name)::float8 BETWEEN 1e-9 AND l.value, false)
			ELSE NOT coalesce((r.settings ->> l.name)::float8 <= l.value, false) END`,
	"triggers and functions": `(SELECT t.tgname, t.tgenabled, p.proname, md5(p.prosrc), p.proconfig FROM pg_proc AS p LEFT JOIN pg_trigger AS t ON t.tgfoid = p.oid
		WHERE p.pronamespace = 'orphan_cleaner'::regnamespace) AS f`,
	"grants": `(SELECT c.relname, c.relacl, c.relowner FROM pg_class AS c WHERE c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace)
		AND c.relname NOT IN (SELECT c.relname FROM pg_class AS c JOIN pg_inherits AS i ON i.inhrelid = c.oid)) AS g`,
}

// unharmed fails the test where an attempt changed what it must not, and takes
// away what it was allowed to do.
func (x *target) unharmed(attempt string) {
	x.t.Helper()
	for what, from := range protected {
		if diff := x.before[what].Diff(x.Snapshot(from)); diff != "" {
			x.t.Errorf("%s\nchanged %s:\n%s", attempt, what, diff)
		}
	}
	x.Exec("UPDATE orphan_cleaner.runs SET state = 'abandoned', finished_at = now() WHERE state = 'running' AND host = 'hostile'")
	for _, statement := range []string{
		"TRUNCATE orphan_cleaner.candidates, orphan_cleaner.sightings, orphan_cleaner.hours, orphan_cleaner.coverage, orphan_cleaner.unknowns, orphan_cleaner.rechecks",
		"DELETE FROM orphan_cleaner.refusals AS f USING orphan_cleaner.runs AS r WHERE r.run_id = f.run_id AND r.host = 'hostile'",
		"DELETE FROM orphan_cleaner.runs WHERE host = 'hostile'",
		"INSERT INTO orphan_cleaner.candidates SELECT * FROM ledger", "INSERT INTO orphan_cleaner.hours SELECT * FROM sums",
		"INSERT INTO orphan_cleaner.coverage SELECT * FROM covered",
	} {
		x.Exec(statement)
	}
}

// attempt runs statements in a session of its own, whatever they return, and looks
// what they did. It reports whether the server refused one.
func (x *target) attempt(login, statements string) (refused bool) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, login)
	if err != nil {
		x.t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for statement := range strings.SplitSeq(x.words.Replace(statements), ";;") {
		if _, err := conn.PgConn().Exec(ctx, statement).ReadAll(); err != nil {
			var pgErr *pgconn.PgError
			if !errors.As(err, &pgErr) {
				x.t.Fatalf("%s: %v", statement, err)
			}
			refused = true
		}
	}
	// Whatever is still open is committed as far as it goes.
	if _, err := conn.PgConn().Exec(ctx, "COMMIT").ReadAll(); err != nil {
		refused = true
	}
	if err := conn.Close(ctx); err != nil {
		x.t.Fatal(err)
	}
	x.unharmed(statements)
	return refused
}

// What a login with the runner's role cannot do by any SQL: delete or change a row of
// a target, forge or remove evidence, move a clock, make a candidate due, stop
// another's run.
func TestHostileRunner(t *testing.T) {
	t.Parallel()
	x := newTarget(t)
	login := x.Login("orphan_cleaner_runner")
	x.Exec(`INSERT INTO orphan_cleaner.runs (token, kind, phase, started_at, heartbeat_at, judged_at, lease, host, version, settings)
		VALUES ($1, 'clean', 'sweep', now(), now(), now(), '1 hour', 'victim', 'x', '{"retention": 2592000}')`, victimToken)
	x.before["runs of others"] = x.Snapshot(protected["runs of others"])
	n := 0
	// While another's run is open: each of these is refused.
	for _, statements := range besideARun {
		n++
		if !x.attempt(login, statements) {
			t.Errorf("not refused: %s", statements)
		}
	}
	// These may pass, and do nothing.
	for _, statements := range harmless {
		n++
		x.attempt(login, statements)
	}
	x.Exec("UPDATE orphan_cleaner.runs SET state = 'succeeded', finished_at = now() WHERE host = 'victim'")
	x.before["runs of others"] = x.Snapshot(protected["runs of others"])
	// With a run of its own.
	for _, statements := range inARun {
		n++
		x.attempt(login, statements)
	}
	if n < 60 {
		t.Errorf("only %d attempts", n)
	}
}

var besideARun = []string{
	// another's run, whose token it does not know
	"{begin}", "SELECT token FROM orphan_cleaner.runs", "SELECT orphan_cleaner.run_open({own}, {token}, 'clean')",
	"SELECT orphan_cleaner.run_heartbeat({own}, {token}, 'clean', 'sweep')", "SELECT orphan_cleaner.run_heartbeat({own}, NULL, 'clean', 'sweep')",
	"SELECT orphan_cleaner.run_finish({own}, {token}, 'failed', NULL, NULL, '{}')", "SELECT orphan_cleaner.run_finish({own}, NULL, 'running', NULL, NULL, '{}')",
	"{stage}", "{judge}", "{sweep}", "SELECT orphan_cleaner.sweep_returned({own}, NULL, {everybody})",
	"SELECT orphan_cleaner.recheck_write({own}, {token}, {everybody}, {everybody}, NULL)",
	"SELECT orphan_cleaner.run_begin(NULL, 'clean', 'verify', {lax}, '1 minute', 'hostile', 'x', NULL, false)",
	"SELECT orphan_cleaner.run_begin({token}, 'clean', 'verify', {lax}, '-1 hour', 'hostile', 'x', NULL, false)",
	"SELECT orphan_cleaner.run_begin({token}, 'clean', 'verify', {lax}, 'infinity', 'hostile', 'x', '0 seconds', true)",
	"SELECT orphan_cleaner.revert_chunk({own}, {token}, 1, current_date, 0, 100, {everybody}, {now}, 'conversation_members')",
	// what is granted to others or to nobody
	"SELECT orphan_cleaner.conversation_members_delete({everybody}, now(), {now}, 1000)",
	"SELECT orphan_cleaner.sweep_rows(NULL, {everybody}, {now}, 1000)", "SELECT orphan_cleaner.candidates_leave({everybody})",
	"SELECT orphan_cleaner.candidates_block(1, '[]', true)", "UPDATE orphan_cleaner.candidates SET blocked_since = NULL",
	"SELECT orphan_cleaner.merge(NULL, '{}')", "SELECT orphan_cleaner.effective_settings('{}')", "SELECT orphan_cleaner.deleting_run()",
	"SELECT orphan_cleaner.conversation_members_facts({everybody}, now())", "SELECT orphan_cleaner.shadow_evidence({everybody})",
	"SELECT orphan_cleaner.approve(2, 'the boss', '1 day')", "SELECT orphan_cleaner.revoke_approval(2, 'the boss')",
	"SELECT orphan_cleaner.hold_lift(1, NULL, true)", "SELECT orphan_cleaner.hold_add(md5('x')::uuid, NULL, 'x', NULL, NULL)",
	"SELECT orphan_cleaner.pause('x')", "SELECT orphan_cleaner.resume()", "SELECT orphan_cleaner.prune_rows('0', '0', 1000)",
	"SELECT orphan_cleaner.prune_drop('conversation_members_audit_default', '1 day', '1 day')", "SELECT orphan_cleaner.prune_look('1 day', '1 day')",
	"SELECT orphan_cleaner.partition_add('public.conversation_members', 'x', now(), now())",
	"SELECT orphan_cleaner.restore_store({own}, {token}, 1, NULL, NULL, NULL, NULL, NULL)", "SELECT orphan_cleaner.restore_chunk({own}, {token}, current_date, 0, 100, {everybody}, '1 day', 'conversation_members')",
	"SELECT orphan_cleaner.recheck_settle({own}, {token})",
	"SELECT orphan_cleaner.conversation_members_audit_deleted()", "SELECT orphan_cleaner.refuse_truncate()",
	"CREATE TEMP TABLE gone (user_id uuid);; CREATE TRIGGER mine AFTER DELETE ON gone EXECUTE FUNCTION orphan_cleaner.conversation_members_audit_deleted()",
	// tables, by hand
	"DELETE FROM public.conversation_members", "UPDATE public.conversation_members SET last_read_at = NULL", "TRUNCATE public.conversation_members",
	"INSERT INTO public.conversation_members SELECT * FROM public.conversation_members",
	"MERGE INTO public.conversation_members AS m USING orphan_cleaner.candidates AS c ON m.user_id = c.user_id WHEN MATCHED THEN DELETE",
	"WITH gone AS (DELETE FROM public.conversation_members RETURNING 1) SELECT FROM gone",
	"UPDATE orphan_cleaner.candidates SET first_missing_at = '2000-01-01'", "INSERT INTO orphan_cleaner.candidates SELECT * FROM orphan_cleaner.candidates",
	"DELETE FROM orphan_cleaner.holds", "UPDATE orphan_cleaner.limits SET value = 1e9", "UPDATE orphan_cleaner.hours SET rows_deleted = 0",
	"INSERT INTO orphan_cleaner.approvals (run_id, approved_by, expires_at) VALUES (2, 'x', 'infinity')", "INSERT INTO orphan_cleaner.sightings (run_id, user_id, verdict) VALUES (1, md5('x')::uuid, 'missing')",
	"DELETE FROM public.conversation_members_audit", "INSERT INTO public.conversation_members_backup SELECT * FROM public.conversation_members_backup",
	"UPDATE public.orphan_cleaner_goose SET is_applied = false", "COPY orphan_cleaner.candidates FROM PROGRAM 'true'",
	"SELECT setval('orphan_cleaner.runs_run_id_seq', 1)", "SELECT nextval('orphan_cleaner.approvals_approval_id_seq')",
	// locks that its rights do not reach
	"SELECT FROM public.conversation_members FOR UPDATE", "SELECT FROM orphan_cleaner.holds FOR KEY SHARE", "SELECT run_id FROM orphan_cleaner.runs FOR SHARE",
	"BEGIN;; LOCK TABLE orphan_cleaner.pauses IN ROW EXCLUSIVE MODE", "BEGIN;; LOCK TABLE orphan_cleaner.holds IN SHARE MODE",
	"BEGIN;; LOCK TABLE orphan_cleaner.sightings IN ACCESS EXCLUSIVE MODE", "BEGIN;; LOCK TABLE public.conversation_members IN SHARE MODE",
	// being somebody else, or owning something
	"SET session_replication_role = replica", "SET ROLE orphan_cleaner_owner", "SET SESSION AUTHORIZATION postgres", "RESET SESSION AUTHORIZATION;; SET ROLE postgres",
	"ALTER TABLE public.conversation_members DISABLE TRIGGER ALL", "ALTER FUNCTION orphan_cleaner.sweep_chunk SET search_path = pg_temp",
	"CREATE RULE mine AS ON DELETE TO public.conversation_members DO INSTEAD NOTHING", "CREATE POLICY mine ON public.conversation_members",
	"CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION orphan_cleaner.refuse_truncate()", "CREATE SCHEMA mine",
	"CREATE TABLE public.conversation_members_backup_20991231 (n integer)", "CREATE TABLE orphan_cleaner.mine (n integer)",
	"CREATE PUBLICATION mine FOR ALL TABLES", "ALTER DATABASE template1 SET session_replication_role = replica", "DROP SCHEMA orphan_cleaner CASCADE",
	"DROP OWNED BY orphan_cleaner_owner", "REASSIGN OWNED BY orphan_cleaner_owner TO current_user", "ALTER SYSTEM SET session_replication_role = replica",
	"COMMENT ON TABLE orphan_cleaner.runs IS 'x'", "ALTER ROLE CURRENT_USER SET session_replication_role = replica", "SELECT pg_reload_conf()",
	"SELECT lo_import('/etc/passwd')", "SELECT pg_read_file('PG_VERSION')", "GRANT orphan_cleaner_restorer TO CURRENT_USER",
	"BEGIN;; SELECT orphan_cleaner.partitions_ensure(0);; PREPARE TRANSACTION 'mine'",
}

// shadows are names of ours in front of the real ones, as far as a session may have them.
const shadows = `CREATE TEMP TABLE conversation_members (conversation_id uuid, user_id uuid, joined_at timestamptz, last_read_at timestamptz);;
	CREATE TEMP TABLE runs (run_id bigint);; CREATE TEMP TABLE candidates (user_id uuid);; CREATE TEMP VIEW holds_in_force AS SELECT NULL::uuid AS user_id;;
	CREATE TEMP TABLE holds (user_id uuid);; CREATE TEMP TABLE pauses (resumed_at timestamptz);; CREATE TEMP TABLE limits (name text, value float8);;
	CREATE TEMP TABLE gone (user_id uuid);; CREATE TEMP TABLE users (id uuid, deleted_at timestamptz);; CREATE TEMP TABLE hours (hour timestamptz);;
	CREATE TEMP TABLE pg_class (oid oid);; CREATE TEMP TABLE pg_attribute (attname name);; CREATE DOMAIN pg_temp.xid8 AS text;;
	CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '2099-01-01Z'::timestamptz $$;;
	CREATE FUNCTION pg_temp.least(timestamptz, timestamptz) RETURNS timestamptz LANGUAGE sql AS $$ SELECT '2099-01-01Z'::timestamptz $$;;
	CREATE FUNCTION pg_temp.make_interval(double precision) RETURNS interval LANGUAGE sql AS $$ SELECT interval '0' $$;;
	CREATE FUNCTION pg_temp.younger(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;;
	CREATE OPERATOR pg_temp.<= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = pg_temp.younger);;
	SET search_path = pg_temp, pg_catalog, orphan_cleaner, public;; `

var harmless = []string{
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user", "ANALYZE public.conversation_members;; VACUUM orphan_cleaner.candidates",
	shadows + "DELETE FROM conversation_members;; INSERT INTO holds VALUES (NULL);; DELETE FROM runs",
	"SET orphan_cleaner.run_token = '" + victimToken + "';; DELETE FROM public.conversation_members",
	"SET orphan_cleaner.audits = '1';; SET orphan_cleaner.audit_failed = '1';; DELETE FROM public.conversation_members",
	"SELECT pg_advisory_lock(n) FROM generate_series(1, 100) AS n;; DELETE FROM public.conversation_members",
	"SELECT orphan_cleaner.partitions_ensure(NULL);; SELECT orphan_cleaner.partitions_ensure(-1);; SELECT orphan_cleaner.partitions_ensure(2147483647)",
	"SET default_tablespace = pg_global;; SET timezone = 'Pacific/Kiritimati';; SET datestyle = 'German';; SELECT orphan_cleaner.partitions_ensure(31)",
	"SELECT orphan_cleaner.conversation_members_page(NULL, -1);; SELECT orphan_cleaner.conversation_members_page('ffffffff-ffff-ffff-ffff-ffffffffffff', 9223372036854775807)",
	"SELECT orphan_cleaner.assess({everybody}, '-100 years', 'infinity', 2);; SELECT orphan_cleaner.assess(NULL, NULL, NULL, NULL)",
	"SELECT orphan_cleaner.breakers(NULL, NULL);; SELECT orphan_cleaner.breakers('[]', '1')",
}

// outOfStack calls for a chunk at every depth of the stack, down to where it is exhausted:
// within the function, and in front of the trigger.
const outOfStack = `CREATE FUNCTION pg_temp.deep(n integer) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			BEGIN
				PERFORM pg_temp.deep(n + 1);
			EXCEPTION WHEN statement_too_complex THEN
				PERFORM orphan_cleaner.sweep_chunk((SELECT run_id FROM orphan_cleaner.runs WHERE state = 'running'), {token}, {everybody}, {now}, 1000);
			END;
		END $$;; SET statement_timeout = '5s';; SELECT pg_temp.deep(0)`

// lying is a run of its own up to its judgement, about a few users.
const lying = "{begin};; {stage};; {judge};; "

var inARun = []string{
	// settings
	lying + "{sweep}",
	strings.ReplaceAll(lying, "{begin}", `SELECT orphan_cleaner.run_begin({token}, 'clean', 'verify', '{"retention": -1e9, "max-gap": "1e9", "history": -1}', '1 minute', 'hostile', 'x', NULL, false)`) + "{sweep}",
	strings.ReplaceAll(lying, "{begin}", `SELECT orphan_cleaner.run_begin({token}, 'clean', 'verify', '{"retention": "-Infinity", "delete-share": "NaN"}', '1 minute', 'hostile', 'x', NULL, false)`) + "{sweep}",
	strings.ReplaceAll(lying, "{begin}", `SELECT orphan_cleaner.run_begin({token}, 'clean', 'verify', '{"retention": null}', '1 minute', 'hostile', 'x', NULL, false)`) + "{sweep}",
	strings.ReplaceAll(lying, "{begin}", `SELECT orphan_cleaner.run_begin({token}, 'clean', 'verify', '{}', '1 hour', 'hostile', 'x', '0', NULL)`) + "{sweep}",
	// everybody is missing
	"{begin};; SELECT orphan_cleaner.run_stage({own}, {token}, {everybody}, NULL);; SELECT orphan_cleaner.run_judge({own}, {token}, '" + report(199, 199) + "');; {sweep}",
	"{begin};; SELECT orphan_cleaner.run_stage({own}, {token}, {everybody}, NULL);; SELECT orphan_cleaner.run_judge({own}, {token}, '" + report(199, 1_000_000_000) + "');; {sweep}",
	"{begin};; SELECT orphan_cleaner.run_stage({own}, {token}, {everybody}, NULL);; SELECT orphan_cleaner.run_judge({own}, {token}, '" + strings.Replace(report(199, 199), `"users_checked": 199`, `"users_checked": -1`, 1) + "');; {sweep}",
	"{begin};; SELECT orphan_cleaner.run_stage({own}, {token}, {everybody} || {everybody}, {everybody});; {judge};; {sweep}",
	"{begin};; SELECT orphan_cleaner.run_stage({own}, {token}, ARRAY[{everybody}, {everybody}], NULL);; {judge};; {sweep}",
	// no judgement, or an odd one
	"{begin};; {sweep}", "{begin};; {stage};; {sweep}", "{begin};; {stage};; SELECT orphan_cleaner.run_judge({own}, {token}, NULL);; {sweep}",
	"{begin};; {stage};; SELECT orphan_cleaner.run_judge({own}, {token}, '[]');; {sweep}", "{begin};; {stage};; SELECT orphan_cleaner.run_judge({own}, {token}, 'null');; {sweep}",
	"{begin};; {judge};; {sweep}", lying + "{stage};; {judge};; {sweep}",
	`{begin};; {stage};; SELECT orphan_cleaner.run_judge({own}, {token}, '{"run_id": 1, "rows_due": 0, "users_checked": "Infinity", "users_missing": 6, "users_unknown": 0, "rows_total": 1e300}');; {sweep}`,
	lying + "SELECT orphan_cleaner.run_finish({own}, {token}, 'succeeded', NULL, NULL, '{\"members_changed\": -1000, \"users_checked\": -1}')",
	lying + "SELECT orphan_cleaner.run_finish({own}, {token}, 'refused', 'delete-share', repeat('x', 100000), NULL)",
	// chunks
	lying + "SELECT orphan_cleaner.sweep_chunk({own}, {token}, NULL, {now}, 1000)", lying + "SELECT orphan_cleaner.sweep_chunk({own}, {token}, ARRAY[NULL]::uuid [], {now}, 1000)",
	lying + "SELECT orphan_cleaner.sweep_chunk({own}, {token}, (SELECT array_agg(gen_random_uuid()) FROM generate_series(1, 200000)) || {everybody}, {now}, 1000)",
	lying + "SELECT orphan_cleaner.sweep_chunk({own}, {token}, ARRAY[{everybody}, {everybody}], {now}, 1000)",
	lying + "SELECT orphan_cleaner.sweep_chunk({own}, {token}, {everybody}, '18446744073709551615', 1000)", lying + "SELECT orphan_cleaner.sweep_chunk({own}, {token}, {everybody}, NULL, 1000)",
	lying + "SELECT orphan_cleaner.sweep_chunk({own}, {token}, {everybody}, '0', 1000)", lying + "SELECT orphan_cleaner.sweep_chunk({own}, {token}, {everybody}, {now}, -1)",
	lying + "SELECT orphan_cleaner.sweep_chunk({own}, {token}, {everybody}, {now}, 9223372036854775807)", lying + "SELECT orphan_cleaner.sweep_chunk({own}, {token}, {everybody}, {now}, NULL)",
	lying + "SELECT orphan_cleaner.sweep_chunk(1, {token}, {everybody}, {now}, 1000)", lying + "SELECT orphan_cleaner.sweep_chunk({own}, '" + victimToken + "', {everybody}, {now}, 1000)",
	lying + "SELECT orphan_cleaner.sweep_returned({own}, {token}, {everybody});; {stage};; {sweep}",
	lying + "SELECT orphan_cleaner.recheck_write({own}, {token}, {everybody}, {everybody}, NULL)",
	// the surroundings of the functions
	shadows + lying + "{sweep}", lying + shadows + "{sweep}",
	lying + "BEGIN ISOLATION LEVEL REPEATABLE READ;; {sweep}", lying + "BEGIN ISOLATION LEVEL SERIALIZABLE;; {sweep}",
	"SET default_transaction_isolation = 'repeatable read';; " + lying + "{sweep}",
	"SET transform_null_equals = on;; SET standard_conforming_strings = off;; SET backslash_quote = on;; SET quote_all_identifiers = on;; " + lying + "{sweep}",
	"SET timezone = 'Etc/GMT-14';; SET datestyle = 'SQL, DMY';; SET intervalstyle = 'sql_standard';; SET extra_float_digits = -15;; " + lying + "{sweep}",
	"SET enable_seqscan = off;; SET enable_indexscan = off;; SET work_mem = '64kB';; SET constraint_exclusion = on;; SET row_security = off;; " + lying + "{sweep}",
	lying + "SET orphan_cleaner.audited = '0';; SET orphan_cleaner.backed_up = '0';; SET orphan_cleaner.run_token = {token};; DELETE FROM public.conversation_members;; {sweep}",
	lying + "BEGIN;; SAVEPOINT a;; {sweep};; ROLLBACK TO a;; {sweep};; PREPARE TRANSACTION 'mine'",
	lying + "DO $$ BEGIN FOR n IN 1..100 LOOP BEGIN PERFORM orphan_cleaner.sweep_chunk((SELECT run_id FROM orphan_cleaner.runs WHERE state = 'running'), {token}, {everybody}, {now}, n); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$",
	lying + "SET statement_timeout = 1;; {sweep};; {sweep};; {sweep}",
	lying + "DECLARE c CURSOR WITH HOLD FOR {sweep};; FETCH ALL FROM c", lying + "COPY ({sweep}) TO STDOUT",
	lying + outOfStack,
	// a restore, which it may begin and no more
	"SELECT orphan_cleaner.run_begin({token}, 'restore', 'restore', '{}', '1 minute', 'hostile', 'x', NULL, false);; SELECT orphan_cleaner.revert_chunk({own}, {token}, 1, current_date, 0, 100000, {everybody}, {now}, 'conversation_members')",
	"SELECT orphan_cleaner.run_begin({token}, 'restore', 'restore', '{}', '1 minute', 'hostile', 'x', NULL, false);; {stage};; {judge};; {sweep};; SELECT orphan_cleaner.restore_chunk({own}, {token}, current_date, 0, 1, {everybody}, '1 day', 'conversation_members')",
	"SELECT orphan_cleaner.run_begin({token}, 'simple', 'verify', '{}', '1 minute', 'hostile', 'x', NULL, false);; SELECT orphan_cleaner.run_begin({token}, 'clean', 'nothing', '{}', '1 minute', 'hostile', 'x', NULL, false)",
}

// run executes statements in an open session, of which each must succeed.
func (x *target) run(s *session, statements string) {
	x.t.Helper()
	for statement := range strings.SplitSeq(x.words.Replace(statements), ";;") {
		s.exec(x.t, statement)
	}
}

const user4 = "md5('user 4')::uuid"

// liftHold makes user 4 due whenever a run says that it is missing.
func (x *target) liftHold() {
	x.t.Helper()
	x.Exec("UPDATE orphan_cleaner.holds SET lifted_at = now() WHERE user_id = " + user4)
}

// The attempts above fail for what they try, and not because nothing works: a run
// deletes who is due, once nothing protects him.
func TestHostileControl(t *testing.T) {
	t.Parallel()
	x := newTarget(t)
	x.liftHold()
	x.run(connect(t, x.Login("orphan_cleaner_runner"), "test"), lying+"{sweep}")
	if n := x.Count("conversation_members WHERE user_id = " + user4); n != 0 {
		t.Errorf("%d members of a due user are left: this file shows nothing", n)
	}
	if n := x.Count("conversation_members"); n != 2*198 {
		t.Errorf("%d members are left", n)
	}
}

// A transaction whose snapshot is older than a hold or a pause does not get past them.
func TestHostileOldSnapshot(t *testing.T) {
	t.Parallel()
	for name, protect := range map[string]string{
		"hold":  "INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES (" + user4 + ", 'a lawsuit')",
		"pause": "INSERT INTO orphan_cleaner.pauses (reason) VALUES ('an incident')",
	} {
		for _, isolation := range []string{"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"} {
			t.Run(name+"/"+isolation, func(t *testing.T) {
				t.Parallel()
				x := newTarget(t)
				x.liftHold()
				s := connect(t, x.Login("orphan_cleaner_runner"), "test")
				x.run(s, lying+"BEGIN ISOLATION LEVEL "+isolation+";; SELECT FROM orphan_cleaner.holds")
				x.Exec(protect)
				_, err := s.Exec(t.Context(), x.words.Replace("{sweep}"))
				s.exec(t, "COMMIT")
				if n := x.Count("conversation_members"); n != 2*199 {
					t.Errorf("%d members are left, %v", n, err)
				}
				if isolation != "READ COMMITTED" {
					wantState(t, err, "OC007")
				}
			})
		}
	}
}

// A transaction that was kept open dates no sighting back to its beginning.
func TestHostileOldTransaction(t *testing.T) {
	t.Parallel()
	x := newTarget(t)
	login := x.Login("orphan_cleaner_runner")
	old, s := connect(t, login, "test"), connect(t, login, "test")
	old.exec(t, "BEGIN")
	began := testdb.One[time.Time](x.DB, "SELECT clock_timestamp()")
	x.run(s, "{begin}")
	testdb.Eventually(t, time.Minute, "the transaction is old", func() bool {
		return testdb.One[bool](x.DB, "SELECT clock_timestamp() > $1::timestamptz + interval '31 seconds'", began)
	})
	_, err := old.Exec(t.Context(), x.words.Replace("{stage}"))
	wantState(t, err, "OC007")
	old.exec(t, "ROLLBACK")
	x.unharmed("staging in an old transaction")
}

// Whatever a login with the runner's role keeps locked, pause, hold and begin end
// meanwhile, succeed or say why not, and succeed once it is gone; and a run of
// another goes on.
func TestHostileLocks(t *testing.T) {
	t.Parallel()
	for name, statements := range map[string]string{
		"a run that begins":      "BEGIN;; {begin}",
		"a chunk":                lying + "BEGIN;; {sweep}",
		"a finish":               lying + "BEGIN;; SELECT orphan_cleaner.run_finish({own}, {token}, 'failed', NULL, NULL, '{}')",
		"partitions":             "BEGIN;; SELECT orphan_cleaner.partitions_ensure(31)",
		"everything that it may": "BEGIN;; LOCK TABLE orphan_cleaner.pauses, orphan_cleaner.holds, orphan_cleaner.candidates IN ACCESS SHARE MODE;; SELECT user_id FROM public.conversation_members;; SELECT pg_advisory_xact_lock(n) FROM generate_series(1, 1000) AS n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTarget(t)
			s := connect(t, x.Login("orphan_cleaner_runner"), "test")
			x.run(s, statements)
			calls := map[string]string{
				"pause": "SELECT orphan_cleaner.pause('an incident')",
				"hold":  "SELECT orphan_cleaner.hold_add(md5('x')::uuid, NULL, 'a lawsuit', NULL, NULL)",
				"begin": "SELECT orphan_cleaner.run_begin(gen_random_uuid(), 'restore', 'restore', '{}', '1 minute', 'other', 'x', NULL, false)",
			}
			restorer := x.Login("orphan_cleaner_restorer")
			waits := map[string]func() error{}
			for what, call := range calls {
				other := connect(t, restorer, "test")
				waits[what] = async(func() error {
					_, err := other.Exec(context.WithoutCancel(t.Context()), call)
					return err
				})
			}
			for what, wait := range waits {
				err := wait()
				var pgErr *pgconn.PgError
				if err != nil && (!errors.As(err, &pgErr) || pgErr.Code != lockNotAvailable && pgErr.Code != "OC003") {
					t.Errorf("%s: %v", what, err)
				}
			}
			s.exec(t, "ROLLBACK")
			x.Exec("UPDATE orphan_cleaner.runs SET state = 'abandoned', finished_at = now() WHERE state = 'running'")
			x.Exec("UPDATE orphan_cleaner.pauses SET resumed_at = now(), resumed_by = 'x' WHERE resumed_at IS NULL")
			other := connect(t, restorer, "test")
			for _, call := range calls {
				other.exec(t, call)
			}
		})
	}
}

// Whoever restores deletes nothing, inserts nobody whom no backup holds, and says
// nothing about who is missing; a reader and a stranger change nothing at all.
func TestHostileOthers(t *testing.T) {
	t.Parallel()
	everyone := []string{
		"DELETE FROM public.conversation_members", "UPDATE public.conversation_members SET role = 'owner'", "TRUNCATE public.conversation_members",
		"INSERT INTO public.conversation_members (conversation_id, user_id) VALUES (md5('conversation 1')::uuid, md5('x')::uuid)",
		"UPDATE public.conversation_members_backup SET user_id = md5('x')::uuid", "DELETE FROM public.conversation_members_audit",
		"UPDATE orphan_cleaner.candidates SET first_missing_at = '2000-01-01'", "UPDATE orphan_cleaner.limits SET value = 0", "DELETE FROM orphan_cleaner.holds",
		"INSERT INTO orphan_cleaner.approvals (run_id, approved_by, expires_at) VALUES (2, 'x', 'infinity')", "SELECT token FROM orphan_cleaner.runs",
		"SELECT orphan_cleaner.approve(2, 'x', '1 day')", "SELECT orphan_cleaner.run_stage(1, {token}, {few}, NULL)",
		"SELECT orphan_cleaner.sweep_chunk(1, {token}, {few}, {now}, 1000)", "SELECT orphan_cleaner.revert_chunk(1, {token}, 1, current_date, 0, 1, {few}, {now}, 'conversation_members')",
		"SELECT orphan_cleaner.prune_drop('conversation_members_audit_default', '1 day', '1 day')", "SELECT orphan_cleaner.partitions_ensure(31)",
		"SELECT orphan_cleaner.run_finish(1, {token}, 'failed', NULL, NULL, '{}')", "SET session_replication_role = replica", "SET ROLE orphan_cleaner_owner",
		"BEGIN;; LOCK TABLE orphan_cleaner.holds IN SHARE MODE", "SELECT FROM public.conversation_members FOR UPDATE", "ALTER TABLE public.conversation_members DISABLE TRIGGER ALL",
		"CREATE TABLE public.mine (n integer)", "SET orphan_cleaner.run_token = '" + victimToken + "';; DELETE FROM public.conversation_members",
	}
	readers := []string{
		"SELECT orphan_cleaner.pause('x')", "SELECT orphan_cleaner.resume()", "SELECT orphan_cleaner.hold_lift(1, NULL, true)", "{begin}",
		"SELECT orphan_cleaner.hold_add(md5('x')::uuid, NULL, 'x', NULL, NULL)", "SELECT * FROM public.conversation_members_backup",
		"SELECT orphan_cleaner.conversation_members_page(NULL, 10)", "SELECT user_public_key FROM public.conversation_members",
	}
	strangers := []string{
		"SELECT * FROM orphan_cleaner.candidates", "SELECT orphan_cleaner.breakers('{}', '{}')", "SELECT * FROM public.conversation_members_audit",
		"SELECT user_id FROM public.conversation_members", "SELECT * FROM public.deleted_members_list", "SELECT * FROM public.orphan_cleaner_goose",
	}
	// A restore of its own, as far as it goes: of nobody whom no backup holds.
	restorers := []string{
		"SELECT orphan_cleaner.run_begin({token}, 'clean', 'verify', {lax}, '1 minute', 'hostile', 'x', NULL, false);; {stage}",
		"SELECT orphan_cleaner.run_begin({token}, 'clean', 'verify', {lax}, '1 minute', 'hostile', 'x', NULL, false);; {stage};; {judge};; {sweep}",
		"SELECT orphan_cleaner.run_begin({token}, 'restore', 'restore', '{}', '1 minute', 'hostile', 'x', NULL, true);; SELECT orphan_cleaner.restore_chunk({own}, '" + victimToken + "', current_date, 0, 100000, {everybody}, '1 day', 'conversation_members')",
		"SELECT orphan_cleaner.run_begin({token}, 'restore', 'restore', '{}', '1 minute', 'hostile', 'x', NULL, true);; SELECT orphan_cleaner.restore_chunk({own}, {token}, current_date, 0, 1, {everybody}, NULL, 'conversation_members');; SELECT FROM orphan_cleaner.restore_store({own}, NULL, 1, {few}, NULL, NULL, NULL, NULL)",
		"SELECT orphan_cleaner.run_begin({token}, 'restore', 'restore', '{}', '1 minute', 'hostile', 'x', NULL, true);; SELECT orphan_cleaner.revert_chunk({own}, {token}, 1, current_date, 0, 1, {few}, {now}, 'conversation_members')",
		"BEGIN ISOLATION LEVEL REPEATABLE READ;; SELECT orphan_cleaner.restore_chunk(NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'conversation_members')",
	}
	for name, attempts := range map[string][]string{
		"restorer": append(restorers, everyone...), "reader": append(readers, everyone...), "stranger": append(append(strangers, readers...), everyone...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTarget(t)
			var login string
			if name == "stranger" {
				login = x.URLAs(role(t, x.DB, "stranger"))
			} else {
				login = x.Login("orphan_cleaner_" + name)
			}
			for _, statements := range attempts {
				if !x.attempt(login, statements) {
					t.Errorf("not refused: %s", statements)
				}
			}
		})
	}
}
