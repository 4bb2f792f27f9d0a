package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// resultFields are those of the object that `run --json` ends with, a contract.
var resultFields = []string{
	"run_id", "state", "users_checked", "users_missing", "users_unknown", "users_new", "users_returned", "users_due",
	"users_restarted", "users_blocked", "users_resurrected", "candidates", "members_total", "members_due", "members_deleted", "members_kept_young",
	"members_held", "members_changed", "members_blocked", "members_waiting", "conversations", "owners_lost", "batch_calls", "breaker", "seconds", "targets", "dry_run",
	"blocked", "database_error",
}

// The runbook's greps find a run's lines, in its words, and its result is one
// JSON object on stdout.
func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	living := w.living()
	conversations := testdb.One[int64](w.DB, "SELECT count(DISTINCT conversation_id) FROM conversation_members WHERE user_id = ANY ($1)", w.dead)

	e := program(t, w.env, "run", "--json").expect(t, exitDone)
	lines := strings.Split(strings.TrimSuffix(e.stderr, "\n"), "\n")
	if want := "INFO orphan_cleaner: Starting orphan cleaner (interval: 1h, batch: 100, retention: 30d)"; lines[0] != want {
		t.Errorf("the first line is %q, want %q", lines[0], want)
	}
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "INFO orphan_cleaner: Cleaned 15 orphaned members from 2 conversations ") || conversations != 2 {
		t.Errorf("the last line is %q, with %d conversations", last, conversations)
	}
	for _, pattern := range []string{"orphan_cleaner", "get_users_by_ids"} {
		if !strings.Contains(e.stderr, pattern) {
			t.Errorf("grep %s finds nothing in:\n%s", pattern, e.stderr)
		}
	}
	if found := slices.DeleteFunc(troubles(e.stderr), isSlow); len(found) > 0 {
		t.Errorf("a run without trouble logs %q", found)
	}
	if strings.Count(e.stdout, "\n") != 1 {
		t.Errorf("stdout is more than one line:\n%s", e.stdout)
	}
	got := e.result(t)
	for _, field := range resultFields {
		if _, there := got[field]; !there {
			t.Errorf("the result has no %s: %s", field, e.stdout)
		}
	}
	for field, want := range map[string]any{
		"run_id": 1.0, "state": "succeeded", "users_checked": 300.0, "users_missing": 15.0, "users_unknown": 0.0,
		"users_due": 15.0, "members_due": 15.0, "members_deleted": 15.0, "conversations": 2.0, "batch_calls": 4.0, "breaker": nil,
	} {
		if got[field] != want {
			t.Errorf("%s is %v, want %v", field, got[field], want)
		}
	}
	gone(t, w, living, 15)

	// Once more there is nothing to do, and the log says so in the same words.
	again := program(t, w.env, "run", "--log-format=json", "--interval=30m").expect(t, exitDone)
	records := logRecords(t, again.stderr)
	if first := records[0]; first["msg"] != "Starting orphan cleaner (interval: 30m, batch: 100, retention: 30d)" ||
		first["level"] != "INFO" || first["target"] != "orphan_cleaner" {
		t.Errorf("the first record is %v", first)
	}
	if last := records[len(records)-1]; last["msg"] != "Cleaned 0 orphaned members from 0 conversations" ||
		last["method"] != "get_users_by_ids" || last["run_id"] != 2.0 || last["state"] != "succeeded" {
		t.Errorf("the last record is %v", last)
	}
	if again.stdout != "" {
		t.Errorf("without --json stdout is %q", again.stdout)
	}
	gone(t, w, living, 15)
}

