package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// cleaned is a world whose due members, of every kind, a run has deleted, and what
// the table held before.
func cleaned(t *testing.T) (w *world, run string, before testdb.Snapshot) {
	t.Helper()
	w = newWorld(t, 600, 25)
	w.Exec(`UPDATE conversation_members SET
		role = (ARRAY['member', 'admin', 'owner'])[1 + abs(hashtext(user_id::text) % 3)],
		last_read_at = now() - interval '35 days' + random() * interval '1 day',
		is_muted = hashtext(user_id::text) % 2 = 0,
		user_public_key = CASE WHEN hashtext(user_id::text) % 3 = 0 THEN 'key "of" ' || user_id || E'\n,\\' END`)
	w.Settle()
	before = w.Snapshot("conversation_members")
	result := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)
	if result["members_deleted"] != 25.0 {
		t.Fatalf("the run deleted %v members", result["members_deleted"])
	}
	return w, fmt.Sprint(result["run_id"]), before
}

func (w *world) restore(t *testing.T, args ...string) map[string]any {
	t.Helper()
	return program(t, w.env, append([]string{"restore", "--json", "--execute"}, args...)...).expect(t, exitDone).result(t)
}

// figures picks figures of a result, to compare them at once.
func figures(result map[string]any, names ...string) string {
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %v", name, result[name]))
	}
	return strings.Join(parts, ", ")
}

func TestRestoreGivesBackTheSameRows(t *testing.T) {
	t.Parallel()
	w, run, before := cleaned(t)

	all := contents(t, w.DB)
	preview := program(t, w.env, "restore", "--run", run).expect(t, exitDone)
	for _, says := range []string{"nothing was changed", "25", "orphan-cleaner restore --run " + run + " --execute"} {
		if !strings.Contains(preview.stdout, says) {
			t.Errorf("the preview does not say %q:\n%s", says, preview.stdout)
		}
	}
	if contents(t, w.DB) != all {
		t.Error("a preview changed something")
	}

	got := w.restore(t, "--run", run)
	if got["members_restored"] != 25.0 || got["users"] != 25.0 || got["members_left"] != 0.0 {
		t.Errorf("%v", got)
	}
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("the table is not as it was:\n%s", diff)
	}
	// Again: no change.
	all = contents(t, w.DB, "orphan_cleaner.runs")
	if got := w.restore(t, "--run", run); got["members_restored"] != 0.0 || got["there"] != 25.0 {
		t.Errorf("again: %v", got)
	}
	if contents(t, w.DB, "orphan_cleaner.runs") != all {
		t.Error("the second restore changed something")
	}
	// The next run takes none of them: their users are on hold, however long they have been missing.
	w.longMissing(w.dead...)
	result := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)
	if result["members_deleted"] != 0.0 || result["members_held"] != 25.0 {
		t.Errorf("the next run: %v", result)
	}
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("after the next run the table is not as it was:\n%s", diff)
	}
	if list := program(t, w.env, "hold", "list").expect(t, exitDone); !strings.Contains(list.stdout, "25 users of restore 2") {
		t.Errorf("hold list:\n%s", list.stdout)
	}
	program(t, w.env, "hold", "remove", "--restore", "2").expect(t, exitDone)
	w.Settle()
	if result := program(t, w.env, "run", "--json").expect(t, exitDone).result(t); result["members_deleted"] != 25.0 {
		t.Errorf("after the holds were lifted: %v", result)
	}
}

