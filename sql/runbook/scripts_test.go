package runbook_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// Each script says what it does, what it locks, how long it takes, as whom and
// how it is called; the call has each variable that the script knows, and no
// other; and it stops at the first error.
func TestHeaders(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("*.sql")
	if err != nil || len(scripts) < 10 {
		t.Fatalf("scripts: %q, %v", scripts, err)
	}
	for _, name := range scripts {
		if name == "explain_queries.sql" {
			continue // a part of explain.sql, written by tools/scripts/explain.sh
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		header, body, found := strings.Cut(string(text), "\n\n")
		for _, part := range []string{"What:    ", "Locks:   ", "Time:    ", "As:      ", `Example: psql "$DATABASE_URL" `} {
			if !regexp.MustCompile("(?m)^-- " + regexp.QuoteMeta(part) + `\S`).MatchString(header) {
				t.Errorf("%s: the header does not say %s", name, part)
			}
		}
		example := regexp.MustCompile("(?m)^-- Example: (.*)$").FindString(header)
		if !strings.HasSuffix(example, " -f sql/runbook/"+name) {
			t.Errorf("%s: the example calls something else: %s", name, example)
		}
		if !found || !strings.Contains(body, `\set ON_ERROR_STOP on`) {
			t.Errorf("%s goes on after an error", name)
		}
		known := map[string]bool{}
		for _, m := range regexp.MustCompile(`\\if :\{\?(\w+)\}`).FindAllStringSubmatch(body, -1) {
			known[m[1]] = true
			if !strings.Contains(example, "-v "+m[1]+"=") {
				t.Errorf("%s: the example does not have the variable %s", name, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`-v (\w+)=`).FindAllStringSubmatch(example, -1) {
			if !known[m[1]] {
				t.Errorf("%s: the example has a variable %s that the script does not know", name, m[1])
			}
		}
	}
}

// A script that needs to be told something says so and does nothing.
func TestVariablesThatAreNeeded(t *testing.T) {
	p := newPlace(t)
	for name, variable := range map[string]string{
		"run_deleted.sql": "run", "restore_range.sql": "from", "user_everything.sql": "user", "user_erase.sql": "user",
	} {
		if out, err := p.try("", name); err == nil || !strings.Contains(err.Error(), "say ") || !strings.Contains(err.Error(), "-v "+variable+"=") {
			t.Errorf("%s without variables: %v\n%s", name, err, out)
		}
	}
	if _, err := p.try("", "restore_range.sql", "from=today"); err == nil || !strings.Contains(err.Error(), "-v to=") {
		t.Errorf("restore_range.sql without an end: %v", err)
	}
	if _, err := p.try("", "run_deleted.sql", "run=42"); err == nil || !strings.Contains(err.Error(), "there is no such run") {
		t.Errorf("run_deleted.sql of no run: %v", err)
	}
}

func TestPreflight(t *testing.T) {
	p := newPlace(t)
	p.Exec("ANALYZE conversation_members")
	out := p.script(asReader, "preflight.sql")
	for line := range strings.Lines(out) {
		if cells := strings.Split(line, "|"); len(cells) == 4 && cells[0] != "name" && cells[1] != "ok" {
			t.Errorf("all is well, yet: %s", line)
		}
	}
	wantLines(t, out, `members\|ok\|302 members by the statistics, .*`, `index\|ok\|an index on .* is valid\|`, `own-row-security\|ok\|.*`, `pause\|not paused`, `open_run\|none`)

	today := testdb.One[string](p.DB, "SELECT 'conversation_members_backup_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
	p.Exec("ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete")
	p.Exec("ALTER TABLE conversation_members ADD COLUMN nickname text")
	p.Exec("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'conversation_members_user_id'::regclass")
	p.Exec("DROP TABLE " + today)
	p.Exec("INSERT INTO orphan_cleaner.pauses (reason) VALUES ('an experiment')")
	p.Exec("INSERT INTO orphan_cleaner.runs (kind, phase, started_at, heartbeat_at, lease, host, version, settings) VALUES ('clean', 'sweep', now(), now(), '1h', 'elsewhere:7', 'x', '{}')")
	out = p.script(asReader, "preflight.sql")
	wantLines(t, out,
		`conversation_members_audit_delete\|FAIL\|.* is disabled\|.*ALTER TABLE .*`,
		`backup columns\|FAIL\|differ: nickname\|.*`,
		`index\|FAIL\|no valid index .*\|CREATE INDEX CONCURRENTLY .*`,
		`partition `+today+`\|FAIL\|not attached\|SELECT orphan_cleaner.partitions_ensure\(7\)`,
		`pause\|paused by postgres: an experiment`,
		`open_run\|run 1 of elsewhere:7, phase sweep, silent for 00:00:.*`)
	if n := strings.Count(out, "|FAIL|"); n != 4 {
		t.Errorf("%d checks fail where 4 things are wrong:\n%s", n, out)
	}
}

func TestPreflightBeforeTheFirstMigration(t *testing.T) {
	t.Parallel()
	p := &place{DB: testdb.NewBare(t), t: t}
	out := p.script("", "preflight.sql")
	wantLines(t, out, `tables\|look\|none of ours is there yet\|orphan-cleaner migrate up`)
	if strings.Contains(out, "|FAIL|") {
		t.Errorf("nothing is wrong, yet:\n%s", out)
	}
	p.Exec("CREATE TABLE conversation_members_audit (user_id uuid)")
	wantLines(t, p.script("", "preflight.sql"), `tables\|FAIL\|not there: orphan_cleaner\.targets, orphan_cleaner\.runs, .*\|orphan-cleaner migrate up`)
}

// The backlog says of each day what the runs will find due, and what is kept.
func TestBacklog(t *testing.T) {
	p := newPlace(t)
	if r := p.run(false); r.MembersDeleted != 28 {
		t.Fatalf("the run deleted %d members", r.MembersDeleted)
	}
	in20days := testdb.One[string](p.DB, "SELECT ((now() + interval '20 days') AT TIME ZONE 'UTC')::date::text")
	in5days := testdb.One[string](p.DB, "SELECT ((now() + interval '5 days') AT TIME ZONE 'UTC')::date::text")
	// A young member is due later than its user.
	in25days := testdb.One[string](p.DB, "SELECT ((now() + interval '25 days') AT TIME ZONE 'UTC')::date::text")
	wantLines(t, p.script(asReader, "backlog.sql"), `due now\|1\|3\|1\|3\|1`, in20days+`\|5\|15\|0\|0\|5`, in25days+`\|1\|1\|0\|0\|1`)
	wantLines(t, p.script(asReader, "backlog.sql", "retention=45 days"), in5days+`\|1\|3\|1\|3\|1`)
}

// What is said to go is what a dry run says, and then goes.
func TestDueNow(t *testing.T) {
	p := newPlace(t)
	p.run(false)
	wantLines(t, p.script(asRunner, "due_now.sql"), `all\|\|\|\|0\|3\|1`)
	p.Exec("UPDATE orphan_cleaner.candidates SET first_missing_at = now() - interval '31 days' WHERE user_id IN ($1, $2)", p.user(11), p.user(12))
	p.Exec("INSERT INTO orphan_cleaner.holds (conversation_id, reason) SELECT conversation_id, 'x' FROM conversation_members WHERE user_id = $1 LIMIT 1", p.user(12))
	out := p.script(asRunner, "due_now.sql", "top=2")
	held := p.Count("conversation_members AS m JOIN orphan_cleaner.holds AS h USING (conversation_id) WHERE m.user_id IN ($1, $2, $3, $4)",
		p.user(9), p.user(10), p.user(11), p.user(12)) // of these, those of user 10 are held anyhow
	due := p.run(true).MembersDue
	if due < 4 || due > 5 || held == 0 {
		t.Fatalf("%d members are due, %d in the conversation on hold", due, held)
	}
	wantLines(t, out, fmt.Sprintf(`all\|\|\|\|%d\|\d\|\d`, due), p.user(11).String()+`\|.*\|shadow\|1\|[23]\|[01]\|0`)
	if lines := strings.Count(out, "\n"); lines != 4 {
		t.Errorf("top=2 lists:\n%s", out)
	}
	if r := p.run(false); r.MembersDeleted != due {
		t.Errorf("%d members went, not %d", r.MembersDeleted, due)
	}
}

func TestRunDeleted(t *testing.T) {
	p := newPlace(t)
	run := p.run(false).RunID
	variables := []string{fmt.Sprintf("run=%d", run), "list=1"}
	out := p.script(asRestorer, "run_deleted.sql", variables...)
	wantLines(t, out, `state\|succeeded`, `members_deleted\|28`, `audited\|28`, `backed_up\|28`, `count_proof\|holds`, `users\|9`, `erased\|0`,
		testdb.One[string](p.DB, "SELECT md5('conversation 20')::uuid::text")+`\|2\|1`)
	for _, line := range p.Snapshot("(SELECT conversation_id || '|' || user_id || '|' || role FROM conversation_members_audit) AS a") {
		if !strings.Contains(out, "|"+strings.Trim(line, "()")+"|") {
			t.Errorf("%s is not listed", line)
		}
	}
	if short := p.script(asRestorer, "run_deleted.sql", variables[0]); strings.Contains(short, p.user(1).String()) {
		t.Errorf("members are listed unasked:\n%s", short)
	}
	p.Exec("DELETE FROM conversation_members_audit WHERE ctid = (SELECT min(ctid) FROM conversation_members_audit)")
	wantLines(t, p.script(asRestorer, "run_deleted.sql", variables...), `audited\|27`, `count_proof\|BROKEN: .*`)
}

// The runbook's count of 4.3, told apart by why each member is still there.
func TestOrphansLeftBehind(t *testing.T) {
	p := newPlace(t)
	// Deleted long ago, says the shadow; auth-service still has the user.
	p.Exec("UPDATE users SET deleted_at = now() - interval '50 days' WHERE id = $1", p.user(16))
	p.run(false)
	// As if the shadow had learnt it since.
	p.Exec("UPDATE users SET deleted_at = now() - interval '50 days' WHERE id = ANY ($1)", p.missing[10:14])
	p.Exec("UPDATE orphan_cleaner.candidates SET first_missing_at = now() - interval '31 days' WHERE user_id IN ($1, $2)", p.user(11), p.user(12))
	p.Exec("INSERT INTO orphan_cleaner.holds (conversation_id, reason) VALUES (md5('conversation 12')::uuid, 'a lawsuit')") // one of user 12's
	out := p.script("", "orphans_left_behind.sql")
	wantLines(t, out, `a hold keeps it\|4\|2\|.*`, `the member itself is young\|1\|1\|.*`, `never found missing\|3\|1\|.*\|`+p.user(16).String(),
		`the next run deletes it\|5\|2\|.*`, `its clock has not run out\|6\|2\|.*`)
	printed := testdb.One[int64](p.DB, `SELECT COUNT(*) FROM conversation_members cm
LEFT JOIN users u ON cm.user_id = u.id
WHERE u.deleted_at < NOW() - INTERVAL '30 days';`)
	if printed != 4+1+3+5+6 {
		t.Errorf("the runbook counts %d", printed)
	}
	// A run that no longer finds user 12 missing takes him out of the ledger; one
	// that gets no answer leaves his clock.
	p.missing = append(p.missing[:11], p.missing[12:]...)
	p.run(false)
	wantLines(t, p.script("", "orphans_left_behind.sql"), `never found missing\|5\|2\|.*`)
}

func TestEmptyConversations(t *testing.T) {
	p := newPlace(t)
	if out := p.script("", "empty_conversations.sql"); strings.Count(out, "\n") != 1 {
		t.Fatalf("before anything happened:\n%s", out)
	}
	p.run(false)
	p.Exec("UPDATE conversations AS c SET member_count = (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id) WHERE c.name = 'c1'")
	out := p.script("", "empty_conversations.sql")
	conversation := func(n int) string {
		return testdb.One[string](p.DB, "SELECT md5('conversation ' || $1::int)::uuid::text", n)
	}
	day := `\d{4}-\d\d-\d\d`
	wantLines(t, out, conversation(20)+`\|no member\|group\|0\|2\|`+day+`\|2\|1\|1\|1`)
	for n := 1; n <= 8; n++ {
		wantLines(t, out, conversation(n)+`\|no owner\|group\|\d+\|\d+\|`+day+`\|\d\|1\|1\|8`)
	}
	// The other conversations that lost somebody, no owner among them.
	off := p.Count(`conversations AS c WHERE member_count <> (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)
		AND EXISTS (SELECT FROM conversation_members AS m WHERE m.conversation_id = c.id AND role = 'owner')`)
	if n := int64(strings.Count(out, "|member_count is off|")); n != off || off == 0 {
		t.Errorf("%d conversations with a wrong member_count, not %d:\n%s", n, off, out)
	}
	if out := p.script("", "empty_conversations.sql", "top=3"); strings.Count(out, "\n") != 4 {
		t.Errorf("top=3 lists:\n%s", out)
	}
}

// Counts that were wrong before are put right by what they differ, and not those that the
// application is just changing.
func TestMemberCounts(t *testing.T) {
	p := newPlace(t)
	const wrong = `conversations AS c WHERE member_count <> (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)`
	p.run(false)
	off := p.Count(wrong)
	before := p.Snapshot("conversations")
	out := p.script("", "member_counts.sql", "settle=0")
	wantLines(t, out, fmt.Sprintf(`%d\|28\|0`, off), "Nothing was changed.*")
	if diff := before.Diff(p.Snapshot("conversations")); diff != "" || off == 0 {
		t.Errorf("a dry look, %d wrong:\n%s", off, diff)
	}
	// One of them has a member more, and the application adds 1 between the two looks.
	joined := testdb.One[string](p.DB, "SELECT md5('conversation 1')::uuid::text")
	p.Exec("INSERT INTO conversation_members (conversation_id, user_id) VALUES ($1, gen_random_uuid())", joined)
	p.Exec("CREATE TABLE waits AS SELECT 1")
	p.Exec(`CREATE FUNCTION waited() RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN
		WHILE EXISTS (SELECT FROM waits) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN 0; END $$`)
	done := make(chan error)
	go func() {
		_, err := p.try("", "member_counts.sql", "settle=waited()", "execute=1", "top=1000")
		done <- err
	}()
	testdb.Eventually(t, time.Minute, "it waits between its two looks", func() bool {
		return p.Count("pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'") == 1
	})
	p.Exec("UPDATE conversations SET member_count = member_count + 1 WHERE id = $1", joined)
	p.Exec("DELETE FROM waits")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := p.Count(wrong+" AND c.id = $1", joined); n != 1 || p.Count(wrong) != 1 {
		t.Errorf("%d are wrong, among them the one that was being changed: %d", p.Count(wrong), n)
	}
	p.Exec("UPDATE conversations SET member_count = member_count + 5")
	off = p.Count(wrong)
	out = p.script("", "member_counts.sql", "settle=0", "execute=1", "top=3")
	wantLines(t, out, "3")
	if n := p.Count(wrong); n != off-3 {
		t.Errorf("%d are wrong after 3 of %d were put right", n, off)
	}
	p.script("", "member_counts.sql", "settle=0", "execute=1")
	if n := p.Count(wrong); n != 0 {
		t.Errorf("%d are wrong after all were put right", n)
	}
}

// Conversations that lost their last owner to a run get one, and lose it when the run is restored.
func TestOwnerless(t *testing.T) {
	p := newPlace(t)
	const none = "conversations AS c WHERE NOT EXISTS (SELECT FROM conversation_members AS m WHERE m.conversation_id = c.id AND m.role = 'owner')"
	run := p.run(false).RunID
	before := p.Snapshot("conversation_members")
	out := p.script("", "ownerless.sql")
	day := `\d{4}-\d\d-\d\d`
	want := []string{"Nothing was changed.*"}
	for n := 1; n <= 8; n++ {
		want = append(want, testdb.One[string](p.DB, "SELECT md5('conversation ' || $1::int)::uuid::text", n)+fmt.Sprintf(`\|%d\|[0-9a-f-]{36}\|member\|`, run)+day)
	}
	wantLines(t, out, want...)
	if diff := before.Diff(p.Snapshot("conversation_members")); diff != "" || strings.Count(out, "\n") != 11 {
		t.Errorf("a dry look:\n%s\n%s", out, diff)
	}
	if out := p.script("", "ownerless.sql", "run=999"); strings.Count(out, "\n") != 3 {
		t.Errorf("of another run:\n%s", out)
	}
	wantLines(t, p.script("", "ownerless.sql", "execute=1", fmt.Sprintf("run=%d", run)), "8")
	if n := p.Count(none); n != 1 { // it has no member
		t.Errorf("%d conversations without an owner", n)
	}
	if n := p.Count("orphan_cleaner.promotions AS p JOIN conversation_members AS m USING (conversation_id, user_id) WHERE p.run_id = $1 AND m.role = 'owner' AND p.role_before = 'member'", run); n != 8 {
		t.Errorf("%d promotions are recorded", n)
	}
	wantLines(t, p.script("", "ownerless.sql", "execute=1"), "0")
}

// What a run deleted in a span of time comes back as it was, and nothing else.
func TestRestoreRange(t *testing.T) {
	p := newPlace(t)
	before := p.Snapshot("conversation_members")
	first := p.run(false).RunID
	after := p.Snapshot("conversation_members")
	from, to := "from="+testdb.One[string](p.DB, "SELECT (now() - interval '1 hour')::text"), "to="+testdb.One[string](p.DB, "SELECT (now() + interval '1 hour')::text")

	out := p.script(asMigrator, "restore_range.sql", from, to)
	wantLines(t, out, fmt.Sprintf(`comes back\|%d\|28\|9\|\d+\|.*\|9`, first), "Nothing was changed.*")
	if diff := after.Diff(p.Snapshot("conversation_members")); diff != "" {
		t.Errorf("a dry look changed members:\n%s", diff)
	}
	for _, other := range [][]string{
		{from, "to=" + testdb.One[string](p.DB, "SELECT (now() - interval '30 minutes')::text")},
		{from, to, "run=999"},
	} {
		if out := p.script(asMigrator, "restore_range.sql", other...); strings.Contains(out, "comes back|") {
			t.Errorf("with %q:\n%s", other, out)
		}
	}

	// User 1 is back in one conversation already, with another role; the
	// conversation of user 2's own is gone; user 3 was given back and left.
	p.Exec(`INSERT INTO conversation_members (conversation_id, user_id, role) SELECT conversation_id, user_id, 'admin'
		FROM conversation_members_backup WHERE user_id = $1 AND role = 'member' LIMIT 1`, p.user(1))
	p.Exec("DELETE FROM conversations WHERE id = md5('conversation 20')::uuid")
	p.Exec(`INSERT INTO conversation_members (conversation_id, user_id) SELECT conversation_id, user_id
		FROM conversation_members_backup WHERE user_id = $1 LIMIT 1`, p.user(3))
	p.Exec("DELETE FROM conversation_members WHERE user_id = $1", p.user(3))
	p.Exec("INSERT INTO orphan_cleaner.holds (user_id, reason) SELECT u, 'given back' FROM unnest($1::uuid[]) AS u", p.missing[:5])
	p.Exec("ALTER TABLE conversation_members ADD COLUMN nickname text NOT NULL DEFAULT 'none'")
	rest := p.Snapshot("conversation_members")
	out = p.script(asMigrator, "restore_range.sql", from, to, fmt.Sprintf("run=%d", first), "execute=1")
	wantLines(t, out, fmt.Sprintf(`comes back\|%d\|24\|9\|.*\|4`, first), fmt.Sprintf(`is a member again\|%d\|1\|1\|.*`, first),
		fmt.Sprintf(`the conversation is gone\|%d\|2\|2\|.*`, first), fmt.Sprintf(`left by itself since\|%d\|1\|1\|.*`, first), `24\|9`)
	now := p.Snapshot("conversation_members")
	if len(now) != len(rest)+24 {
		t.Errorf("%d members came back", len(now)-len(rest))
	}
	if diff := rest.Diff(now); strings.Contains(diff, "- ") {
		t.Errorf("members that were there changed:\n%s", diff)
	}
	p.Exec("ALTER TABLE conversation_members DROP COLUMN nickname")
	identical := 0
	for _, row := range p.Snapshot("conversation_members") {
		for _, was := range before {
			if row == was {
				identical++
			}
		}
	}
	if identical != len(after)+24 {
		t.Errorf("%d members are as they were before the run, not %d", identical, len(after)+24)
	}
	if out := p.script(asMigrator, "restore_range.sql", from, to, "execute=1"); !strings.Contains(out, "\n0|0\n") {
		t.Errorf("the second time:\n%s", out)
	}

	// A later run deletes those whom nobody holds; what it deleted is not the first
	// run's to restore.
	p.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		SELECT u, now() - interval '40 days', now(), $2, 'sightings' FROM unnest($1::uuid[]) AS u ON CONFLICT DO NOTHING`, p.missing[:9], first)
	second := p.run(false).RunID
	out = p.script(asMigrator, "restore_range.sql", from, to, fmt.Sprintf("run=%d", first))
	wantLines(t, out, fmt.Sprintf(`deleted again by a later run\|%d\|\d+\|4\|.*`, first))
	wantLines(t, p.script(asMigrator, "restore_range.sql", from, to), fmt.Sprintf(`comes back\|%d\|\d+\|4\|.*`, second))
}

// mayName lists the tables of ours that have a column for a user.
func (p *place) mayName() []string {
	p.t.Helper()
	return p.Snapshot(`(SELECT a.attrelid::regclass::text FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
		WHERE a.attname = 'user_id' AND c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
			AND c.relname <> 'conversation_members') AS t`)
}

// know lists the tables of the database, but for messaging-service's, in which the
// text of some row holds the user.
func (p *place) know(user string) []string {
	p.t.Helper()
	rows, err := p.Pool.Query(context.Background(), `SELECT oid::regclass::text FROM pg_class
		WHERE relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace) AND relkind IN ('r', 'p') AND NOT relispartition
			AND relname NOT IN ('conversations', 'conversation_members', 'users') ORDER BY 1`)
	if err != nil {
		p.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		p.t.Fatal(err)
	}
	var found []string
	for _, table := range tables {
		if p.Count(table+" AS t WHERE t::text LIKE '%' || $1 || '%'", user) > 0 {
			found = append(found, table)
		}
	}
	return found
}

// mentionEverywhere brings a user who was deleted by a run into each table of ours.
func (p *place) mentionEverywhere(run int64, n int) (user string) {
	p.t.Helper()
	user = p.user(n).String()
	p.Exec("INSERT INTO orphan_cleaner.holds (user_id, reason, lifted_at) VALUES ($1::text::uuid, 'of ' || $1, now())", user)
	p.Exec("INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence) VALUES ($1, now(), now(), $2, 'sightings') ON CONFLICT DO NOTHING", user, run)
	p.Exec("INSERT INTO orphan_cleaner.sightings (run_id, user_id, verdict) VALUES ($2, $1, 'missing')", user, run)
	p.Exec("INSERT INTO orphan_cleaner.refusals (run_id, user_id, is_due) VALUES ($2, $1, true)", user, run)
	p.Exec("INSERT INTO orphan_cleaner.approvals (run_id, approved_by, expires_at) VALUES ($1, 'a DBA', now() + interval '1 day') ON CONFLICT DO NOTHING", run)
	p.Exec("INSERT INTO orphan_cleaner.rechecks (user_id) VALUES ($1) ON CONFLICT DO NOTHING", user)
	p.Exec("INSERT INTO orphan_cleaner.event_cursors (sink, run_id, kind, user_id) VALUES (md5($1::text), $2, 'member.left', $1::text::uuid)", user, run)
	p.Exec("INSERT INTO orphan_cleaner.unknowns (user_id) VALUES ($1) ON CONFLICT DO NOTHING", user)
	restore := testdb.One[int64](p.DB, `INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings)
		VALUES ('restore', 'succeeded', 'finish', now(), now(), now(), '1m', 'x', 'x', '{}') RETURNING run_id`)
	p.Exec(`INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at, state)
		SELECT $2, user_id, conversation_id, run_id, deleted_at, 'restored' FROM conversation_members_audit WHERE user_id = $1`, user, restore)
	p.Exec("INSERT INTO orphan_cleaner.holds (user_id, reason, lifted_at, run_id) VALUES ($1, 'given back', now(), $2)", user, restore)
	p.Exec("INSERT INTO orphan_cleaner.promotions (run_id, conversation_id, user_id, role_before) VALUES ($2, gen_random_uuid(), $1, 'member')", user, run)
	p.Exec("UPDATE orphan_cleaner.runs SET error = 'canary ' || upper($1) || ' is missing', settings = jsonb_build_object('canary', $1::text) WHERE run_id = $2", user, run)
	return user
}

// What is found about a user is in every table that names him.
func TestUserEverything(t *testing.T) {
	p := newPlace(t)
	run := p.run(false).RunID
	user := p.mentionEverywhere(run, 9) // whose young member is still there
	tables := p.know(user)
	for _, table := range p.mayName() {
		if !slices.Contains(tables, strings.Trim(table, "()")) {
			t.Errorf("this test names the user in %q, and not in %s", tables, table)
		}
	}
	out := p.script("", "user_everything.sql", "user="+user)
	sections := map[string]string{}
	for _, section := range strings.Split(out, "== ")[1:] {
		title, rows, _ := strings.Cut(section, "\n")
		name, _, _ := strings.Cut(title, ":")
		sections[name] = rows
	}
	for _, table := range append(tables, "conversation_members", "users") {
		if !strings.Contains(sections[table], user) {
			t.Errorf("the section of %s does not have the user:\n%s", table, out)
		}
	}
	for what, part := range map[string]string{
		"key of the member": sections["conversation_members"], "key of the backup": sections["conversation_members_backup"],
	} {
		if !strings.Contains(part, "|key of 9") {
			t.Errorf("the %s is not there:\n%s", what, part)
		}
	}
	if !strings.Contains(sections["orphan_cleaner.refusals"], "a DBA") || strings.Count(sections["conversation_members_audit"], user) != 2 {
		t.Errorf("approval or audit: %s", out)
	}
	if other := p.user(8).String(); strings.Contains(out, other) {
		t.Errorf("another user is in it:\n%s", out)
	}
	// Nobody is found where nothing is held.
	nobody := testdb.One[string](p.DB, "SELECT gen_random_uuid()::text")
	if out := p.script("", "user_everything.sql", "user="+nobody); strings.Count(out, nobody) != 1 {
		t.Errorf("of a user who is nowhere:\n%s", out)
	}
}

// An erased user is named nowhere; the proof of every run holds as before, and no
// restore stumbles over the emptied rows.
func TestUserErase(t *testing.T) {
	p := newPlace(t)
	run := p.run(false).RunID
	user := p.mentionEverywhere(run, 5)
	p.Exec("CREATE PUBLICATION everything FOR ALL TABLES")
	p.Exec("ALTER TABLE conversation_members ADD COLUMN nickname text")
	p.Exec("ALTER TABLE conversation_members_backup ADD COLUMN nickname text")
	p.Exec("UPDATE conversation_members_backup SET nickname = 'of ' || user_id")
	others := p.Snapshot("conversation_members_audit WHERE user_id <> $1", user)
	othersBackup := p.Snapshot("conversation_members_backup WHERE user_id <> $1", user)
	proof := func() testdb.Snapshot {
		return p.Snapshot(`(SELECT 'audit', run_id, count(*), count(DISTINCT conversation_id) FROM conversation_members_audit GROUP BY run_id
			UNION ALL SELECT 'backup', run_id, count(*), count(DISTINCT conversation_id) FROM conversation_members_backup GROUP BY run_id) AS p`)
	}
	want := proof()
	named := p.know(user)

	out := p.script(asMigrator, "user_erase.sql", "user="+strings.ToUpper(user))
	wantLines(t, out, `3\|3\|2\|1\|1\|1\|1\|1\|3\|1\|1`, "Nothing was changed.*")
	if len(p.know(user)) != len(named) {
		t.Error("a dry look erased something")
	}
	p.script(asMigrator, "user_erase.sql", "user="+user, "execute=1")
	if left := p.know(user); len(left) > 0 {
		t.Errorf("the user is still named in %q", left)
	}
	if diff := want.Diff(proof()); diff != "" {
		t.Errorf("the proof of a run is another:\n%s", diff)
	}
	wantLines(t, p.script(asRestorer, "run_deleted.sql", fmt.Sprintf("run=%d", run)), `count_proof\|holds`, `erased\|3`, `users\|8`)
	if diff := others.Diff(p.Snapshot("conversation_members_audit WHERE user_id <> '00000000-0000-0000-0000-000000000000'")); diff != "" {
		t.Errorf("the audit of others changed:\n%s", diff)
	}
	if diff := othersBackup.Diff(p.Snapshot("conversation_members_backup WHERE user_id IS NOT NULL")); diff != "" {
		t.Errorf("the backup of others changed:\n%s", diff)
	}
	if n := p.Count("conversation_members_backup WHERE run_id = $1 AND num_nonnulls(user_id, role, joined_at, last_read_at, is_muted, user_public_key, nickname) = 0 AND conversation_id IS NOT NULL", run); n != 3 {
		t.Errorf("%d emptied rows are in the backup", n)
	}
	if n := p.Count("orphan_cleaner.holds WHERE user_id::text LIKE '00000000-0000-0000-0000-%' AND reason = 'erased'"); n != 2 {
		t.Errorf("%d holds are emptied", n)
	}
	if n := p.Count("orphan_cleaner.restores WHERE user_id::text LIKE '00000000-0000-0000-0000-%' AND state = 'restored'"); n != 3 {
		t.Errorf("%d restored members are emptied", n)
	}
	// A second one, whose records meet the first one's.
	second := p.mentionEverywhere(run, 6)
	p.Exec("UPDATE orphan_cleaner.restores SET run_id = (SELECT min(run_id) FROM orphan_cleaner.restores), conversation_id = md5('conversation ' || 6)::uuid WHERE user_id = $1 AND conversation_id = md5('conversation ' || 6)::uuid", second)
	p.script(asMigrator, "user_erase.sql", "user="+second, "execute=1")
	if left := p.know(second); len(left) > 0 {
		t.Errorf("the second user is still named in %q", left)
	}

	if n := p.Count("deleted_members_list WHERE user_id = '00000000-0000-0000-0000-000000000000'"); n != 0 {
		t.Errorf("%d emptied rows are listed to be given back", n)
	}

	// The runbook's statement as printed, the script, and the next run.
	today := testdb.One[string](p.DB, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
	restored := p.Exec(`WITH back AS (INSERT INTO conversation_members (conversation_id, user_id, role, joined_at)
		SELECT conversation_id, user_id, role, joined_at
		FROM conversation_members_backup_` + today + `
		WHERE (conversation_id, user_id) IN (SELECT conversation_id, user_id FROM deleted_members_list) RETURNING 1) SELECT FROM back`)
	if restored != 22 {
		t.Errorf("the runbook's statement gives %d members back, not 22", restored)
	}
	if n := p.Count("conversation_members WHERE user_id = $1 OR user_id = '00000000-0000-0000-0000-000000000000'", user); n != 0 {
		t.Errorf("%d members of the erased user came back", n)
	}
	out = p.script(asMigrator, "restore_range.sql", "from=yesterday", "to=tomorrow")
	wantLines(t, out, fmt.Sprintf(`erased\|%d\|\d+\|.*`, run))
	if r := p.run(false); r.State != "succeeded" {
		t.Errorf("the next run: %+v", r)
	}
}

// What further targets hold of a user is shown and erased like what members hold.
func TestUserOfEveryTarget(t *testing.T) {
	p := newPlace(t, "likes")
	p.Exec(`INSERT INTO likes (post_id, user_id, created_at, kind)
		SELECT md5(n::text || u)::uuid, md5('user ' || u)::uuid, now() - interval '90 days', 'of ' || u FROM generate_series(1, 3) AS n, unnest(ARRAY[5, 6, 500]) AS u`)
	run := p.run(false).RunID
	user, other, alive := p.user(5).String(), p.user(6).String(), p.user(500).String()
	restore := testdb.One[int64](p.DB, `INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings)
		VALUES ('restore', 'succeeded', 'finish', now(), now(), now(), '1m', 'x', 'x', '{}') RETURNING run_id`)
	p.Exec(`INSERT INTO orphan_cleaner.restores (run_id, user_id, target, row_key, deleted_run, backed_up_at, state)
		SELECT $1, user_id, 'likes', ROW(post_id, user_id)::text, run_id, backed_up_at, 'restored' FROM orphan_cleaner.likes_backup`, restore)

	for _, shown := range []string{user, alive} {
		out := p.script("", "user_everything.sql", "user="+shown)
		for _, section := range strings.Split(out, "== ")[1:] {
			title, rows, _ := strings.Cut(section, "\n")
			if table, _, _ := strings.Cut(title, ":"); table == "targets" {
				if n := strings.Count(rows, shown); n != map[string]int{user: 6, alive: 3}[shown] {
					t.Errorf("%d rows of likes, their audit and their backup:\n%s", n, rows)
				}
			}
		}
		if !strings.Contains(out, "== targets: ") || strings.Contains(out, other) {
			t.Errorf("what targets hold is not shown, or of somebody else, too:\n%s", out)
		}
	}

	if _, err := p.try(asMigrator, "user_erase.sql", "user="+alive, "execute=1"); err == nil || !strings.Contains(err.Error(), "has rows in public.likes") {
		t.Errorf("the user has likes: %v", err)
	}
	kept := []string{
		`orphan_cleaner.likes_audit WHERE user_id = md5('user 6')::uuid`, `orphan_cleaner.likes_backup WHERE user_id = md5('user 6')::uuid`,
		`orphan_cleaner.restores WHERE user_id = md5('user 6')::uuid`, `(SELECT run_id, count(*) FROM orphan_cleaner.likes_audit GROUP BY run_id) AS p`,
		`(SELECT run_id, count(*) FROM orphan_cleaner.likes_backup GROUP BY run_id) AS p`,
	}
	var before []testdb.Snapshot
	for _, what := range kept {
		before = append(before, p.Snapshot(what))
	}
	p.script(asMigrator, "user_erase.sql", "user="+user, "execute=1")
	if left := p.know(user); len(left) > 0 {
		t.Errorf("the user is still named in %q", left)
	}
	for i, what := range kept {
		if diff := before[i].Diff(p.Snapshot(what)); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
	if n := p.Count("orphan_cleaner.likes_backup WHERE run_id = $1 AND num_nonnulls(post_id, user_id, created_at, kind) = 0", run); n != 3 {
		t.Errorf("%d emptied rows are in the backup", n)
	}
	if n := p.Count("orphan_cleaner.restore_plan($1, NULL, NULL, NULL, NULL, ARRAY['likes']) WHERE verdict = 'restore'", run); n != 3 {
		t.Errorf("%d likes can be restored, not those of the other user", n)
	}
}

// Nothing is erased of whom a hold protects, who is a member yet, or while a run
// may write about the user.
func TestUserEraseRefuses(t *testing.T) {
	p := newPlace(t)
	run := p.run(false).RunID
	before := p.Snapshot("conversation_members_audit")
	refused := func(user, because string) {
		t.Helper()
		if _, err := p.try(asMigrator, "user_erase.sql", "user="+user, "execute=1"); err == nil || !strings.Contains(err.Error(), because) {
			t.Errorf("want a refusal, %s: %v", because, err)
		}
	}
	refused(p.user(10).String(), "is on hold")
	refused(p.user(9).String(), "is a member of 1 conversations")
	refused("00000000-0000-0000-0000-000000000000", "stands for whoever was erased")
	p.Exec("UPDATE orphan_cleaner.runs SET state = 'running', finished_at = NULL WHERE run_id = $1", run)
	refused(p.user(5).String(), "a run is open")
	p.Exec("UPDATE orphan_cleaner.runs SET state = 'succeeded', finished_at = now() WHERE run_id = $1", run)
	for _, group := range []string{asRunner, asRestorer, asReader} {
		if _, err := p.try(group, "user_erase.sql", "user="+p.user(5).String(), "execute=1"); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: %v", group, err)
		}
	}
	if diff := before.Diff(p.Snapshot("conversation_members_audit")); diff != "" {
		t.Errorf("the audit changed:\n%s", diff)
	}
}

// Who waits is shown with whom he waits for, and what the transaction holds.
func TestLocksActivity(t *testing.T) {
	p := newPlace(t)
	open := func(application string) *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), p.URL+"&application_name="+application)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		if _, err := conn.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	holder, waiter := open("messaging-service"), open("reporting")
	if _, err := holder.Exec(t.Context(), "UPDATE conversation_members SET is_muted = true"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := waiter.Exec(context.WithoutCancel(t.Context()), "LOCK TABLE conversation_members IN SHARE MODE")
		done <- err
	}()
	testdb.Eventually(t, time.Minute, "one waits for the other", func() bool {
		return p.Count("pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0 AND datname = current_database()") > 0
	})
	out := p.script("", "locks_activity.sql", "longer=0 seconds")
	if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := waiter.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	wantLines(t, out,
		`\d+\|postgres\|messaging-service\|conversation_members\|RowExclusiveLock\|t\|idle in transaction\|.*`,
		`\d+\|postgres\|reporting\|conversation_members\|ShareLock\|f\|active\|.*`,
		fmt.Sprintf(`%d\|reporting\|.*\|relation\|%d\|messaging-service\|idle in transaction\|.*\|LOCK TABLE.*\|UPDATE conversation_members.*`, waiter.PgConn().PID(), holder.PgConn().PID()),
		fmt.Sprintf(`%d\|postgres\|messaging-service\|idle in transaction\|.*`, holder.PgConn().PID()),
		fmt.Sprintf(`%d\|postgres\|active\|.*\|LOCK TABLE conversation_members IN SHARE MODE`, waiter.PgConn().PID()))
	if out := p.script("", "locks_activity.sql"); strings.Contains(out, "Lock|t|") || strings.Contains(out, "idle in transaction|00:") {
		t.Errorf("after it is over:\n%s", out)
	}
}

func TestConnections(t *testing.T) {
	p := newPlace(t)
	for range 3 {
		conn, err := pgx.Connect(t.Context(), p.URL+"&application_name=auth-service")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	// max_connections of the tests' cluster is 300, three are reserved.
	out := p.script("", "connections.sql")
	wantLines(t, out, `auth-service\|`+p.Name+`\|idle\|3\|.*`, `300\|3\|\d+\|\d+\|129\|enough`)
	wantLines(t, p.script("", "connections.sql", "pods=12", "per_pod=20", "others=60"), `300\|3\|\d+\|\d+\|309\|too few: raise max_connections to 312 .*`)
}