// gone asserts that exactly this many members went, of the dead alone, and that
// each of them is audited and backed up.
func gone(t *testing.T, w *world, living testdb.Snapshot, want int) {
	t.Helper()
	if diff := living.Diff(w.living()); diff != "" {
		t.Errorf("members of living users changed:\n%s", diff)
	}
	left := w.Count("conversation_members WHERE user_id = ANY ($1)", w.dead)
	audited := w.Count("conversation_members_audit WHERE run_id IS NOT NULL")
	backedUp := w.Count("conversation_members_backup")
	counted := testdb.One[int64](w.DB, "SELECT coalesce(sum(members_deleted), 0)::bigint FROM orphan_cleaner.runs")
	if wanted := int64(want); int64(len(w.dead))-left != wanted || audited != wanted || backedUp != wanted || counted != wanted {
		t.Errorf("%d members of the dead are left of %d, %d audited, %d backed up, %d on the runs; want %d gone",
			left, len(w.dead), audited, backedUp, counted, want)
	}
	if n := w.Count(`conversation_members_audit AS a JOIN conversation_members_backup AS b USING (conversation_id, user_id, run_id)`); n != int64(want) {
		t.Errorf("%d members are both audited and backed up by the same run, want %d", n, want)
	}
	if n := w.Count("orphan_cleaner.sightings"); n != 0 {
		t.Errorf("staging holds %d rows", n)
	}
}

// troubles is what the runbook's grep for errors finds.
func troubles(log string) []string {
	return regexp.MustCompile(`(?m)^.*(ERROR|WARN.*auth).*$`).FindAllString(log, -1)
}

// isSlow is about the line that a machine which stood still for a second has in the log.
func isSlow(line string) bool { return strings.Contains(line, "WARN auth_client: Batch API slow") }

func logRecords(t *testing.T, log string) []map[string]any {
	t.Helper()
	var records []map[string]any
	for line := range strings.Lines(log) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("a line of the log is no JSON object: %q", line)
		}
		records = append(records, record)
	}
	if len(records) == 0 {
		t.Fatal("the log is empty")
	}
	return records
}

// With auth-service down the grep for errors finds the runbook's line.
func TestAuthServiceDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	before := contents(t, w.DB, "orphan_cleaner.runs")
	w.auth.Stop()
	text := program(t, w.env, "run").expect(t, exitFailed)
	if found := troubles(text.stderr); len(found) == 0 || !strings.HasPrefix(found[0], "ERROR auth_client: Failed to connect: transport error ") {
		t.Errorf("the grep finds %q", found)
	}
	records := logRecords(t, program(t, w.env, "run", "--log-format=json").expect(t, exitFailed).stderr)
	if !slices.ContainsFunc(records, func(r map[string]any) bool {
		return r["level"] == "ERROR" && r["target"] == "auth_client" && r["msg"] == "Failed to connect: transport error"
	}) {
		t.Errorf("the runbook's line is not among %v", records)
	}
	if after := contents(t, w.DB, "orphan_cleaner.runs"); after != before {
		t.Errorf("the database changed:\n%s\nwas\n%s", after, before)
	}
}