// What happened since the deletion is respected, and counted.
func TestRestoreMeetsChanges(t *testing.T) {
	t.Parallel()
	w, run, _ := cleaned(t)
	ids := func(query string, args ...any) (users []uuid.UUID) {
		rows, err := w.Pool.Query(t.Context(), query, args...)
		if err == nil {
			users, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		}
		if err != nil {
			t.Fatal(err)
		}
		return users
	}
	doomed := testdb.One[uuid.UUID](w.DB, `SELECT min(conversation_id::text)::uuid FROM conversation_members_backup`)
	gone := w.Count(`conversation_members_backup WHERE conversation_id = $1`, doomed)
	others := ids(`SELECT user_id FROM conversation_members_backup WHERE conversation_id <> $1 ORDER BY user_id LIMIT 3`, doomed)
	rejoiner, back, leaver := others[0], others[1], others[2]
	w.Exec(`INSERT INTO conversation_members (conversation_id, user_id, role)
		SELECT conversation_id, user_id, CASE role WHEN 'admin' THEN 'owner' ELSE 'admin' END FROM conversation_members_backup WHERE user_id = $1`, rejoiner)
	w.restore(t, "--user", back.String()+","+leaver.String())
	w.Exec(`DELETE FROM conversation_members WHERE user_id = $1`, leaver)
	w.Exec(`DELETE FROM conversations WHERE id = $1`, doomed)
	// The table has two columns since, and lost one.
	w.Exec(`ALTER TABLE conversation_members ADD COLUMN nickname text NOT NULL DEFAULT 'none', ADD COLUMN weight int GENERATED ALWAYS AS (1) STORED, DROP COLUMN is_muted`)
	rejoined := w.Snapshot("conversation_members WHERE user_id = $1", rejoiner)

	names := []string{"members_restored", "there", "there_differs", "conversation_gone", "left_since", "members_left"}
	preview := program(t, w.env, "restore", "--run", run, "--json").expect(t, exitDone).object(t)
	wantPreview := fmt.Sprintf("restore %d, there 1, there_differs 1, conversation_gone %d, left_since 1", 25-3-gone, gone)
	if got := figures(preview, "restore", "there", "there_differs", "conversation_gone", "left_since"); got != wantPreview {
		t.Errorf("preview: %s, want %s", got, wantPreview)
	}
	want := fmt.Sprintf("members_restored %d, there 1, there_differs 1, conversation_gone %d, left_since 1, members_left 0", 25-3-gone, gone)
	if got := figures(w.restore(t, "--run", run), names...); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if diff := rejoined.Diff(w.Snapshot("conversation_members WHERE user_id = $1", rejoiner)); diff != "" {
		t.Errorf("the rejoined member was overwritten:\n%s", diff)
	}
	if n := w.Count("conversation_members WHERE user_id = ANY ($1) AND nickname = 'none' AND weight = 1", w.dead); n != 25-1-gone {
		t.Errorf("%d of the dead are members, want %d", n, 25-1-gone)
	}
	if n := w.Count(`conversation_members_backup WHERE conversation_id = $1`, doomed); n != gone {
		t.Errorf("%d backups of the conversation that is gone, want %d", n, gone)
	}
}

