package migrations_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

const rolesFile = "../sql/roles.sql"

// runnerRole is a session of a role that owns nothing and has the grants of
// sql/roles.sql.
func runnerRole(t *testing.T, d *testdb.DB) (name string, q *db.Queries, conn *pgx.Conn) {
	t.Helper()
	d.Roles(rolesFile)
	conn = connect(t, d.Login("orphan_cleaner_runner"), "orphan-cleaner").Conn
	return conn.Config().User, db.New(conn), conn
}

// A role with the grants of sql/roles.sql can make a whole run, from
// the partitions to the end, by the very queries that the runner calls.
func TestRunnerOwnsNothing(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	user, held := uuid.MustParse(members(d, 5)), uuid.MustParse(members(d, 2))
	d.Exec("UPDATE conversation_members SET last_read_at = now() - interval '50 days'")
	for _, u := range []uuid.UUID{user, held} {
		shadow(d, u.String(), "now() - interval '40 days'")
	}
	d.Exec("INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES ($1, 'a lawsuit')", held)
	fill(d, 95)
	dropPartitions(d)
	name, q, _ := runnerRole(t, d)
	ctx := t.Context()
	const retention, maxGap = 30 * 24 * time.Hour, 7 * 24 * time.Hour
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	// Preflight.
	_, err := q.PreflightVersion(ctx)
	must("PreflightVersion", err)
	around, err := q.PreflightSurroundings(ctx)
	must("PreflightSurroundings", err)
	for _, found := range around {
		if found.Status != "ok" {
			t.Errorf("surroundings: %+v", found)
		}
	}
	made, err := q.PartitionEnsure(ctx, 7)
	must("PartitionEnsure", err)
	if made < 8 {
		t.Errorf("%d partitions made", made)
	}
	there, err := q.PartitionsThere(ctx)
	must("PartitionsThere", err)
	if !there.Today || !there.Tomorrow || !there.Month {
		t.Errorf("partitions: %+v", there)
	}

	// Begin and verify.
	token := uuid.New()
	begun, err := q.RunBegin(ctx, db.RunBeginParams{
		Token: token, Kind: "clean", Phase: "verify", Lease: time.Minute, Host: "test:1", Version: "test", Settings: []byte(looseSettings),
	})
	must("RunBegin", err)
	run := begun.RunID
	_, err = q.RunSchedule(ctx, time.Hour)
	must("RunSchedule", err)
	_, err = q.PauseInForce(ctx)
	must("PauseInForce", err)
	_, err = q.ApprovalOpen(ctx)
	must("ApprovalOpen", err)
	_, err = q.LimitList(ctx)
	must("LimitList", err)
	_, err = q.CoverageState(ctx)
	if !errors.Is(err, pgx.ErrNoRows) {
		must("CoverageState", err)
	}
	missing := []uuid.UUID{user, held}
	page, err := q.UserPage(ctx, db.UserPageParams{Target: "conversation_members", MaxUsers: 1000})
	must("UserPage", err)
	if len(page.Users) != 97 || page.Rows != 102 {
		t.Errorf("a page of %d users with %d members", len(page.Users), page.Rows)
	}
	_, err = q.CoverageHolders(ctx, missing)
	must("CoverageHolders", err)
	paused, err := q.RunHeartbeat(ctx, db.RunHeartbeatParams{RunID: run, Token: token, Kind: "clean", Phase: "verify"})
	must("RunHeartbeat", err)
	if paused {
		t.Error("runs are paused")
	}
	facts, err := q.RunAssess(ctx, db.RunAssessParams{UserIds: missing, Retention: retention, MaxGap: maxGap})
	must("RunAssess", err)
	unknown := uuid.New()
	due, err := q.RunStage(ctx, db.RunStageParams{RunID: run, Token: token, Missing: missing, Unknown: []uuid.UUID{unknown}})
	must("RunStage", err)
	if due != 5 || facts.RowsDue[0] != 5 || facts.RowsHeld[0] != 2 || facts.UsersDue != 1 {
		t.Errorf("%d rows staged, assessed: %+v", due, facts)
	}

	// Judge.
	_, err = q.RunBreakers(ctx, db.RunBreakersParams{Settings: begun.Settings, Facts: []byte(`{"users_checked": 97}`)})
	must("RunBreakers", err)
	judged, err := q.RunJudge(ctx, db.RunJudgeParams{RunID: run, Token: token, Report: []byte(`{"users_checked": 97, "users_covered": 97,
		"users_missing": 2, "users_unknown": 1, "members_total": 102, "batch_calls": 1, "alive_missing": 0, "dead_present": 0}`)})
	must("RunJudge", err)
	if judged.Breaker != "" {
		t.Fatalf("refused: %+v", judged)
	}
	duePage, err := q.RunDuePage(ctx, db.RunDuePageParams{RunID: run, MaxUsers: 10})
	must("RunDuePage", err)
	if len(duePage) != 1 || duePage[0].UserID != user || duePage[0].RowsDue[0] != 5 {
		t.Errorf("due: %v, not %v with 5 members", duePage, user)
	}
	_, err = q.RecheckPage(ctx, 10)
	must("RecheckPage", err)
	_, err = q.RecheckWrite(ctx, db.RecheckWriteParams{RunID: run, Token: token, Reached: uuid.New(), Alive: []uuid.UUID{uuid.New()}, Missing: []uuid.UUID{}})
	must("RecheckWrite", err)
	_, err = q.CandidateBacklog(ctx, db.CandidateBacklogParams{Retention: retention, MaxRows: 10})
	must("CandidateBacklog", err)

	// Sweep: the held user is handed over, too, and stays.
	d.Settle()
	from, err := q.SnapshotOldest(ctx)
	must("SnapshotOldest", err)
	chunk, err := q.RunSweepChunk(ctx, db.RunSweepChunkParams{RunID: run, Token: token, UserIds: missing, CheckedFrom: from, MaxRows: 100})
	must("RunSweepChunk", err)
	if chunk.RowsDeleted[0] != 5 || !chunk.IsWhole {
		t.Errorf("a chunk: %+v", chunk)
	}
	must("RunSweepReturned", q.RunSweepReturned(ctx, db.RunSweepReturnedParams{RunID: run, Token: token, UserIds: []uuid.UUID{uuid.New()}}))

	// Finish.
	finished, err := q.RunFinish(ctx, db.RunFinishParams{RunID: run, Token: token, State: "succeeded", Counts: []byte(`{"targets": [{"name": "conversation_members", "rows_settled": 5, "rows_blocked": 0}]}`)})
	must("RunFinish", err)
	if finished.State != "succeeded" || finished.MembersDeleted != 5 || finished.Conversations != 5 || finished.MembersHeld != 2 {
		t.Errorf("finished: %+v", finished)
	}
	_, err = q.RunRecent(ctx, 10)
	must("RunRecent", err)
	if n := d.Count("conversation_members_audit WHERE run_id = $1 AND deleted_by = $2", run, name); n != 5 {
		t.Errorf("%d audit rows name the role", n)
	}
	if n := d.Count("conversation_members_backup WHERE run_id = $1", run); n != 5 {
		t.Errorf("%d backup rows", n)
	}
	if n := d.Count("conversation_members WHERE user_id = $1", held); n != 2 {
		t.Errorf("%d members of the user on hold", n)
	}
}