// An auth-service that fails in mid-run, for whatever reason, costs no member.
func TestAuthServiceGoesWrong(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"status_internal", "in_band_error", "only_foreign_ids", "nothing"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 100, 3)
			before := contents(t, w.DB, "orphan_cleaner.runs", "orphan_cleaner.run_targets", "orphan_cleaner.refusals")
			fault, found := authfake.Named(name)
			if !found {
				t.Fatal("there is no such fault")
			}
			w.auth.SetFault(fault)
			status, state := exitFailed, "incomplete"
			if fault.Expect == authfake.Lie {
				status, state = exitRefused, "refused"
			}
			e := program(t, w.env, "run", "--json", "--max-new-missing-share=0.1").expect(t, status)
			if e.result(t)["state"] != state || len(troubles(e.stderr)) == 0 {
				t.Errorf("want state %s: %s", state, e)
			}
			if after := contents(t, w.DB, "orphan_cleaner.runs", "orphan_cleaner.run_targets", "orphan_cleaner.refusals"); after != before {
				t.Errorf("the database changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// A refused run ends with exit status 3, names its breaker and changes nothing
// but its own record.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	before := contents(t, w.DB, "orphan_cleaner.runs", "orphan_cleaner.run_targets", "orphan_cleaner.refusals")
	e := program(t, w.env, "run", "--json", "--max-delete-rows=14").expect(t, exitRefused)
	if got := e.result(t); got["state"] != "refused" || got["breaker"] != "delete-rows" || got["members_due"] != 15.0 || got["members_deleted"] != 0.0 {
		t.Errorf("%s", e)
	}
	last := lastLine(e.stderr)
	for _, part := range []string{"limit 14 (ORPHAN_CLEANER_MAX_DELETE_ROWS)", "orphan-cleaner approve 1, once", "orphan-cleaner limits pin delete-rows=N"} {
		if !strings.HasPrefix(last, "ERROR orphan_cleaner: Run refused ") || !strings.Contains(last, part) {
			t.Errorf("the last line lacks %q: %q", part, last)
		}
	}
	if after := contents(t, w.DB, "orphan_cleaner.runs", "orphan_cleaner.run_targets", "orphan_cleaner.refusals"); after != before {
		t.Errorf("a refused run changed the database:\n%s\nwas\n%s", after, before)
	}
	if refused := w.Count("orphan_cleaner.refusals WHERE user_id = ANY ($1)", w.dead); refused != 15 {
		t.Errorf("%d refused users are kept, want 15", refused)
	}
	if state := testdb.One[string](w.DB, "SELECT state || ' by ' || breaker FROM orphan_cleaner.runs"); state != "refused by delete-rows" {
		t.Errorf("the run's row says %q", state)
	}
}

// A dry run tells what a run would do, its exit status included, and changes
// nothing at all.
func TestDryRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	before := contents(t, w.DB)

	e := program(t, w.env, "run", "--dry-run", "--json").expect(t, exitDone)
	if got := e.result(t); got["members_due"] != 15.0 || got["members_deleted"] != 0.0 || got["dry_run"] != true || got["run_id"] != 0.0 {
		t.Errorf("%s", e)
	}
	if last := lastLine(e.stderr); !strings.HasPrefix(last, "INFO orphan_cleaner: Dry run: would clean up to 15 orphaned members ") {
		t.Errorf("the last line is %q", last)
	}
	table := program(t, w.env, "run", "--dry-run").expect(t, exitDone)
	if !regexp.MustCompile(`(?m)due, a run would delete +15 +15 *$`).MatchString(table.stdout) {
		t.Errorf("the table is:\n%s", table.stdout)
	}

	refused := program(t, w.env, "run", "--dry-run", "--json", "--max-delete-rows=14").expect(t, exitRefused)
	if got := refused.result(t); got["state"] != "refused" || got["breaker"] != "delete-rows" {
		t.Errorf("%s", refused)
	}
	table = program(t, w.env, "run", "--dry-run", "--max-delete-rows=14").expect(t, exitRefused)
	if !strings.Contains(table.stdout, "a run would be refused by") || !strings.Contains(table.stdout, "delete-rows") {
		t.Errorf("the table is:\n%s", table.stdout)
	}
	if after := contents(t, w.DB); after != before {
		t.Errorf("a dry run changed the database:\n%s\nwas\n%s", after, before)
	}
}

