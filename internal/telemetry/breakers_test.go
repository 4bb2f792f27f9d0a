package telemetry_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// judgedRun is the last run: judged an hour ago, and passed or refused.
func judgedRun(db *testdb.DB, state string, usersNew, membersDue int64) {
	db.Exec(`INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, judged_at, lease, host, version, settings,
			breaker, users_checked, users_new, members_due)
		VALUES ('clean', $1, 'finish', now(), now(), now(), CASE WHEN $1 <> 'refused' THEN now() END, '1 minute', 'h:1', 'v', $2,
			CASE WHEN $1 = 'refused' THEN 'delete-rows' END, 20000, $3, $4)`, state,
		`{"new-missing-share": 0.1, "new-missing-rate": 0.01, "candidate-share": 0.15, "delete-share": 0.05, "delete-share-7d": 0.05,
			"delete-share-30d": 1, "delete-rows": 100000, "history": 10, "recently-active": 5}`, usersNew, membersDue)
}

// What the next run will be judged by is there before it, with the limits: of the windows, of the ledger and of what is due.
func TestBreakerFigures(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Roles("../../sql/roles.sql")
	pool, err := pgxpool.New(t.Context(), db.Login("orphan_cleaner_runner"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	registry, m := all(t, pool, quiet(), false)
	is := func(want float64, name string, labels ...string) {
		t.Helper()
		if got := value(t, registry, name, labels...); math.IsNaN(got) || math.Abs(got-want) > 1e-9 {
			t.Errorf("%s %v is %v, want %v", name, labels, got, want)
		}
	}
	figures := func(want map[string]float64) {
		t.Helper()
		for breaker, figure := range want {
			is(figure, "orphan_cleaner_breaker_value", fmt.Sprintf("breaker=%q", breaker))
		}
		if n := len(gather(t, registry)["orphan_cleaner_breaker_value"].GetMetric()); n != 8 {
			t.Errorf("%d breakers have a figure", n)
		}
	}
	missing := func(day, usualDay, week, usualWeek float64) {
		t.Helper()
		is(day, "orphan_cleaner_newly_missing_users", `window="1d"`)
		is(usualDay, "orphan_cleaner_newly_missing_usual_users", `window="1d"`)
		is(week, "orphan_cleaner_newly_missing_users", `window="7d"`)
		is(usualWeek, "orphan_cleaner_newly_missing_usual_users", `window="7d"`)
	}
	if gather(t, registry)["orphan_cleaner_breaker_value"] != nil {
		t.Error("there are figures before the first run")
	}

	// Four users a day went missing for four weeks, ten a day for the last one; 100 of 100,000 members were deleted each day.
	db.Exec(`INSERT INTO orphan_cleaner.hours (hour, target, users, users_new, rows_total, rows_deleted)
		SELECT date_trunc('hour', now()) - make_interval(days => n), t.target, 20000, CASE WHEN n < 7 THEN 10 ELSE 4 END, 100000, 100
		FROM generate_series(0, 34) AS n, unnest(ARRAY['', 'conversation_members']) AS t (target)`)
	// Three candidates with two members each: one due, one due by an approval, one waiting.
	db.Exec(`INSERT INTO conversations (id) SELECT md5('c' || n)::uuid FROM generate_series(1, 2) AS n`)
	db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT md5('c' || c)::uuid, md5('u' || u)::uuid, now() - interval '60 days' FROM generate_series(1, 2) AS c, generate_series(1, 3) AS u`)
	judgedRun(db, "succeeded", 12, 77)
	db.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence, approved_run)
		SELECT md5('u' || u)::uuid, now() - make_interval(days => CASE u WHEN 3 THEN 2 ELSE 40 END), now(), 1, 'sightings', CASE u WHEN 2 THEN 1 END
		FROM generate_series(1, 3) AS u`)
	db.Exec(`INSERT INTO orphan_cleaner.limits (name, value) VALUES ('delete-share-7d', 0.02)`)
	m.RunEnded(result.Run{})
	passed := map[string]float64{
		// Two of its twelve were approved: the hour has ten.
		"new-missing-share": 10. / 20000, "new-missing-rate": 70. / 20000, "candidate-share": 2. / 20000,
		"delete-share": 2. / 100000, "delete-share-7d": 702. / 100000, "delete-share-30d": 3002. / 100000, "delete-rows": 2, "history": 102,
	}
	figures(passed)
	missing(10, 4, 70, 28)
	limits := map[string]float64{
		"new-missing-share": 0.1, "new-missing-rate": 0.01, "candidate-share": 0.15,
		"delete-share": 0.05, "delete-share-7d": 0.02, "delete-rows": 100000, "history": 1000,
	}
	for breaker, limit := range limits {
		is(limit, "orphan_cleaner_breaker_limit", fmt.Sprintf("breaker=%q", breaker))
	}
	// A share of 1 switches it off.
	if n := len(gather(t, registry)["orphan_cleaner_breaker_limit"].GetMetric()); n != len(limits) {
		t.Errorf("%d breakers have a limit", n)
	}

	// What a refused run found is in no window yet, and would be judged again.
	judgedRun(db, "refused", 300, 4000)
	m.RunEnded(result.Run{})
	figures(map[string]float64{
		"new-missing-share": 300. / 20000, "new-missing-rate": 370. / 20000, "candidate-share": 302. / 20000,
		"delete-share": 4000. / 100000, "delete-share-7d": 4700. / 100000, "delete-share-30d": 7000. / 100000, "delete-rows": 4000, "history": 4100,
	})
	missing(310, 4, 370, 28)

	judgedRun(db, "succeeded", 12, 0)
	m.RunEnded(result.Run{})
	figures(passed)
}
