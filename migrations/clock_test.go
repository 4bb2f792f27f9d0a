package migrations_test

import (
	"fmt"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// When the clock of a missing user starts, and why: from the ledger (first and
// last sighting), the shadow table and the last activity of the user's members.
func TestClockStart(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	user := members(db, 2)
	s := connect(t, db.URL, "test")
	const day40, day20, day3 = "now() - interval '40 days'", "now() - interval '20 days'", "now() - interval '3 days'"
	for name, c := range map[string]struct {
		first, last, shadow, active string
		want, evidence              string
		isRestarted                 bool
	}{
		"never seen":                    {want: "now()", evidence: "sightings"},
		"never seen, shadow":            {shadow: day40, want: day40, evidence: "shadow"},
		"never seen, shadow to come":    {shadow: "now() + interval '1 day'", want: "now()", evidence: "sightings"},
		"never seen, active since":      {shadow: day40, active: day20, want: day20, evidence: "activity"},
		"never seen, active before":     {shadow: day20, active: day40, want: day20, evidence: "shadow"},
		"never seen, active to come":    {active: "now() + interval '1 day'", want: "now()", evidence: "sightings"},
		"seen lately":                   {first: day20, last: "now() - interval '1 hour'", want: day20, evidence: "sightings"},
		"seen lately, shadow earlier":   {first: day20, last: "now() - interval '1 hour'", shadow: day40, want: day20, evidence: "sightings"},
		"seen lately, shadow later":     {first: day20, last: "now() - interval '1 hour'", shadow: day3, want: day20, evidence: "sightings"},
		"seen lately, active before":    {first: day20, last: "now() - interval '1 hour'", active: day40, want: day20, evidence: "sightings"},
		"seen lately, active since":     {first: day20, last: "now() - interval '1 hour'", active: day3, want: day3, evidence: "activity", isRestarted: true},
		"gap just short enough":         {first: day20, last: "now() - interval '7 days'", want: day20, evidence: "sightings"},
		"gap too long":                  {first: day20, last: "now() - interval '7 days 1 second'", want: "now()", evidence: "sightings", isRestarted: true},
		"gap too long, shadow":          {first: day20, last: "now() - interval '8 days'", shadow: "now() - interval '9 days'", want: "now()", evidence: "sightings", isRestarted: true},
		"the ledger is from the future": {first: "now() + interval '1 day'", last: "now() + interval '2 days'", want: "now() + interval '1 day'", evidence: "sightings"},
	} {
		s.exec(t, "BEGIN")
		if c.first != "" {
			s.exec(t, fmt.Sprintf(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
				VALUES ($1, %s, %s, 1, 'sightings')`, c.first, c.last), user)
		}
		if c.shadow != "" {
			s.exec(t, "INSERT INTO users (id, username, created_at, deleted_at) VALUES ($1, 'u', '2020-01-01Z', "+c.shadow+")", user)
		}
		s.exec(t, "UPDATE conversation_members SET last_read_at = NULL")
		if c.active != "" {
			s.exec(t, "UPDATE conversation_members SET last_read_at = "+c.active+" WHERE ctid = (SELECT max(ctid) FROM conversation_members)")
		}
		var starts, because, restarted bool
		err := s.QueryRow(t.Context(), fmt.Sprintf(`SELECT clock_start = %s, evidence = $2, is_restarted = $3
			FROM orphan_cleaner.assess(ARRAY[$1::uuid], '30 days', '7 days', NULL)`, c.want), user, c.evidence, c.isRestarted).
			Scan(&starts, &because, &restarted)
		if err != nil || !starts || !because || !restarted {
			t.Errorf("%s: the clock starts at %s: %t, evidence %s: %t, restarted %t: %t, %v",
				name, c.want, starts, c.evidence, because, c.isRestarted, restarted, err)
		}
		s.exec(t, "ROLLBACK")
	}
}

// evidenceOf is what the shadow says of a user, or "none".
func evidenceOf(t *testing.T, s *session, user string) string {
	t.Helper()
	var at string
	err := s.QueryRow(t.Context(), `SELECT coalesce((
		SELECT to_char(deleted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')
		FROM orphan_cleaner.shadow_evidence(ARRAY[$1::uuid])), 'none')`, user).Scan(&at)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// The shadow table in each shape that it has had or may take: no shape makes
// the function fail, and none but a moment in time is evidence.
func TestShadowEvidence(t *testing.T) {
	t.Parallel()
	const moment, none = "2026-01-02 03:04", "none"
	db := testdb.New(t)
	const user = "8d9a3c1e-0000-4000-8000-000000000001"
	db.Exec("INSERT INTO users (id, username, created_at, deleted_at) VALUES ($1, 'u', '2025-01-01Z', '2026-01-02 03:04Z')", user)
	// What the session thinks of time changes nothing.
	s := connect(t, db.URL, "test", "SET timezone = 'Asia/Tokyo'")
	for name, c := range map[string]struct {
		change []string
		want   string
	}{
		"as it is":          {nil, moment},
		"not deleted":       {[]string{"UPDATE users SET deleted_at = NULL"}, none},
		"not in it":         {[]string{"DELETE FROM users"}, none},
		"table gone":        {[]string{"DROP TABLE users"}, none},
		"column gone":       {[]string{"ALTER TABLE users DROP COLUMN deleted_at"}, none},
		"without time zone": {[]string{"ALTER TABLE users ALTER COLUMN deleted_at TYPE timestamp USING deleted_at AT TIME ZONE 'UTC'"}, moment},
		"text":              {[]string{"ALTER TABLE users ALTER COLUMN deleted_at TYPE text"}, none},
		"boolean":           {[]string{"ALTER TABLE users ALTER COLUMN deleted_at TYPE boolean USING deleted_at IS NOT NULL"}, none},
		"to come":           {[]string{"UPDATE users SET deleted_at = '2999-01-02 03:04Z'"}, none},
		"infinite":          {[]string{"UPDATE users SET deleted_at = '-infinity'"}, none},
		"the year one":      {[]string{"UPDATE users SET deleted_at = '0001-01-01Z'"}, none},
		"the epoch":         {[]string{"UPDATE users SET deleted_at = '1970-01-01 00:00:01Z'"}, none},
		"before created_at": {[]string{"UPDATE users SET created_at = '2026-01-02 03:05Z'"}, none},
		"no created_at":     {[]string{"ALTER TABLE users DROP COLUMN created_at"}, moment},
		"shared by many":    {[]string{"INSERT INTO users (id, username, deleted_at) SELECT gen_random_uuid(), 'u' || n, '2026-01-02 03:04Z' FROM generate_series(1, 6) AS n"}, none},
		"shared by a few":   {[]string{"INSERT INTO users (id, username, deleted_at) SELECT gen_random_uuid(), 'u' || n, '2026-01-02 03:04Z' FROM generate_series(1, 4) AS n"}, moment},
		"all were checked": {[]string{`INSERT INTO orphan_cleaner.coverage (cycle_run_id, previous_run_id, run_id, checked_at, users, users_so_far)
			VALUES (1, 1, 1, now(), 1, 1)`}, none},
		"checked before": {[]string{`INSERT INTO orphan_cleaner.coverage (cursor_id, cycle_run_id, run_id, checked_at, users, users_so_far)
			VALUES ('ffffffff-0000-0000-0000-000000000000', 1, 1, now(), 1, 1)`}, none},
		"not reached yet": {[]string{`INSERT INTO orphan_cleaner.coverage (cursor_id, cycle_run_id, run_id, checked_at, users, users_so_far)
			VALUES ('00000000-0000-0000-0000-000000000001', 1, 1, now(), 1, 1)`}, moment},
		"a view": {[]string{"ALTER TABLE users RENAME TO users_before", "CREATE VIEW users AS SELECT * FROM users_before"}, moment},
	} {
		t.Run(name, func(t *testing.T) {
			s.exec(t, "BEGIN")
			defer s.exec(t, "ROLLBACK")
			if got := evidenceOf(t, s, user); got != moment {
				t.Errorf("at first the evidence is %q", got)
			}
			for _, statement := range c.change {
				s.exec(t, statement)
			}
			if got := evidenceOf(t, s, user); got != c.want {
				t.Errorf("the evidence is %q, not %q", got, c.want)
			}
			if got := evidenceOf(t, s, "00000000-0000-0000-0000-000000000000"); got != none {
				t.Errorf("the evidence about somebody else is %q", got)
			}
		})
	}
}