// check has a line for each check, and none of them changes anything.
func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	program(t, w.env, "limits", "pin", "--defaults").expect(t, exitDone)
	program(t, w.env, "effects", "set", "counter=unread").expect(t, exitDone)
	before := contents(t, w.DB)
	living := w.users(t, "deleted_at IS NULL LIMIT 1")[0]
	e := program(t, w.env, "check", "--canary-alive="+living.String()).expect(t, exitDone)
	if all, ok := strings.Count(e.stdout, "\n"), strings.Count("\n"+e.stdout, "\nok    "); ok != all-1 || lastLine(e.stdout) != fmt.Sprintf("%d ok", ok) {
		t.Errorf("all is well, yet: %s", e)
	}
	for _, name := range []string{"database", "schema", "grants", "conversation_members_audit_delete", "index", "backup-columns", "partitions", "auth-service"} {
		if !strings.Contains(e.stdout, "\nok    "+name+": ") && !strings.HasPrefix(e.stdout, "ok    "+name+": ") {
			t.Errorf("there is no line for %s:\n%s", name, e.stdout)
		}
	}
	w.auth.SetServing(false)
	w.Exec("ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete")
	spoilt := contents(t, w.DB)
	e = program(t, w.env, "check").expect(t, exitFailed)
	failed := failures(e.stdout)
	if !regexp.MustCompile(`^\d+ ok, \d warn, [2-9] FAIL$`).MatchString(lastLine(e.stdout)) {
		t.Errorf("no sum at the end: %s", e)
	}
	for _, part := range []string{
		"FAIL  conversation_members_audit_delete: ", "\n      hint: ALTER TABLE public.conversation_members ENABLE ALWAYS TRIGGER",
		"FAIL  auth-service: ", "NOT_SERVING", "\n      hint: check AUTH_SERVICE_URL",
	} {
		if !strings.Contains(failed, part) {
			t.Errorf("the failures do not say %q:\n%s", part, failed)
		}
	}
	if strings.Count(failed, "FAIL") != 2 {
		t.Errorf("more failed than was spoilt:\n%s", failed)
	}
	var findings []map[string]string
	if err := json.Unmarshal([]byte(program(t, w.env, "check", "--json").expect(t, exitFailed).stdout), &findings); err != nil || len(findings) < 8 {
		t.Errorf("check --json: %v, %v", err, findings)
	}
	if contents(t, w.DB) != spoilt || before != spoilt {
		t.Error("check changed the database")
	}
}

// status shows runs and backlog, also where there are none yet, and only reads.
func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	var st struct{ Runs, Backlog, Coverage []map[string]any }
	read := func() {
		e := program(t, w.env, "status", "--json").expect(t, exitDone)
		if err := json.Unmarshal([]byte(e.stdout), &st); err != nil {
			t.Fatalf("%v: %s", err, e)
		}
		if st.Runs == nil || st.Backlog == nil || st.Coverage == nil {
			t.Errorf("an empty list is null: %s", e.stdout)
		}
	}
	if read(); len(st.Runs) != 0 || len(st.Backlog) != 0 || len(st.Coverage) != 0 {
		t.Errorf("before the first run: %v", st)
	}
	program(t, w.env, "status").expect(t, exitDone)

	w.auth.Delete(w.users(t, "deleted_at IS NULL ORDER BY id LIMIT 2")...)
	program(t, w.env, "run").expect(t, exitDone)
	program(t, w.env, "run", "--max-new-missing-share=0").expect(t, exitDone)
	w.auth.SetFaultFunc(authfake.Nothing)
	program(t, w.env, "run", "--max-new-missing-share=0.1").expect(t, exitRefused)

	before := contents(t, w.DB)
	if read(); len(st.Runs) != 3 || len(st.Backlog) != 1 {
		t.Fatalf("want three runs and one day of backlog: %v", st)
	}
	newest, oldest := st.Runs[0], st.Runs[2]
	if newest["state"] != "refused" || newest["breaker"] != "new-missing-share" || oldest["members_deleted"] != 15.0 {
		t.Errorf("runs: %v", slices.Sorted(maps.Keys(newest)))
	}
	if b := st.Backlog[0]; b["users"] != 2.0 || b["members"] != 2.0 || b["is_due"] != false {
		t.Errorf("backlog: %v", b)
	}
	if c := st.Coverage[0]; c["is_whole"] != true || c["users"] != 285.0 || c["users_so_far"] != 285.0 || c["users_unknown"] != 0.0 {
		t.Errorf("coverage: %v", c)
	}
	e := program(t, w.env, "status").expect(t, exitDone)
	for _, part := range []string{
		"Recent runs", "succeeded", "refused", "run 3: refused by breaker new-missing-share", "Backlog",
		"every user has been checked since 2", "; 285 of 285 users of this cycle are checked",
	} {
		if !strings.Contains(e.stdout, part) {
			t.Errorf("status does not show %q:\n%s", part, e.stdout)
		}
	}
	if after := contents(t, w.DB); after != before {
		t.Error("status changed the database")
	}
}