// looseSettings are those of a run whose breakers are about something else.
const looseSettings = `{"retention": 2592000, "max-gap": 604800, "new-missing-share": 1, "new-missing-rate": 1, "candidate-share": 1,
	"delete-share": 1, "delete-share-7d": 1, "delete-share-30d": 1, "delete-rows": 100000, "history": 0, "recently-active": 5}`

// The runner cannot do away with the evidence of what it did, nor forge any; it
// reads and writes nothing of messaging-service but what a run needs.
func TestRunnerMayNot(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	if _, _, err := connect(t, d.URL, "test").deleteInRun(t.Context(), openRun(d), deleteUser, members(d, 1)); err != nil {
		t.Fatal(err)
	}
	members(d, 1)
	day, month := byDay(d, "conversation_members_backup_%s"), testdb.One[string](d,
		"SELECT 'conversation_members_audit_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMM')")
	name, _, conn := runnerRole(t, d)
	before := d.Snapshot("conversation_members")
	for _, statement := range []string{
		// the audit
		"DELETE FROM conversation_members_audit",
		"UPDATE conversation_members_audit SET run_id = NULL",
		"INSERT INTO conversation_members_audit SELECT * FROM conversation_members_audit",
		"TRUNCATE conversation_members_audit",
		"DELETE FROM conversation_members_audit_default",
		"DELETE FROM " + month,
		"SELECT user_id FROM conversation_members_audit",
		"ALTER TABLE conversation_members_audit DETACH PARTITION " + month,
		// the backup
		"DELETE FROM conversation_members_backup",
		"UPDATE conversation_members_backup SET role = 'owner'",
		"INSERT INTO conversation_members_backup SELECT * FROM conversation_members_backup",
		"DELETE FROM " + day,
		"DROP TABLE " + day,
		"TRUNCATE conversation_members_backup",
		"SELECT user_public_key FROM conversation_members_backup",
		"SELECT * FROM deleted_members_list",
		"SELECT * FROM orphan_cleaner.prune_drop('" + day + "', '1 day', '1 day')",
		"UPDATE orphan_cleaner.restores SET state = 'planned'",
		"DELETE FROM orphan_cleaner.restores",
		"SELECT orphan_cleaner.restore_chunk(1, gen_random_uuid(), current_date, 0, 1, '{}', '1 day', 'conversation_members')",
		"SELECT token FROM orphan_cleaner.runs",
		"SELECT * FROM orphan_cleaner.runs",
		// the trigger
		"ALTER TABLE conversation_members DISABLE TRIGGER ALL",
		"ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete",
		"DROP TRIGGER conversation_members_audit_delete ON conversation_members",
		"CREATE TRIGGER mine BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
		"CREATE OR REPLACE FUNCTION orphan_cleaner.conversation_members_audit_deleted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
		"DROP FUNCTION orphan_cleaner.conversation_members_audit_deleted()",
		"SET session_replication_role = replica",
		// other people's decisions
		"DELETE FROM orphan_cleaner.runs",
		"UPDATE orphan_cleaner.pauses SET resumed_at = now()",
		"DELETE FROM orphan_cleaner.holds",
		"UPDATE orphan_cleaner.holds SET lifted_at = now()",
		"INSERT INTO orphan_cleaner.approvals (run_id, approved_by, expires_at) SELECT run_id, 'me', now() + '1 day' FROM orphan_cleaner.runs",
		"UPDATE orphan_cleaner.approvals SET expires_at = now() + '1 year'",
		"UPDATE orphan_cleaner.approvals SET revoked_at = NULL",
		"UPDATE orphan_cleaner.refusals SET is_due = true",
		"DELETE FROM orphan_cleaner_goose",
		// messaging-service
		"SELECT user_public_key FROM conversation_members",
		"SELECT * FROM conversation_members",
		"UPDATE conversation_members SET user_id = gen_random_uuid()",
		"UPDATE conversation_members SET role = 'owner'",
		"INSERT INTO conversation_members (conversation_id, user_id) SELECT conversation_id, gen_random_uuid() FROM conversation_members",
		"TRUNCATE conversation_members",
		"DELETE FROM conversations",
		"SELECT name FROM conversations",
		"SELECT username FROM users",
		"DELETE FROM users",
		// being somebody else, or owning something
		"CREATE TABLE mine (n integer)",
		"CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
		"CREATE SCHEMA mine",
		"ALTER TABLE orphan_cleaner.runs OWNER TO " + name,
		"SET ROLE orphan_cleaner_owner",
		"SET ROLE orphan_cleaner_restorer",
		"GRANT orphan_cleaner_owner TO " + name,
		"SELECT orphan_cleaner.partition_add('public.conversation_members_backup', 'x', now(), now())",
		"DELETE FROM conversation_members",
		"SELECT FROM conversation_members FOR UPDATE",
		"COPY orphan_cleaner.runs TO PROGRAM 'true'",
		"GRANT DELETE ON conversation_members TO PUBLIC",
	} {
		if _, err := conn.Exec(t.Context(), statement); err == nil {
			t.Errorf("the runner may: %s", statement)
		} else {
			wantState(t, err, insufficientRights)
		}
	}
	if diff := before.Diff(d.Snapshot("conversation_members")); diff != "" {
		t.Errorf("members changed:\n%s", diff)
	}
}