// A restore is a run that can be taken back; what came alive or changed stays.
func TestRevert(t *testing.T) {
	t.Parallel()
	w, run, before := cleaned(t)
	restored := fmt.Sprint(w.restore(t, "--run", run)["run_id"])

	alive, changed, held := w.dead[0], w.dead[1], w.dead[2]
	w.auth.Revive(alive)
	w.Exec(`UPDATE conversation_members SET last_read_at = now() WHERE user_id = $1`, changed)
	program(t, w.env, "hold", "add", "--user", held.String(), "--reason", "test").expect(t, exitDone)
	stay := w.Snapshot("conversation_members WHERE user_id IN ($1, $2, $3)", alive, changed, held)

	all := contents(t, w.DB)
	if p := program(t, w.env, "restore", "--revert", restored).expect(t, exitDone); !strings.Contains(p.stdout, "nothing was changed") {
		t.Errorf("preview:\n%s", p.stdout)
	}
	if contents(t, w.DB) != all {
		t.Error("the preview of a revert changed something")
	}
	// A revert deletes: no pause lets it through, and nobody loses a hold by it.
	program(t, w.env, "pause", "--reason", "test").expect(t, exitDone)
	all = contents(t, w.DB, "orphan_cleaner.runs")
	paused := program(t, w.env, "restore", "--revert", restored, "--execute", "--json").expect(t, exitFailed)
	if paused.result(t)["state"] != "paused" || !strings.Contains(paused.stderr, "orphan-cleaner resume") || contents(t, w.DB, "orphan_cleaner.runs") != all {
		t.Errorf("a revert while paused: %s", paused)
	}
	program(t, w.env, "resume").expect(t, exitDone)
	w.Settle()
	got := w.restore(t, "--revert", restored)
	if f := figures(got, "members_reverted", "members_left", "users_unknown"); f != "members_reverted 22, members_left 3, users_unknown 0" {
		t.Errorf("revert: %s", f)
	}
	if diff := stay.Diff(w.Snapshot("conversation_members WHERE user_id = ANY ($1)", w.dead)); diff != "" {
		t.Errorf("members that should have stayed:\n%s", diff)
	}
	if n := w.Count(`conversation_members_audit AS a JOIN conversation_members_backup AS b USING (user_id, conversation_id, run_id) WHERE run_id = $1`, got["run_id"]); n != 22 {
		t.Errorf("%d members audited and backed up by the revert, want 22", n)
	}
	if n := w.Count(`orphan_cleaner.holds_in_force WHERE run_id = $1`, restored); n != 3 {
		t.Errorf("%d holds of the restore in force, want those of the 3 who stay", n)
	}
	// A lie deletes nobody.
	for _, name := range []string{"in_band_error_with_users", "foreign_ids_added", "status_internal"} {
		w.fault(t, name)
		lied := program(t, w.env, "restore", "--revert", restored, "--execute", "--json", "--auth-service-timeout", "1s").expect(t, exitFailed).result(t)
		if lied["members_reverted"] != 0.0 || lied["users_unknown"] == 0.0 || lied["state"] != "incomplete" {
			t.Errorf("%s: %v", name, lied)
		}
	}
	w.auth.SetFaultFunc(nil)
	// And the revert can be restored.
	w.auth.Delete(alive)
	w.restore(t, "--run", fmt.Sprint(got["run_id"]))
	w.Exec(`UPDATE conversation_members AS m SET last_read_at = b.last_read_at FROM conversation_members_backup AS b WHERE m.user_id = $1 AND b.user_id = $1`, changed)
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("restored, reverted and restored the table is not as it was:\n%s", diff)
	}
	program(t, w.env, "restore", "--revert", run, "--execute").expect(t, exitUsage)
	program(t, w.env, "restore", "--revert", "999").expect(t, exitUsage)
}

// rejoining is a transaction in which a user joins again and that is not over: a
// restore stands still in mid-chunk at that row.
func (w *world) rejoining(t *testing.T, user uuid.UUID) pgx.Tx {
	t.Helper()
	tx, err := w.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if _, err := tx.Exec(t.Context(), `INSERT INTO conversation_members (conversation_id, user_id, role)
		SELECT conversation_id, user_id, CASE role WHEN 'admin' THEN 'owner' ELSE 'admin' END
		FROM conversation_members_backup WHERE user_id = $1`, user); err != nil {
		t.Fatal(err)
	}
	return tx
}

