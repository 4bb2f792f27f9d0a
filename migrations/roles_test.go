package migrations_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

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
	for _, u := range []uuid.UUID{user, held} {
		shadow(d, u.String(), "now() - interval '40 days'")
	}
	d.Exec("INSERT INTO orphan_holds (user_id, reason) VALUES ($1, 'a lawsuit')", held)
	dropPartitions(d)
	name, q, conn := runnerRole(t, d)
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
	_, err = q.PreflightTable(ctx)
	must("PreflightTable", err)
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
	begun, err := q.RunBegin(ctx, db.RunBeginParams{
		Kind: "clean", Phase: "verify", Lease: time.Minute, Host: "test:1", Version: "test", Settings: []byte("{}"),
	})
	must("RunBegin", err)
	run := begun.RunID
	_, err = q.RunOpen(ctx)
	must("RunOpen", err)
	_, err = q.RunClock(ctx, run)
	must("RunClock", err)
	_, err = q.RunHistory(ctx)
	must("RunHistory", err)
	_, err = q.PauseInForce(ctx)
	must("PauseInForce", err)
	_, err = q.ApprovalOpen(ctx)
	must("ApprovalOpen", err)
	missing := []uuid.UUID{user, held}
	_, err = q.MemberUserPage(ctx, db.MemberUserPageParams{ThroughUser: uuid.Max, MaxUsers: 10})
	must("MemberUserPage", err)
	staged, err := q.SightingStageMissing(ctx, db.SightingStageMissingParams{RunID: run, UserIds: missing, MaxGap: maxGap, Retention: retention})
	must("SightingStageMissing", err)
	_, err = q.SightingStageUnknown(ctx, db.SightingStageUnknownParams{RunID: run, UserIds: []uuid.UUID{uuid.New()}})
	must("SightingStageUnknown", err)
	_, err = q.SightingCount(ctx, run)
	must("SightingCount", err)

	// Judge.
	facts, err := q.SightingAssess(ctx, db.SightingAssessParams{UserIds: missing, MaxGap: maxGap, Retention: retention})
	must("SightingAssess", err)
	if facts.MembersDue != 5 || facts.MembersHeld != 2 || db.SightingStageMissingRow(facts) != staged {
		t.Errorf("assessed: %+v, staged: %+v", facts, staged)
	}
	_, err = q.RefusalStore(ctx, db.RefusalStoreParams{RunID: run, MaxGap: maxGap, Retention: retention})
	must("RefusalStore", err)
	_, err = q.ApprovalUse(ctx, db.ApprovalUseParams{RunID: run, ApprovalID: 1})
	must("ApprovalUse", err)
	_, err = q.CandidateMerge(ctx, db.CandidateMergeParams{RunID: run, MaxGap: maxGap})
	must("CandidateMerge", err)
	due, err := q.SightingDuePage(ctx, db.SightingDuePageParams{RunID: run, MaxUsers: 10, MaxMembers: 10})
	must("SightingDuePage", err)
	if len(due) != 1 || due[0].UserID != user || !due[0].IsLeaving || len(due[0].Places) != 5 {
		t.Errorf("due: %v, not %v with 5 members", due, user)
	}
	_, err = q.MemberTotals(ctx)
	must("MemberTotals", err)
	_, err = q.DepartedPage(ctx, 10)
	must("DepartedPage", err)
	_, err = q.DepartedCheck(ctx, db.DepartedCheckParams{RunID: run, AskedThrough: uuid.New(), Alive: []uuid.UUID{uuid.New()}, Missing: []uuid.UUID{}})
	must("DepartedCheck", err)
	_, err = q.CandidateBacklog(ctx, db.CandidateBacklogParams{Retention: retention, MaxRows: 10})
	must("CandidateBacklog", err)

	// Sweep: the held user is asked for, too, and stays.
	must("a chunk", pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		q := q.WithTx(tx)
		if _, err := q.ChunkSettings(ctx, db.ChunkSettingsParams{RunID: run, LockTimeout: "3000", StatementTimeout: "10000"}); err != nil {
			return err
		}
		if err := q.SettingsForChunk(ctx); err != nil {
			return err
		}
		found, err := q.MemberPlaces(ctx, db.MemberPlacesParams{UserIds: missing, After: pgtype.TID{Valid: true}, MaxMembers: 100})
		if err != nil {
			return err
		}
		places := make([]pgtype.TID, len(found))
		for i, member := range found {
			places[i] = member.Place
		}
		deleted, err := q.MemberDeleteDue(ctx, db.MemberDeleteDueParams{RunID: run, Places: places, UserIds: missing, Retention: retention})
		if err != nil {
			return err
		}
		proof, err := q.ChunkProof(ctx)
		if deleted != 5 || proof.Audited != 5 || proof.BackedUp != 5 {
			t.Errorf("a chunk: %d %+v", deleted, proof)
		}
		if err != nil {
			return err
		}
		_, err = q.RunHeartbeat(ctx, db.RunHeartbeatParams{RunID: run, Phase: "sweep", Deleted: deleted})
		return err
	}))
	_, err = q.CandidateForget(ctx, db.CandidateForgetParams{RunID: run, UserIds: missing})
	must("CandidateForget", err)

	// Finish.
	_, err = q.RunFacts(ctx, db.RunFactsParams{RunID: run})
	must("RunFacts", err)
	_, err = q.SightingDrop(ctx, run)
	must("SightingDrop", err)
	_, err = q.RunDeleted(ctx, run)
	must("RunDeleted", err)
	conversations, err := q.RunConversations(ctx, run)
	must("RunConversations", err)
	finished, err := q.RunFinish(ctx, db.RunFinishParams{RunID: run, State: "succeeded", Phase: "finish", Conversations: conversations})
	must("RunFinish", err)
	if finished.MembersDeleted != 5 || conversations != 5 {
		t.Errorf("finished: %+v, %d conversations", finished, conversations)
	}
	proof, err := q.RunProof(ctx, db.RunProofParams{RunID: run, StartedAt: begun.StartedAt})
	must("RunProof", err)
	if proof.Audited != 5 || proof.BackedUp != 5 {
		t.Errorf("proof: %+v", proof)
	}
	_, err = q.RunRecent(ctx, 10)
	must("RunRecent", err)
	_, err = q.RunRecordFailure(ctx, db.RunRecordFailureParams{
		Kind: "clean", Lease: time.Minute, Host: "test:1", Version: "test", Settings: []byte("{}"),
	})
	must("RunRecordFailure", err)
	if n := d.Count("conversation_members_audit WHERE run_id = $1 AND deleted_by = $2", run, name); n != 5 {
		t.Errorf("%d audit rows name the role", n)
	}
	if n := d.Count("conversation_members WHERE user_id = $1", held); n != 2 {
		t.Errorf("%d members of the user on hold", n)
	}
}

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
		"SELECT orphan_drop_partition('" + day + "', '1 day', '1 day')",
		"UPDATE orphan_restores SET state = 'planned'",
		"DELETE FROM orphan_restores",
		"SELECT user_id FROM orphan_restores",
		"SELECT orphan_restore_chunk(1, current_date, 0, 1, '1 day')",
		// the trigger
		"ALTER TABLE conversation_members DISABLE TRIGGER ALL",
		"ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete",
		"DROP TRIGGER conversation_members_audit_delete ON conversation_members",
		"CREATE TRIGGER mine BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
		"CREATE OR REPLACE FUNCTION conversation_members_audit_delete() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
		"DROP FUNCTION conversation_members_audit_delete()",
		"SET session_replication_role = replica",
		// other people's decisions
		"DELETE FROM orphan_runs",
		"UPDATE orphan_pauses SET resumed_at = now()",
		"DELETE FROM orphan_holds",
		"UPDATE orphan_holds SET lifted_at = now()",
		"INSERT INTO orphan_approvals (run_id, approved_by, expires_at) SELECT run_id, 'me', now() + '1 day' FROM orphan_runs",
		"UPDATE orphan_approvals SET expires_at = now() + '1 year'",
		"UPDATE orphan_approvals SET revoked_at = NULL",
		"UPDATE orphan_refusals SET is_due = true",
		"DELETE FROM goose_db_version",
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
		"ALTER TABLE orphan_runs OWNER TO " + name,
		"SET ROLE orphan_cleaner_owner",
		"SET ROLE orphan_cleaner_restorer",
		"GRANT orphan_cleaner_owner TO " + name,
		"SELECT orphan_add_partition('conversation_members_backup', 'x', now(), now())",
		"COPY orphan_runs TO PROGRAM 'true'",
	} {
		if _, err := conn.Exec(t.Context(), statement); err == nil {
			t.Errorf("the runner may: %s", statement)
		} else {
			wantState(t, err, insufficientRights)
		}
	}
	// A grant of what one does not have is a warning and grants nothing.
	if _, err := conn.Exec(t.Context(), "GRANT DELETE ON conversation_members TO PUBLIC"); err != nil {
		t.Fatal(err)
	}
	if testdb.One[bool](d, "SELECT has_table_privilege('orphan_cleaner_reader', 'conversation_members', 'DELETE')") {
		t.Error("the runner handed its right to delete to everybody")
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
		"DELETE FROM orphan_restores",
		"UPDATE orphan_restores SET user_id = gen_random_uuid()",
		"DELETE FROM orphan_runs",
		"DELETE FROM orphan_holds",
		"UPDATE orphan_holds SET reason = ''",
		"INSERT INTO orphan_candidates SELECT * FROM orphan_candidates",
		"INSERT INTO orphan_approvals (run_id, approved_by, expires_at) SELECT run_id, 'me', now() + '1 day' FROM orphan_runs",
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
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND (
			has_table_privilege(`+reader+`'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
			OR has_any_column_privilege(`+reader+`'INSERT, UPDATE, REFERENCES')
		)`) {
		t.Errorf("the reader may write %s", name)
	}
	for _, name := range names(t, d, `SELECT p.oid::regprocedure::text FROM pg_proc AS p
		WHERE p.pronamespace = 'public'::regnamespace AND has_function_privilege('orphan_cleaner_reader', p.oid, 'EXECUTE')`) {
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

// A delete that the runner's role makes by hand leaves its trace like any other.
func TestRunnerByHandIsAudited(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	user := members(d, 2)
	name, _, conn := runnerRole(t, d)
	if _, err := conn.Exec(t.Context(), deleteUser, user); err != nil {
		t.Fatal(err)
	}
	if n := d.Count("conversation_members_audit WHERE user_id = $1 AND deleted_by = $2 AND run_id IS NULL", user, name); n != 2 {
		t.Errorf("%d audit rows", n)
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
		WHERE c.relnamespace = 'public'::regnamespace
			AND c.relkind IN ('r', 'p', 'v', 'S', 'm', 'f')
			AND c.relname NOT IN ('conversations', 'conversation_members', 'users')
		UNION ALL
		SELECT p.oid::regprocedure::text, p.proowner FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace
	) AS o`
	if n := d.Count(objects); n < 30 {
		t.Fatalf("only %d objects are looked at", n)
	}
	for _, object := range names(t, d, "SELECT name FROM "+objects+" WHERE owner <> 'orphan_cleaner_owner'::regrole") {
		t.Errorf("%s does not belong to orphan_cleaner_owner", object)
	}
	for _, object := range names(t, d, "SELECT c.oid::regclass::text"+` FROM pg_class AS c, aclexplode(c.relacl) AS a
		WHERE c.relnamespace = 'public'::regnamespace
			AND a.grantee <> c.relowner
			AND (a.is_grantable OR a.grantee NOT IN ('orphan_cleaner_owner'::regrole,
				'orphan_cleaner_runner'::regrole, 'orphan_cleaner_restorer'::regrole, 'orphan_cleaner_reader'::regrole
			))`) {
		t.Errorf("%s is granted to somebody else, or with grant option", object)
	}
	// The functions that run with the owner's rights cannot be turned against
	// messaging-service: the owner may read some of it and write nothing.
	conn := connect(t, d.URL, "test", "SET ROLE orphan_cleaner_owner")
	for _, statement := range []string{
		"DELETE FROM conversation_members", "UPDATE conversation_members SET role = 'owner'",
		"INSERT INTO conversation_members (conversation_id, user_id) SELECT gen_random_uuid(), gen_random_uuid()",
		"SELECT name FROM conversations", "UPDATE conversations SET name = ''", "SELECT username FROM users", "CREATE ROLE mine",
	} {
		_, err := conn.Exec(t.Context(), statement)
		wantState(t, err, insufficientRights)
	}
}

// acl lists who may do what, as text, without the grants that owners have on
// what they own.
func acl(d *testdb.DB) testdb.Snapshot {
	return d.Snapshot(`(
		SELECT 'relation', c.oid::regclass::text, NULL, a.grantee::regrole::text, a.privilege_type
		FROM pg_class AS c, aclexplode(c.relacl) AS a
		WHERE c.relnamespace = 'public'::regnamespace
		UNION ALL
		SELECT 'column', t.attrelid::regclass::text, t.attname, a.grantee::regrole::text, a.privilege_type
		FROM pg_attribute AS t, aclexplode(t.attacl) AS a
		WHERE t.attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
		UNION ALL
		SELECT 'function', p.oid::regprocedure::text, NULL, a.grantee::regrole::text, a.privilege_type
		FROM pg_proc AS p, aclexplode(p.proacl) AS a
		WHERE p.pronamespace = 'public'::regnamespace
		UNION ALL
		SELECT 'owner', c.oid::regclass::text, NULL, c.relowner::regrole::text, NULL
		FROM pg_class AS c
		WHERE c.relnamespace = 'public'::regnamespace
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
	d.Exec("GRANT ALL ON conversation_members, conversation_members_audit, conversation_members_backup, orphan_approvals TO orphan_cleaner_runner")
	d.Exec("GRANT UPDATE (user_id), SELECT (user_public_key) ON conversation_members TO orphan_cleaner_runner, orphan_cleaner_reader")
	d.Exec("GRANT SELECT ON conversations, users TO orphan_cleaner_runner")
	d.Exec("GRANT SELECT ON orphan_holds TO PUBLIC")
	d.Exec("GRANT EXECUTE ON FUNCTION orphan_add_partition, orphan_ensure_partitions TO orphan_cleaner_reader")
	d.Exec("ALTER TABLE orphan_holds OWNER TO postgres")
	if diff := before.Diff(acl(d)); diff == "" {
		t.Fatal("the surplus is not seen: this test shows nothing")
	}
	d.Roles(rolesFile)
	if diff := before.Diff(acl(d)); diff != "" {
		t.Errorf("the grants are not the same:\n%s", diff)
	}
}

// The runner has each grant that the preflight asks for, and no other: without
// any one of them the preflight complains.
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
	grants := names(t, d, `
		SELECT a.privilege_type || ' ON ' || c.oid::regclass
		FROM pg_class AS c, aclexplode(c.relacl) AS a
		WHERE a.grantee = 'orphan_cleaner_runner'::regrole
		UNION ALL
		SELECT a.privilege_type || ' (' || t.attname || ') ON ' || t.attrelid::regclass
		FROM pg_attribute AS t, aclexplode(t.attacl) AS a
		WHERE a.grantee = 'orphan_cleaner_runner'::regrole
		UNION ALL
		SELECT a.privilege_type || ' ON FUNCTION ' || p.oid::regprocedure
		FROM pg_proc AS p, aclexplode(p.proacl) AS a
		WHERE a.grantee = 'orphan_cleaner_runner'::regrole`)
	if len(grants) < 30 {
		t.Fatalf("only %d grants are looked at", len(grants))
	}
	conn := connect(t, d.URL, "test")
	for _, grant := range grants {
		conn.exec(t, "BEGIN")
		conn.exec(t, "REVOKE "+grant+" FROM orphan_cleaner_runner")
		conn.exec(t, "SET LOCAL ROLE orphan_cleaner_runner")
		objects, err := db.New(conn.Conn).PreflightObjects(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if objects.GrantsMissing == "" {
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
	m, err := migrate.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.RolesAs(url, rolesFile)
	if n := d.Count("pg_class WHERE relname LIKE 'orphan\\_%' AND relkind = 'r' AND relowner <> 'orphan_cleaner_owner'::regrole"); n != 0 {
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
	if _, err := d.PsqlAs(d.URL, "-f", rolesFile, "-v", "lock_column=nothing"); err == nil {
		t.Error("a lock column that is not there is taken")
	}
	if n := d.Count("pg_class WHERE relowner = to_regrole('orphan_cleaner_owner')"); n != 0 {
		t.Errorf("it failed half-way and left %d objects changed", n)
	}
	d.Roles(rolesFile, "-v", "lock_column=is_muted")
	if n := d.Count("pg_attribute WHERE attrelid = 'conversation_members'::regclass AND attname IN ('is_muted', 'last_read_at') AND attacl::text LIKE '%runner=w%'"); n != 1 {
		t.Errorf("UPDATE is granted on %d columns", n)
	}
}

// Nobody else can have partitions made, read the shadow table through us, or
// call the trigger's function.
func TestFunctionsRefuseOthers(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	app := connect(t, d.URLAs(application(t, d)), "messaging-service")
	for _, statement := range []string{
		"SELECT orphan_ensure_partitions(1)",
		"SELECT orphan_shadow_evidence(ARRAY[gen_random_uuid()])",
		"SELECT orphan_clock_start(now(), now(), now(), '7 days')",
		"SELECT orphan_add_partition('conversation_members', 'x', now(), now())",
	} {
		_, err := app.Exec(t.Context(), statement)
		wantState(t, err, insufficientRights)
	}
}