// Whoever gives members back can neither delete any nor say what may be deleted,
// and touches no evidence; a reader writes nothing at all.
func TestRestorerAndReaderMayNot(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	members(d, 1)
	d.Roles(rolesFile)
	conn := connect(t, d.Login("orphan_cleaner_restorer"), "test")
	for _, statement := range []string{
		"DELETE FROM conversation_members",
		"UPDATE conversation_members SET is_muted = false",
		"TRUNCATE conversation_members",
		"SELECT FROM conversation_members FOR UPDATE",
		"DELETE FROM conversation_members_audit",
		"UPDATE conversation_members_audit SET run_id = NULL",
		"UPDATE conversation_members_backup SET role = 'owner'",
		"DELETE FROM conversation_members_backup",
		"DELETE FROM orphan_cleaner.restores",
		"UPDATE orphan_cleaner.restores SET user_id = gen_random_uuid()",
		"DELETE FROM orphan_cleaner.runs",
		"DELETE FROM orphan_cleaner.holds",
		"UPDATE orphan_cleaner.holds SET reason = ''",
		"INSERT INTO orphan_cleaner.candidates SELECT * FROM orphan_cleaner.candidates",
		"INSERT INTO orphan_cleaner.approvals (run_id, approved_by, expires_at) SELECT run_id, 'me', now() + '1 day' FROM orphan_cleaner.runs",
		"SELECT username FROM users",
		"SET ROLE orphan_cleaner_owner",
		"CREATE TABLE mine (n integer)",
	} {
		_, err := conn.Exec(t.Context(), statement)
		if err == nil {
			t.Errorf("the restorer may: %s", statement)
			continue
		}
		wantState(t, err, insufficientRights)
	}
	const reader = "'orphan_cleaner_reader', c.oid, "
	for _, name := range names(t, d, `SELECT c.oid::regclass::text FROM pg_class AS c
		WHERE c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace) AND c.relkind IN ('r', 'p', 'v') AND (
			has_table_privilege(`+reader+`'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
			OR has_any_column_privilege(`+reader+`'INSERT, UPDATE, REFERENCES')
		)`) {
		t.Errorf("the reader may write %s", name)
	}
	for _, name := range names(t, d, `SELECT p.oid::regprocedure::text FROM pg_proc AS p
		WHERE p.pronamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace) AND has_function_privilege('orphan_cleaner_reader', p.oid, 'EXECUTE') AND p.proname NOT IN ('breakers', 'surroundings', 'effects_check', 'counter_sample', 'run_totals', 'target_rows')`) {
		t.Errorf("the reader may execute %s", name)
	}
	for _, name := range []string{"conversation_members_backup", "conversation_members.user_public_key"} {
		table, column, found := strings.Cut(name, ".")
		may := testdb.One[bool](d, "SELECT has_any_column_privilege('orphan_cleaner_reader', $1, 'SELECT')", table)
		if found {
			may = testdb.One[bool](d, "SELECT has_column_privilege('orphan_cleaner_reader', $1, $2, 'SELECT')", table, column)
		}
		if may {
			t.Errorf("the reader may read %s", name)
		}
	}
}

