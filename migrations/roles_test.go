package migrations_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// runnerRole makes a role that owns nothing and gets the grants that the
// preflight asks for, until it asks for none.
func runnerRole(t *testing.T, d *testdb.DB) (name string, q *db.Queries, conn *pgx.Conn) {
	t.Helper()
	name = role(t, d, "runner")
	conn = connect(t, d.URLAs(name), "orphan-cleaner").Conn
	q = db.New(conn)
	for range 2 {
		objects, err := q.PreflightObjects(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if objects.GrantsMissing == "" {
			return name, q, conn
		}
		for _, grant := range strings.Split(objects.GrantsMissing, ", ") {
			if function, found := strings.CutPrefix(grant, "EXECUTE on "); found {
				grant = "EXECUTE ON FUNCTION " + function
			}
			d.Exec("GRANT " + grant + " TO " + name)
		}
	}
	t.Fatal("the preflight asks for grants that were given")
	return "", nil, nil
}

// A role with the grants that the preflight asks for can make a whole run, from
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
	_, err = q.SightingStage(ctx, db.SightingStageParams{RunID: run, UserIds: missing, Verdict: "missing"})
	must("SightingStage", err)
	_, err = q.SightingCount(ctx, run)
	must("SightingCount", err)

	// Judge.
	facts, err := q.SightingAssess(ctx, db.SightingAssessParams{UserIds: missing, MaxGap: maxGap, Retention: retention})
	must("SightingAssess", err)
	if facts.MembersDue != 5 || facts.MembersHeld != 2 {
		t.Errorf("assessed: %+v", facts)
	}
	_, err = q.RefusalStore(ctx, db.RefusalStoreParams{RunID: run, MaxGap: maxGap, Retention: retention})
	must("RefusalStore", err)
	_, err = q.ApprovalUse(ctx, db.ApprovalUseParams{RunID: run, ApprovalID: 1})
	must("ApprovalUse", err)
	_, err = q.CandidateMerge(ctx, db.CandidateMergeParams{RunID: run, MaxGap: maxGap})
	must("CandidateMerge", err)
	due, err := q.CandidateDuePage(ctx, db.CandidateDuePageParams{
		ThroughUser: uuid.Max, RunID: run, Retention: retention, MaxUsers: 10,
	})
	must("CandidateDuePage", err)
	if len(due) != 1 || due[0] != user {
		t.Errorf("due: %v, not %v", due, user)
	}
	_, err = q.MemberTotals(ctx)
	must("MemberTotals", err)
	_, err = q.DepartedPage(ctx, 10)
	must("DepartedPage", err)
	_, err = q.DepartedCheck(ctx, db.DepartedCheckParams{Alive: []uuid.UUID{uuid.New()}, Missing: []uuid.UUID{}})
	must("DepartedCheck", err)
	_, err = q.CandidateBacklog(ctx, db.CandidateBacklogParams{Retention: retention, MaxRows: 10})
	must("CandidateBacklog", err)

	// Sweep: the held user is asked for, too, and stays.
	must("a chunk", pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		q := q.WithTx(tx)
		if _, err := q.ChunkSettings(ctx, db.ChunkSettingsParams{RunID: run, LockTimeout: "3000", StatementTimeout: "10000"}); err != nil {
			return err
		}
		row, err := q.MemberDeleteDue(ctx, db.MemberDeleteDueParams{RunID: run, UserIds: missing, Retention: retention, MaxRows: 100})
		if err != nil {
			return err
		}
		proof, err := q.ChunkProof(ctx)
		if row.Chosen != 5 || row.Deleted != 5 || proof.Audited != 5 || proof.BackedUp != 5 {
			t.Errorf("a chunk: %+v %+v", row, proof)
		}
		if err != nil {
			return err
		}
		_, err = q.RunHeartbeat(ctx, db.RunHeartbeatParams{RunID: run, Phase: "sweep", Deleted: row.Deleted})
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
	finished, err := q.RunFinish(ctx, db.RunFinishParams{RunID: run, State: "succeeded", Phase: "finish"})
	must("RunFinish", err)
	if finished.MembersDeleted != 5 || finished.Conversations != 5 {
		t.Errorf("finished: %+v", finished)
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

// The runner cannot do away with the evidence of what it did, nor forge any.
func TestRunnerCannotForge(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	if _, _, err := connect(t, d.URL, "test").deleteInRun(t.Context(), openRun(d), deleteUser, members(d, 1)); err != nil {
		t.Fatal(err)
	}
	day := byDay(d, "conversation_members_backup_%s")
	_, _, conn := runnerRole(t, d)
	for _, statement := range []string{
		"DELETE FROM conversation_members_audit",
		"UPDATE conversation_members_audit SET run_id = NULL",
		"INSERT INTO conversation_members_audit SELECT * FROM conversation_members_audit",
		"DELETE FROM conversation_members_audit_default",
		"DELETE FROM conversation_members_backup",
		"UPDATE conversation_members_backup SET role = 'owner'",
		"INSERT INTO conversation_members_backup SELECT * FROM conversation_members_backup",
		"DELETE FROM " + day,
		"DROP TABLE " + day,
		"TRUNCATE conversation_members_backup",
		"DELETE FROM orphan_runs",
		"UPDATE orphan_pauses SET resumed_at = now()",
		"INSERT INTO orphan_approvals (run_id, approved_by, expires_at) SELECT run_id, 'me', now() + '1 day' FROM orphan_runs",
		"UPDATE orphan_holds SET lifted_at = now()",
		"ALTER TABLE conversation_members DISABLE TRIGGER ALL",
		"DROP TRIGGER conversation_members_audit_delete ON conversation_members",
		"SET session_replication_role = replica",
		"SELECT orphan_add_partition('conversation_members_backup', 'x', now(), now())",
	} {
		if _, err := conn.Exec(t.Context(), statement); err == nil {
			t.Errorf("the runner may: %s", statement)
		} else {
			wantState(t, err, insufficientRights)
		}
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