// waiting is how many sessions of this database wait for a lock: tests of others share the server.
func (w *world) waiting() int64 {
	return w.Count(`pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
}

// Who rejoins between the plan and the insert keeps the new row.
func TestRestoreMeetsRejoin(t *testing.T) {
	t.Parallel()
	w, run, _ := cleaned(t)
	rejoining := w.rejoining(t, w.dead[0])
	p := start(t, w.env, "restore", "--run", run, "--execute", "--json")
	eventually(t, "the restore waits", func() bool { return w.waiting() > 0 })
	if err := rejoining.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	result := p.wait(t).expect(t, exitDone).result(t)
	if f := figures(result, "members_restored", "members_left"); f != "members_restored 24, members_left 1" {
		t.Error(f)
	}
	if n := w.Count(`conversation_members AS m JOIN conversation_members_backup AS b USING (user_id) WHERE user_id = $1 AND m.role = b.role`, w.dead[0]); n != 0 {
		t.Error("the row of who rejoined was overwritten")
	}
}

// A restore that was killed goes on from where it was.
func TestRestoreKilled(t *testing.T) {
	t.Parallel()
	w, run, before := cleaned(t)
	blocker := w.rejoining(t, w.dead[0])
	p := start(t, w.env, "restore", "--run", run, "--execute")
	eventually(t, "the restore waits", func() bool { return w.waiting() > 0 })
	p.signal(t, syscall.SIGKILL)
	p.wait(t)
	if err := blocker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.lapse(t)
	w.restore(t, "--run", run)
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("the table is not as it was:\n%s", diff)
	}
	if n := testdb.One[int64](w.DB, `SELECT sum(members_restored)::bigint FROM orphan_cleaner.runs`); n != 25 {
		t.Errorf("the runs count %d members given back, want 25", n)
	}
}

// Restores choose by run, user, conversation and time, all together.
func TestRestoreChooses(t *testing.T) {
	t.Parallel()
	w, run, _ := cleaned(t)
	w.Exec(`UPDATE conversation_members_backup SET backed_up_at = backed_up_at - interval '0 days'`) // rows move, and are found all the same
	conversation := testdb.One[string](w.DB, `SELECT min(conversation_id::text) FROM conversation_members_backup`)
	inIt := w.Count(`conversation_members_backup WHERE conversation_id = $1`, conversation)
	for args, want := range map[string]int64{
		"--run " + run:       25,
		"--since 2020-01-01": 25,
		"--until 2020-01-01": 0,
		"--since 2020-01-01 --until 2999-01-01T00:00:00+02:00":                            25,
		"--user " + w.dead[3].String():                                                    1,
		"--user " + w.dead[3].String() + " --user " + strings.ToUpper(w.dead[4].String()): 2,
		"--conversation " + conversation:                                                  inIt,
		"--user " + uuid.NewString():                                                      0,
		"--resurrected":                                                                   0,
	} {
		got := program(t, w.env, append([]string{"restore", "--json"}, strings.Fields(args)...)...).expect(t, exitDone).object(t)
		if got["restore"] != float64(want) {
			t.Errorf("%s chooses %v, want %d", args, got["restore"], want)
		}
	}
	for _, args := range []string{
		"", "--execute", "--run -1", "--user nobody", "--since yesterday", "--since 2021-01-01 --until 2020-01-01",
		"--revert 1 --run 1", "--resurrected --user " + uuid.NewString(), "--run 1 --hold never", "--run 1 --lease 0s",
		"--run 999", "--user= --run 1", "--since= --run 1", "--run 0 --user " + uuid.NewString(), "--conversation= --run 1",
	} {
		all := contents(t, w.DB)
		program(t, w.env, append([]string{"restore"}, strings.Fields(args)...)...).expect(t, exitUsage)
		if contents(t, w.DB) != all {
			t.Errorf("restore %s changed something", args)
		}
	}
}

// What is given back in part can be given back whole, and is not forgotten
// meanwhile; two restores of one user do not stand in each other's way.
func TestRestoreInParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 600, 3)
	alive := w.dead[0]
	w.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT id, $1, now() - interval '60 days' FROM conversations ON CONFLICT DO NOTHING`, alive)
	w.Settle()
	n := w.Count("conversation_members WHERE user_id = $1", alive)
	before := w.Snapshot("conversation_members")
	program(t, w.env, "run").expect(t, exitDone)
	w.auth.Revive(alive)
	program(t, w.env, "run").expect(t, exitDone)
	if got := w.Count("orphan_cleaner.rechecks WHERE alive_at IS NOT NULL"); got != 1 {
		t.Fatalf("%d users alive again", got)
	}
	conversation := testdb.One[string](w.DB, `SELECT min(conversation_id::text) FROM conversation_members_backup WHERE user_id = $1`, alive)
	first := w.restore(t, "--user", alive.String(), "--conversation", conversation)
	if first["members_restored"] != 1.0 || w.Count("orphan_cleaner.rechecks WHERE alive_at IS NOT NULL") != 1 {
		t.Errorf("a restore in part: %v, %d users alive again", first, w.Count("orphan_cleaner.rechecks WHERE alive_at IS NOT NULL"))
	}
	second := w.restore(t, "--resurrected")
	if second["members_restored"] != float64(n-1) || w.Count("orphan_cleaner.rechecks WHERE alive_at IS NOT NULL") != 0 {
		t.Errorf("the rest: %v, %d users alive again", second, w.Count("orphan_cleaner.rechecks WHERE alive_at IS NOT NULL"))
	}
	w.restore(t, "--run", "1")
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("the table is not as it was:\n%s", diff)
	}
	w.auth.Delete(alive)
	w.Settle()
	if got := w.restore(t, "--revert", fmt.Sprint(second["run_id"])); got["members_reverted"] != float64(n-1) {
		t.Errorf("the revert of the second: %v", got)
	}
	if got := w.restore(t, "--revert", fmt.Sprint(first["run_id"])); got["members_reverted"] != 1.0 {
		t.Errorf("the revert of the first: %v", got)
	}
}