// Whatever is ours belongs to orphan_cleaner_owner after roles.sql, and whoever
// else gets a grant is one of its roles.
func TestRolesOwnEverythingOfOurs(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Roles(rolesFile)
	const objects = `(
		SELECT c.oid::regclass::text AS name, c.relowner AS owner
		FROM pg_class AS c
		WHERE c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace)
			AND c.relkind IN ('r', 'p', 'v', 'S', 'm', 'f')
			AND c.relname NOT IN ('conversations', 'conversation_members', 'users')
		UNION ALL
		SELECT p.oid::regprocedure::text, p.proowner FROM pg_proc AS p WHERE p.pronamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace)
	) AS o`
	if n := d.Count(objects); n < 70 {
		t.Fatalf("only %d objects are looked at", n)
	}
	for _, object := range names(t, d, "SELECT name FROM "+objects+" WHERE owner <> 'orphan_cleaner_owner'::regrole") {
		t.Errorf("%s does not belong to orphan_cleaner_owner", object)
	}
	for _, object := range names(t, d, "SELECT c.oid::regclass::text"+` FROM pg_class AS c, aclexplode(c.relacl) AS a
		WHERE c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace)
			AND a.grantee <> c.relowner
			AND (a.is_grantable OR a.grantee NOT IN ('orphan_cleaner_owner'::regrole,
				'orphan_cleaner_runner'::regrole, 'orphan_cleaner_restorer'::regrole, 'orphan_cleaner_reader'::regrole
			))`) {
		t.Errorf("%s is granted to somebody else, or with grant option", object)
	}
	// The functions that run with the owner's rights cannot be turned against
	// messaging-service further than they must: the owner changes no member and no conversation.
	conn := connect(t, d.URL, "test", "SET ROLE orphan_cleaner_owner")
	for _, statement := range []string{
		"UPDATE conversation_members SET role = 'owner'", "TRUNCATE conversation_members", "DELETE FROM conversations",
		"SELECT name FROM conversations", "UPDATE conversations SET name = ''", "SELECT username FROM users", "CREATE ROLE mine",
		"ALTER TABLE conversation_members DISABLE TRIGGER ALL", "CREATE SCHEMA mine",
	} {
		_, err := conn.Exec(t.Context(), statement)
		wantState(t, err, insufficientRights)
	}
}

