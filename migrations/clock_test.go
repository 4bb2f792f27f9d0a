package migrations_test

import (
	"fmt"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// When the clock of a missing user starts: arguments and result as intervals
// before now.
func TestClockStart(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	for name, c := range map[string]struct{ first, last, shadow, want string }{
		"never seen":                    {"NULL", "NULL", "NULL", "now()"},
		"never seen, shadow":            {"NULL", "NULL", "now() - interval '40 days'", "now() - interval '40 days'"},
		"never seen, shadow to come":    {"NULL", "NULL", "now() + interval '1 day'", "now()"},
		"seen lately":                   {"now() - interval '20 days'", "now() - interval '1 hour'", "NULL", "now() - interval '20 days'"},
		"seen lately, shadow earlier":   {"now() - interval '20 days'", "now() - interval '1 hour'", "now() - interval '40 days'", "now() - interval '40 days'"},
		"seen lately, shadow later":     {"now() - interval '20 days'", "now() - interval '1 hour'", "now() - interval '2 days'", "now() - interval '20 days'"},
		"seen lately, shadow to come":   {"now() - interval '20 days'", "now() - interval '1 hour'", "now() + interval '1 day'", "now() - interval '20 days'"},
		"gap just short enough":         {"now() - interval '20 days'", "now() - interval '7 days'", "NULL", "now() - interval '20 days'"},
		"gap too long":                  {"now() - interval '20 days'", "now() - interval '7 days 1 second'", "NULL", "now()"},
		"gap too long, shadow":          {"now() - interval '20 days'", "now() - interval '8 days'", "now() - interval '9 days'", "now() - interval '9 days'"},
		"gap too long, shadow to come":  {"now() - interval '20 days'", "now() - interval '8 days'", "now() + interval '9 days'", "now()"},
		"the ledger is from the future": {"now() + interval '1 day'", "now() + interval '2 days'", "NULL", "now() + interval '1 day'"},
	} {
		query := fmt.Sprintf(`SELECT got = want AND got IS NOT NULL
			FROM (SELECT orphan_clock_start(%s, %s, %s, interval '7 days') AS got, %s AS want) AS x`, c.first, c.last, c.shadow, c.want)
		if !testdb.One[bool](db, query) {
			t.Errorf("%s: the clock does not start at %s", name, c.want)
		}
	}
}

// evidenceOf is what the shadow says of a user, or "none".
func evidenceOf(t *testing.T, s *session, user string) string {
	t.Helper()
	var at string
	err := s.QueryRow(t.Context(), `SELECT coalesce((
		SELECT to_char(deleted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')
		FROM orphan_shadow_evidence(ARRAY[$1::uuid])), 'none')`, user).Scan(&at)
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
	user := testdb.One[string](db, "SELECT gen_random_uuid()::text")
	shadow(db, user, "'2026-01-02 03:04Z'")
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
		"to come":           {[]string{"UPDATE users SET deleted_at = '2999-01-02 03:04Z'"}, "2999-01-02 03:04"},
		"a view":            {[]string{"ALTER TABLE users RENAME TO users_before", "CREATE VIEW users AS SELECT * FROM users_before"}, moment},
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
