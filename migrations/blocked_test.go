package migrations_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// The function that ends a run marks its due users as blocked, and nobody else, whatever
// it is told; it lifts marks only where the sweep came to its end and named all.
func TestBlockedMarks(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Roles(rolesFile)
	login := connect(t, d.Login("orphan_cleaner_runner"), "orphan-cleaner")
	due, other, waiting, unchecked := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	d.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		SELECT u, now() - interval '40 days', now(), 1, 'sightings' FROM unnest($1::uuid[]) AS u`, []uuid.UUID{due, other, waiting, unchecked})
	ledger := d.Snapshot(`(SELECT user_id, first_missing_at, last_missing_at, last_missing_run, sightings, evidence, approved_run FROM orphan_cleaner.candidates) AS c`)
	entry := func(user uuid.UUID, more string) string {
		return fmt.Sprintf(`{"user_id": %q, "rows": 1, "sqlstate": "23503"%s}`, user.String(), more)
	}
	finish := func(judged bool, membersDue, usersBlocked int, blocked string) {
		t.Helper()
		run := openRun(d)
		d.Exec(`UPDATE orphan_cleaner.runs SET judged_at = CASE WHEN $2 THEN now() END WHERE run_id = $1`, run, judged)
		d.Exec(`INSERT INTO orphan_cleaner.run_targets (run_id, target, rows_due) VALUES ($1, 'conversation_members', $2)`, run, membersDue)
		d.Exec(`INSERT INTO orphan_cleaner.sightings (run_id, user_id, verdict, is_due) SELECT $1, u, 'missing', u <> $3 FROM unnest($2::uuid[]) AS u`,
			run, []uuid.UUID{due, other, waiting}, waiting)
		token := testdb.One[uuid.UUID](d, `SELECT token FROM orphan_cleaner.runs WHERE run_id = $1`, run)
		login.exec(t, `SELECT orphan_cleaner.run_finish($1, $2, 'incomplete', NULL, 'x', $3)`, run, token,
			fmt.Sprintf(`{"targets": [{"name": "conversation_members", "rows_settled": 1, "rows_blocked": 1}], "users_blocked": %d, "blocked": %s}`, usersBlocked, blocked))
	}
	marked := func(what string, users ...uuid.UUID) {
		t.Helper()
		if d.Count(`orphan_cleaner.candidates WHERE blocked_since IS NOT NULL`) != int64(len(users)) ||
			d.Count(`orphan_cleaner.candidates WHERE user_id = ANY ($1) AND blocked_since IS NOT NULL AND blocked_by ->> 'sqlstate' = '23503' AND NOT blocked_by ? 'user_id'`, users) != int64(len(users)) {
			t.Errorf("%s: %v are not those blocked", what, users)
		}
	}

	finish(true, 2, 4, "["+strings.Join([]string{
		entry(due, ""), entry(waiting, ""), entry(unchecked, ""), entry(uuid.New(), ""), `{"user_id": 7}`, `"x"`, `null`, `[]`,
		entry(other, `, "message": "`+strings.Repeat("x", 6000)+`"`),
	}, ",")+"]")
	marked("a user who is due, and junk", due)
	since := testdb.One[string](d, `SELECT blocked_since::text FROM orphan_cleaner.candidates WHERE user_id = $1`, due)
	finish(true, 2, 2, "["+entry(due, "")+","+entry(other, "")+"]")
	marked("both", due, other)
	if again := testdb.One[string](d, `SELECT blocked_since::text FROM orphan_cleaner.candidates WHERE user_id = $1`, due); again != since {
		t.Errorf("blocked since %s, not since %s", again, since)
	}
	finish(false, 2, 0, "[]")
	marked("a run that was not judged", due, other)
	finish(true, 9, 0, "[]")
	marked("a sweep that did not come to its end", due, other)
	finish(true, 2, 5, "["+entry(other, "")+"]")
	marked("a sweep that did not name all", due, other)
	d.Exec(`UPDATE orphan_cleaner.candidates SET blocked_since = now(), blocked_by = '{"sqlstate": "23503"}' WHERE user_id = ANY ($1)`, []uuid.UUID{waiting, unchecked})
	finish(true, 2, 1, "["+entry(other, "")+"]")
	marked("a sweep that came to its end", other, unchecked)
	// No clock was touched by any of it.
	if diff := ledger.Diff(d.Snapshot(`(SELECT user_id, first_missing_at, last_missing_at, last_missing_run, sightings, evidence, approved_run FROM orphan_cleaner.candidates) AS c`)); diff != "" {
		t.Errorf("the ledger changed: %s", diff)
	}
}