// The runner may write no table at all, create nothing, and grant nothing on.
func TestRunnerWritesNoTable(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Roles(rolesFile)
	for _, role := range []string{"orphan_cleaner_runner", "orphan_cleaner_restorer", "orphan_cleaner_reader"} {
		for _, name := range names(t, d, `SELECT c.oid::regclass::text FROM pg_class AS c
			WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
				AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
				AND CASE c.relkind
					WHEN 'S' THEN has_sequence_privilege('`+role+`', c.oid, 'USAGE, UPDATE')
					ELSE has_table_privilege('`+role+`', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
						OR has_any_column_privilege('`+role+`', c.oid, 'INSERT, UPDATE, REFERENCES')
				END`) {
			t.Errorf("%s may write %s", role, name)
		}
		for _, name := range names(t, d, `SELECT n.nspname::text FROM pg_namespace AS n WHERE has_schema_privilege('`+role+`', n.oid, 'CREATE')
			UNION ALL
			SELECT d.datname::text FROM pg_database AS d WHERE d.datname = current_database() AND has_database_privilege('`+role+`', d.oid, 'CREATE')`) {
			t.Errorf("%s may create in %s", role, name)
		}
		if may := testdb.One[bool](d, "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolcanlogin FROM pg_roles WHERE rolname = $1", role); may {
			t.Errorf("%s is more than a group", role)
		}
	}
}