// With CHECK_EVERY a run checks its share, says so in the log, and status shows
// how far the checking is.
func TestCheckEvery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	env := append(slices.Clone(w.env), "ORPHAN_CLEANER_CHECK_EVERY=24h")
	run := func(checked float64, says bool) {
		t.Helper()
		e := program(t, env, "run", "--json", "--batch-size=10").expect(t, exitDone)
		var r map[string]any
		if err := json.Unmarshal([]byte(e.stdout), &r); err != nil || r["users_checked"] != checked {
			t.Errorf("%v, %v, want %v checked", err, r, checked)
		}
		if said := strings.Contains(e.stderr, "INFO orphan_cleaner: Checking a part of the users, and all candidates "); said != says {
			t.Errorf("the log says that it is a part: %t\n%s", said, e.stderr)
		}
	}
	users := float64(w.Count("(SELECT DISTINCT user_id FROM conversation_members) AS u"))
	run(users, false)
	w.Exec(`UPDATE orphan_cleaner.coverage SET checked_at = checked_at - interval '1 hour'`)
	run(20, true) // a twentysecond
	e := program(t, env, "status").expect(t, exitDone)
	if want := "; 20 of 300 users of this cycle are checked"; !strings.Contains(e.stdout, want) {
		t.Errorf("status does not say %q:\n%s", want, e.stdout)
	}
	w.Exec(`UPDATE orphan_cleaner.coverage SET previous_run_id = NULL`)
	w.Exec(`INSERT INTO orphan_cleaner.unknowns (user_id) SELECT user_id FROM conversation_members ORDER BY user_id LIMIT 20`)
	e = program(t, env, "status").expect(t, exitDone)
	if want := "some users have never been checked; 20 of "; !strings.Contains(e.stdout, want) || !strings.Contains(e.stdout, ", the next one checks 20 unknown ones again\n") {
		t.Errorf("status does not say %q:\n%s", want, e.stdout)
	}
	for _, wrong := range []string{"59s", "31d", "0s", "often"} {
		if e := program(t, w.env, "run", "--check-every="+wrong).expect(t, exitUsage); !strings.Contains(e.stderr, "CHECK_EVERY") && !strings.Contains(e.stderr, "--check-every") {
			t.Errorf("%s", e)
		}
	}
}

// migrate brings a database from nothing of ours to what check wants.
func TestMigrate(t *testing.T) {
	t.Parallel()
	db, auth := testdb.NewBare(t), newAuth(t)
	env := []string{"DATABASE_URL=" + db.URL, "AUTH_SERVICE_URL=" + auth.URL()}
	if e := program(t, env, "migrate", "status").expect(t, exitDone); !strings.Contains(e.stdout, "pending") {
		t.Errorf("%s", e)
	}
	if e := program(t, env, "migrate", "down").expect(t, exitDone); !strings.Contains(e.stdout, "no migration is applied") {
		t.Errorf("%s", e)
	}
	const next = "; next, as a superuser: psql -f sql/roles.sql\n"
	if e := program(t, env, "migrate", "up").expect(t, exitDone); !strings.Contains(e.stdout, "the schema is at migration ") || !strings.HasSuffix(e.stdout, next) {
		t.Errorf("%s", e)
	}
	program(t, env, "check").expect(t, exitDone)
	before := contents(t, db)
	if e := program(t, env, "migrate", "up").expect(t, exitDone); strings.HasSuffix(e.stdout, next) {
		t.Errorf("nothing was applied: %s", e)
	}
	if contents(t, db) != before {
		t.Error("migrate up, once more, changed the database")
	}
	program(t, env, "migrate", "down").expect(t, exitDone)
	program(t, env, "check").expect(t, exitFailed)
	if e := program(t, env, "migrate", "status").expect(t, exitDone); strings.Count(e.stdout, "pending") != 1 {
		t.Errorf("%s", e)
	}
}