// A partition that is rewritten in mid-restore costs nothing: the rows are found
// where they are then. Triggers of messaging-service fire as they always do.
func TestRestoreOfRewrittenPartition(t *testing.T) {
	t.Parallel()
	w, run, before := cleaned(t)
	partition := "conversation_members_backup_" + testdb.One[string](w.DB, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
	// One row, many that are dead, and the rest: two chunks, until somebody packs them.
	w.Exec(`CREATE TABLE rows_kept AS SELECT * FROM ` + partition)
	w.Exec(`DELETE FROM ` + partition)
	w.Exec(`INSERT INTO `+partition+` SELECT * FROM rows_kept WHERE user_id = $1`, w.dead[0])
	w.Exec(`INSERT INTO ` + partition + ` (conversation_id, user_id, role, joined_at, backed_up_at, run_id)
		SELECT gen_random_uuid(), gen_random_uuid(), 'filler', now(), now(), 999 FROM generate_series(1, 12000)`)
	w.Exec(`INSERT INTO `+partition+` SELECT * FROM rows_kept WHERE user_id <> $1`, w.dead[0])
	w.Exec(`DELETE FROM ` + partition + ` WHERE role = 'filler'`)
	w.Exec(`CREATE FUNCTION looks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			PERFORM 1 FROM conversations WHERE id = new.conversation_id;
			RETURN NULL;
		END $$`)
	w.Exec(`CREATE TRIGGER looks AFTER INSERT ON conversation_members FOR EACH ROW EXECUTE FUNCTION looks()`)

	blocker := w.rejoining(t, w.dead[0])
	p := start(t, w.env, "restore", "--run", run, "--execute", "--json")
	eventually(t, "the restore waits in its first chunk", func() bool { return w.waiting() == 1 })
	packed := make(chan error, 1)
	go func() {
		_, err := w.Pool.Exec(context.Background(), `VACUUM FULL `+partition)
		packed <- err
	}()
	// Or it is done: the chunk waits no longer than its lock_timeout, and is tried again.
	eventually(t, "the packing waits for the chunk", func() bool { return w.waiting() == 2 || len(packed) > 0 })
	if err := blocker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	result := p.wait(t).expect(t, exitDone).result(t)
	if err := <-packed; err != nil {
		t.Fatal(err)
	}
	if result["members_restored"] != 25.0 {
		t.Errorf("%v", result)
	}
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("the table is not as it was:\n%s", diff)
	}
}