// MAINTAIN (17 and newer) lets its holder LOCK TABLE in any mode, and so stop the application: roles.sql takes it back
// from all of ours, and warns where everybody has it.
func TestRolesTakeBackMaintain(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	if d.Cluster().Version() < 17 {
		t.Skip("MAINTAIN came with PostgreSQL 17")
	}
	d.Roles(rolesFile)
	tables := names(t, d, `SELECT c.oid::regclass::text FROM pg_class AS c
		WHERE c.relkind IN ('r', 'p') AND c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace)`)
	roles := []string{"orphan_cleaner_runner", "orphan_cleaner_restorer", "orphan_cleaner_reader"}
	for _, table := range tables {
		d.Exec("GRANT MAINTAIN ON " + table + " TO " + strings.Join(roles, ", "))
	}
	d.Exec("GRANT MAINTAIN ON conversations, conversation_members TO orphan_cleaner_owner")
	d.Roles(rolesFile)
	for _, role := range append(roles, "orphan_cleaner_owner") {
		for _, table := range tables {
			ours := table != "conversations" && table != "conversation_members" && table != "users"
			if (!ours || role != "orphan_cleaner_owner") && testdb.One[bool](d, "SELECT has_table_privilege($1, $2, 'MAINTAIN')", role, table) {
				t.Errorf("%s may maintain %s", role, table)
			}
		}
	}
	d.Exec("GRANT MAINTAIN ON conversation_members TO PUBLIC")
	out, err := exec.CommandContext(t.Context(), filepath.Join(d.Cluster().BinDir(), "psql"), "-X", "-d", d.URL, "-f", rolesFile).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PUBLIC has rights on conversation_members") {
		t.Errorf("no warning: %v\n%s", err, out)
	}
}

// What the DBA granted the owner role for the application's own triggers stays.
func TestRolesLeaveTheDBAsGrants(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Roles(rolesFile)
	d.Exec("GRANT UPDATE (member_count) ON conversations TO orphan_cleaner_owner")
	d.Exec("CREATE TABLE feed (user_id uuid)")
	d.Exec("GRANT INSERT ON feed TO orphan_cleaner_owner")
	d.Roles(rolesFile)
	if !testdb.One[bool](d, "SELECT has_column_privilege('orphan_cleaner_owner', 'conversations', 'member_count', 'UPDATE')") {
		t.Error("UPDATE (member_count) on conversations was taken back")
	}
	if !testdb.One[bool](d, "SELECT has_table_privilege('orphan_cleaner_owner', 'feed', 'INSERT')") {
		t.Error("INSERT on another table was taken back")
	}
}

// acl lists who may do what, as text, without the grants that owners have on
// what they own.
func acl(d *testdb.DB) testdb.Snapshot {
	return d.Snapshot(`(
		SELECT 'relation', c.oid::regclass::text, NULL, a.grantee::regrole::text, a.privilege_type
		FROM pg_class AS c, aclexplode(c.relacl) AS a
		WHERE c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace)
		UNION ALL
		SELECT 'column', t.attrelid::regclass::text, t.attname, a.grantee::regrole::text, a.privilege_type
		FROM pg_attribute AS t, aclexplode(t.attacl) AS a
		WHERE t.attrelid IN (SELECT oid FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace))
		UNION ALL
		SELECT 'function', p.oid::regprocedure::text, NULL, a.grantee::regrole::text, a.privilege_type
		FROM pg_proc AS p, aclexplode(p.proacl) AS a
		WHERE p.pronamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace)
		UNION ALL
		SELECT 'schema', n.nspname, NULL, a.grantee::regrole::text, a.privilege_type
		FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
		WHERE n.nspname IN ('public', 'orphan_cleaner')
		UNION ALL
		SELECT 'owner', c.oid::regclass::text, NULL, c.relowner::regrole::text, NULL
		FROM pg_class AS c
		WHERE c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace)
		UNION ALL
		SELECT 'member', roleid::regrole::text, NULL, member::regrole::text, admin_option::text
		FROM pg_auth_members
		WHERE member::regrole::text LIKE 'orphan\_cleaner\_%' AND member::regrole::text !~ '_t\d+_\d+$'
	) AS a`)
}

// Running roles.sql again changes nothing, and takes back what was granted beside it.
func TestRolesAgain(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Roles(rolesFile)
	before := acl(d)
	if len(before) < 100 {
		t.Fatalf("only %d grants are looked at", len(before))
	}
	d.Exec("GRANT ALL ON conversation_members, conversation_members_audit, conversation_members_backup, orphan_cleaner.approvals TO orphan_cleaner_runner")
	d.Exec("GRANT UPDATE (user_id), SELECT (user_public_key) ON conversation_members TO orphan_cleaner_runner, orphan_cleaner_reader")
	d.Exec("GRANT SELECT ON conversations, users TO orphan_cleaner_runner")
	d.Exec("GRANT TRUNCATE, TRIGGER ON conversations, conversation_members TO orphan_cleaner_owner")
	d.Exec("GRANT USAGE ON SCHEMA orphan_cleaner TO PUBLIC")
	d.Exec("GRANT CREATE ON SCHEMA orphan_cleaner TO orphan_cleaner_runner")
	d.Exec("GRANT SELECT (token) ON orphan_cleaner.runs TO orphan_cleaner_reader")
	d.Exec("GRANT SELECT ON orphan_cleaner.holds TO PUBLIC")
	d.Exec("GRANT EXECUTE ON FUNCTION orphan_cleaner.partition_add, orphan_cleaner.partitions_ensure, orphan_cleaner.sweep_chunk TO orphan_cleaner_reader, PUBLIC")
	d.Exec("ALTER TABLE orphan_cleaner.holds OWNER TO postgres")
	if diff := before.Diff(acl(d)); diff == "" {
		t.Fatal("the surplus is not seen: this test shows nothing")
	}
	d.Roles(rolesFile)
	if diff := before.Diff(acl(d)); diff != "" {
		t.Errorf("the grants are not the same:\n%s", diff)
	}
}

// Without any one of the grants that a run needs the preflight complains, and
// roles.sql gives the runner each that the preflight asks for.
func TestRunnerGrantsAreThosePreflightAsksFor(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	_, q, _ := runnerRole(t, d)
	objects, err := q.PreflightObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if objects.GrantsMissing != "" {
		t.Errorf("the preflight asks for %s", objects.GrantsMissing)
	}
	// For status, report, restore --revert, which a run is not.
	others := map[string]bool{
		"SELECT ON orphan_cleaner.holds": true, "SELECT ON orphan_cleaner.restores": true, "SELECT ON orphan_cleaner.promotions": true,
		// For check alone.
		"EXECUTE ON FUNCTION orphan_cleaner.counter_sample(integer)": true,
	}
	grants := slices.DeleteFunc(names(t, d, `
		SELECT a.privilege_type || ' ON ' || c.oid::regclass
		FROM pg_class AS c, aclexplode(c.relacl) AS a
		WHERE a.grantee = 'orphan_cleaner_runner'::regrole AND c.relnamespace = 'orphan_cleaner'::regnamespace
		UNION ALL
		SELECT a.privilege_type || ' ON FUNCTION ' || p.oid::regprocedure
		FROM pg_proc AS p, aclexplode(p.proacl) AS a
		WHERE a.grantee = 'orphan_cleaner_runner'::regrole AND p.proname NOT IN ('revert_chunk', 'revert_judge')
		UNION ALL
		SELECT a.privilege_type || ' ON SCHEMA ' || n.nspname
		FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
		WHERE a.grantee = 'orphan_cleaner_runner'::regrole AND n.nspname = 'orphan_cleaner'`),
		func(grant string) bool { return others[grant] })
	if len(grants) < 25 {
		t.Fatalf("only %d grants are looked at", len(grants))
	}
	conn := connect(t, d.URL, "test")
	for _, grant := range grants {
		conn.exec(t, "BEGIN")
		conn.exec(t, "REVOKE "+grant+" FROM orphan_cleaner_runner")
		conn.exec(t, "SET LOCAL ROLE orphan_cleaner_runner")
		objects, err := db.New(conn.Conn).PreflightObjects(t.Context())
		// Without the schema it cannot even look, and says so.
		if err != nil && !strings.Contains(err.Error(), "permission denied for schema orphan_cleaner") {
			t.Fatal(err)
		}
		if err == nil && objects.GrantsMissing == "" {
			t.Errorf("the runner has %s, which the preflight does not ask for", grant)
		}
		conn.exec(t, "ROLLBACK")
	}
}