// A restore works while runs are paused, and not while one is open.
func TestRestoreAndOtherRuns(t *testing.T) {
	t.Parallel()
	w, run, _ := cleaned(t)
	program(t, w.env, "pause", "--reason", "wrong deletions").expect(t, exitDone)
	w.Exec(`INSERT INTO orphan_cleaner.runs (started_at, heartbeat_at, kind, phase, lease, host, version, settings) VALUES (now(), now(), 'clean', 'verify', '1h', 'elsewhere:1', 'x', '{}')`)
	got := program(t, w.env, "restore", "--run", run, "--execute").expect(t, exitAnotherRun)
	if !strings.Contains(got.stderr, "elsewhere:1") {
		t.Errorf("does not say whose run is open:\n%s", got.stderr)
	}
	w.Exec(`UPDATE orphan_cleaner.runs SET state = 'failed', finished_at = now() WHERE state = 'running'`)
	if got := w.restore(t, "--run", run); got["members_restored"] != 25.0 {
		t.Errorf("%v", got)
	}
}

// A run notices a user who is alive again, whose members an earlier run deleted.
func TestResurrected(t *testing.T) {
	t.Parallel()
	w, _, before := cleaned(t)
	// 600 users are six calls: what is left of the sixth has room for the rechecks.
	next := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)
	if next["users_resurrected"] != 0.0 || w.Count(`orphan_cleaner.rechecks WHERE checked_at IS NOT NULL`) != 25 {
		t.Fatalf("%v, %d deleted users checked", next, w.Count(`orphan_cleaner.rechecks WHERE checked_at IS NOT NULL`))
	}
	w.auth.Revive(w.dead[7])
	command := "orphan-cleaner restore --user " + w.dead[7].String() + " --execute"
	got := program(t, w.env, "run", "--json").expect(t, exitDone)
	if got.result(t)["users_resurrected"] != 1.0 || !strings.Contains(got.stderr, command) {
		t.Errorf("%s", got)
	}
	if status := program(t, w.env, "status").expect(t, exitDone); !strings.Contains(status.stdout, "ALIVE AGAIN") || !strings.Contains(status.stdout, command) {
		t.Errorf("status:\n%s", status.stdout)
	}
	if got := w.restore(t, "--resurrected"); got["members_restored"] != 1.0 {
		t.Errorf("%v", got)
	}
	if status := program(t, w.env, "status").expect(t, exitDone); strings.Contains(status.stdout, "ALIVE AGAIN") {
		t.Errorf("status after the restore:\n%s", status.stdout)
	}
	back := w.Snapshot("conversation_members WHERE user_id = $1", w.dead[7])
	if len(back) != 1 || !strings.Contains(strings.Join(before, "\n"), back[0]) {
		t.Errorf("given back: %v", back)
	}
}

// Whose members were deleted is asked about in turn: a run goes on behind the
// users of the last one, and after the last user from the first one on.
func TestDepartedInTurn(t *testing.T) {
	t.Parallel()
	w, _, _ := cleaned(t)
	w.Exec("INSERT INTO orphan_cleaner.rechecks (user_id) SELECT md5(n::text)::uuid FROM generate_series(1, 35) AS n")
	// 60 users, and room for 25 a run.
	for i, want := range []string{"0 to 24", "25 to 49", "0 to 14, 50 to 59"} {
		program(t, w.env, "run").expect(t, exitDone)
		got := testdb.One[string](w.DB, `
			WITH listed AS (SELECT checked_at, row_number() OVER (ORDER BY user_id) - 1 AS place FROM orphan_cleaner.rechecks),
			asked AS (SELECT place, place - row_number() OVER (ORDER BY place) AS span FROM listed WHERE checked_at = (SELECT max(checked_at) FROM listed)),
			spans AS (SELECT min(place) AS first, max(place) AS last FROM asked GROUP BY span)
			SELECT string_agg(first || ' to ' || last, ', ' ORDER BY first) FROM spans`)
		if got != want {
			t.Errorf("run %d rechecked %s, not %s", i+1, got, want)
		}
	}
}