// A role that is no superuser, but may make roles and owns messaging-service's
// tables, can run roles.sql before and after the migrations, and migrate again
// afterwards, by then as a member of orphan_cleaner_migrator.
func TestRolesWithoutSuperuser(t *testing.T) {
	t.Parallel()
	d := testdb.NewBare(t)
	owner := role(t, d, "messaging")
	d.Exec("ALTER ROLE " + owner + " CREATEROLE")
	for _, table := range []string{"conversations", "conversation_members", "users"} {
		d.Exec("ALTER TABLE " + table + " OWNER TO " + owner)
	}
	d.Exec("ALTER DATABASE " + d.Name + " OWNER TO " + owner)
	t.Cleanup(func() {
		// A session drops its temporary functions while it ends.
		testdb.Eventually(t, time.Minute, "the owner's sessions have ended", func() bool {
			return d.Count("pg_stat_activity WHERE usename = $1", owner) == 0
		})
		d.Exec("ALTER DATABASE " + d.Name + " OWNER TO postgres")
		d.Exec("REASSIGN OWNED BY " + owner + " TO postgres")
	})
	url := d.URLAs(owner)
	// The roles are there already where another test was quicker.
	d.Roles(rolesFile)
	if d.Cluster().Version() >= 16 {
		// From then on CREATEROLE is no say over roles that others made.
		d.Exec("GRANT orphan_cleaner_owner, orphan_cleaner_migrator TO " + owner + " WITH ADMIN OPTION")
	}
	d.RolesAs(url, rolesFile)
	m, err := migrate.Open(t.Context(), url, migrate.Embedded())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.RolesAs(url, rolesFile)
	if n := d.Count("pg_class WHERE (relnamespace = 'orphan_cleaner'::regnamespace OR relname = 'orphan_cleaner_goose') AND relkind = 'r' AND relowner <> 'orphan_cleaner_owner'::regrole"); n != 0 {
		t.Errorf("%d tables do not belong to orphan_cleaner_owner", n)
	}
	grants := acl(d)
	if _, err := m.Down(t.Context()); err != nil {
		t.Errorf("down, as a member of orphan_cleaner_migrator: %v", err)
	}
	if _, err := m.Up(t.Context()); err != nil {
		t.Errorf("up again: %v", err)
	}
	d.RolesAs(url, rolesFile)
	if diff := grants.Diff(acl(d)); diff != "" {
		t.Errorf("the grants are not the same:\n%s", diff)
	}
}

// roles.sql refuses a database that is not messaging-service's, and roles that
// are more than groups.
func TestRolesRefuses(t *testing.T) {
	t.Parallel()
	empty := testdb.NewEmpty(t)
	out, err := empty.PsqlAs(empty.URL, "-f", rolesFile)
	if err == nil || !strings.Contains(err.Error(), "this is not the database of messaging-service") {
		t.Errorf("%s, %v", out, err)
	}
	d := testdb.New(t)
	stranger := role(t, d, "stranger")
	if _, err := d.PsqlAs(d.URLAs(stranger), "-f", rolesFile); err == nil {
		t.Error("somebody without rights may run it")
	}
	if n := d.Count("pg_class WHERE relowner = to_regrole('orphan_cleaner_owner') AND relpersistence <> 't'"); n != 0 {
		t.Errorf("it failed and left %d objects changed", n)
	}
}

// Nobody else can have partitions made, read the shadow table through us, or
// call the trigger's function.
func TestFunctionsRefuseOthers(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	app := connect(t, d.URLAs(application(t, d)), "messaging-service")
	for _, function := range names(t, d, "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'orphan_cleaner'::regnamespace") {
		name, arguments, _ := strings.Cut(strings.TrimSuffix(function, ")"), "(")
		nulls := ""
		if arguments != "" {
			nulls = "NULL" + strings.Repeat(", NULL", strings.Count(arguments, ","))
		}
		_, err := app.Exec(t.Context(), "SELECT "+name+"("+nulls+")")
		wantState(t, err, insufficientRights)
	}
}