// A row that a constraint of its own keeps out keeps nobody else out: its user is named, and restored once it may be. So it
// is with a trigger, and with what keeps a revert from deleting.
func TestRestoreOfARowThatIsNotTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 7)
	before := w.Snapshot("conversation_members")
	ran := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)
	again := []string{"restore", "--run", fmt.Sprint(ran["run_id"]), "--execute", "--json"}
	const left = "conversation_members WHERE user_id = ANY ($1)"
	// stopped is a restore or a revert that leaves the users over, for what the server says.
	stopped := func(command []string, says string, users ...uuid.UUID) map[string]any {
		t.Helper()
		e := program(t, w.env, command...).expect(t, exitFailed)
		got := e.result(t)
		named := make(map[string]bool)
		blocked, _ := got["blocked"].([]any)
		for _, one := range blocked {
			user := one.(map[string]any)
			named[user["user_id"].(string)] = true
			if user["constraint"] != says && user["message"] != says {
				t.Errorf("it does not say %q: %v", says, user)
			}
		}
		for _, user := range users {
			if !named[user.String()] || !strings.Contains(e.stderr, user.String()) {
				t.Errorf("%s is not named: %v", user, e)
			}
		}
		if len(named) != len(users) || len(blocked) != len(users) || got["state"] != "incomplete" || !strings.Contains(e.stderr, fmt.Sprintf("%d users are blocked", len(users))) || !strings.Contains(e.stderr, "put right what the cause names") || !strings.Contains(e.stderr, says) {
			t.Errorf("%s", e)
		}
		return got
	}
	w.Exec("DELETE FROM users WHERE id = ANY ($1)", w.dead[:2])
	w.Exec("ALTER TABLE conversation_members ADD CONSTRAINT known FOREIGN KEY (user_id) REFERENCES users NOT VALID")
	w.Exec(`CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF tg_op = 'INSERT' THEN RAISE 'not this one' USING DETAIL = new.user_id; ELSE RAISE 'keep this one' USING DETAIL = old.user_id; END IF; END $$`)
	first := stopped(again, "known", w.dead[:2]...)
	if w.Count(left, w.dead[:2]) != 0 || w.Count("conversation_members") != int64(len(before)-2) || first["members_restored"] != 5.0 || first["members_left"] != 2.0 {
		t.Errorf("the others are not restored: %v", first)
	}
	if n := w.Count("orphan_cleaner.restores WHERE run_id = $1 AND state = 'planned' AND user_id = ANY ($2)", first["run_id"], w.dead[:2]); n != 2 {
		t.Errorf("%d of 2 are still planned", n)
	}
	w.Exec("ALTER TABLE conversation_members DROP CONSTRAINT known")
	w.Exec("CREATE TRIGGER keep_out BEFORE INSERT ON conversation_members FOR EACH ROW WHEN (new.user_id = '" + w.dead[1].String() + "') EXECUTE FUNCTION keep_out()")
	if got := stopped(again, "not this one", w.dead[1]); got["members_restored"] != 1.0 {
		t.Errorf("%v", got)
	}
	w.Exec("DROP TRIGGER keep_out ON conversation_members")
	if got := program(t, w.env, again...).expect(t, exitDone).result(t); len(got["blocked"].([]any)) != 0 {
		t.Errorf("%v", got)
	}
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("restored, the table is not as it was:\n%s", diff)
	}

	w.Exec("CREATE TRIGGER keep_out BEFORE DELETE ON conversation_members FOR EACH ROW WHEN (old.user_id = '" + w.dead[4].String() + "') EXECUTE FUNCTION keep_out()")
	revert := []string{"restore", "--revert", fmt.Sprint(first["run_id"]), "--execute", "--json"}
	w.Settle()
	if got := stopped(revert, "keep this one", w.dead[4]); got["members_reverted"] != 4.0 || w.Count(left, w.dead[2:]) != 1 {
		t.Errorf("the others are not deleted again: %v", got)
	}
	w.Exec("DROP TRIGGER keep_out ON conversation_members")
	program(t, w.env, revert...).expect(t, exitDone)
	if w.Count(left, w.dead[2:]) != 0 {
		t.Error("they are not deleted again")
	}
}
